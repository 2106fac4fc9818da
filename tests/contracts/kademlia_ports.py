"""The simulated Kademlia DHT, for the contract suite of directories."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from random import Random

from simulations.kademlia import SimKademlia
from tests.contracts.implementations import Participant
from tests.contracts.simulated_ports import made_up_record, sequence_of

_numbers = count(1)


@asynccontextmanager
async def directories(peers: int) -> AsyncIterator[Sequence[Participant]]:
    """Yield nodes of one DHT; the first one's address is all the others get."""
    rng = Random(peers)
    kademlia = SimKademlia(
        rng,
        sequence_of,
        delay_s=lambda _one, _other: rng.uniform(0.0002, 0.0005),
        reaches=lambda _one, _other: True,
    )
    names = [f"peer-{next(_numbers)}" for _ in range(peers)]
    yield [
        Participant(name, kademlia.join(name, names[:1]), partial(made_up_record, name))
        for name in names
    ]
