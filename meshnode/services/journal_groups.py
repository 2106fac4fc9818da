"""What waits to be written into a journal, and what becomes one commit."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from meshnode.domain.facts import Fact
from meshnode.domain.job import JobState
from meshnode.errors import MeshError
from meshnode.ports import Write
from protocol.errors import ProtocolError

#: Looks at the state and returns the facts that follow from it, with what is written with
#: them; no facts when nothing more does.
Decide = Callable[[JobState], Awaitable[tuple[Sequence[Fact], Sequence[Write]]]]


@dataclass(eq=False, slots=True)
class Wish:
    """Facts that somebody wants to be recorded, and what became of them."""

    facts: Sequence[Fact]
    writes: Sequence[Write]
    still: Callable[[], bool] | None
    error: MeshError | ProtocolError | None = None
    settled: bool = False
    added: bool = False


@dataclass(slots=True)
class Group:
    """What becomes one commit: writes, and the events among them as (seq, fact)."""

    writes: list[Write] = field(default_factory=list)
    events: list[tuple[int, Fact]] = field(default_factory=list)
