"""The simulated ports, for the contract suites; the weather is mild but not still."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from random import Random

from meshnode.ports import Transport
from simulations.directory import Lossiness, SimDirectory
from simulations.network import Weather, open_network
from tests.contracts.implementations import Participant

#: As PeerIds, never the same twice: who has gone is nobody in the next network.
_numbers = count(1)

_WEATHER = Weather(latency_s=0.0002, jitter_s=0.0003, split_chance=0.2, dial_limit_s=1.0)


@asynccontextmanager
async def transports(peers: int) -> AsyncIterator[Sequence[Transport]]:
    """Yield transports of one simulated network."""
    async with open_network(Random(peers), weather=_WEATHER) as network:
        yield [network.transport(f"peer-{next(_numbers)}") for _ in range(peers)]


@asynccontextmanager
async def directories(peers: int) -> AsyncIterator[Sequence[Participant]]:
    """Yield participants of one lossy simulated directory."""
    lossiness = Lossiness(miss_chance=0.2, publish_failure_chance=0.2)
    directory = SimDirectory(Random(peers), sequence_of, lossiness=lossiness)
    yield [_participant(directory, f"peer-{next(_numbers)}") for _ in range(peers)]


def _participant(directory: SimDirectory, peer: str) -> Participant:
    return Participant(
        peer, directory.port(peer), lambda sequence: made_up_record(peer, sequence)
    )


def made_up_record(peer: str, sequence: int) -> bytes:
    """Return what stands for a signed record here."""
    return f"{peer} {sequence} signed".encode()


def sequence_of(peer: str, record: bytes) -> int | None:
    """Refuse what :func:`made_up_record` did not make for ``peer``."""
    parts = record.decode().split(" ")
    if len(parts) != 3 or parts[0] != peer or parts[2] != "signed":
        return None
    return int(parts[1])
