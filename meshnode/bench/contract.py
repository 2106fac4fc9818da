"""P2 and P3: what a contract costs beside the work itself.

Two nodes joined by libp2p over loopback, each with its store on the disk; the agent gives
back what it is given (:mod:`.contract_hop`).

``P2.contract``: a contract (award, run, result, check, charge, acceptance, the co-signed
receipt durable at both sides) by the bare hop of the A2A SDK, which takes turns with it and
signs, checks and stores nothing; both sides in one process.  ``P2.contract.two_processes``
is the same in two, where no side finds in memory what the other has read.  ``….ms`` is the
contract itself, ``….cpu_ms`` its processor time at both sides, ``P2.fsync`` the disk's
part, one fsync.  ``P2.job``: a job of one sub-task, from submit to done.  ``P3.offer`` and
``P3.cfp``: round trips before the award, counted, with a standing offer and without;
``P3.share``: what a contract adds to a sub-task of one second.
"""

import os
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

from meshnode.bench.contest import ONE, TWO, Contestant, Score, Scores, hold
from meshnode.bench.contest import Size as Turns
from meshnode.bench.contract_hop import ECHO, WORK, Broker, broker, contractor
from meshnode.bench.extra import Extra, extra_environment
from meshnode.bench.figures import Figure, Told

_OURS: Final = Contestant("", "meshnode.bench.contract_hop")
_A2A: Final = Contestant("a2a", "meshnode.bench.beside.a2a_hop", extra=True)
_IDS: Final = {ONE: "P2.contract", TWO: "P2.contract.two_processes"}
_HOPS: Final = {ONE: "P2.a2a", TWO: "P2.a2a.two_processes"}
_LEFT_OUT: Final = "not measured: the A2A SDK was left out (--no-peers)"
FSYNC_BYTES: Final = 4096
_FSYNCS: Final = 200


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        chains: Turns, each a job that is a chain of contracts.
        links: Contracts of one chain.
        jobs: Jobs of one contract.
        seconds: Contracts of a second each.
    """

    chains: int
    links: int
    jobs: int
    seconds: int


QUICK: Final = Size(chains=10, links=20, jobs=60, seconds=10)
FULL: Final = Size(chains=25, links=40, jobs=400, seconds=40)


def run(told: Told, *, quick: bool, peers: bool = True) -> list[Figure]:
    """Measure contracts one after the other.

    Args:
        told: Called with what is being measured.
        quick: Fewer repetitions.
        peers: Measure the A2A SDK's bare hop, too.

    Raises:
        MeshError: The A2A SDK can't be installed, or somebody fails; says who and why.
    """
    with extra_environment(told) if peers else nullcontext() as extra:
        return trio.run(measure_contracts, told, QUICK if quick else FULL, extra)


async def measure_contracts(told: Told, size: Size, extra: Extra | None = None) -> list[Figure]:
    """Return P2 and P3; with the extra environment beside the A2A SDK."""
    contestants = (_OURS, _A2A) if extra else (_OURS,)
    turns = Turns(rounds=size.chains, calls=size.links)
    scores = await hold(told, contestants, turns, extra)
    seen = await _see(told, size)
    return [
        *(figure for way in (ONE, TWO) for figure in _contracts(scores, way)),
        _median("P2.fsync", seen.fsyncs_ms, f"one fsync of {FSYNC_BYTES} bytes"),
        _median("P2.job", seen.jobs_ms, "a job of one sub-task, submit → done", goal_ms=10.0),
        *_calls(seen, size),
    ]


@dataclass(slots=True)
class _Seen:
    """What was measured: milliseconds, and calls for proposals with an offer and without."""

    jobs_ms: list[float] = field(default_factory=list)
    added_ms: list[float] = field(default_factory=list)
    fsyncs_ms: list[float] = field(default_factory=list)
    called: int = 0
    called_without: int = 0


async def _see(told: Told, size: Size) -> _Seen:
    seen = _Seen()
    async with _pair() as (home, pair):
        told("warming up")
        for capability in (ECHO, WORK):
            await pair.chain(capability, 1)
        seen.fsyncs_ms = fsyncs_ms(home)
        called = len(pair.saw.times("job.called"))
        for number in range(size.jobs):
            told(f"jobs of one sub-task, {number + 1} of {size.jobs}", number / size.jobs)
            begun_s = perf_counter()
            await pair.chain(ECHO, 1)
            seen.jobs_ms.append((perf_counter() - begun_s) * 1000)
        told(f"{size.seconds} sub-tasks of a second")
        seen.added_ms = [ms - 1000 for ms in await pair.chain(WORK, size.seconds)]
        seen.called = len(pair.saw.times("job.called")) - called
        told("without an offer")
        pair.forget_offers()
        await pair.chain(ECHO, 1)
        seen.called_without = len(pair.saw.times("job.called")) - called - seen.called
    return seen


def _contracts(scores: Scores, way: str) -> list[Figure]:
    ours, a2a, name, hop = scores[way, ""], scores.get((way, _A2A.name)), _IDS[way], _HOPS[way]
    ratio = ours.ratio(a2a) if a2a else None
    rounds = len(ours.rounds_us)
    note = f"p50 by the A2A SDK's bare hop, median of {rounds} rounds" if a2a else _LEFT_OUT
    return [
        Figure(id=name, value=ratio, unit="×", goal=0.8, n=ours.calls, note=note),
        *_absolute(name, ours, "ready → receipt at both sides"),
        *_absolute(hop, a2a, "nothing signed, checked or stored"),
    ]


def _absolute(name: str, score: Score | None, what: str) -> list[Figure]:
    if score is None:
        ids = (f"{name}.ms", f"{name}.cpu_ms")
        return [Figure(id=id_, value=None, unit="ms", n=0, note=_LEFT_OUT) for id_ in ids]
    note = f"p50, {what}; p95 {score.p95_us / 1000:.2f}"
    return [
        Figure(id=f"{name}.ms", value=score.p50_us / 1000, unit="ms", n=score.calls, note=note),
        Figure(
            id=f"{name}.cpu_ms", value=score.cpu_per_call_us / 1000, unit="ms", n=score.calls,
            note="processor time, both sides",
        ),
    ]  # fmt: skip


def _calls(seen: _Seen, size: Size) -> list[Figure]:
    done = size.jobs + size.seconds
    return [
        Figure(
            id="P3.offer", value=seen.called / done, unit="round trips", goal=0, n=done,
            note="before an award, with standing offers",
        ),
        Figure(
            id="P3.cfp", value=float(seen.called_without), unit="round trips", goal=1, n=1,
            note="before an award, without",
        ),
        Figure(
            id="P3.share", value=_p95(seen.added_ms) / 10, unit="%", goal=5.0,
            n=len(seen.added_ms), note="p95, what a contract adds to a sub-task of 1 s",
        ),
    ]  # fmt: skip


def _median(
    name: str, values_ms: list[float], note: str, *, goal_ms: float | None = None
) -> Figure:
    note = f"p50, {note}; p95 {_p95(values_ms):.2f}"
    value = statistics.median(values_ms)
    return Figure(id=name, value=value, unit="ms", goal=goal_ms, n=len(values_ms), note=note)


def _p95(values: list[float]) -> float:
    return sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)]


def fsyncs_ms(home: Path) -> list[float]:
    """Return how long the disk takes to keep what was appended."""
    taken: list[float] = []
    with (home / "fsync").open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            begun_s = perf_counter()
            os.fsync(file.fileno())
            taken.append((perf_counter() - begun_s) * 1000)
    return taken


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[Path, Broker]]:
    """Run both nodes in this process for the length of a block."""
    with tempfile.TemporaryDirectory(prefix="meshnode-bench-") as folder:
        home = Path(folder)
        async with contractor(home) as addresses, broker(home, addresses) as pair:
            yield home, pair
