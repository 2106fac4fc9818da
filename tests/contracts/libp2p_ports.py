"""The real ports, on loopback sockets, for the contract suites."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from meshnode.adapters.kad_directory import open_directory
from meshnode.adapters.libp2p_transport import Libp2pTransport, open_transport
from tests.contracts.implementations import Participant


def seed(number: int) -> bytes:
    """Return the key seed of the test's node ``number``."""
    return hashlib.sha256(b"contract %d" % number).digest()


@asynccontextmanager
async def transports(count: int) -> AsyncIterator[Sequence[Libp2pTransport]]:
    """Run ``count`` transports that know nothing of each other."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_transport(seed(i))) for i in range(count)]


#: A made-up record: what a directory does with it is decided by the validator alone.
_RECORD = b"record of "


def make_record(peer: str, sequence: int) -> bytes:
    """Return a record of ``peer``; its last bytes depend on all that comes before."""
    body = _RECORD + b"%s %d " % (peer.encode(), sequence)
    return body + hashlib.sha256(body).hexdigest().encode()


def judge_record(peer: str, record: bytes) -> int | None:
    """Return the sequence of a record that :func:`make_record` made for ``peer``."""
    words = record.removeprefix(_RECORD).split(b" ")
    if len(words) != 3 or not words[1].isdigit():
        return None
    sequence = int(words[1])
    return sequence if record == make_record(peer, sequence) else None


def bootstrap_address(transport: Libp2pTransport) -> str:
    """Return what others are given to join."""
    return f"{transport.addresses()[0]}/p2p/{transport.peer}"


@asynccontextmanager
async def directories(count: int) -> AsyncIterator[Sequence[Participant]]:
    """Run ``count`` nodes of a DHT; the first one's address is all the others get."""
    async with AsyncExitStack() as stack:
        participants: list[Participant] = []
        bootstrap: list[str] = []
        for number in range(count):
            transport = await stack.enter_async_context(open_transport(seed(number)))
            directory = await stack.enter_async_context(
                open_directory(transport, "test", judge_record, bootstrap=bootstrap)
            )
            bootstrap = bootstrap or [bootstrap_address(transport)]
            participants.append(
                Participant(
                    peer=transport.peer,
                    directory=directory,
                    signed_record=partial(make_record, transport.peer),
                )
            )
        yield participants
