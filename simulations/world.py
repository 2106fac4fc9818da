"""Run a scenario in virtual time, the same way every time.

Same code, same seed: same trace hash, in any process.  What that takes:

* **Time** is Trio's ``MockClock``, which jumps to the next deadline when all wait.
* **Chance** is one seed; every part draws from its own ``Random`` of it
  (:meth:`World.random`), so that one part's draws don't shift another's.
* **Order of tasks.**  Trio shuffles the ready tasks on purpose.  It has a switch
  that sorts them first (by age) and shuffles with a ``Random`` of its own, made for
  Hypothesis; both names are private.  They are touched in :func:`_pinned`, which
  refuses to start if either has gone, and :func:`standing_still` only.  (More names,
  of its clock, its loop and its sleep, in :func:`_clock`, :func:`_look_rarely` and
  :func:`~simulations.alarms.replacing_sleep`.)  The sets of
  tasks inside Trio (who waits for an event, who is in a nursery, who is cancelled with
  it) iterate in the order of addresses, which differ between processes; but each is only
  used to make all its members ready for the same round, which is then sorted.
* **Garbage.**  When Python's cyclic collector starts depends on all that the process
  ever allocated, and a collected async generator becomes a task of Trio's.  So the
  collector runs after fixed numbers of jumps of the clock and of ended nodes, and at no
  other time.
* **Hashes.**  Scenario and node must not let the order of a ``set`` of strings or
  objects decide anything: use dicts, or sort.  No threads, no real input or output.

``tests/simulations/test_determinism.py`` holds all this in processes with different
hash seeds and memory layouts.
"""

import argparse
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import inf
from random import Random
from typing import Any, Final, Protocol

import outcome
import trio
import trio.testing
from trio._core import _run as trio_run
from typing_extensions import override

from simulations.alarms import Alarms, replacing_sleep
from simulations.clock import SeededEntropy, SimClock
from simulations.huge_pages import ask_for_huge_pages, resident_bytes
from simulations.network import SimNetwork, Weather, open_network
from simulations.trace import Trace

#: A day: longer than any scenario, so that one which waits for ever ends too.
LIMIT_S: Final = 86_400.0

#: Jumps of the clock between collections of the youngest, middle, oldest objects.
#: An hour of a thousand nodes is 200,000 jumps and leaves some fifty thousand objects in
#: cycles; to look for them ten times took 6 s of it.
_GC_JUMPS: Final = (400_000, 1_600_000, 6_400_000)
#: A world of so many has left garbage that is worth a search before the next one.
_MUCH_JUMPS: Final = 20_000
#: Jumps between looks at how much the heap has grown.
_HEAP_JUMPS: Final = 2_000
#: A heap that grew by less than this share lies on huge pages but for a little.
_GROWN_SHARE: Final = 0.25
#: Nodes that end between collections of all objects.  A node of a day of churn leaves some
#: sixty kilobytes in cycles, and soon among the oldest objects.
_GC_ENDED: Final = 2_000

#: Of Trio's loop, between looks at the system.
_ROUNDS: Final = 64


@dataclass(frozen=True, slots=True)
class World:
    """What a scenario is given.

    Attributes:
        seed: What fixes everything.
        network: Transports of all peers, and their faults.
        nursery: For the scenario's nodes; it ends with the scenario.
        trace: What happened.
        collector: Told of what is garbage.
    """

    seed: int
    network: SimNetwork
    nursery: trio.Nursery
    trace: Trace
    collector: "Collector"

    def random(self, name: str) -> Random:
        """Return chance for the part called ``name``; the same at every call."""
        return self.chance(self.seed, name)

    @staticmethod
    def chance(seed: int, name: str) -> Random:
        """Return what :meth:`random` does in a world of ``seed``, without the world."""
        return Random(f"{seed}/{name}")

    def entropy(self, name: str) -> SeededEntropy:
        """Return the source of keys and nonces of the part called ``name``."""
        return SeededEntropy(f"{self.seed}/{name}")

    def clock(self, *, skew_ms: int = 0, drift_ppm: int = 0) -> SimClock:
        """Return a wall clock that is wrong by so much."""
        return SimClock(skew_ms=skew_ms, drift_ppm=drift_ppm)


Scenario = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Run:
    """How a scenario went.

    Attributes:
        seed: What it was run with.
        digest: The hash of its trace: equal for equal runs.
        lines: The last lines of its trace, as many as were asked for.
        elapsed_s: What it took in virtual time, seconds.
    """

    seed: int
    digest: str
    lines: Sequence[str]
    elapsed_s: float


def run(
    scenario: Scenario,
    *,
    seed: int,
    weather: Weather | None = None,
    limit_s: float = LIMIT_S,
    lines_max: int = 0,
    replay: str = "",
) -> Run:
    """Play ``scenario`` to its end.

    What fails in it, or in its nursery, propagates with a note that says how to
    see it fail again.

    Args:
        scenario: An async function that is given the :class:`World`.
        seed: Fixes delays, faults, keys and the order of tasks.
        weather: All links, until the scenario changes it; the default is mild.
        limit_s: Longest virtual time, seconds; after it ``trio.TooSlowError``.
        lines_max: How many of the trace's lines to keep, the last ones.
        replay: The command that runs this again, where :func:`_replay` can't know.
    """
    trace = Trace(lines_max=lines_max)

    alarms = Alarms()

    async def main() -> Run:
        alarms.use()
        _look_rarely()
        with trio.fail_after(limit_s):
            rng = Random(f"{seed}/network")
            async with open_network(rng, weather=weather, trace=trace) as network:
                # Captured, so that it leaves the nursery as itself and not in a group.
                ending = await outcome.acapture(_play, scenario, seed, network, collector)
            ending.unwrap()
        return Run(seed, trace.digest(), trace.lines(), trio.current_time())

    with _pinned(seed), replacing_sleep(), _collecting_at_fixed_times() as collector:
        try:
            return trio.run(main, clock=_clock(alarms, collector))
        except BaseException as exc:
            exc.add_note(f"seed {seed}, trace {trace.digest()[:16]}")
            exc.add_note(f"replay: {replay or _replay(scenario, seed)}")
            raise


async def _play(
    scenario: Scenario, seed: int, network: SimNetwork, collector: "Collector"
) -> None:
    failure: outcome.Outcome[None] = outcome.Value(None)
    async with trio.open_nursery() as nursery:
        world = World(seed, network, nursery, network.trace, collector)
        failure = await outcome.acapture(scenario, world)
        nursery.cancel_scope.cancel()
    failure.unwrap()


def _replay(scenario: Scenario, seed: int) -> str:
    """Return the command that runs ``scenario`` again, as well as can be told."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if test:
        return f"pytest '{test}'  # seed {seed}"
    module = getattr(scenario, "__module__", "?")
    name = getattr(scenario, "__qualname__", "?")
    return f"python -m simulations.world {module}:{name} --seed {seed}"


# --- what Python and Trio leave to chance ------------------------------------------


class _Order(Random):
    """Chance for the order of tasks; most rounds of the loop have one, and need none."""

    @override
    def shuffle(self, x: MutableSequence[Any]) -> None:
        """Put ``x`` into any order."""
        if len(x) > 1:
            super().shuffle(x)


@contextmanager
def _pinned(seed: int) -> Iterator[None]:
    """Let ``seed`` decide in which order Trio runs the tasks that are ready."""
    names = vars(trio_run)
    for name in ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r"):
        assert name in names, f"Trio changed: it has no {name}; see the top of this module"
    before = names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"]
    names["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    names["_r"] = _Order(f"{seed}/tasks")
    try:
        yield
    finally:
        names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"] = before


def _clock(alarms: Alarms, collector: "Collector") -> trio.testing.MockClock:
    """Return a clock that jumps to what is due next, and that is quick to read.

    Trio's own takes a round of the loop to jump and another one to look who is due, and is
    read twice a step.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)
    inside = vars(clock)
    for name in ("_virtual_base", "_autojump"):
        assert hasattr(clock, name), f"Trio changed: MockClock has no {name}"
    deadlines: Any = None

    def jump() -> None:
        nonlocal deadlines
        if deadlines is None:
            deadlines = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines
        due_s = min(deadlines.next_deadline(), alarms.next_s())
        if due_s < inf:
            inside["_virtual_base"] = due_s
            alarms.ring(due_s)
            deadlines.expire(due_s)
            collector.jumped()

    inside["current_time"] = lambda: inside["_virtual_base"]  # its rate is 0
    inside["_autojump"] = jump
    return clock


class _Events(Protocol):
    """What the loop asks of the part of Trio that waits for the system."""

    def process_events(self, events: Sequence[object]) -> None:
        """Wake who waits for them."""

    def get_events(self, timeout_s: float) -> Sequence[object]:
        """Wait so long for news, and return it."""


class _Unhurried:
    """Trio's look at what the system has for it, which in a world is next to nothing.

    Between any two rounds of its loop Trio asks the system for news, though no file and no
    socket is open here: a ninth of the time of twenty nodes in rough weather.  What does
    come, from another thread or from a keyboard, is seen within :data:`_ROUNDS` rounds.
    """

    def __init__(self, real: "_Events") -> None:
        self._real = real
        self._rounds = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def process_events(self, events: Sequence[object]) -> None:
        """Wake who waits for them, if there are any."""
        if events:
            self._real.process_events(events)

    def get_events(self, timeout_s: float) -> Sequence[object]:
        """Return what the system has; nothing, as a rule, for who can't wait."""
        self._rounds += 1
        if timeout_s <= 0 and self._rounds % _ROUNDS:
            return []
        return self._real.get_events(timeout_s)


def _look_rarely() -> None:
    runner: Any = trio_run.GLOBAL_RUN_CONTEXT.runner
    assert hasattr(runner.io_manager, "get_events"), "Trio changed: it looks in another way"
    runner.io_manager = _Unhurried(runner.io_manager)


@contextmanager
def standing_still() -> Iterator[None]:
    """Let another thread run Trio meanwhile: it takes nothing of the world's chance."""
    names = vars(trio_run)
    before = names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"]
    names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"] = False, Random()
    try:
        yield
    finally:
        names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"] = before


#: The collector of this process's last world, if there was one.
_WORLDS: Final[list["Collector"]] = []


class Collector:
    """Runs Python's cyclic collector after fixed numbers of jumps, and of ended nodes.

    The heap's pages are seen to with it, when the heap has grown by much since.
    """

    def __init__(self) -> None:
        self._jumps = self._ended = 0
        self._seen_to_bytes = 0

    def jumped(self) -> None:
        """Note one more, and see to the heap if it is time."""
        self._jumps += 1
        if self._jumps % _GC_JUMPS[0] == 0:
            oldest = max(i for i, jumps in enumerate(_GC_JUMPS) if self._jumps % jumps == 0)
            gc.collect(oldest)
        if self._jumps % _HEAP_JUMPS == 0:
            self._see_to_the_heap()

    def _see_to_the_heap(self) -> None:
        now_bytes = resident_bytes()
        if now_bytes > self._seen_to_bytes * (1 + _GROWN_SHARE):
            ask_for_huge_pages()
            self._seen_to_bytes = now_bytes

    def node_ended(self) -> None:
        """Note that all of a node is garbage now, and collect if that is much."""
        self._ended += 1
        if self._ended % _GC_ENDED == 0:
            gc.collect()

    @property
    def left_much(self) -> bool:
        """Whether what is left of the world is worth a search of its own."""
        return self._jumps >= _MUCH_JUMPS


@contextmanager
def _collecting_at_fixed_times() -> Iterator[Collector]:
    """Keep the collector from starting by itself."""
    enabled = gc.isenabled()
    gc.disable()
    collector = Collector()
    if _WORLDS and _WORLDS.pop().left_much:
        gc.collect()  # or what is left of world after world would be frozen, and stay
    _WORLDS.append(collector)
    gc.freeze()  # what was there before is not looked at: its amount differs
    try:
        yield collector
    finally:
        gc.freeze()  # with the line after it, all counts as old: else the first new object
        gc.unfreeze()  # would have all those of the world looked at, while it is still there
        if enabled:
            gc.enable()


# --- replay -----------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one scenario with one seed and print its trace and hash."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.world", description=main.__doc__
    )
    parser.add_argument("scenario", help="module:function")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lines", type=int, default=0, help="trace lines to print, the last")
    options = parser.parse_args(arguments)
    module, _, name = options.scenario.partition(":")
    scenario: Scenario = getattr(import_module(module), name)
    result = run(scenario, seed=options.seed, lines_max=options.lines)
    for line in result.lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{result.digest} seed {result.seed} {result.elapsed_s:.3f} s\n")


if __name__ == "__main__":
    main()
