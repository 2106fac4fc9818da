"""What can happen to a job: the kinds of event in its journal, and what each holds.

Facts carry everything that a decision drew on (candidates, scores, sizes), so that
folding never decides again.  Signed messages stand in them as the envelopes that
went over the wire.

Listed in protocol/spec/80-journal.md, "Event kinds"; a test compares the two.
"""

from typing import Any, ClassVar, Final, Literal

import msgspec

from meshnode.domain.plan_parts import Again, GoldPlan
from meshnode.domain.sittings import Sitting
from meshnode.domain.wording import Blame
from protocol.errors import Malformed
from protocol.journal import Event
from protocol.receipts import Verdict


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened; subclasses say what."""

    KIND: ClassVar[str]


class InputRef(msgspec.Struct, frozen=True, kw_only=True):
    """One of the job's inputs.

    Attributes:
        artifact: SHA-256 of the whole input as RFC 8785 JSON.
        size: Bytes.
        lengths: JSON Pointer -> length of the list there, for those that the graph maps over.
    """

    artifact: bytes
    size: int
    lengths: dict[str, int] = {}


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that the broker holds."""

    artifact: bytes
    size: int


class Planned(Fact, frozen=True, kw_only=True):
    """The job exists: its graph, inputs and bounds are fixed.

    Attributes:
        owner: PeerId of whose job it is.
        graph: Encoded.
        inputs: By name.
        budget_mc: What may be spent.
        deadline_ms: Unix time.
        idempotency_key: As it was submitted with, or empty.
        epoch: Of the broker.
        traceparent: W3C trace context, or empty.
        hops: Brokers below each other that the work may have, this one among them.
        resumes: The job that it goes on with, or empty.
        again: The sub-tasks that had been begun there.
        hedges_pct: Of a hundred units so many may be given to a second contractor too.
        replans_max: Patches that the plan may get.
        subtasks: Awards that may be made below its own; of a job under an award, its own
            among them.
        fan_out: Of these, what one award is given at most.
        tokens: Model tokens that may be used, here and below; 0 where they aren't limited.
        under: Hash of the award that it is a part of, or empty.
        patience_ms: So long is a node waited for when all that could do a sub-task are away.
        by_letter_ms: After that it is ordered by letter of one that takes such orders, which
            has so long for it; 0 for never.
        theta_ppm: An answer that no check proves is taken once it is so probable, and others
            are asked until then; 0 takes what comes.
        only: Agents, ``peer/name``, that may do its sub-tasks; anyone if none is named.
        gold: What this node knows of the right answers; then it is a gold task.
        lends_golds: What is proven of it may be asked of others to see whether they know it.
    """

    KIND: ClassVar[str] = "planned"

    owner: str
    graph: bytes
    inputs: dict[str, InputRef]
    budget_mc: int
    deadline_ms: int
    idempotency_key: str
    epoch: int
    traceparent: str = ""
    hops: int = 3
    resumes: str = ""
    again: dict[str, Again] = {}
    hedges_pct: int = 0
    replans_max: int = 0
    subtasks: int = 0
    fan_out: int = 0
    tokens: int = 0
    under: bytes = b""
    patience_ms: int = 0
    by_letter_ms: int = 0
    theta_ppm: int = 0
    only: list[str] = []
    gold: GoldPlan | None = None
    lends_golds: bool = False


class Elected(Fact, frozen=True, kw_only=True):
    """A majority of the job's members made the writer its broker.

    A job without a charter has no such event.

    Attributes:
        epoch: Of the segment.
        broker: Its writer.
        charter: The charter's name.
        certificate: Encoded; it proves all of that.
    """

    KIND: ClassVar[str] = "elected"

    epoch: int
    broker: str
    charter: bytes
    certificate: bytes


class Replanned(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A patch of the plan: a sub-task that would have ended the job takes another capability.

    It says nothing else, so it can change nothing else; :mod:`meshnode.domain.patches` has
    what makes one good.

    Attributes:
        subtask: Its id; it keeps that, and what was accepted of it.
        was: The capability that it needed until now.
        capability: What it needs from now on.
        code: What the job would have ended with.
        considered: Other capability -> nodes that offer it and fit, as the decision saw it.
    """

    KIND: ClassVar[str] = "replanned"

    subtask: str
    was: str
    capability: str
    code: str
    considered: dict[str, int]


class Expanded(Fact, frozen=True, kw_only=True):
    """A sub-task's batches are fixed, and what they take from the job's inputs is cut out.

    Attributes:
        subtask: Its id.
        sizes: Items of each batch; one batch of -1 is a single call.
        slices: Input field -> an artifact for each batch, held by the broker.
    """

    KIND: ClassVar[str] = "expanded"

    subtask: str
    sizes: list[int]
    slices: dict[str, list[ArtifactRef]] = {}


class Called(Fact, frozen=True, kw_only=True):
    """CFPs were written, one for each candidate, and are about to be sent."""

    KIND: ClassVar[str] = "called"

    unit: str
    attempt: int
    cfps: dict[str, bytes]


class Proposed(Fact, frozen=True, kw_only=True):
    """A candidate answered a CFP with a proposal."""

    KIND: ClassVar[str] = "proposed"

    unit: str
    attempt: int
    peer: str
    proposal: bytes
    agent: str
    capability: str
    price_mc: int
    eta_ms: int
    expires_ms: int


class Refused(Fact, frozen=True, kw_only=True):
    """A candidate refused a CFP, or didn't answer it in time.

    Attributes:
        unit: What was called for.
        attempt: Which try.
        peer: Who.
        reason: Its code, or the failure's.
        text: What it says to people.
    """

    KIND: ClassVar[str] = "refused"

    unit: str
    attempt: int
    peer: str
    reason: str
    text: str = ""


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as the decision saw it.

    The parts add up to ``finish_ms``; older versions wrote none of them.

    Attributes:
        peer: PeerId.
        price_mc: For all calls of the unit.
        finish_ms: Expected time until it would be finished.
        agent: Its agent's local name.
        run_ms: Of that, the work itself.
        wait_ms: Of that, this broker's own units that are before it there.
        queue_ms: Of that, the work of others, as lately seen there.
        dial_ms: Of that, reaching a node without a session.
        call_ms: Of that, calling for a proposal, where there is no standing offer.
        troubled: It failed lately: last choice.
    """

    peer: str
    price_mc: int
    finish_ms: int
    agent: str = ""
    run_ms: int = 0
    wait_ms: int = 0
    queue_ms: int = 0
    dial_ms: int = 0
    call_ms: int = 0
    troubled: bool = False

    @property
    def parts_ms(self) -> int:
        """What the parts add up to; 0 where an older version wrote it."""
        return self.run_ms + self.wait_ms + self.queue_ms + self.dial_ms + self.call_ms


class Awarded(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """An award was decided and signed, and is about to be sent.

    Attributes:
        unit: What is awarded.
        attempt: Which try.
        peer: To whom.
        agent: Which of its agents.
        award: Envelope.
        proposal: Envelope of the proposal or standing offer that it binds; empty for one that
            goes by letter.
        schema: Hash of the output schema that the result is held against.
        price_cap_mc: Reserved for it.
        lease_ms: As in the award: 0 for one that goes by letter.
        ranked: The best candidates as the decision saw them, best first.
        considered: Candidates that it chose among, these and others; 0 in older journals.
        hedge: The attempt before it is still out, and slow: the first good result counts.
        subtasks: Awards that its contractor may make below it, reserved for it.
        tokens: Model tokens that it may use, with all below it, reserved for it; 0 where the
            plan doesn't limit them.
        replica: Told apart by it from other answers to the same; drawn by chance, so that
            nobody knows from it whether others are asked.
        wait_max_ms: As in the award: how long it may wait for its turn; 0 for any time.
    """

    KIND: ClassVar[str] = "awarded"

    unit: str
    attempt: int
    peer: str
    agent: str
    award: bytes
    proposal: bytes
    schema: bytes
    price_cap_mc: int
    lease_ms: int
    ranked: list[Ranked]
    considered: int = 0
    hedge: bool = False
    subtasks: int = 0
    tokens: int = 0
    replica: int = 0
    wait_max_ms: int = 0


class Progressed(Fact, frozen=True, kw_only=True):
    """A checkpoint of a running award, at most one a second."""

    KIND: ClassVar[str] = "progressed"

    unit: str
    attempt: int
    items_done: int
    offset: int = 0


class Delivered(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """A result arrived, with the contractor's half of the receipt.

    Attributes:
        below: Awards made below it, as its receipt says.
        tokens: Used there and below, as it says, where its award limits them.
    """

    KIND: ClassVar[str] = "delivered"

    unit: str
    attempt: int
    result: bytes
    receipt: bytes
    output: bytes
    size: int
    lengths: dict[str, int]
    price_mc: int
    run_ms: int
    below: int = 0
    tokens: int = 0


class Verified(Fact, frozen=True, kw_only=True):
    """The output was checked."""

    KIND: ClassVar[str] = "verified"

    unit: str
    attempt: int
    verdict: Verdict
    check: str
    detail: str = ""


class Vote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer to a unit, and how far who gave it was believed then.

    Attributes:
        attempt: Which.
        agent: Whose, ``peer/name``.
        credibility_ppm: Chance that it is right, before anybody is compared.
        group: Answers that say the same have one number.
        family: Of its model, as far as it was probed.
        verdict: What is said of the answer, once nobody else is asked.
    """

    attempt: int
    agent: str
    credibility_ppm: int
    group: int
    family: str = ""
    verdict: Verdict | Literal[""] = ""


class Judged(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """It was reckoned how probable a unit's answers are, and what that asks for.

    Attributes:
        unit: Whose.
        outcome: What is said of the unit's output; empty while another answer is wanted.
        posterior_ppm: How probable the best answer is; 0 while there is none.
        chosen: The attempt whose output the unit has, once nobody else is asked.
        wanted: Answers that are wanted in all, while another is.
        ask: Agents that are asked for them, in that order.
        votes: The answers that there are.
        why: What asked for more than was needed otherwise: ``spot`` (by chance), ``alarm``.
        sitting: The panel that is asked, or once there is an outcome was heard; None for none.
    """

    KIND: ClassVar[str] = "judged"

    unit: str
    outcome: Literal["", "agreed", "contested", "unverified"] = ""
    posterior_ppm: int = 0
    chosen: int = -1
    wanted: int = 0
    ask: list[str] = []
    votes: list[Vote] = []
    why: str = ""
    sitting: Sitting | None = None


class Charged(Fact, frozen=True, kw_only=True):
    """The broker's half of the receipt was signed: this is the charge, or its refusal."""

    KIND: ClassVar[str] = "charged"

    key: str
    unit: str
    attempt: int
    paid_mc: int
    acceptance: bytes


class Failed(Fact, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt came to nothing.

    Attributes:
        code: Stable code, such as ``agent.timeout``.
        blame: ``peer`` (take another), ``input`` (no other will do better),
            ``artifact`` (an input could not be had from its holder) or ``broker``.
        below: Awards made below it, as its contractor says; -1 where that says nothing.
        tokens: Likewise, where its award limits them.
    """

    KIND: ClassVar[str] = "failed"

    unit: str
    attempt: int
    peer: str
    code: str
    text: str
    blame: Blame
    below: int = -1
    tokens: int = -1


class Cancelled(Fact, frozen=True, kw_only=True):
    """The job is to end early; outstanding awards are cancelled."""

    KIND: ClassVar[str] = "cancelled"

    reason: str
    text: str = ""


class Done(Fact, frozen=True, kw_only=True):
    """The job has ended; nothing follows but the terminal head.

    Attributes:
        state: How.
        code: Why, unless completed.
        text: For people.
        outputs: Name in the graph -> the value, held by the broker, when completed.
    """

    KIND: ClassVar[str] = "done"

    state: Literal["completed", "failed", "cancelled"]
    code: str = ""
    text: str = ""
    outputs: dict[str, ArtifactRef] = {}


KINDS: Final[dict[str, type[Fact]]] = {
    kind.KIND: kind
    for kind in (
        Planned,
        Elected,
        Replanned,
        Expanded,
        Called,
        Proposed,
        Refused,
        Awarded,
        Progressed,
        Delivered,
        Verified,
        Judged,
        Charged,
        Failed,
        Cancelled,
        Done,
    )
}


def to_event(fact: Fact, *, seq: int, at_ms: int) -> Event:
    """Return the journal event that holds ``fact``."""
    data: dict[str, Any] = msgspec.to_builtins(fact, builtin_types=(bytes,))
    return Event(seq=seq, at_ms=at_ms, kind=fact.KIND, data=data)


def from_event(event: Event) -> Fact:
    """Return the fact that ``event`` holds.

    Raises:
        Malformed: A kind or shape that this version doesn't know.
    """
    kind = KINDS.get(event.kind)
    if kind is None:
        raise Malformed(f"event {event.seq} is of the unknown kind {event.kind[:40]!r}")
    try:
        return msgspec.convert(event.data, kind)
    except msgspec.ValidationError as exc:
        raise Malformed(f"event {event.seq} ({event.kind}): {exc}") from exc
