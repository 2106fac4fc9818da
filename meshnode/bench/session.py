"""P1: what one call to a remote agent costs, beside what users would pick instead.

1 KiB there and back, one call after the other, on loopback: through this node's sessions
(encrypted, both sides authenticated, dispatched by method), AutoGen's distributed runtime,
``grpc.aio``, one long-lived stream of stock py-libp2p, and a raw TCP echo.  Once with both
sides in one process, once in two.

``P1.one_process`` and ``P1.two_processes`` are our median call by AutoGen's.  ``….us`` is
the median call itself and ``….cpu_us`` what it cost in processor time, both sides together.
"""

from contextlib import nullcontext
from typing import Final

import trio

from meshnode.bench.contest import (
    ONE,
    TWO,
    Contestant,
    Score,
    Scores,
    Size,
    check_file,
    hold,
    profiled,
)
from meshnode.bench.extra import extra_environment
from meshnode.bench.figures import Figure, Told

_OURS: Final = Contestant("", "meshnode.bench.session_hop")
_AUTOGEN: Final = Contestant("autogen", "meshnode.bench.beside.autogen_hop", extra=True)
_OTHERS: Final = (
    _AUTOGEN,
    Contestant("grpc", "meshnode.bench.beside.grpc_hop", extra=True),
    Contestant("libp2p", "meshnode.bench.beside.libp2p_hop"),
    Contestant("tcp", "meshnode.bench.beside.tcp_hop"),
)
_WHAT: Final = {
    "": "a request on our session",
    "autogen": "AutoGen's gRPC runtime: not encrypted, nobody authenticated",
    "grpc": "grpc.aio, unary: not encrypted, nobody authenticated",
    "libp2p": "stock py-libp2p, one long-lived stream: nothing dispatched",
    "tcp": "raw TCP echo on Trio: bytes and no more",
}
_LEFT_OUT: Final = "not measured: what to compare with was left out (--no-peers)"
_GOALS: Final = {ONE: 0.25, TWO: 0.4}


QUICK: Final = Size(rounds=10, calls=150)
FULL: Final = Size(rounds=40, calls=400)


def run(told: Told, *, quick: bool, peers: bool = True, profile: str = "") -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Fewer rounds.
        peers: Measure the others, too.
        profile: File for what cProfile sees of our side, in a pass of its own.

    Raises:
        ConfigError: ``profile`` can't be written.
        MeshError: The others can't be installed, or somebody fails; says who and why.
    """
    check_file(profile)
    size = QUICK if quick else FULL
    with extra_environment(told) if peers else nullcontext() as extra:
        scores = trio.run(hold, told, (_OURS, *(_OTHERS if extra else ())), size, extra)
    if profile:
        told("our side once more, under cProfile")
        trio.run(profiled, _OURS, profile, size.calls * size.rounds)
    return figures(scores)


def figures(scores: Scores) -> list[Figure]:
    """Return the figures that ``scores``, by way and contestant, amount to."""
    made: list[Figure] = []
    for way, goal in _GOALS.items():
        ours, autogen = scores[way, _OURS.name], scores.get((way, _AUTOGEN.name))
        ratio = ours.ratio(autogen) if autogen else None
        rounds = len(ours.rounds_us)
        note = f"our p50 by AutoGen's, median of {rounds} rounds" if autogen else _LEFT_OUT
        made.append(
            Figure(id=f"P1.{way}", value=ratio, unit="×", goal=goal, n=ours.calls, note=note)
        )
    for way in _GOALS:
        for contestant in (_OURS, *_OTHERS):
            made += _absolute(way, contestant.name, scores.get((way, contestant.name)))
    return made


def _absolute(way: str, name: str, score: Score | None) -> list[Figure]:
    start = f"P1.{way}.{name}." if name else f"P1.{way}."
    if score is None:
        ids = (f"{start}us", f"{start}cpu_us")
        return [Figure(id=id_, value=None, unit="µs", n=0, note=_LEFT_OUT) for id_ in ids]
    note = f"p50, {_WHAT[name]}; p95 {score.p95_us:.0f}"
    cpu_note = "processor time of a call, both sides"
    return [
        Figure(id=f"{start}us", value=score.p50_us, unit="µs", n=score.calls, note=note),
        Figure(
            id=f"{start}cpu_us", value=score.cpu_per_call_us, unit="µs", n=score.calls,
            note=cpu_note,
        ),
    ]  # fmt: skip
