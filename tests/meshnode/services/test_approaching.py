"""Whom a broker asks for offers before it has anything to award, and what that saves.

In virtual time (a MockClock's).
"""

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from meshnode.config import DirectoryConfig
from meshnode.domain.matching import Candidate
from meshnode.services import looking
from meshnode.services import market as markets
from meshnode.services.bodies import CFP, OFFERS
from meshnode.services.looking import Looking, Provider
from meshnode.services.sessions import Sessions
from simulations.agents import ECHO, Act, Temper
from simulations.graphs import map_graph
from simulations.mesh import CONFIG, SimMesh
from simulations.stage import Stage
from simulations.world import World, run

if TYPE_CHECKING:
    from meshnode.ports import JsonValue
    from meshnode.services.context import Context
    from meshnode.services.looking import Finder

NODES = 24
DHT_ONLY = msgspec.structs.replace(CONFIG, directory=DirectoryConfig(catalogue=False))


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str, str]]:
    """Return a count of what was asked, by who asked, whom, and what."""
    asked: Counter[tuple[str, str, str]] = Counter()
    honest = Sessions.request

    async def request(
        self: Sessions, peer: str, method: str, body: bytes, **options: Any
    ) -> bytes:
        asked[self.peer, peer, method] += 1
        return await honest(self, peer, method, body, **options)

    monkeypatch.setattr(Sessions, "request", request)
    return asked


async def mesh_of_many(world: World, *, brokers: int = 1) -> Stage:
    """Return a mesh in which many agents are as good as each other."""
    mesh = Stage(world)
    mesh.add([Act(ECHO, Temper(latency_s=(0.1, 0.1)))], n=NODES, name="maker")
    mesh.add(n=brokers, name="broker")
    await mesh.ready()
    await trio.sleep(5)
    return mesh


def of(
    requests: Counter[tuple[str, str, str]], mesh: SimMesh, name: str, method: str
) -> set[str]:
    """Return whom a node has asked that."""
    own = mesh.peer(name)
    return {peer for by, peer, what in requests if (by, what) == (own, method)}


def test_few_are_asked_for_a_single_sub_task(
    requests: Counter[tuple[str, str, str]],
) -> None:
    async def story(world: World) -> None:
        mesh = await mesh_of_many(world)
        end = await mesh.submit(ECHO.capability, {"text": "x"}, by="broker0")
        assert end.state == "completed"
        asked = of(requests, mesh.mesh, "broker0", OFFERS)
        assert len(asked) == markets.APPROACHED_MIN
        assert not of(requests, mesh.mesh, "broker0", CFP), "an offer came of it"

    run(story, seed=1)


@pytest.mark.parametrize(("count", "expected"), [(10, 10), (200, markets.APPROACHED_MAX)])
def test_so_many_are_asked_as_have_something_to_do(
    count: int, expected: int, requests: Counter[tuple[str, str, str]]
) -> None:
    async def story(world: World) -> None:
        mesh = await mesh_of_many(world)
        words: list[JsonValue] = [f"word {number}" for number in range(count)]
        end = await mesh.submit(map_graph(ECHO), {"words": words}, by="broker0")
        assert end.state == "completed"
        assert len(of(requests, mesh.mesh, "broker0", OFFERS)) == expected
        assert not of(requests, mesh.mesh, "broker0", CFP), "offers came of it"

    run(story, seed=1)


def test_brokers_that_know_the_same_do_not_all_ask_the_same(
    requests: Counter[tuple[str, str, str]],
) -> None:
    async def story(world: World) -> None:
        mesh = await mesh_of_many(world, brokers=6)
        for number in range(6):
            for maker in range(NODES):  # who is met already is as near as the others
                peer = mesh.mesh.peer(f"maker{maker}")
                await mesh.node(f"broker{number}").sessions.connect(peer)
            await mesh.submit(ECHO.capability, {"text": "x"}, by=f"broker{number}")
        asked = [of(requests, mesh.mesh, f"broker{number}", OFFERS) for number in range(6)]
        # Of 24 that were asked, some by several; four, if all asked the same.
        assert len(set().union(*asked)) > 2 * markets.APPROACHED_MIN
        assert all(len(one) == markets.APPROACHED_MIN for one in asked)

    run(story, seed=1)


def test_while_nobody_asked_answers_others_are_asked(
    requests: Counter[tuple[str, str, str]],
) -> None:
    """Given that whoever is asked first has frozen a moment before."""

    async def story(world: World) -> None:
        mesh = await mesh_of_many(world)
        found = mesh.node("broker0").market.candidates(ECHO.capability)
        asked = {one.peer for one in found if one.asked}
        assert len(asked) == markets.APPROACHED_MAX
        for name in mesh.mesh.members:
            if mesh.mesh.peer(name) in asked:
                mesh.freeze(name)
        end = await mesh.submit(ECHO.capability, {"text": "x"}, by="broker0")
        assert end.state == "completed"
        assert len(of(requests, mesh.mesh, "broker0", OFFERS)) > markets.APPROACHED_MAX

    run(story, seed=1)


def test_a_job_with_more_to_do_than_the_known_have_room_for_looks_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given that a search brings four of the twenty-four that are there."""
    monkeypatch.setattr(looking, "_FOUND_MAX", 4)

    async def story(world: World) -> None:
        mesh = Stage(world, config=DHT_ONLY)
        agent = Act(ECHO, Temper(latency_s=(5.0, 5.0), concurrency_max=1))
        mesh.add([agent], n=NODES, name="maker")
        mesh.add(name="broker")
        await mesh.ready()
        await trio.sleep(20)
        one = await mesh.submit(ECHO.capability, {"text": "x"}, by="broker0")
        assert one.state == "completed"
        market = mesh.node("broker0").market
        known = len(market.candidates(ECHO.capability))
        assert known <= 2 * 4, "for one sub-task a search or two will do"
        words: list[JsonValue] = [f"word {number}" for number in range(150)]
        end = await mesh.submit(
            map_graph(ECHO), {"words": words}, by="broker0", deadline_s=600.0
        )
        assert end.state == "completed"
        assert len(market.candidates(ECHO.capability)) > NODES - 4

    run(story, seed=1)


async def test_searches_that_bring_nobody_become_rare(autojump_clock: MockClock) -> None:
    """Given one agent with room for two units, and a hundred to do."""
    searched_s: list[float] = []

    class Nobody:
        def providers(self, _: str) -> list[Provider]:
            return []

        async def search(self, *_: object, **__: object) -> list[Provider]:
            searched_s.append(trio.current_time())
            await trio.lowlevel.checkpoint()
            return []

    looks = Looking(cast("Context", None), cast("Finder", Nobody()), lambda: None)
    found = [
        Candidate(peer="p", agent="a", capability="c", price_mc=0, latency_ms=0, concurrency=1)
    ]
    for _ in range(600):
        if looks.try_begin("c", found, 100):
            await looks.search("c")
        await trio.sleep(1)
    assert len(searched_s) <= 12, "ten minutes"
    pauses_s = [after - before for before, after in pairwise(searched_s)]
    assert pauses_s == sorted(pauses_s)
    helpless = 0
    for _ in range(60):
        helpless += looks.try_begin("c", [], 1)
        await trio.sleep(1)
    assert helpless > 10, "while nobody is known it is looked for them all the time"
