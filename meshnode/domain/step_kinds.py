"""What a broker may do next, and what it sees when it decides (:mod:`.steps`).

Whatever a decision draws on is in the step, and goes into the journal from there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from meshnode.domain.attempts import Barred
from meshnode.domain.facts import Ranked
from meshnode.domain.matching import Candidate
from protocol.records import Capability


@dataclass(frozen=True, slots=True)
class View:
    """The world as one decision sees it.

    Attributes:
        candidates: Capability query -> who offers it.
        load: Agent id (``peer/name``) -> units of this broker outstanding there, all jobs
            together.
        since_ms: Since when this broker has looked around: its last start.
        barred: Capability query -> who offers it and won't do it for this broker now.
        credit: PeerId -> what may still be awarded to it, mc; who isn't there has no limit.
        slow_ms: Capability query -> after how long a call is slow, as far as was seen.
        declared: Capability query -> agent id -> what its record declares; for the queries
            of a job that has a sub-task in trouble.
        by_letter: Capability query -> who is away and does such work if it is ordered by
            letter; for a job that may order so.
        beside: Capability query -> who else offers it; for a gold task, which is for one.
    """

    candidates: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)
    load: Mapping[str, int] = field(default_factory=dict)
    since_ms: int = 0
    barred: Mapping[str, Sequence[Barred]] = field(default_factory=dict)
    credit: Mapping[str, int] = field(default_factory=dict)
    slow_ms: Mapping[str, float] = field(default_factory=dict)
    declared: Mapping[str, Mapping[str, Capability]] = field(default_factory=dict)
    by_letter: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)
    beside: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expand:
    """Fix the batches of a sub-task."""

    subtask: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replan:
    """Patch the plan: a sub-task goes on with another capability."""

    subtask: str
    was: str
    capability: str
    code: str
    considered: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Call:
    """Send a CFP for a unit to each of ``peers``."""

    unit: str
    attempt: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class MakeAward:
    """Award a unit; binds the envelope ``proposal``, ``ranked`` are the best ``considered``.

    A hedge is another award of a unit beside one that is out; what goes by letter binds none.
    """

    unit: str
    attempt: int
    candidate: Candidate
    proposal: bytes
    ranked: tuple[Ranked, ...]
    price_cap_mc: int
    considered: int = 0
    hedge: bool = False
    subtasks: int = 0
    tokens: int = 0
    by_letter: bool = False
    wait_max_ms: int = 0


@dataclass(frozen=True, slots=True)
class Attend:
    """See to an award that is out: (re-)send it, await its result, keep its lease."""

    unit: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Verify:
    """Check an output."""

    unit: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Reckon how probable a unit's answers are; if ``last``, nobody else can be asked."""

    unit: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """Sign the broker's half of the receipt."""

    unit: str
    attempt: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record that an attempt came to nothing without a word from its contractor."""

    unit: str
    attempt: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Cancel what is out and close the attempt: the job ends, or another was faster."""

    unit: str
    attempt: int


@dataclass(frozen=True, slots=True)
class End:
    """End the job early."""

    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The job has ended in ``state``."""

    state: Literal["completed", "failed", "cancelled"]
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Nothing more to do before ``at_ms``, unless something happens."""

    at_ms: int


Step = (
    Expand
    | Replan
    | Call
    | MakeAward
    | Attend
    | Verify
    | Judge
    | Charge
    | GiveUp
    | Stop
    | End
    | Finish
    | Wake
)
