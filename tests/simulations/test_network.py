"""What the simulated network can do to a node, and what it never does."""

from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio
import trio.testing

from meshnode.errors import StreamLost, Unreachable
from meshnode.ports import Stream
from simulations.network import CALM, SimNetwork, SimStream, Weather, open_network
from simulations.trace import Trace
from simulations.world import World, run

ECHO = "/echo/1"
HOLD = "/hold/1"

STEADY = Weather(latency_s=0.1, jitter_s=0.0, split_chance=0.0)


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.receive():
        await stream.send(data)


async def hold(stream: Stream) -> None:
    """Take a stream and do nothing with it."""
    await trio.sleep_forever()


def start(network: SimNetwork, *peers: str) -> None:
    """Let ``peers`` serve."""
    for peer in peers:
        transport = network.transport(peer)
        transport.serve(ECHO, echo)
        transport.serve(HOLD, hold)


async def dial(network: SimNetwork, here: str, there: str, protocol: str = ECHO) -> SimStream:
    """Open a stream between two peers."""
    addresses = network.transport(there).addresses()
    return await network.transport(here).open(there, protocol, addresses=addresses)


def play(story: Callable[[SimNetwork], Awaitable[None]], weather: Weather = STEADY) -> None:
    """Tell a story on a network where peers a, b and c serve."""

    async def scenario(world: World) -> None:
        start(world.network, "a", "b", "c")
        await story(world.network)
        assert world.network.handler_failures == []

    run(scenario, seed=1, weather=weather)


async def arrives_after_s(stream: SimStream) -> float:
    """Return how long the next bytes take."""
    begun_s = trio.current_time()
    await stream.receive()
    return trio.current_time() - begun_s


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


# --- breakage ---------------------------------------------------------------------


def test_a_break_is_never_silent_and_never_partial() -> None:
    async def story(network: SimNetwork) -> None:
        broken = 0
        for _ in range(50):
            stream = await dial(network, "a", "b")
            sent = got = b""
            try:
                for i in range(30):
                    await stream.send(b"%03d" % i)
                    sent += b"%03d" % i
                    got += await stream.receive()
            except StreamLost:
                broken += 1
            assert sent.startswith(got)
            await network.transport("a").disconnect("b")
        assert 10 < broken < 50

    play(story, Weather(break_chance=0.02, split_chance=0.0))


def test_a_break_takes_every_stream_between_the_two_and_no_other() -> None:
    async def story(network: SimNetwork) -> None:
        lost = [await dial(network, "a", "b") for _ in range(3)]
        lost.append(await dial(network, "b", "a"))
        kept = await dial(network, "a", "c")
        await lost[0].send(b"on its way")
        network.break_link("a", "b")
        for stream in lost:
            with pytest.raises(StreamLost):
                await stream.receive()
            with pytest.raises(StreamLost):
                await stream.send(b"x")
        await kept.send(b"x")
        assert await kept.receive() == b"x"
        again = await dial(network, "a", "b")
        await again.send(b"x")
        assert await again.receive() == b"x"

    play(story)


def test_a_half_open_connection_is_silent_until_the_other_side_dials_again() -> None:
    async def story(network: SimNetwork) -> None:
        unaware = await dial(network, "b", "a")
        network.break_link("a", "b", notice_s=None)
        await unaware.send(b"anyone?")
        with trio.move_on_after(3600) as patience:
            await unaware.receive()
        assert patience.cancelled_caught
        assert network.connected("b", "a")
        assert not network.connected("a", "b")
        begun_s = trio.current_time()
        with pytest.raises(StreamLost):
            await dial(network, "b", "a")
        assert trio.current_time() - begun_s == pytest.approx(5.2, abs=0.003)
        await dial(network, "a", "b")
        with pytest.raises(StreamLost):
            await unaware.receive()

    play(story)


# --- crashes ----------------------------------------------------------------------


def test_a_crash_ends_handlers_streams_and_listener() -> None:
    async def story(network: SimNetwork) -> None:
        ended: list[float] = []

        async def until_the_end(stream: Stream) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

        dead = network.transport("b")
        dead.serve("/long/1", until_the_end)
        stream = await dial(network, "a", "b", "/long/1")
        own = await dial(network, "b", "a")
        crashed_s = trio.current_time()
        network.crash("b", notice_s=2.0)
        with pytest.raises(StreamLost):
            await own.receive()
        with pytest.raises(StreamLost):
            await stream.receive()
        assert trio.current_time() == pytest.approx(crashed_s + 2.0, abs=0.003)
        assert ended == [crashed_s]
        with pytest.raises(Unreachable):
            await network.transport("a").open("b", ECHO, addresses=dead.addresses())
        with pytest.raises(Unreachable):
            await dead.open("a", ECHO, addresses=network.transport("a").addresses())

    play(story)


def test_a_handler_that_has_not_started_yet_does_not_survive_a_crash() -> None:
    async def story(network: SimNetwork) -> None:
        ran: list[str] = []

        async def note(stream: Stream) -> None:
            await trio.lowlevel.checkpoint()
            ran.append(stream.peer)

        network.transport("b").serve("/note/1", note)
        await dial(network, "a", "b", "/note/1")  # its handler is ready to start
        network.crash("b")
        await trio.sleep(10)
        assert ran == []

    play(story, CALM)


def test_a_peer_that_restarts_serves_again_at_its_address() -> None:
    async def story(network: SimNetwork) -> None:
        addresses = network.transport("b").addresses()
        await dial(network, "a", "b")
        network.crash("b", notice_s=None)
        network.transport("b").serve(ECHO, echo)
        # a has not noticed yet, and finds out by asking for a stream.
        with pytest.raises(StreamLost):
            await dial(network, "a", "b")
        await network.transport("a").disconnect("b")
        stream = await network.transport("a").open("b", ECHO, addresses=addresses)
        await stream.send(b"x")
        assert await stream.receive() == b"x"

    play(story)


# --- frozen peers -----------------------------------------------------------------


def test_nothing_gets_in_or_out_of_a_frozen_peer_until_the_thaw() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        own = await dial(network, "b", "a")
        await stream.send(b"before")
        assert await stream.receive() == b"before"
        network.freeze("b")
        await stream.send(b"meanwhile")
        await own.send(b"from within")
        for waiting in (stream, own):
            with trio.move_on_after(3600) as patience:
                await waiting.receive()
            assert patience.cancelled_caught
        assert network.connected("a", "b"), "frozen, and connected all the same"
        network.thaw("b")
        assert await stream.receive() == b"meanwhile"
        assert await own.receive() == b"from within"

    play(story)


def test_a_frozen_peer_does_not_read_what_has_arrived() -> None:
    async def story(network: SimNetwork) -> None:
        own = await dial(network, "b", "a")
        await own.send(b"x")
        await trio.sleep(1)
        network.freeze("b")
        with trio.move_on_after(3600) as patience:
            await own.receive()
        assert patience.cancelled_caught
        network.thaw("b")
        assert await own.receive() == b"x"

    play(story)


def test_a_frozen_peer_answers_no_dial_within_the_limit() -> None:
    async def story(network: SimNetwork) -> None:
        network.freeze("b")
        begun_s = trio.current_time()
        with pytest.raises(Unreachable):
            await dial(network, "a", "b")
        assert trio.current_time() - begun_s == pytest.approx(5.2, abs=0.003)
        network.timetable.at(trio.current_time() + 2.0, network.thaw, "b")
        await dial(network, "a", "b")  # in time

    play(story)


# --- partitions -------------------------------------------------------------------


def test_a_short_cut_only_delays() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        for text in (b"one ", b"two ", b"three"):
            await stream.send(text)
        network.partition(["a"], ["b"])
        network.timetable.at(trio.current_time() + 10, network.partition)
        got = b""
        while len(got) < 13:
            got += await stream.receive()
        assert got == b"one two three"
        await trio.sleep(100)
        assert network.connected("a", "b"), "the limit counts from the last cut"

    play(story)


def test_a_long_cut_breaks_the_connections_across_it_and_no_other() -> None:
    async def story(network: SimNetwork) -> None:
        across = await dial(network, "a", "b")
        inside = await dial(network, "b", "c")
        cut_s = trio.current_time()
        network.partition(["a"], ["b", "c"])
        with pytest.raises(StreamLost):
            await across.receive()
        assert trio.current_time() == pytest.approx(cut_s + 20, abs=0.003)
        with pytest.raises(Unreachable):
            await dial(network, "a", "b")
        await inside.send(b"x")
        assert await inside.receive() == b"x"
        network.partition()
        await dial(network, "a", "b")

    play(story)


def test_who_is_on_no_island_reaches_everyone() -> None:
    async def story(network: SimNetwork) -> None:
        network.partition(["a"], ["b"])
        await dial(network, "c", "a")
        await dial(network, "c", "b")

    play(story)


def test_a_one_way_cut_stops_one_direction_only() -> None:
    async def story(network: SimNetwork) -> None:
        heard: list[bytes] = []

        async def listen(stream: Stream) -> None:
            while data := await stream.receive():
                heard.append(data)

        network.transport("b").serve("/listen/1", listen)
        network.transport("a").serve("/listen/1", listen)
        to_b = await dial(network, "a", "b", "/listen/1")
        to_a = await dial(network, "b", "a", "/listen/1")
        network.cut_one_way("a", "b")
        await to_b.send(b"lost")
        await to_a.send(b"heard")
        await trio.sleep(10)
        assert heard == [b"heard"]
        with pytest.raises((Unreachable, StreamLost)):
            await dial(network, "b", "a")  # an answer can't come
        network.mend_one_way("a", "b")
        await trio.sleep(1)
        assert heard == [b"heard", b"lost"]

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
