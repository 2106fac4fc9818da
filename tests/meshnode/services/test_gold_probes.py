"""Golds that nobody waits for: at the owner's pace, within his budget, to whoever needs it.

In virtual time (a MockClock's).
"""

from functools import partial

import msgspec
import pytest
import trio

from meshnode.config import NodeConfig, TrustConfig
from meshnode.node import Node
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.test_golds import SHOUT, agent, keep, lie
from tests.meshnode.services.worlds import TextAgent, play, until

#: Letters, so that each gold is another.
WORDS = [chr(ord("a") + n) for n in range(26)]


def probing(**trust: float) -> NodeConfig:
    return msgspec.structs.replace(CONFIG, trust=TrustConfig(work_bits=0, **trust))  # type: ignore[arg-type] # as told


async def three(mesh: SimMesh, config: NodeConfig) -> tuple[Node, Node, Node]:
    """Start one that probes, one that works and one that lies."""
    agents = {"ada": [], "bob": [TextAgent()], "eve": [TextAgent(lie)]}
    a, b, c = [
        await mesh.start(
            name, agents=partial(tuple, hosted), config=config if name == "ada" else CONFIG
        )
        for name, hosted in agents.items()
    ]
    await until(lambda: len(a.known()) == 3)
    await keep(a, *WORDS)
    return a, b, c


def test_known_agents_are_looked_at_while_nothing_is_to_be_done() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await three(mesh, probing(golds_per_hour=300.0, golds_mc_per_day=200))
        await trio.sleep(360)
        given = [row for _, row in await a.golds.kept.given()]
        assert 15 < len(given) < 45
        assert all(row.unasked for row in given)
        caught = [row.agent for row in given if row.came == "failed"]
        assert caught == [agent(c)], "who lied is blocked, and gets no more"
        assert a.reputation.credibility(SHOUT, agent(b)) > 0.8
        assert a.reputation.book(SHOUT).is_blocked(agent(c))

    play(story)


@pytest.mark.parametrize(
    ("trust", "count"),
    [
        ({}, 0),
        ({"golds_per_hour": 600.0, "golds_mc_per_day": 0}, 0),
        ({"golds_per_hour": 600.0, "golds_mc_per_day": 14}, 5),
    ],
    ids=["nothing said", "no money", "money for four, and a liar's wrong answer isn't paid"],
)
def test_no_more_is_spent_than_the_owner_said(trust: dict[str, float], count: int) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _, _ = await three(mesh, probing(**trust))
        await trio.sleep(300)
        assert len(await a.golds.kept.given()) == count

    play(story)
