"""What the simulated network does to bytes and dials, and what it never does."""

from random import Random

import pytest
import trio
import trio.testing

from meshnode.errors import Unreachable
from meshnode.ports import Stream
from simulations.network import SimNetwork, Weather, open_network
from simulations.trace import Trace
from tests.simulations.stories import ECHO, HOLD, arrives_after_s, dial, echo, play, start

# --- delays -----------------------------------------------------------------------


def test_bytes_take_the_latency_each_way() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        await stream.send(b"x")
        assert await arrives_after_s(stream) == pytest.approx(0.2, abs=0.003)

    play(story)


def test_a_slow_line_delivers_at_its_bandwidth() -> None:
    async def story(network: SimNetwork) -> None:
        got = 0

        async def count(stream: Stream) -> None:
            nonlocal got
            while part := await stream.receive():
                got += len(part)
            await stream.send(b"!")

        network.transport("b").serve("/count/1", count)
        stream = await dial(network, "a", "b", "/count/1")
        begun_s = trio.current_time()
        await stream.send(bytes(1_000_000))
        await stream.finish()
        await stream.receive()
        assert got == 1_000_000
        assert trio.current_time() - begun_s == pytest.approx(10.2, abs=0.1)

    slow = Weather(latency_s=0.1, jitter_s=0.0, bandwidth_bytes_per_s=100_000)
    play(story, slow)


def test_jitter_and_splits_never_change_the_order() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        sent = bytes(range(256)) * 20

        async def send() -> None:
            for start_at in range(0, len(sent), 64):
                await stream.send(sent[start_at : start_at + 64])
                await trio.sleep(0.003)

        got = b""
        parts = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(got) < len(sent):
                got += await stream.receive()
                parts += 1
        assert got == sent
        assert parts > 1

    wild = Weather(latency_s=0.01, jitter_s=0.5, spike_chance=0.2, split_chance=0.5)
    play(story, wild)


def test_a_late_message_holds_up_those_behind_it() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        network.set_weather(Weather(latency_s=2.0, jitter_s=0.0))
        await stream.send(b"late ")
        network.set_weather(Weather(latency_s=0.1, jitter_s=0.0))
        await stream.send(b"prompt")
        assert await arrives_after_s(stream) == pytest.approx(2.1, abs=0.003)

    play(story)


def test_a_sender_waits_when_the_window_is_full_and_goes_on_after_a_read() -> None:
    async def story(network: SimNetwork) -> None:
        begin = trio.Event()

        async def read_late(stream: Stream) -> None:
            await begin.wait()
            await stream.receive(100)
            await trio.sleep_forever()

        network.transport("b").serve("/late/1", read_late)
        stream = await dial(network, "a", "b", "/late/1")
        await stream.send(bytes(1000))
        with trio.move_on_after(3600) as patience:
            await stream.send(b"x")
        assert patience.cancelled_caught
        begin.set()
        await stream.send(bytes(100))
        with trio.move_on_after(3600) as patience:
            await stream.send(b"x")
        assert patience.cancelled_caught

    play(story, Weather(window_bytes=1000, split_chance=0.0))


def test_two_tasks_must_not_send_or_receive_at_once() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b", HOLD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive)
            nursery.start_soon(stream.send, bytes(10_000_000))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await stream.receive()
            with pytest.raises(trio.BusyResourceError):
                await stream.send(b"x")
            nursery.cancel_scope.cancel()

    play(story)


def test_streams_that_are_over_are_forgotten() -> None:
    async def story(network: SimNetwork) -> None:
        for _ in range(5):
            stream = await dial(network, "a", "b")
            await stream.send(b"x")
            await stream.receive()
            await stream.finish()
            assert await stream.receive() == b""
        stream = await dial(network, "a", "b", HOLD)
        await stream.aclose()
        await trio.sleep(1)
        (link,) = network.transport("a").links.values()
        # Of the last the handler still runs, but its end knows that it is over.
        assert [len(link.streams[peer]) for peer in ("a", "b")] == [0, 0]

    play(story)


# --- dials ------------------------------------------------------------------------


def test_a_peer_that_does_not_listen_can_dial_and_not_be_dialled() -> None:
    async def story(network: SimNetwork) -> None:
        hidden = network.transport("hidden", listens=False)
        assert hidden.addresses() == ()
        with pytest.raises(Unreachable):
            await dial(network, "a", "hidden")
        hidden.serve(ECHO, echo)
        await dial(network, "hidden", "a")
        back = await dial(network, "a", "hidden")  # on the connection there is now
        await back.send(b"x")
        assert await back.receive() == b"x"

    play(story)


def test_a_peer_that_does_not_listen_is_the_same_after_a_crash() -> None:
    async def story(network: SimNetwork) -> None:
        network.transport("hidden", listens=False)
        await dial(network, "hidden", "a")
        network.crash("hidden")
        again = network.transport("hidden")
        assert again.addresses() == ()
        with pytest.raises(Unreachable):
            await dial(network, "a", "hidden")
        # Nor at the address that a peer in its place would have.
        with pytest.raises(Unreachable):
            await network.transport("a").open("hidden", ECHO, addresses=[again.address])
        again.serve(ECHO, echo)
        await dial(network, "hidden", "a")
        back = await dial(network, "a", "hidden")
        await back.send(b"x")
        assert await back.receive() == b"x"
        network.crash("hidden")
        assert network.transport("hidden", listens=True).addresses() != ()

    play(story)


def test_two_peers_that_do_not_listen_never_meet() -> None:
    async def story(network: SimNetwork) -> None:
        for peer in ("one", "two"):
            network.transport(peer, listens=False)
            await dial(network, peer, "a")
        with pytest.raises(Unreachable):
            await dial(network, "one", "two")

    play(story)


def test_dials_fail_as_often_as_the_weather_says() -> None:
    async def story(network: SimNetwork) -> None:
        failed = 0
        for _ in range(200):
            try:
                await dial(network, "a", "b")
            except Unreachable:
                failed += 1
            await network.transport("a").disconnect("b")
        assert 30 < failed < 90

    play(story, Weather(dial_failure_chance=0.3))


def test_a_link_has_its_own_weather() -> None:
    async def story(network: SimNetwork) -> None:
        near = await dial(network, "a", "c")
        far = await dial(network, "a", "b")
        network.set_weather(Weather(latency_s=2.0, jitter_s=0.0), "b", "a")
        for stream, round_trip_s in ((near, 0.2), (far, 4.0)):
            await stream.send(b"x")
            assert await arrives_after_s(stream) == pytest.approx(round_trip_s, abs=0.003)

    play(story)


# --- reports ----------------------------------------------------------------------


async def test_what_escapes_a_handler_is_reported_but_a_lost_stream_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    trace = Trace(lines_max=100)

    async def buggy(stream: Stream) -> None:
        raise ValueError("a bug")

    async with open_network(Random(1), trace=trace) as network:
        start(network, "a", "b")
        network.transport("b").serve("/buggy/1", buggy)
        await dial(network, "a", "b")
        await dial(network, "a", "b", "/buggy/1")
        await trio.sleep(1)
        network.break_link("a", "b")
        await trio.sleep(1)
        ((peer, protocol, failure),) = network.handler_failures
        assert (peer, protocol, str(failure)) == ("b", "/buggy/1", "a bug")
        assert any("b handler /echo/1: StreamLost" in line for line in trace.lines())


async def test_a_thousand_peers_talk_within_one_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answered = 0

    async def ask(network: SimNetwork, here: str, there: str) -> None:
        nonlocal answered
        stream = await dial(network, here, there)
        for _ in range(2):
            await stream.send(b"x" * 100)
            await stream.receive()
        answered += 1
        await stream.aclose()

    async with open_network(Random(1)) as network:
        peers = [f"peer-{i}" for i in range(1000)]
        start(network, *peers)
        async with trio.open_nursery() as nursery:
            for i, peer in enumerate(peers):
                nursery.start_soon(ask, network, peer, peers[(i * 7 + 1) % 1000])
    # 7 and 1000 share no divisor, so nobody asks itself but who has 6i + 1 = 0.
    assert answered == 1000
