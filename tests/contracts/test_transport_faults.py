"""What every transport promises when something goes wrong: limits, breaks, cancels."""

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio
import trio.testing

from meshnode.errors import StreamLost
from meshnode.ports import Stream, Transport
from tests.contracts.conversations import (
    ECHO,
    MIB,
    OTHER,
    cancel_after,
    dial,
    echo,
    is_over,
    pattern,
    ping,
    receive_all,
    receive_exactly,
)
from tests.contracts.implementations import IMPLEMENTATIONS, LIMIT_S, Transports, implementation


@pytest.fixture(params=IMPLEMENTATIONS)
def transports(request: pytest.FixtureRequest) -> Transports:
    """The way to get transports of the implementation under test."""
    made: Transports = implementation(request.param).transports
    return made


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


async def test_what_is_sent_without_waiting_arrives_whole_or_not_at_all(
    transports: Transports,
) -> None:
    received = bytearray()
    read = trio.Event()

    async def read_late(stream: Stream) -> None:
        await read.wait()
        while part := await stream.receive():
            received.extend(part)
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(OTHER, read_late)
            stream = await dial(here, there, OTHER)
            sent = pattern(32 * MIB)
            at = 0
            while at < len(sent) and stream.send_nowait(sent[at : at + 10_000]):
                at += 10_000
            assert 0 < at <= 16 * MIB, "bounded, although nothing waits"
            read.set()
            await stream.send(sent[at : at + MIB])  # waits, and goes on where that ended
            await stream.finish()
            assert await is_over(stream)
            assert received == sent[: at + MIB]


async def test_nothing_is_sent_without_waiting_on_a_stream_that_is_over(
    transports: Transports,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            await stream.aclose()
            with pytest.raises(StreamLost):
                stream.send_nowait(b"late")


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
