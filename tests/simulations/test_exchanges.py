"""What bad weather does to questions and answers: real sessions of two nodes, asked anew.

A transport loses, doubles and reorders nothing while a connection lives.  So a loss of
packets shows as a lost connection, and doubles and another order show across connections.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from meshnode.errors import StreamLost, Unreachable
from meshnode.services.sessions import Incoming, Sessions
from simulations.network import SimNetwork, SimTransport
from simulations.weather import ROUGH, Weather, break_chance
from simulations.world import World, run

QUICK = Weather(latency_s=0.005, jitter_s=0.005, split_chance=0.0)


@dataclass
class Side:
    """One node that has sessions and nothing else, and echoes what it is asked.

    Attributes:
        sessions: The real ones.
        heard: Every question that reached a handler, in order.
    """

    sessions: Sessions
    heard: list[bytes] = field(default_factory=list)

    async def echo(self, incoming: Incoming) -> bytes:
        self.heard.append(incoming.body)
        await trio.lowlevel.checkpoint()
        return incoming.body

    async def live(self, *, task_status: Any) -> None:
        self.sessions.handle("echo", self.echo)
        await self.sessions.run(task_status=task_status)


def side(world: World, transport: SimTransport) -> Side:
    network = world.network
    return Side(
        Sessions(
            transport,
            network="test",
            clock=world.clock(),
            emit=lambda _event, **_fields: None,
            addresses=lambda peer: network.transport(peer).addresses(),
        )
    )


def play(
    story: Callable[[SimNetwork, Side, Side], Awaitable[None]],
    weather: Weather,
    *,
    seed: int = 1,
    a_listens: bool = True,
) -> None:
    async def scenario(world: World) -> None:
        a = side(world, world.network.transport("a", listens=a_listens))
        b = side(world, world.network.transport("b"))
        for one in (a, b):
            await world.nursery.start(one.live)
        await story(world.network, a, b)
        assert world.network.handler_failures == []

    run(scenario, seed=seed, weather=weather)


async def ask(asker: Side, peer: str, body: bytes) -> int:
    """Ask until there is an answer; return how often the connection was lost meanwhile."""
    lost = 0
    while True:
        try:
            answer = await asker.sessions.request(peer, "echo", body, timeout_s=60)
        except StreamLost:
            lost += 1
        except Unreachable:
            await trio.sleep(1.0)
        else:
            assert answer == body
            return lost


async def ask_many(asker: Side, peer: str, count: int, *, pause_s: float = 0.0) -> float:
    """Return in what share of ``count`` exchanges and repeats the connection was lost."""
    lost = 0
    for number in range(count):
        lost += await ask(asker, peer, b"%d" % number)
        if pause_s:
            await trio.sleep(pause_s)
    return lost / (count + lost)


def doubled(heard: list[bytes]) -> int:
    return sum(times > 1 for times in Counter(heard).values())


@pytest.mark.parametrize("share", [0.02, 0.10, 0.25])
def test_as_many_exchanges_lose_their_connection_as_were_asked_for(share: float) -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        assert await ask_many(a, "b", 2000) == pytest.approx(share, abs=0.02)

    play(story, Weather(break_chance=break_chance(share), split_chance=0.0))


def test_of_ten_in_a_hundred_that_are_lost_five_arrive_twice() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        await ask_many(a, "b", 2000)
        assert doubled(b.heard) / 2000 == pytest.approx(0.05, abs=0.012)
        # Each is heard in its turn: the asker waits for the answer before it goes on.
        assert [int(body) for body in b.heard] == sorted(int(body) for body in b.heard)

    play(story, Weather(break_chance=break_chance(0.10), split_chance=0.0))


def test_rough_weather_is_what_it_says() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        assert await ask_many(a, "b", 2000, pause_s=0.1) == pytest.approx(0.10, abs=0.02)
        assert doubled(b.heard) / 2000 == pytest.approx(0.05, abs=0.02)

    play(story, ROUGH)


def test_where_all_arrives_late_whatever_is_asked_again_had_arrived() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        # The answers that arrive late are no loss, so half as many are asked again; the
        # pause lets the asker notice before its next question.
        lost = await ask_many(a, "b", 2000, pause_s=0.1)
        assert lost == pytest.approx(0.05, abs=0.012)
        assert doubled(b.heard) / 2000 == pytest.approx(lost, abs=0.01)

    weather = Weather(
        break_chance=break_chance(0.10), late_chance=1.0, late_s=0.0, split_chance=0.0
    )
    play(story, weather)


def test_sessions_drop_a_question_that_would_come_behind_the_next_one() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        await ask(a, "b", b"0")
        network.set_weather(Weather(break_chance=1.0, late_chance=1.0, late_s=3.0))
        with pytest.raises(StreamLost):
            await a.sessions.request("b", "echo", b"1", timeout_s=60)
        network.set_weather(QUICK)
        await ask(a, "b", b"2")
        await trio.sleep(4.0)
        assert b.heard == [b"0", b"2"]

    play(story, QUICK)


def test_a_node_that_cannot_be_dialled_asks_and_is_asked_and_comes_back() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        with pytest.raises(Unreachable):
            await b.sessions.request("a", "echo", b"early", timeout_s=60)
        await ask(a, "b", b"hello")
        assert await ask(b, "a", b"hello yourself") == 0
        network.break_link("a", "b")
        await trio.sleep(5.0)
        with pytest.raises(Unreachable):  # until it dials again
            await b.sessions.request("a", "echo", b"where are you?", timeout_s=60)
        await ask(a, "b", b"here")
        assert await ask(b, "a", b"good") == 0
        assert a.heard == [b"hello yourself", b"good"]

    play(story, QUICK, a_listens=False)
