"""One course of events, for the real DHT and for its model, and what it came to.

Nodes join one after another through the first, publish, look each other up; some are
killed without goodbye; the living look up again, newcomers who know only the first look
up, the living publish again.  Both have the same PeerIds, so the same nodes are near the
same keys; who asks for whom is drawn from one seed.  Requests of the real ones are
counted where they leave: at py-libp2p's single requests, in the context of the operation
that makes them.

Run as a module it does that with as many nodes as it is told, and prints both::

    python -m tests.simulations.kademlia_course --nodes 50 --seeds 1 2 3
"""

# ruff: noqa: T201 - run as a module it prints what it was run for

import argparse
import hashlib
import math
import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, Final, Protocol, TypeVar

import trio
import trio.testing

from meshnode.adapters.kad_directory import KadDirectory, open_directory
from meshnode.errors import Unreachable
from protocol.keys import Identity
from simulations.kademlia import Operation, Rules, SimKademlia
from tests.contracts.libp2p_ports import judge_record, make_record
from tests.meshnode.adapters.memory_libp2p import Wire, address_of, memory_transport

T = TypeVar("T")

#: What a message takes from end to end, seconds.
DELAY_S: Final = 0.05
#: Between two joins: longer than a join takes.
JOIN_S: Final = 2.0


@dataclass(frozen=True)
class Course:
    """What happens.

    Attributes:
        nodes: How many there are.
        seed: Who they are, who dies, who asks for whom.
        dead: Part of them that is killed.
        silent: Their hosts die with them.
        lookups: How many of each kind after each change.
        newcomers: Nodes that join after the deaths.
        names: Names that each node is listed under: the first a quarter of them, the
            others all.
    """

    nodes: int
    seed: int
    dead: float = 0.3
    silent: bool = False
    lookups: int = 40
    newcomers: int = 4
    names: int = 2


class Subject(Protocol):
    """The DHT that goes through it."""

    async def join(self, number: int) -> None:
        """Start a node; the first one's address is all it gets."""

    def kill(self, number: int, *, silent: bool) -> None:
        """End a node."""

    def known(self, number: int) -> int | None:
        """Return how many peers are in a node's table, if it lives."""

    async def publish(self, number: int, sequence: int, names: Sequence[str]) -> Operation:
        """Publish a record and return what it came to."""

    async def record(self, asker: int, number: int) -> Operation:
        """Look up a record."""

    async def providers(self, asker: int, name: str) -> Operation:
        """Look up who is listed."""


#: Operations by the part of the course that they belong to.
Figures = dict[str, list[Operation]]


def identity(course: Course, number: int) -> tuple[bytes, str]:
    """Return key seed and PeerId of a node."""
    seed = hashlib.sha256(f"course {course.seed} {number}".encode()).digest()
    return seed, Identity(seed, seed).peer


async def go(course: Course, subject: Subject) -> Figures:
    """Take ``subject`` through the course."""
    rng, figures = Random(course.seed), Figures()
    everyone = list(range(course.nodes))
    common = [f"common{number}" for number in range(1, course.names)]

    async def publish(part: str, sequence: int, who: Sequence[int]) -> None:
        figures[part] = [
            await subject.publish(number, sequence, [f"kind{number % 4}", *common])
            for number in who
        ]

    async def look(part: str, askers: Sequence[int], sought: Sequence[int]) -> None:
        pairs = [(rng.choice(askers), rng.choice(sought)) for _ in range(course.lookups)]
        figures[f"{part}: record"] = [await subject.record(*p) for p in pairs if p[0] != p[1]]
        figures[f"{part}: providers"] = [
            await subject.providers(asker, f"kind{sought % 4}") for asker, sought in pairs
        ]

    for number in everyone:
        await subject.join(number)
        await trio.sleep(JOIN_S)
    await publish("first publish", 1, everyone)
    await look("all alive", everyone, everyone)
    dead = rng.sample(everyone[1:], round(course.dead * course.nodes))
    for number in dead:
        subject.kill(number, silent=course.silent)
    alive = [number for number in everyone if number not in dead]
    await look("some dead", alive, everyone)
    new = list(range(course.nodes, course.nodes + course.newcomers))
    for number in new:
        await subject.join(number)
        await trio.sleep(JOIN_S)
    await look("newcomers", new, everyone)
    await publish("second publish", 2, alive)
    await look("published again", alive + new, everyone)
    return figures


# --- the real one -----------------------------------------------------------------


@dataclass
class _Count:
    """What the operation at work has asked so far."""

    rounds: int = 0
    finds: int = 0
    requests: int = 0
    unanswered: int = 0
    under_way: int = 0
    taken: int = 0


_COUNT: ContextVar[_Count | None] = ContextVar("count", default=None)


class RealDht:
    """Nodes of the real DHT on one wire."""

    def __init__(self, course: Course, nursery: trio.Nursery) -> None:
        self._course = course
        self._nursery = nursery
        self._wire = Wire(DELAY_S)
        self._directories: dict[int, KadDirectory] = {}
        self._scopes: dict[int, trio.CancelScope] = {}
        nursery.start_soon(self._wire.timetable.run)

    async def join(self, number: int) -> None:
        await self._nursery.start(self._live, number)

    async def _live(self, number: int, *, task_status: Any) -> None:
        key_seed, _ = identity(self._course, number)
        first = f"{address_of(0)}/p2p/{identity(self._course, 0)[1]}"
        with trio.CancelScope() as self._scopes[number]:
            async with (
                memory_transport(self._wire, key_seed, address_of(number)) as transport,
                open_directory(
                    transport, "test", judge_record, bootstrap=[first] if number else []
                ) as directory,
            ):
                _count_requests(directory)
                self._directories[number] = directory
                task_status.started()
                await trio.sleep_forever()

    def kill(self, number: int, *, silent: bool) -> None:
        self._wire.kill(address_of(number), silent=silent)
        self._scopes[number].cancel()

    def known(self, number: int) -> int | None:
        if self._scopes[number].cancel_called:
            return None
        return self._directories[number].dht.routing_table.size()

    async def publish(self, number: int, sequence: int, names: Sequence[str]) -> Operation:
        directory, peer = self._directories[number], identity(self._course, number)[1]

        async def publish() -> int:
            try:
                await directory.publish(make_record(peer, sequence), names)
            except Unreachable:
                return 0
            return 1

        return await self._counted("publish", number, publish)

    async def record(self, asker: int, number: int) -> Operation:
        peer = identity(self._course, number)[1]

        async def look() -> int:
            return int(await self._directories[asker].record(peer) is not None)

        return await self._counted("record", asker, look)

    async def providers(self, asker: int, name: str) -> Operation:
        async def look() -> int:
            return len(await self._directories[asker].providers(name))

        return await self._counted("providers", asker, look)

    async def _counted(
        self, kind: str, number: int, work: Callable[[], Awaitable[int]]
    ) -> Operation:
        count, begun_s = _Count(), trio.current_time()
        token = _COUNT.set(count)
        try:
            found = await work()
        finally:
            _COUNT.reset(token)
        return Operation(
            kind,
            identity(self._course, number)[1],
            count.taken if kind == "publish" and found else found,
            count.rounds,
            count.finds,
            count.requests,
            count.unanswered,
            trio.current_time() - begun_s,
        )


def _count_requests(directory: KadDirectory) -> None:
    """Count every single request of a directory, in the operation that makes it."""
    dht = directory.dht
    _wrap(dht.peer_routing, "_query_peer_for_closest", _find)
    for owner, name in (
        (dht.value_store, "_get_from_peer"),
        (dht.value_store, "_store_at_peer"),
        (dht.provider_store, "_get_providers_from_peer_with_closers"),
        (dht.provider_store, "_send_add_provider"),
    ):
        _wrap(owner, name, partial(_request, stores=name == "_store_at_peer"))


def _wrap(owner: Any, name: str, around: Callable[[_Count], Any]) -> None:
    original = getattr(owner, name)

    async def counted(*args: Any, **options: Any) -> Any:
        count = _COUNT.get()
        if count is None:  # upkeep
            return await original(*args, **options)
        with around(count) as told:
            result = await original(*args, **options)
            told(result)
        return result

    setattr(owner, name, counted)


@contextmanager
def _find(count: _Count) -> Iterator[Callable[[object], None]]:
    """Count a request of a lookup; the first of those under way at once begins a hop."""
    count.finds += 1
    count.rounds += not count.under_way
    count.under_way += 1
    try:
        yield lambda _result: None
    finally:
        count.under_way -= 1


@contextmanager
def _request(count: _Count, *, stores: bool) -> Iterator[Callable[[object], None]]:
    """Count another request, and a record that was taken."""
    count.requests += 1

    def told(result: object) -> None:
        count.taken += stores and bool(result)

    yield told


# --- the model --------------------------------------------------------------------


class ModelDht:
    """Nodes of the model."""

    def __init__(self, course: Course, nursery: trio.Nursery, rules: Rules) -> None:
        self._course = course
        self._dht = SimKademlia(
            Random(course.seed),
            judge_record,
            delay_s=lambda _one, _other: DELAY_S,
            reaches=lambda _one, _other: True,
            rules=rules,
        )
        self._dht.watch = self._watch
        self._last: Operation | None = None
        nursery.start_soon(self._dht.run)

    def _watch(self, operation: Operation) -> None:
        if operation.kind != "maintain":
            self._last = operation

    def _peer(self, number: int) -> str:
        return identity(self._course, number)[1]

    async def join(self, number: int) -> None:
        self._dht.join(self._peer(number), [self._peer(0)] if number else [])

    def kill(self, number: int, *, silent: bool) -> None:
        self._dht.crash(self._peer(number), silent=silent)

    def known(self, number: int) -> int | None:
        node = self._dht.node(self._peer(number))
        return None if node is None else len(node.table)

    async def publish(self, number: int, sequence: int, names: Sequence[str]) -> Operation:
        peer = self._peer(number)
        try:
            await self._dht.port(peer).publish(make_record(peer, sequence), names)
        except Unreachable:
            assert self._last is not None
            return replace(self._last, found=0)
        return self._done()

    async def record(self, asker: int, number: int) -> Operation:
        await self._dht.port(self._peer(asker)).record(self._peer(number))
        return self._done()

    async def providers(self, asker: int, name: str) -> Operation:
        await self._dht.port(self._peer(asker)).providers(name)
        return self._done()

    def _done(self) -> Operation:
        assert self._last is not None
        return self._last


# --- both -------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How a course went.

    Attributes:
        figures: All operations, by part.
        known: Sizes of the tables of those who lived to the end.
    """

    figures: Figures
    known: list[int] = field(default_factory=list)


def run(course: Course, make: Callable[[Course, trio.Nursery], Subject]) -> Outcome:
    """Take a new subject through ``course`` in virtual time."""

    async def main() -> Outcome:
        async with trio.open_nursery() as nursery:
            subject = make(course, nursery)
            figures = await go(course, subject)
            known = [subject.known(n) for n in range(course.nodes + course.newcomers)]
            nursery.cancel_scope.cancel()
        return Outcome(figures, [size for size in known if size is not None])

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def run_real(course: Course) -> Outcome:
    """Take the real DHT through ``course``."""
    return run(course, RealDht)


def run_model(course: Course, rules: Rules | None = None) -> Outcome:
    """Take the model through ``course``."""
    return run(course, partial(ModelDht, rules=rules or Rules(network="test")))


#: What is compared.  Lookups of several names at once have no common count of hops.
WHAT: Final = ("success", "found", "rounds", "finds", "requests", "elapsed_s")


def compared(real: Figures, model: Figures) -> Iterator[tuple[str, float, float, float]]:
    """Yield each figure: its name, the real mean, the model's, and how far they may differ.

    Both means are of the same number of operations, drawn alike, so three standard errors
    of their difference are allowed, and beside it a twentieth: requests that end at the
    same moment end in some order, which the model draws otherwise.
    """
    for part, operations in real.items():
        for what in WHAT:
            if what == "rounds" and part.endswith("publish"):
                continue
            ours, theirs = _values(operations, what), _values(model[part], what)
            means = statistics.fmean(ours), statistics.fmean(theirs)
            spread = statistics.pvariance(ours) + statistics.pvariance(theirs)
            error = math.sqrt(spread / min(len(ours), len(theirs)))
            yield f"{part}: {what}", *means, 3 * error + 0.05 * means[0]


def strays(real: Figures, model: Figures) -> list[str]:
    """Return the figures in which the model is too far from the real one."""
    return [
        f"{name}: real {ours:.2f}, model {theirs:.2f}, allowed {allowed:.2f}"
        for name, ours, theirs, allowed in compared(real, model)
        if abs(ours - theirs) > allowed
    ]


def _values(operations: Sequence[Operation], what: str) -> list[float]:
    """Return one figure of each operation; ``success`` is whether it found anything."""
    if what == "success":
        return [float(operation.found > 0) for operation in operations]
    return [float(getattr(operation, what)) for operation in operations]


def main() -> None:
    """Print what both come to."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--lookups", type=int, default=40)
    parser.add_argument("--dead", type=float, default=0.3)
    parser.add_argument("--silent", action="store_true")
    options = parser.parse_args()
    outcomes: dict[str, Figures] = {"real": {}, "model": {}}
    for seed in options.seeds:
        course = Course(
            options.nodes,
            seed,
            dead=options.dead,
            silent=options.silent,
            lookups=options.lookups,
        )
        for name, outcome in (("real", run_real(course)), ("model", run_model(course))):
            known = outcome.known
            print(f"seed {seed} {name}: {statistics.mean(known):.1f} peers in a table")
            for part, operations in outcome.figures.items():
                outcomes[name].setdefault(part, []).extend(operations)
    for name, ours, theirs, allowed in compared(outcomes["real"], outcomes["model"]):
        mark = " " if abs(ours - theirs) <= allowed else "!"
        print(f"{mark} {name:30} {ours:8.2f} {theirs:8.2f}  ± {allowed:.2f}")


if __name__ == "__main__":
    main()
