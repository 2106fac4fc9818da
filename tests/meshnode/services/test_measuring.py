"""A node's agents are measured by their examples, once, and what is known survives.

In virtual time (a MockClock's).
"""

import msgspec
import trio

from meshnode.config import HostConfig, NodeConfig
from meshnode.node import Node
from meshnode.ports import Example
from protocol.likeness import Likeness
from protocol.limits import CLAIM_LIFETIME_MS
from protocol.records import Measured
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import TextAgent, answers_after, play, start

GOOD = Example({"text": "a"}, {"text": "A"})
OTHER_CASE = Example({"text": "b"}, {"text": "b"})


def examined(**options: object) -> TextAgent:
    return TextAgent(answers_after(0.2), examples=[GOOD, OTHER_CASE], **options)


def measured(node: Node) -> Measured:
    (capability,) = node.host.capabilities()
    return capability.measured


def test_an_agent_is_measured_by_its_examples_and_the_mesh_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = examined()
        node, other = await start(mesh, a=[agent], b=[])
        assert measured(node) == Measured()
        await trio.sleep(60.0)
        assert agent.calls == ["a", "b"]
        claim = measured(node)
        assert (claim.samples, claim.tried, claim.right) == (2, 2, 1)
        assert 199 <= claim.latency_ms <= 201
        assert claim.holds(now_ms=node.clock.now_ms())
        await trio.sleep(60.0)
        (heard,) = [record for record in other.known() if record.peer == node.peer]
        assert heard.capabilities[0].measured.right == 1
        await trio.sleep(3_600.0)
        assert agent.calls == ["a", "b"], "once will do"

    play(story)


def test_what_was_measured_is_claimed_after_a_crash_unless_the_agent_is_another() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[examined(like=Likeness("normalised"))])
        await trio.sleep(60.0)
        claim = measured(node)
        assert claim.right == 2
        mesh.crash("a")
        node = await mesh.restart("a")
        assert measured(node) == claim
        await node.remove_agent("shout")
        node.add_agent(examined(price_mc=99))
        await trio.sleep(1.0)
        assert measured(node) == Measured()
        await node.measuring.measure()
        assert measured(node).right == 1

    play(story)


def test_a_claim_that_has_lapsed_is_made_anew() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = examined()
        (node,) = await start(mesh, a=[agent])
        await trio.sleep(60.0)
        old = msgspec.structs.replace(
            measured(node), at_ms=node.clock.now_ms() - CLAIM_LIFETIME_MS
        )
        node.host.recall("shout", old)
        node.measuring._rows.clear()
        assert node.host.latency_ms("shout") == 0
        await node.measuring.measure()
        assert len(agent.calls) == 2, "it was tried a minute ago"
        node.measuring._tried.clear()
        await node.measuring.measure()
        assert len(agent.calls) == 4
        assert measured(node).holds(now_ms=node.clock.now_ms())

    play(story)


def test_an_owner_may_leave_it_out() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = examined()
        config = msgspec.structs.replace(CONFIG, host=HostConfig(measure=False))
        assert isinstance(config, NodeConfig)
        await start(mesh, config, a=[agent])
        await trio.sleep(60.0)
        assert agent.calls == []

    play(story)
