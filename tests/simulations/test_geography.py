"""Where peers live, how long bytes take from there to there, and what is as measured."""

from collections import Counter
from dataclasses import replace
from math import inf
from random import Random

import pytest
import trio

from meshnode.ports import Stream
from simulations import geography, weather
from simulations.climate import Climate
from simulations.geography import (
    DATA_CENTRE,
    HOME,
    OFFICE,
    Access,
    Delay,
    Geography,
    Home,
    continents,
    round_trips_ms,
)
from simulations.network import SimNetwork
from simulations.weather import CALM, LAN, WORLD, Weather
from simulations.world import World, run
from tests.simulations.stories import STEADY, arrives_after_s, dial, play, start

NO_DELAY = Weather(latency_s=0.0, jitter_s=0.0, split_chance=0.0)


def at(**homes: str) -> Weather:
    """Weather with peers at given places, each in a data centre."""
    return replace(NO_DELAY, geography=Geography(homes=tuple(homes.items())))


# --- the data ---------------------------------------------------------------------


def test_every_pair_of_places_has_figures() -> None:
    places = list(continents())
    assert len(places) >= 20
    pairs = [(one, other) for i, one in enumerate(places) for other in places[i + 1 :]]
    assert list(round_trips_ms()) == pairs
    assert all(1 <= median <= p95 < 400 for median, p95 in round_trips_ms().values())


def test_every_inhabited_continent_has_a_place() -> None:
    assert set(continents().values()) == {
        "Africa",
        "Asia",
        "Europe",
        "North America",
        "Oceania",
        "South America",
    }


def test_figures_that_one_can_check_by_hand() -> None:
    measured = round_trips_ms()
    assert measured["amsterdam", "london"] == (11, 12.5)
    assert measured["london", "sydney"] == (261, 277)
    assert measured["sao-paulo", "tokyo"] == (262, 270)


# --- delays -----------------------------------------------------------------------


def round_trips_s(there: Weather, back: Weather, seed: int) -> list[float]:
    rng = Random(seed)
    return sorted(there.delay_s(rng) + back.delay_s(rng) for _ in range(20_000))


@pytest.mark.parametrize(
    ("one", "other"),
    [("amsterdam", "london"), ("johannesburg", "seattle"), ("hong-kong", "paris")],
)
def test_round_trips_have_the_median_and_the_tail_that_were_measured(
    one: str, other: str
) -> None:
    climate = Climate(at(a=one, b=other), Random(1))
    drawn_s = round_trips_s(climate.weather("a", "b"), climate.weather("b", "a"), seed=5)
    median_ms, p95_ms = round_trips_ms()[one, other]
    assert drawn_s[10_000] * 1000 == pytest.approx(median_ms, rel=0.01)
    assert drawn_s[19_000] * 1000 == pytest.approx(p95_ms, rel=0.02)
    above, below = drawn_s[19_000] - drawn_s[10_000], drawn_s[10_000] - drawn_s[1_000]
    assert above > 2 * below, "late is more common than early"


def test_a_delay_is_never_below_its_floor() -> None:
    climate = Climate(at(a="tokyo", b="madrid"), Random(1))
    there = climate.weather("a", "b")
    rng = Random(2)
    drawn_s = [there.delay_s(rng) for _ in range(20_000)]
    assert there.latency_s < min(drawn_s) < there.latency_s + there.tail_s / 10


def test_delays_at_the_same_place_are_short() -> None:
    climate = Climate(at(a="madrid", b="madrid"), Random(1))
    drawn_s = round_trips_s(climate.weather("a", "b"), climate.weather("b", "a"), seed=5)
    assert drawn_s[10_000] == pytest.approx(0.001, rel=0.05)


def test_an_access_adds_its_delay_at_each_end() -> None:
    here, there = Home("paris", HOME), Home("warsaw", OFFICE)
    bare = Geography().delay(Home("paris", DATA_CENTRE), Home("warsaw", DATA_CENTRE))
    delay = Geography().delay(here, there)
    assert delay == Delay(
        bare.floor_s + HOME.floor_s + OFFICE.floor_s, bare.tail_s + HOME.tail_s + OFFICE.tail_s
    )


def test_bytes_on_the_network_take_as_long_as_their_places_are_apart() -> None:
    async def story(network: SimNetwork) -> None:
        for other, round_trip_ms in (("b", 11), ("c", 264.5)):
            stream = await dial(network, "a", other)
            took_s = []
            for _ in range(300):
                await stream.send(b"x")
                took_s.append(await arrives_after_s(stream))
            # Each delay is rounded up to a tick of a millisecond.
            assert sorted(took_s)[150] * 1000 == pytest.approx(round_trip_ms + 1, abs=1.5)

    play(story, at(a="amsterdam", b="london", c="sydney"))


def test_a_weather_may_add_to_what_places_make() -> None:
    calm = Climate(at(a="tokyo", b="madrid"), Random(1)).weather("a", "b")
    burst = Climate(replace(at(a="tokyo", b="madrid"), latency_s=0.4, jitter_s=0.6), Random(1))
    assert burst.weather("a", "b").latency_s == calm.latency_s + 0.4
    assert burst.weather("a", "b").jitter_s == 0.6


def test_a_round_trip_in_a_lan_takes_less_than_a_millisecond() -> None:
    async def story(network: SimNetwork) -> None:
        stream = await dial(network, "a", "b")
        took_s = []
        for _ in range(200):
            await stream.send(b"x")
            took_s.append(await arrives_after_s(stream))
        assert 0.0002 <= min(took_s) < sorted(took_s)[100] < 0.0005

    play(story, LAN)


# --- who lives where --------------------------------------------------------------


def test_a_peer_lives_where_the_seed_says_whoever_else_is_there() -> None:
    def homes(seed: int, order: list[str]) -> dict[str, Home | None]:
        found: dict[str, Home | None] = {}

        async def scenario(world: World) -> None:
            world.network.set_weather(WORLD)
            found.update({peer: world.network.home(peer) for peer in order})

        run(scenario, seed=seed)
        return found

    peers = [f"peer-{i}" for i in range(50)]
    one, other = homes(1, peers), homes(2, peers)
    for order in (peers[::-1], peers[:10], peers[::3]):
        assert homes(1, order) == {peer: one[peer] for peer in order}
    assert sum(one[peer] != other[peer] for peer in peers) > 40
    assert len({home.place for home in one.values() if home}) > 20


def test_places_and_accesses_are_drawn_by_their_weights() -> None:
    here = Geography(
        places=("paris", "tokyo"),
        weights=(3.0, 1.0),
        accesses=(HOME, OFFICE),
        access_weights=(1.0, 4.0),
    )
    homes = [here.home(f"peer-{i}", 7) for i in range(2000)]
    assert Counter(home.place for home in homes)["paris"] == pytest.approx(1500, abs=80)
    assert Counter(home.access for home in homes)[OFFICE] == pytest.approx(1600, abs=80)


def test_a_geography_takes_nothing_from_other_chance() -> None:
    rng = Random(1)
    Climate(WORLD, rng).weather("a", "b")
    assert rng.random() == Random(1).random()


def test_a_peer_that_comes_back_is_where_it_was() -> None:
    async def story(network: SimNetwork) -> None:
        before, delay = network.home("b"), network.weather("a", "b")
        network.crash("b")
        start(network, "b")
        network.set_weather(replace(WORLD, latency_s=0.4))
        assert network.home("b") == before
        assert network.weather("a", "b").latency_s == delay.latency_s + 0.4
        network.set_weather(WORLD)
        assert network.weather("a", "b") == delay

    play(story, WORLD)


def test_a_network_without_a_geography_is_nowhere() -> None:
    async def story(network: SimNetwork) -> None:
        assert network.home("a") is None
        assert network.weather("a", "b") is STEADY

    play(story)


@pytest.mark.parametrize("preset", [CALM, LAN, WORLD, at(a="tokyo")])
def test_a_weather_prints_as_what_makes_it_again(preset: Weather) -> None:
    names = {**vars(geography), **vars(weather), "inf": inf}
    assert eval(repr(preset), names) == preset  # noqa: S307 - our own text


@pytest.mark.parametrize(
    "wrong",
    [
        {"places": ("atlantis",)},
        {"homes": (("a", "atlantis"),)},
        {"places": ("paris",), "weights": (1.0, 2.0)},
        {"weights": (1.0,)},
        {"access_weights": (1.0, 2.0)},
    ],
)
def test_a_geography_that_could_not_be_drawn_is_refused(wrong: dict[str, tuple[str]]) -> None:
    with pytest.raises(ValueError, match=r"atlantis|as many"):
        Geography(**wrong)  # type: ignore[arg-type]


# --- what an access carries -------------------------------------------------------


class Tally:
    """Counts what comes at one peer, by who sent it."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()

    async def __call__(self, stream: Stream) -> None:
        while part := await stream.receive():
            self.bytes[stream.peer] += len(part)


async def send(network: SimNetwork, here: str, there: str, size_bytes: int) -> None:
    stream = await dial(network, here, there, "/tally/1")
    await stream.send(bytes(size_bytes))
    await stream.finish()


def test_what_leaves_a_peer_shares_its_uplink() -> None:
    async def story(network: SimNetwork) -> None:
        tallies = {peer: Tally() for peer in ("b", "c")}
        for peer, tally in tallies.items():
            network.transport(peer).serve("/tally/1", tally)
        network.set_access("a", Access("slow", up_bytes_per_s=100_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, network, "a", "b", 1_000_000)
            nursery.start_soon(send, network, "a", "c", 1_000_000)
            await trio.sleep(10)
            got = [tally.bytes["a"] for tally in tallies.values()]
            assert sum(got) == pytest.approx(1_000_000, abs=70_000)
            assert got[0] == pytest.approx(got[1], abs=140_000)
        await trio.sleep(10)
        assert [tally.bytes["a"] for tally in tallies.values()] == [1_000_000] * 2

    play(story, NO_DELAY)


def test_what_reaches_a_peer_shares_its_downlink_in_order() -> None:
    async def story(network: SimNetwork) -> None:
        got: dict[str, bytes] = {"a": b"", "b": b""}

        async def keep(stream: Stream) -> None:
            while part := await stream.receive():
                got[stream.peer] += part

        network.transport("c").serve("/tally/1", keep)
        network.set_access("c", Access("slow", down_bytes_per_s=100_000))
        sent = bytes(range(256)) * 2000

        async def tell(peer: str) -> None:
            stream = await dial(network, peer, "c", "/tally/1")
            for begin in range(0, len(sent), 10_000):
                await stream.send(sent[begin : begin + 10_000])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell, "a")
            nursery.start_soon(tell, "b")
            await trio.sleep(1)
            before = sum(map(len, got.values()))
            await trio.sleep(4)
            assert sum(map(len, got.values())) - before == pytest.approx(400_000, abs=20_000)
            # A cut while bytes wait for the access must not change their order.
            network.partition(["a"], ["c"])
            await trio.sleep(2)
            network.partition()
        await trio.sleep(20)
        assert got == {"a": sent, "b": sent}

    play(story, Weather(latency_s=0.05, jitter_s=0.05, split_chance=0.0))


def test_a_small_message_behind_a_large_one_waits_for_that_one_alone() -> None:
    async def story(network: SimNetwork) -> None:
        tally = Tally()
        network.transport("b").serve("/tally/1", tally)
        network.set_access("b", Access("slow", down_bytes_per_s=100_000))
        stream = await dial(network, "a", "b", "/tally/1")
        await stream.send(bytes(50_000))
        for _ in range(10):
            await stream.send(b"x")
        await trio.sleep(0.45)
        assert tally.bytes["a"] == 0
        await trio.sleep(0.1)
        assert tally.bytes["a"] == 50_010

    play(story, NO_DELAY)


def test_an_access_can_change_while_bytes_flow() -> None:
    async def story(network: SimNetwork) -> None:
        tally = Tally()
        network.transport("b").serve("/tally/1", tally)
        stream = await dial(network, "a", "b", "/tally/1")
        network.set_access("a", Access("dialup", up_bytes_per_s=10_000))
        network.timetable.at(trio.current_time() + 10, network.set_access, "a", Access("fibre"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send, bytes(1_000_000))
            await trio.sleep(9.9)
            assert tally.bytes["a"] < 200_000
        await trio.sleep(30)
        assert tally.bytes["a"] == 1_000_000

    play(story, Weather(latency_s=0.05, jitter_s=0.0, split_chance=0.0, window_bytes=50_000))


def test_an_access_that_is_set_adds_its_delays_wherever_the_peer_is() -> None:
    async def story(network: SimNetwork) -> None:
        for everywhere in (STEADY, WORLD):
            network.set_weather(everywhere)
            network.set_access("a", Access("plain"))
            plain_s = network.weather("a", "b").latency_s
            network.set_access("a", Access("satellite", floor_s=0.3))
            assert network.weather("a", "b").latency_s == pytest.approx(plain_s + 0.3)
            assert network.weather("b", "a").latency_s == pytest.approx(plain_s + 0.3)

    play(story)


def test_homes_send_as_fast_as_their_access() -> None:
    async def story(network: SimNetwork) -> None:
        tally = Tally()
        network.transport("b").serve("/tally/1", tally)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, network, "a", "b", 50_000_000)
            await trio.sleep(1)
            before = tally.bytes["a"]
            await trio.sleep(10)
            assert tally.bytes["a"] - before == pytest.approx(25_000_000, rel=0.02)

    geography = Geography(accesses=(HOME,), homes=(("a", "paris"), ("b", "london")))
    play(story, replace(NO_DELAY, geography=geography, window_bytes=10_000_000))
