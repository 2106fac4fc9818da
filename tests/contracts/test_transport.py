"""What every transport promises, simulated or real."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

from meshnode.errors import StreamLost, Unreachable
from meshnode.ports import Stream, Transport
from tests.contracts.implementations import (
    IMPLEMENTATIONS,
    LIMIT_S,
    Transports,
    implementation,
)

ECHO = "/meshnode/test-echo/1"
OTHER = "/meshnode/test-other/1"
MIB = 1024 * 1024


@pytest.fixture(params=IMPLEMENTATIONS)
def transports(request: pytest.FixtureRequest) -> Transports:
    """The way to get transports of the implementation under test."""
    made: Transports = implementation(request.param).transports
    return made


# --- what the claims are told with ------------------------------------------------


async def echo(stream: Stream) -> None:
    """Send back what comes, until it ends."""
    while data := await stream.receive():
        await stream.send(data)
    await stream.finish()


async def dial(here: Transport, there: Transport, protocol: str = ECHO) -> Stream:
    """Open a stream from ``here`` to ``there``."""
    return await here.open(there.peer, protocol, addresses=there.addresses())


async def receive_exactly(stream: Stream, size: int) -> bytes:
    """Receive ``size`` bytes; less is a failure."""
    parts = bytearray()
    while len(parts) < size:
        part = await stream.receive(size - len(parts))
        assert part, f"ended after {len(parts)} of {size} bytes"
        parts += part
    return bytes(parts)


async def receive_all(stream: Stream) -> bytes:
    """Receive until the peer has finished."""
    parts = bytearray()
    while part := await stream.receive():
        parts += part
    return bytes(parts)


async def ping(stream: Stream, text: bytes = b"ping") -> None:
    """Show that an echo stream works."""
    await stream.send(text)
    assert await receive_exactly(stream, len(text)) == text


async def is_over(stream: Stream) -> bool:
    """Read to the end; tell whether it was an end (True) or a break (False)."""
    try:
        await receive_all(stream)
    except StreamLost:
        return False
    return True


async def cancel_after(steps: int, work: Callable[[], Awaitable[object]]) -> None:
    """Run ``work`` and cancel it when the scheduler has gone round ``steps`` times."""
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await work()

        nursery.start_soon(run)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


def pattern(size: int) -> bytes:
    """Bytes in which a missing, doubled or swapped piece shows."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


# --- bytes ------------------------------------------------------------------------


async def test_bytes_arrive_whole_and_in_order(transports: Transports) -> None:
    sizes = [1, 2, 7, 100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 200_000, 3]
    sent = pattern(sum(sizes))
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there), trio.open_nursery() as nursery:
            there.serve(ECHO, echo)
            stream = await dial(here, there)

            async def send() -> None:
                start = 0
                for size in sizes:
                    await stream.send(sent[start : start + size])
                    start += size
                await stream.finish()

            nursery.start_soon(send)
            assert await receive_all(stream) == sent


async def test_both_ends_know_whom_they_talk_to(transports: Transports) -> None:
    seen: list[str] = []

    async def who(stream: Stream) -> None:
        seen.append(stream.peer)
        await stream.send(b"!")
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, who)
            stream = await dial(here, there)
            await receive_all(stream)
            assert stream.peer == there.peer
            assert seen == [here.peer]


async def test_receive_never_returns_more_than_asked_for(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await stream.send(b"0123456789")
            got = b""
            while len(got) < 10:
                part = await stream.receive(3)
                assert 1 <= len(part) <= 3
                got += part
            assert got == b"0123456789"


async def test_sending_nothing_is_not_an_end(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await stream.send(b"")
            await ping(stream)


async def test_four_mebibytes_arrive_with_the_same_hash(transports: Transports) -> None:
    data = pattern(4 * MIB)

    async def digest(stream: Stream) -> None:
        seen = hashlib.sha256()
        while part := await stream.receive():
            seen.update(part)
        await stream.send(seen.digest())
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, digest)
            stream = await dial(here, there)
            await stream.send(data)
            await stream.finish()
            assert await receive_all(stream) == hashlib.sha256(data).digest()


# --- ends -------------------------------------------------------------------------


async def test_after_finish_the_other_direction_still_works(transports: Transports) -> None:
    async def answer_after_the_end(stream: Stream) -> None:
        question = await receive_all(stream)
        for _ in range(3):
            await stream.send(question)
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, answer_after_the_end)
            stream = await dial(here, there)
            await stream.send(b"abc")
            await stream.finish()
            assert await receive_all(stream) == b"abcabcabc"
            assert await stream.receive() == b"", "the end stays the end"


async def test_what_a_handler_sent_arrives_although_it_has_returned(
    transports: Transports,
) -> None:
    async def reply_and_return(stream: Stream) -> None:
        await stream.send(await stream.receive())

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, reply_and_return)
            stream = await dial(here, there)
            await stream.send(b"x" * 1000)
            assert await receive_exactly(stream, 1000) == b"x" * 1000
            await is_over(stream)  # an end or a break, but not silence


async def test_a_peer_that_closes_is_noticed_by_a_receiver(transports: Transports) -> None:
    async def close(stream: Stream) -> None:
        await stream.receive()
        await stream.aclose()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, close)
            stream = await dial(here, there)
            await stream.send(b"bye")
            await is_over(stream)


async def test_a_peer_that_closes_is_noticed_by_a_sender(transports: Transports) -> None:
    async def close(stream: Stream) -> None:
        await stream.receive()
        await stream.aclose()

    async def send_for_ever(stream: Stream) -> None:
        while True:
            await stream.send(bytes(10_000))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, close)
            stream = await dial(here, there)
            with pytest.raises(StreamLost):
                await send_for_ever(stream)


async def test_aclose_is_idempotent_and_ends_both_directions(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await ping(stream)
            for _ in range(3):
                await stream.aclose()
            with pytest.raises(StreamLost):
                await stream.receive()
            with pytest.raises(StreamLost):
                await stream.send(b"late")


async def test_aclose_unblocks_a_pending_receive(transports: Transports) -> None:
    lost = trio.Event()
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there), trio.open_nursery() as nursery:
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await ping(stream)

            async def wait() -> None:
                with pytest.raises(StreamLost):
                    await stream.receive()
                lost.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await stream.aclose()
            await lost.wait()


async def test_closing_one_stream_leaves_the_others_alone(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            streams = [await dial(here, there) for _ in range(6)]
            for stream in streams:
                await ping(stream)
            for closed in streams[::2]:
                await closed.aclose()
            for stream in streams[1::2]:
                await ping(stream)


# --- dialling ---------------------------------------------------------------------


async def test_dialling_nobody_is_unreachable(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(1) as (gone,):
            peer, addresses = gone.peer, tuple(gone.addresses())
        async with transports(1) as (here,):
            with pytest.raises(Unreachable):
                await here.open(peer, ECHO, addresses=addresses)


async def test_without_an_address_a_stranger_is_unreachable(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            with pytest.raises(Unreachable):
                await here.open(there.peer, ECHO)


async def test_an_address_that_answers_as_someone_else_is_unreachable(
    transports: Transports,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(3) as (here, there, wanted):
            there.serve(ECHO, echo)
            wanted.serve(ECHO, echo)
            with pytest.raises(Unreachable):
                await here.open(wanted.peer, ECHO, addresses=there.addresses())


async def test_who_was_dialled_once_is_known(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            await ping(await dial(here, there))
            await ping(await here.open(there.peer, ECHO))


async def test_a_protocol_that_the_peer_does_not_speak_is_refused(
    transports: Transports,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            with pytest.raises((StreamLost, Unreachable)):
                await dial(here, there, OTHER)
            await ping(await dial(here, there))


async def test_each_protocol_reaches_its_own_handler(transports: Transports) -> None:
    async def other(stream: Stream) -> None:
        await stream.send(b"other")
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            there.serve(OTHER, other)
            assert await receive_all(await dial(here, there, OTHER)) == b"other"
            await ping(await dial(here, there))


async def test_both_may_dial_each_other_at_the_same_time(transports: Transports) -> None:
    async def dial_and_ping(here: Transport, there: Transport, text: bytes) -> None:
        stream = await dial(here, there)
        await ping(stream, text)
        await stream.finish()
        assert await is_over(stream)

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (one, two):
            one.serve(ECHO, echo)
            two.serve(ECHO, echo)
            async with trio.open_nursery() as nursery:
                for i in range(8):
                    nursery.start_soon(dial_and_ping, one, two, b"one %d" % i)
                    nursery.start_soon(dial_and_ping, two, one, b"two %d" % i)


# --- limits -----------------------------------------------------------------------


async def test_streams_over_the_limit_are_reset_and_the_rest_go_on(
    transports: Transports,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(3) as (here, there, third):
            there.serve(ECHO, echo, per_peer_max=2)
            kept = [await dial(here, there) for _ in range(2)]
            for stream in kept:
                await ping(stream)
            with pytest.raises(StreamLost):
                await ping(await dial(here, there))
            for stream in kept:
                await ping(stream)
            await ping(await dial(third, there))  # the limit is per peer


async def test_a_closed_stream_no_longer_counts(transports: Transports) -> None:
    async def open_when_there_is_room(here: Transport, there: Transport) -> Stream:
        while True:  # the peer counts the last stream out in its own time
            stream = await dial(here, there)
            try:
                await ping(stream)
            except StreamLost:
                continue
            return stream

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo, per_peer_max=1)
            for _ in range(5):
                stream = await open_when_there_is_room(here, there)
                await stream.aclose()
            for _ in range(5):
                stream = await open_when_there_is_room(here, there)
                await stream.finish()
                assert await is_over(stream)


async def test_a_receiver_that_does_not_read_makes_the_sender_wait(
    transports: Transports,
) -> None:
    total = 64 * MIB
    sent = 0
    received = 0
    read = trio.Event()

    async def read_late(stream: Stream) -> None:
        nonlocal received
        await read.wait()
        while part := await stream.receive():
            received += len(part)
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there), trio.open_nursery() as nursery:
            there.serve(OTHER, read_late)
            there.serve(ECHO, echo)
            full = await dial(here, there, OTHER)
            other = await dial(here, there)

            async def send() -> None:
                nonlocal sent
                for _ in range(total // 16_384):
                    await full.send(bytes(16_384))
                    sent += 16_384
                    if read.is_set() and sent >= stalled_at + MIB:
                        break
                await full.finish()

            nursery.start_soon(send)
            # The sender stands still when many round trips on another stream, which
            # must go on meanwhile, find its count unchanged.
            stalled_at, unchanged = -1, 0
            while unchanged < 25:
                await ping(other)
                unchanged = unchanged + 1 if sent == stalled_at else 0
                stalled_at = sent
            assert 0 < stalled_at <= 16 * MIB, "bounded"
            read.set()
            assert await is_over(full)
            assert received == sent > stalled_at


# --- faults -----------------------------------------------------------------------


async def test_a_handler_that_raises_harms_only_its_stream(transports: Transports) -> None:
    async def raises(stream: Stream) -> None:
        await stream.receive()
        raise ValueError("a bug in a handler")

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            there.serve(OTHER, raises)
            healthy = await dial(here, there)
            for _ in range(3):
                broken = await dial(here, there, OTHER)
                await broken.send(b"?")
                await is_over(broken)
                await ping(healthy)
            await ping(await dial(here, there))


async def test_disconnect_breaks_the_streams_at_both_ends(transports: Transports) -> None:
    lost_there = 0
    all_lost = trio.Event()

    async def count_losses(stream: Stream) -> None:
        nonlocal lost_there
        await stream.send(b"!")
        try:
            await stream.receive()
        except StreamLost:
            lost_there += 1
            if lost_there == 3:
                all_lost.set()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(OTHER, count_losses)
            there.serve(ECHO, echo)
            streams = [await dial(here, there, OTHER) for _ in range(3)]
            for stream in streams:
                assert await stream.receive() == b"!"
            await here.disconnect(there.peer)
            for stream in streams:
                with pytest.raises(StreamLost):
                    await stream.receive()
                with pytest.raises(StreamLost):
                    await stream.send(b"late")
            await all_lost.wait()
            await ping(await dial(here, there))


async def test_disconnect_unblocks_whoever_waits(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await ping(stream)

            async def wait() -> None:
                with pytest.raises(StreamLost):
                    await stream.receive()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await here.disconnect(there.peer)


async def test_disconnecting_a_stranger_does_nothing(transports: Transports) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            await here.disconnect(there.peer)
            await ping(await dial(here, there))


# --- cancellation -----------------------------------------------------------------


async def test_cancelled_sends_leave_other_streams_usable(transports: Transports) -> None:
    async def work(here: Transport, there: Transport, steps: int) -> None:
        stream = await dial(here, there)
        await cancel_after(steps, lambda: stream.send(pattern(300_000)))
        await stream.aclose()

    with trio.fail_after(LIMIT_S):
        await _cancel_many(transports, work)


async def test_cancelled_receives_leave_other_streams_usable(transports: Transports) -> None:
    async def work(here: Transport, there: Transport, steps: int) -> None:
        stream = await dial(here, there)
        await stream.send(pattern(1000))
        await cancel_after(steps, lambda: receive_exactly(stream, 2000))
        await stream.aclose()

    with trio.fail_after(LIMIT_S):
        await _cancel_many(transports, work)


async def test_cancelled_dials_leave_other_streams_usable(transports: Transports) -> None:
    async def work(here: Transport, there: Transport, steps: int) -> None:
        async def open_and_close() -> None:
            await (await dial(here, there)).aclose()

        await cancel_after(steps, open_and_close)

    with trio.fail_after(LIMIT_S):
        await _cancel_many(transports, work)


async def _cancel_many(
    transports: Transports,
    work: Callable[[Transport, Transport, int], Awaitable[None]],
    rounds: Sequence[int] = tuple(range(40)),
) -> None:
    """Cancel ``work`` a little later each round; a bystander must see nothing of it."""
    async with transports(2) as (here, there):
        there.serve(ECHO, echo, per_peer_max=200)
        bystander = await dial(here, there)
        for steps in rounds:
            await work(here, there, steps)
            await ping(bystander, b"round %d" % steps)
        await ping(await dial(here, there))


async def test_a_cancelled_receive_loses_nothing(transports: Transports) -> None:
    async def count_up(stream: Stream) -> None:
        await stream.send(pattern(50_000))
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, count_up)
            stream = await dial(here, there)
            got = bytearray()
            for steps in range(1000):

                async def receive_some() -> None:
                    got.extend(await stream.receive(1000))

                await cancel_after(steps % 4, receive_some)
            got += await receive_all(stream)
            assert bytes(got) == pattern(50_000)
