"""Our side of the contest of bulk: an artifact of 64 MiB, from its producer to a consumer.

As between two contractors: the producer has it on its disk, the consumer is let read it,
and what comes is hashed before anybody gets it.  See :mod:`meshnode.bench.beside.turns`.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

import trio

from meshnode.adapters.libp2p_transport import open_transport
from meshnode.adapters.sqlite_store import open_store
from meshnode.adapters.system import SystemClock, SystemEntropy
from meshnode.bench.beside.turns import arguments, take_turns
from meshnode.bench.session_hop import silent
from meshnode.config import NodeConfig
from meshnode.services.artifacts import Artifacts, Wanted
from meshnode.services.context import Context
from meshnode.services.signer import Signer
from protocol.keys import Identity

SIZE: Final = 64 * 1024 * 1024
_NETWORK: Final = "bench"
_FETCH_S: Final = 120.0


def _seed(name: str) -> bytes:
    """Return the key of a node that others must know before it is there."""
    return sha256(f"bench {name}".encode()).digest()


@asynccontextmanager
async def _open_artifacts(name: str, known: dict[str, str]) -> AsyncIterator[Artifacts]:
    """Run what keeps and serves a node's artifacts; it finds holders at ``known``."""
    identity = Identity(_seed(name), _seed(f"{name}, exchange"))
    clock, entropy = SystemClock(), SystemEntropy()
    with TemporaryDirectory(prefix="meshnode-bench-") as home:
        async with (
            open_store(Path(home) / "node.db") as store,
            open_transport(_seed(name), emit=silent) as transport,
            trio.open_nursery() as nursery,
        ):
            context = Context(
                signer=Signer(identity, _NETWORK, clock, entropy),
                transport=transport,
                store=store,
                clock=clock,
                entropy=entropy,
                rng=Random(0),  # noqa: S311 - nothing is drawn
                config=NodeConfig(network=_NETWORK, home=home),
                emit=silent,
            )
            artifacts = Artifacts(context)
            artifacts.dial_with(lambda peer: [known[peer]] if peer in known else [])
            known[transport.peer] = transport.addresses()[0]
            nursery.start_soon(artifacts.run)
            yield artifacts
            nursery.cancel_scope.cancel()


async def _main() -> None:
    part, address = arguments()
    known: dict[str, str] = {}
    producer = Identity(_seed("producer"), _seed("producer, exchange")).peer
    data = Random(0).randbytes(SIZE)  # noqa: S311 - the same in both processes
    wanted = Wanted(sha256(data).digest(), SIZE, producer)
    async with (
        _open_artifacts("producer", known) as held,
        _open_artifacts("consumer", known) as consumer,
    ):
        if part == "caller":
            known[producer] = address
        else:
            reader = Identity(_seed("consumer"), _seed("consumer, exchange")).peer
            await held.put(data, job="bench", broker=reader)
        del data
        if part == "callee":
            await take_turns(_readline, address=known[producer])
        else:
            await take_turns(_readline, partial(_call, consumer, wanted))


async def _call(consumer: Artifacts, wanted: Wanted) -> None:
    await consumer.fetch(wanted, timeout_s=_FETCH_S)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
