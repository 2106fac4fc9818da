"""What every transport promises, simulated or real: bytes, ends and dials."""

import hashlib

import pytest
import trio
import trio.testing

from meshnode.errors import StreamLost, Unreachable
from meshnode.ports import Stream, Transport
from tests.contracts.conversations import (
    ECHO,
    MIB,
    OTHER,
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


async def test_what_is_delivered_is_all_that_came_and_then_comes_the_end(
    transports: Transports,
) -> None:
    sent = pattern(400_000)

    async def tell(stream: Stream) -> None:
        await stream.send(sent[:1000])
        await stream.receive()  # so that the first of it is there before it is asked for
        await stream.send(sent[1000:])
        await stream.finish()

    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(OTHER, tell)
            stream = await dial(here, there, OTHER)
            came = bytearray(await receive_exactly(stream, 1))
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert stream.deliver_to(came.extend)
            assert came == sent[:1000]
            await stream.send(b"on")
            assert await stream.receive() == b""
            assert came == sent


async def test_a_stream_that_is_delivered_from_can_be_sent_on_and_is_lost_like_any_other(
    transports: Transports,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with transports(2) as (here, there):
            there.serve(ECHO, echo)
            stream = await dial(here, there)
            came = bytearray()
            assert stream.deliver_to(came.extend)
            sent = pattern(3 * MIB)  # more than a window: the sender has to wait
            await stream.send(sent)
            while len(came) < len(sent):
                await trio.lowlevel.checkpoint()
            assert came == sent
            await there.disconnect(here.peer)
            with pytest.raises(StreamLost):
                await stream.receive()


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
        async with transports(2) as (_, gone):
            peer, addresses = gone.peer, tuple(gone.addresses())
        async with transports(1) as (here,):
            assert here.peer != peer, "not a dial to itself"
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
