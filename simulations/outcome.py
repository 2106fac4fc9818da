"""What came of playing a scenario: one value, which JSON carries between machines."""

from collections.abc import Sequence
from typing import Final

import msgspec

#: Jobs whose story is kept: the slowest, and those that did not complete.
STORIES_MAX: Final = 10


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the time.

    Attributes:
        at_s: Its end, seconds of virtual time from the start of the load.
        ended: Jobs that ended in it.
        completed: Of those, how many completed.
        wrong: Of those, how many with outputs that are not the right ones.
        took_s: What the completed ones took on average, seconds; 0 if there are none.
        cost_mc: What those cost on average, millicredits.
        up: Nodes that ran at its end.
        busiest: Share of all running calls that ran at the busiest tenth of the agents,
            on average over the window; what herding drives up.
    """

    at_s: float
    ended: int = 0
    completed: int = 0
    wrong: int = 0
    took_s: float = 0.0
    cost_mc: float = 0.0
    up: int = 0
    busiest: float = 0.0


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One job, told.

    Attributes:
        job: Its id.
        by: Its broker.
        state: How it ended.
        why: In words, if it did not complete.
        begun_s: When it was submitted, from the start of the load.
        took_s: To its end.
        cost_mc: What was paid.
        events: Its journal, an event in a line, with the time from the submit.
    """

    job: str
    by: str
    state: str
    why: str
    begun_s: float
    took_s: float
    cost_mc: int
    events: tuple[str, ...]


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """A node, as it is drawn.

    Attributes:
        name: Its name.
        skills: What it offers.
        role: How its agents behave.
        up: Whether it ran in the end.
        brokered: Jobs that it brokered.
        served: Awards that it did for others and itself.
    """

    name: str
    skills: tuple[str, ...] = ()
    role: str = "honest"
    up: bool = True
    brokered: int = 0
    served: int = 0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Work that went from a broker to a contractor.

    Attributes:
        broker: Name of a node.
        contractor: Name of a node.
        awards: How many were begun.
    """

    broker: str
    contractor: str
    awards: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """See the module.

    Attributes:
        scenario: Its name.
        seed: What it was played with.
        nodes: How many there were.
        digest: The hash of its trace: equal for equal seed and commit, in every process.
        virtual_s: What it took, seconds of virtual time.
        troubles: What must hold and does not; empty if all is well.
        replay: The command that plays it again.
        figures: What was measured, by name, units last (``took_p95_s``, ``cost_mean_mc``).
        windows: The same over time.
        dots: The nodes.
        lines: Who worked for whom.
        stories: The slowest jobs, and the first that did not complete.
    """

    scenario: str
    seed: int
    nodes: int
    digest: str
    virtual_s: float
    replay: str
    troubles: tuple[str, ...] = ()
    figures: dict[str, float] = msgspec.field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    dots: tuple[Dot, ...] = ()
    lines: tuple[Line, ...] = ()
    stories: tuple[Story, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether all holds that must."""
        return not self.troubles


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that ``share`` of them don't exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
