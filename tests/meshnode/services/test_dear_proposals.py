"""Whoever asks for more than it advertises gets no gold, no probe and no check of its examples.

An agent advertises two millicredits, makes no offers, and asks for a fortune when it is called
for a proposal: the budget of a probe's job is as large as any job's, and bounds nothing.
In virtual time (a MockClock's).
"""

from dataclasses import replace

import pytest
import trio

from meshnode.domain.job import JobState
from meshnode.node import Node
from meshnode.ports import AgentSpec
from meshnode.services import spot_checks
from meshnode.services.bodies import OFFERS, OffersBody
from meshnode.services.job_terms import Terms
from meshnode.services.sessions import Incoming
from protocol.codec import encode
from protocol.messages import Cfp, read_message
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.test_family_probes import CHAT, llamas
from tests.meshnode.services.test_family_probes import work as chatting
from tests.meshnode.services.test_gold_probes import probing, three
from tests.meshnode.services.test_spot_checks import SOON_S, asked, claiming, examples, work
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting

FORTUNE_MC = 400_000
SHOUT = "text.shout@1"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_checks, "_WITHIN_S", SOON_S)


def grow_dear(node: Node, price_mc: int = FORTUNE_MC) -> None:
    """Have a node advertise what it did, make no offers, and propose another price."""
    told, specs = list(node.host.capabilities()), node.host.specs

    async def none(_: Incoming) -> bytes:
        return encode(OffersBody([]))

    def dear() -> dict[str, AgentSpec]:
        return {name: replace(spec, price_mc=price_mc) for name, spec in specs().items()}

    node.sessions._handlers[OFFERS] = none
    node.directory._capabilities = lambda: told
    node.host.specs = dear  # type: ignore[method-assign]  # it is what a cheat would change


def owed_mc(broker: Node, *others: Node) -> int:
    return -sum(broker.ledger.balances.due_mc(node.peer) for node in others)


async def states(node: Node) -> list[JobState]:
    return [(await node.journal(job)).state for job, _ in await node.broker.jobs()]


def test_a_day_s_golds_cost_no_more_than_their_owner_said() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await three(mesh, probing(golds_per_hour=600.0, golds_mc_per_day=14))
        grow_dear(b)
        grow_dear(c)
        a.market._offers.clear()
        await trio.sleep(300)
        rows = [row for _, row in await a.golds.kept.given()]
        assert rows
        assert owed_mc(a, b, c) == sum(row.cost_mc for row in rows) == 0
        assert {row.came for row in rows} == {"nothing"}, "it shows nothing of them"
        probe = (await states(a))[0]
        calls = [fact for unit in probe.units.values() for fact in unit.attempts]
        cfps = [
            read_message(raw, Cfp, network=NETWORK)
            for one in calls
            for raw in one.called.values()
        ]
        assert {cfp.price_max_mc for cfp in cfps} == {1_000_000}, "as any other's"

    play(story)


def test_what_golds_came_to_is_what_is_booked() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await three(mesh, probing(golds_per_hour=600.0, golds_mc_per_day=14))
        await trio.sleep(300)
        rows = [row for _, row in await a.golds.kept.given()]
        assert {row.came: row.cost_mc for row in rows} == {"passed": 2, "failed": 0}
        assert owed_mc(a, b, c) == sum(row.cost_mc for row in rows) <= 14

    play(story)


def test_a_check_of_examples_pays_what_was_looked_at() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, TextAgent(examples=examples()))
        await work(a, b, 1)
        before_mc = owed_mc(a, b)
        job = await a.submit(shouting(), inputs("x"), Terms(budget_mc=10_000))
        await a.wait(job)
        grow_dear(b, 9_000)
        a.market._offers.clear()
        await trio.sleep(SOON_S + 1.0)
        assert len(asked(a)) == 1
        await trio.sleep(10.0)
        assert owed_mc(a, b) == before_mc + 2, "the job's"
        assert a.spots._purses[SHOUT].mc == 2.0, "what wasn't spent is kept"
        assert a.spots.of(SHOUT, f"{b.peer}/shout").asked == 0

    play(story)


def test_a_probe_of_families_pays_what_was_looked_at() -> None:
    async def story(mesh: SimMesh) -> None:
        heard: list[str] = []
        broker, agents = await llamas(mesh, heard)
        await chatting(broker, 40)
        others = [mesh.node(name) for name in ("one", "other")]
        probes, before_mc = broker.spots._probes, owed_mc(broker, *others)
        for node in others:
            grow_dear(node)
        broker.market._offers.clear()
        assert probes.wants(CHAT, agents)
        probes.earn(CHAT, 48.0, 480.0)
        purse = probes._purses[CHAT]
        mc, taken = purse.mc, probes.take(CHAT)
        assert taken is not None
        await probes.probe(CHAT, taken)
        assert owed_mc(broker, *others) == before_mc
        assert purse.mc == mc

    play(story)
