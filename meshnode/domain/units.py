"""What a broker has out: units of work, and the tries at each.

A *unit* is what is awarded: one batch of one sub-task, named ``subtask/batch``.  An
*attempt* is a contract about it with one contractor.
"""

from dataclasses import dataclass, field

from meshnode.domain.facts import Delivered, Failed, Judged, Proposed, Refused, Verified
from protocol.contract import ContractState

#: A single call's batch size: the agent is called once, with a value and not a list.
SINGLE = -1
#: Code of an attempt whose contractor would have let it wait for longer than it was worth.
CROWDED = "node.crowded"


def charge_key(job: str, unit: str, replica: int) -> str:
    """Return what is charged once: the same for every attempt at the same work."""
    return f"{job}/{unit}/{replica}"


@dataclass(slots=True)
class Attempt:
    """One try at a unit: a contract with one contractor, from call to receipt.

    Attributes:
        number: 0 first.
        contract: Where the contract stands.
        called: PeerId -> CFP envelope.
        proposals: PeerId -> proposal.
        refusals: PeerId -> refusal.
        peer: The contractor, once awarded.
        agent: Its agent.
        award: Envelope.
        proposal: Envelope of what the award binds.
        schema: Hash of the output schema.
        lease_ms: As in the award.
        at_ms: When it was called or awarded, whichever is later.
        price_cap_mc: Reserved while it is open.
        items_done: Progress.
        offset: Characters that it had streamed at the last checkpoint.
        delivered: The result, once there.
        verdict: The check's outcome, once there.
        error: Code and text, when failed.
        hedge: It was begun while the one before it was out.
        subtasks: Reserved for what is done below it, while it is open.
        tokens: Likewise, of what is used for it, here and below.
        replica: As in the award.
        wait_max_ms: As in the award.
    """

    number: int
    at_ms: int
    contract: ContractState = ContractState.IDLE
    called: dict[str, bytes] = field(default_factory=dict)
    proposals: dict[str, Proposed] = field(default_factory=dict)
    refusals: dict[str, Refused] = field(default_factory=dict)
    peer: str = ""
    agent: str = ""
    award: bytes = b""
    proposal: bytes = b""
    schema: bytes = b""
    lease_ms: int = 0
    price_cap_mc: int = 0
    items_done: int = 0
    offset: int = 0
    delivered: Delivered | None = None
    verdict: Verified | None = None
    paid_mc: int | None = None
    error: Failed | None = None
    hedge: bool = False
    subtasks: int = 0
    tokens: int = 0
    replica: int = 0
    wait_max_ms: int = 0

    @property
    def by_letter(self) -> bool:
        """Whether it was ordered of a node that was away."""
        return bool(self.award) and not self.lease_ms

    @property
    def turned(self) -> bool:
        """Whether it was refused for the time that it would have waited, and for no more."""
        return (
            self.wait_max_ms > 0
            and self.error is not None
            and (self.error.code, self.error.blame) == (CROWDED, "broker")
        )

    @property
    def open(self) -> bool:
        """Whether something may still come of it."""
        return self.error is None and self.paid_mc is None


@dataclass(slots=True)
class Unit:
    """One batch of one sub-task.

    Attributes:
        name: ``subtask/batch``.
        items: Items in it, or :data:`SINGLE`.
        attempts: In order; the last one may be open, and with a hedge one before it too.
        accepted: The attempt whose output counts, once there.
        ended_ms: When it was accepted or given up.
        since: Attempts before the plan was patched for it, which count no more.
        judged: What was last made of its answers, where a job wants to be sure of them.
        judged_ms: When.
        judgements: How often that was.
        summons: The judgement that called a panel, if one did.
    """

    name: str
    subtask: str
    batch: int
    items: int
    attempts: list[Attempt] = field(default_factory=list)
    accepted: Attempt | None = None
    started_ms: int = 0
    ended_ms: int = 0
    since: int = 0
    judged: Judged | None = None
    judged_ms: int = 0
    judgements: int = 0
    summons: Judged | None = None

    @property
    def promised_mc(self) -> int:
        """What is promised to its panel, until that was heard."""
        sitting = self.summons.sitting if self.summons is not None else None
        return sitting.cap_mc if sitting is not None and not self.settled else 0

    @property
    def settled(self) -> bool:
        """Whether it is decided what its answers are worth: they are to be charged."""
        return self.judged is not None and bool(self.judged.outcome)

    def answers(self) -> list[Attempt]:
        """The answers that no check proved right or wrong, which wait to be compared."""
        return [
            attempt
            for attempt in self.tried()
            if attempt.verdict is not None and attempt.verdict.verdict == "unverified"
        ]

    @property
    def at_work(self) -> int:
        """How many attempts nothing that is checked has come of: no answers that wait."""
        return sum(attempt.verdict is None for attempt in self.tried())

    @property
    def current(self) -> Attempt | None:
        """The latest attempt that an output may come of, or None."""
        tried = self.tried() if self.accepted is None else []
        return tried[-1] if tried else None

    def tried(self) -> list[Attempt]:
        """The open attempts: one, two with a hedge, more with replicas, or none."""
        return [attempt for attempt in self.attempts if attempt.open]

    def attempt(self, number: int) -> Attempt | None:
        """Return the open attempt of that number, if an output may still come of it."""
        found = self.tried() if self.accepted is None else []
        return next((attempt for attempt in found if attempt.number == number), None)

    @property
    def calls(self) -> int:
        """Agent calls in it."""
        return 1 if self.items == SINGLE else self.items

    def counted(self) -> list[Attempt]:
        """Return the attempts at what the plan says now."""
        return self.attempts[self.since :]

    @property
    def turned(self) -> int:
        """How many of them were refused because they would have waited too long."""
        return sum(attempt.turned for attempt in self.counted())

    def failures(self) -> list[Failed]:
        """How those of them ended that came to nothing."""
        return [a.error for a in self.counted() if a.error is not None]
