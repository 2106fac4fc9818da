"""Our transport talks to libp2p nodes that we didn't write, and neither notices.

Stock py-libp2p and js-libp2p, each in a process of its own, dial and are dialled.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meshnode.adapters.libp2p_transport import Libp2pTransport, open_transport
from meshnode.adapters.yamux import WINDOW_BYTES_MAX
from meshnode.errors import StreamLost
from meshnode.ports import Stream
from tests.contracts.conversations import MIB, echo, is_over, pattern, ping, receive_all
from tests.interop.others import Other, running

ECHO, SIZE, BREAK, MUTE = (f"/interop/{name}/1" for name in ("echo", "size", "break", "mute"))
PING = "/ipfs/ping/1.0.0"
#: Nothing here takes long; a machine that others use may make it.
LIMIT_S = 50
#: The largest windows that are granted, here and elsewhere, and what senders hold back.
TO_US_MAX = WINDOW_BYTES_MAX + MIB
TO_OTHERS_MAX = 16 * MIB + MIB
FLOOD = 24 * MIB
#: A sender is held up when for so long nothing of ours has run, seconds.
STALL_S = 1.0
#: More than goes into the first window, and no multiple of any piece.
SIZE_BYTES = 5 * MIB + 3


@pytest.fixture(scope="module", params=["py-libp2p", "js-libp2p"])
def other(request: pytest.FixtureRequest) -> Iterator[Other]:
    with running(request.param) as made:
        yield made


@pytest.fixture
async def ours(request: pytest.FixtureRequest) -> AsyncIterator[Libp2pTransport]:
    # Another peer in each test: py-libp2p won't dial one again that was at another address.
    seed = hashlib.sha256(request.node.name.encode()).digest()
    with trio.fail_after(LIMIT_S):
        async with open_transport(seed) as transport:
            yield transport


def whole(transport: Libp2pTransport) -> str:
    return f"{transport.addresses()[0]}/p2p/{transport.peer}"


async def dial(ours: Libp2pTransport, other: Other, protocol: str = ECHO) -> Stream:
    return await ours.open(other.peer, protocol, addresses=[other.address])


async def send_all(stream: Stream, data: bytes) -> None:
    await stream.send(data)
    await stream.finish()


# --- we dial --------------------------------------------------------------------------


async def test_five_megabytes_come_back_as_they_went(
    ours: Libp2pTransport, other: Other
) -> None:
    data = pattern(SIZE_BYTES)
    stream = await dial(ours, other)
    assert stream.peer == other.peer
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, stream, data)
        assert await receive_all(stream) == data


async def test_many_streams_are_open_at_once(ours: Libp2pTransport, other: Other) -> None:
    streams = [await dial(ours, other) for _ in range(60)]
    async with trio.open_nursery() as nursery:
        for number, stream in enumerate(streams):
            nursery.start_soon(ping, stream, b"stream %d" % number)
    for stream in streams:
        await stream.finish()
        assert await is_over(stream)


async def test_it_answers_after_we_have_finished_sending(
    ours: Libp2pTransport, other: Other
) -> None:
    stream = await dial(ours, other, SIZE)
    await send_all(stream, bytes(100_000))
    assert await receive_all(stream) == b"100000"


async def test_a_stream_that_it_breaks_off_is_lost_and_no_other(
    ours: Libp2pTransport, other: Other
) -> None:
    beside = await dial(ours, other)
    stream = await dial(ours, other, BREAK)
    await stream.send(b"?")
    with pytest.raises(StreamLost):
        await receive_all(stream)
    await ping(beside)


async def test_its_ping_service_answers(ours: Libp2pTransport, other: Other) -> None:
    stream = await dial(ours, other, PING)
    await ping(stream, bytes(range(32)))


async def test_one_that_does_not_read_is_not_flooded(
    ours: Libp2pTransport, other: Other
) -> None:
    """Sending waits, other streams go on, and all arrives once it reads."""
    data = pattern(FLOOD)
    stream = await dial(ours, other, MUTE)
    sent = 0

    async def send() -> None:
        nonlocal sent
        for at in range(0, FLOOD, 65_536):
            await stream.send(data[at : at + 65_536])
            sent += 65_536
        await stream.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked(STALL_S)
        assert 0 < sent <= TO_OTHERS_MAX
        await ping(await dial(ours, other))
        got = await other.ask("unmute")
    assert got["sha256"] == hashlib.sha256(data).hexdigest()


# --- it dials -------------------------------------------------------------------------


async def test_five_megabytes_come_back_to_it(ours: Libp2pTransport, other: Other) -> None:
    ours.serve(ECHO, echo)
    await other.ask("echo", address=whole(ours), size=SIZE_BYTES, streams=1)


async def test_it_opens_many_streams_at_once(ours: Libp2pTransport, other: Other) -> None:
    ours.serve(ECHO, echo, per_peer_max=64)
    got = await other.ask("echo", address=whole(ours), size=2_000, streams=60)
    assert got == {"echoed": 60}


async def test_it_pings_us(ours: Libp2pTransport, other: Other) -> None:
    got = await other.ask("ping", address=whole(ours))
    assert got["ms"] >= 0


async def test_it_sees_that_we_broke_a_stream_off(ours: Libp2pTransport, other: Other) -> None:
    async def fail(stream: Stream) -> None:
        await stream.receive()
        raise ValueError("as planned")

    ours.serve(BREAK, fail)
    ours.serve(ECHO, echo)
    assert await other.ask("broken", address=whole(ours)) == {"broken": True}
    await other.ask("echo", address=whole(ours), size=10, streams=1)


async def test_it_does_not_flood_one_of_ours_that_does_not_read(
    ours: Libp2pTransport, other: Other
) -> None:
    """What it may send is what our window grants; what it sent arrives once we read."""
    read, done = trio.Event(), trio.Event()
    got = b""

    async def mute(stream: Stream) -> None:
        nonlocal got
        await read.wait()
        got = await receive_all(stream)
        done.set()

    ours.serve(MUTE, mute)
    ours.serve(ECHO, echo)
    flooded = await other.ask("flood", address=whole(ours), size=FLOOD)
    assert 0 < flooded["sent"] <= TO_US_MAX
    await other.ask("echo", address=whole(ours), size=10, streams=1)
    read.set()
    await done.wait()
    assert got == pattern(FLOOD)
