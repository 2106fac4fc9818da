"""What the simulated network can do to a node: breaks, crashes, frozen peers, cuts."""

from dataclasses import replace

import pytest
import trio

from meshnode.errors import StreamLost, Unreachable
from meshnode.ports import Stream
from simulations.network import CALM, SimNetwork, Weather
from tests.simulations.stories import ECHO, STEADY, dial, echo, play

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


def test_who_waits_on_a_half_open_connection_goes_on_when_it_is_noticed() -> None:
    async def story(network: SimNetwork) -> None:
        await dial(network, "b", "a")
        begun_s = trio.current_time()
        network.break_link("a", "b", notice_s=2.0)
        with pytest.raises(StreamLost):
            await dial(network, "b", "a")
        assert trio.current_time() == pytest.approx(begun_s + 2.0, abs=0.003)

    play(story)


def test_a_peer_behind_a_cut_hears_of_a_hang_up_when_it_heals() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        far = await dial(network, "b", "a")
        network.partition(["a"], ["b"])
        await stream.send(b"x")
        await network.transport("a").disconnect("b")
        assert not network.connected("a", "b")
        await trio.sleep(5)
        assert network.connected("b", "a")
        network.partition()
        await trio.sleep(1)
        assert not network.connected("b", "a")
        with pytest.raises(StreamLost):
            await far.receive()

    play(story)


def test_a_cut_that_lasts_ends_a_connection_that_was_hung_up() -> None:
    async def story(network: SimNetwork) -> None:
        await dial(network, "a", "b")
        network.partition(["a"], ["b"])
        await network.transport("a").disconnect("b")
        await trio.sleep(19)
        assert network.connected("b", "a")
        await trio.sleep(2)
        assert not network.connected("b", "a")

    play(story)


# --- late ---------------------------------------------------------------------------

LATE = Weather(latency_s=0.1, jitter_s=0.0, split_chance=0.0, break_chance=1.0, late_chance=1.0)


class Ear:
    """Keeps what one peer hears, and how each stream ended."""

    def __init__(self, network: SimNetwork, peer: str) -> None:
        self.heard: list[bytes] = []
        self.ends: list[str] = []
        network.transport(peer).serve("/ear/1", self.listen)

    async def listen(self, stream: Stream) -> None:
        try:
            while data := await stream.receive():
                self.heard.append(data)
        except StreamLost:
            self.ends.append("lost")


def test_what_is_under_way_at_a_break_may_still_arrive_before_the_break_is_noticed() -> None:
    async def story(network: SimNetwork) -> None:
        ear = Ear(network, "b")
        stream = await dial(network, "a", "b", "/ear/1")
        await stream.send(b"before")
        network.set_weather(LATE)
        with pytest.raises(StreamLost):
            await stream.send(b"during")
        assert not network.connected("a", "b")
        assert network.connected("b", "a")
        await trio.sleep(1)
        assert b"".join(ear.heard) == b"beforeduring"
        assert ear.ends == ["lost"]
        assert not network.connected("b", "a")

    play(story)


def test_what_is_said_on_a_new_connection_may_overtake_what_is_late_on_the_old() -> None:
    async def story(network: SimNetwork) -> None:
        ear = Ear(network, "b")
        old = await dial(network, "a", "b", "/ear/1")
        network.set_weather(replace(LATE, late_s=30.0))
        with pytest.raises(StreamLost):
            await old.send(b"first")
        network.set_weather(STEADY)
        network.partition(["c"], ["d"])  # what happens elsewhere hurries nothing
        new = await dial(network, "a", "b", "/ear/1")
        await new.send(b"second")
        await trio.sleep(31)
        assert ear.heard == [b"second", b"first"]
        assert network.connected("b", "a"), "the end of the old one ends only the old one"
        await new.send(b"third")
        await trio.sleep(1)
        assert ear.heard[2:] == [b"third"]

    play(story)


def test_what_is_late_waits_for_obstacles_too_and_is_lost_if_its_listener_crashes() -> None:
    async def story(network: SimNetwork) -> None:
        for peer, obstacle in (("b", network.freeze), ("c", network.crash)):
            ear = Ear(network, peer)
            stream = await dial(network, "a", peer, "/ear/1")
            network.set_weather(replace(LATE, late_s=1.0))
            with pytest.raises(StreamLost):
                await stream.send(b"x")
            network.set_weather(STEADY)
            obstacle(peer)
            await trio.sleep(5)
            assert ear.heard == []
            network.thaw(peer)
            await trio.sleep(1)
            assert ear.heard == ([b"x"] if peer == "b" else [])

    play(story)


@pytest.mark.parametrize("anew", [False, True])
def test_nothing_late_is_delivered_to_the_dead(*, anew: bool) -> None:
    async def story(network: SimNetwork) -> None:
        async def say(stream: Stream) -> None:
            await stream.send(b"x")
            await trio.sleep(1)
            network.set_weather(replace(LATE, late_s=30.0))
            await stream.send(b"y")

        network.transport("a").serve("/say/1", say)
        came = bytearray()
        stream = await dial(network, "b", "a", "/say/1")
        assert stream.deliver_to(came.extend)
        await trio.sleep(1.1)
        assert not network.connected("a", "b")
        assert network.connected("b", "a")
        if anew:
            network.set_weather(STEADY)
            await dial(network, "a", "b")
        network.crash("b")
        await trio.sleep(60)
        assert came == b"x"
        assert list(network._links) == [], "nothing is left of the dead"

    play(story)


def test_what_a_peer_said_before_its_crash_may_arrive() -> None:
    async def story(network: SimNetwork) -> None:
        ear = Ear(network, "b")
        stream = await dial(network, "a", "b", "/ear/1")
        network.set_weather(replace(LATE, break_chance=0.0))
        await stream.send(b"last words")
        network.crash("a")
        await trio.sleep(1)
        assert ear.heard == [b"last words"]
        assert ear.ends == ["lost"]

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


def test_a_crash_during_a_dial_fails_the_dial() -> None:
    async def story(network: SimNetwork) -> None:
        network.freeze("b")
        network.timetable.at(trio.current_time() + 2, network.crash, "b")
        network.timetable.at(trio.current_time() + 2, network.thaw, "b")
        with pytest.raises(Unreachable):
            await dial(network, "a", "b")
        assert trio.current_time() == pytest.approx(2.0, abs=0.003)
        assert not network.connected("a", "b")

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


def test_what_is_delivered_to_a_frozen_peer_waits_for_the_thaw() -> None:
    async def story(network: SimNetwork) -> None:
        own = await dial(network, "b", "a")
        came = bytearray()
        assert own.deliver_to(came.extend)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own.receive)
            await own.send(b"before ")
            await trio.sleep(1)
            network.freeze("b")
            await own.send(b"meanwhile")  # echoed, and nobody is there to take it
            await trio.sleep(3600)
            assert came == b"before "
            network.thaw("b")
            await trio.sleep(1)
            assert came == b"before meanwhile"
            nursery.cancel_scope.cancel()

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


def test_a_cut_that_heals_while_bytes_are_under_way_never_swaps_them() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        now_s = trio.current_time()
        network.timetable.at(now_s + 0.08, network.partition, ["a"], ["b"])
        network.timetable.at(now_s + 0.12, network.partition)
        await stream.send(b"early ")  # arrives during the cut
        await trio.sleep(0.05)
        await stream.send(b"late")  # arrives after it
        got = b""
        while len(got) < 10:
            got += await stream.receive()
        assert got == b"early late"

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
