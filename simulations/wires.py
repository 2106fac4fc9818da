"""What goes wrong between nodes, told by their names.

::

    mesh.network.slow(latency_s=0.4)                           # everywhere
    mesh.network.slow(latency_s=2.0, between=("n1", "n2"), for_s=30)
    mesh.network.lossy(break_chance=0.05)
    mesh.network.cut("n1", "n3")
    mesh.network.mend()

Every change lies on top of the weather that was there and of the changes before it, and is
taken off by itself: two that overlap can end in any order, and what is left is what would
be there without the one that ended.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypedDict

import trio

from simulations import weather as presets
from simulations.mesh import SimMesh
from simulations.network import SimNetwork
from simulations.weather import Weather

#: Between which two something is, both ways; None is everywhere.
Between = tuple[str, str] | None

_LOSSY: Final = 0.02


class _Weathers(TypedDict, total=False):
    latency_s: float
    jitter_s: float
    break_chance: float
    dial_failure_chance: float


def named_weather(name: str) -> Weather:
    """Return the preset called ``name``: ``calm``, ``mild``, ….

    Raises:
        LookupError: There is none; names those there are.
    """
    known = {"mild": Weather()} | {
        constant.lower(): value
        for constant, value in vars(presets).items()
        if isinstance(value, Weather)
    }
    if name not in known:
        raise LookupError(f"there is no weather {name!r}; there are {', '.join(sorted(known))}")
    return known[name]


@dataclass(eq=False, slots=True)
class _Change:
    """Something that is worse than before, between two PeerIds or everywhere."""

    between: Between
    worse: _Weathers


@dataclass(slots=True)
class Wires:
    """The links of a stage, for whoever wants to spoil them.

    A name that isn't up yet raises what ``peer`` raises for it.

    Attributes:
        mesh: Whose links are spoiled; its ``fair`` is the weather when nothing is wrong.
        peer: PeerId by name.
    """

    mesh: SimMesh
    peer: Callable[[str], str]
    _changes: list[_Change] = field(default_factory=list)
    #: Links that had a weather of their own, in the order in which they got it.
    _special: dict[tuple[str, str], None] = field(default_factory=dict)

    def slow(
        self,
        latency_s: float,
        *,
        jitter_s: float | None = None,
        between: Between = None,
        for_s: float | None = None,
    ) -> None:
        """Let everything take longer, for ``for_s`` or until :meth:`mend`.

        Args:
            latency_s: Fixed part of a one-way delay, seconds.
            jitter_s: Upper end of its random part; by default as it was.
            between: Names of two nodes; None is everywhere.
            for_s: See there.
        """
        worse = _Weathers(latency_s=latency_s)
        if jitter_s is not None:
            worse["jitter_s"] = jitter_s
        self._worsen(between, worse, for_s)

    def lossy(
        self,
        *,
        break_chance: float = _LOSSY,
        dial_failure_chance: float = 0.0,
        between: Between = None,
        for_s: float | None = None,
    ) -> None:
        """Let connections break, for ``for_s`` or until :meth:`mend`.

        Args:
            break_chance: That one message breaks its connection, 0 to 1.
            dial_failure_chance: That a dial fails although the peer is there.
            between: Names of two nodes; None is everywhere.
            for_s: See there.
        """
        worse = _Weathers(break_chance=break_chance, dial_failure_chance=dial_failure_chance)
        self._worsen(between, worse, for_s)

    def cut(
        self, one: str, other: str, *, one_way: bool = False, for_s: float | None = None
    ) -> None:
        """Let nothing pass between two nodes, for ``for_s`` or until :meth:`mend`.

        Args:
            one: Name of a node.
            other: Name of another.
            one_way: What ``other`` says still reaches ``one``.
            for_s: See there.
        """
        ways = [(self.peer(one), self.peer(other))]
        if not one_way:
            ways.append((ways[0][1], ways[0][0]))
        for source, target in ways:
            self._network.cut_one_way(source, target)
            if for_s is not None:
                due_s = trio.current_time() + for_s
                self._network.timetable.at(due_s, self._network.mend_one_way, source, target)

    def mend(self) -> None:
        """Undo all of it, and every cut."""
        self._changes.clear()
        self._apply()
        self._network.mend_all()

    @property
    def _network(self) -> SimNetwork:
        return self.mesh.world.network

    def _worsen(self, between: Between, worse: _Weathers, for_s: float | None) -> None:
        pair = between and (self.peer(between[0]), self.peer(between[1]))
        if pair:
            self._special.setdefault(pair)
        change = _Change(pair, worse)
        self._changes.append(change)
        self._apply()
        if for_s is not None:
            due_s = trio.current_time() + for_s
            self._network.timetable.at(due_s, self._take_off, change)

    def _take_off(self, change: _Change) -> None:
        if change in self._changes:
            self._changes.remove(change)
            self._apply()

    def _apply(self) -> None:
        """Make the network's weather what is fair, with every change on top."""
        self._network.set_weather(self._weather(None))
        for pair in self._special:
            self._network.set_weather(self._weather(pair), *pair)

    def _weather(self, pair: Between) -> Weather:
        weather = self.mesh.fair
        for change in self._changes:
            if change.between in (None, pair):
                weather = replace(weather, **change.worse)
        return weather
