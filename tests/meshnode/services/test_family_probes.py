"""Families are told over a mesh, by tasks that look like any; agreement counts by them.

In virtual time (a MockClock's).
"""

from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.config import ANYONE, MEMBERS, AccessConfig, NodeConfig, TrustConfig
from meshnode.node import Node
from meshnode.ports import Agent, JsonValue
from meshnode.services.job_terms import Terms
from protocol.graph import Source, SubTask, TaskGraph
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import play, start, until

CHAT = "text.chat@1"


def chat(model: str, *, declared: str, heard: list[str] | None = None) -> Agent:
    """Return an agent that answers as a model does, and declares what it likes."""

    async def answer(prompt: str) -> str:
        if heard is not None:
            heard.append(prompt)
        return f"{model} thinks of {prompt}"

    return FunctionAgent(answer, CHAT, name="chat", description="Chats.", model_family=declared)


def test_a_model_is_told_by_how_it_answers_and_not_by_what_it_declares() -> None:
    async def story(mesh: SimMesh) -> None:
        broker, one, other, liar = await start(
            mesh,
            b=[],
            one=[chat("llama", declared="llama")],
            other=[chat("llama", declared="llama")],
            liar=[chat("llama", declared="qwen")],
        )
        agents = [f"{node.peer}/chat" for node in (one, other, liar)]
        judged = broker.broker.judging.family
        assert [judged(CHAT, agent) for agent in agents] == ["?"] * 3, "one unknown for all"
        await broker.families.probe(CHAT)
        assert [judged(CHAT, agent) for agent in agents] == ["llama"] * 3
        assert judged("text.none@1", "nobody/chat") == ""
        mesh.crash("b")
        again = await mesh.restart("b")
        assert again.families.family(agents[2]) == "llama"

    play(story)


# --- without being asked -----------------------------------------------------------------

CHATTING = TaskGraph(
    name="chatting",
    subtasks=[
        SubTask(
            id="chat",
            capability=CHAT,
            inputs={"prompt": Source(kind="input", name="prompts")},
            each=["prompt"],
        )
    ],
    outputs={"said": Source(kind="task", name="chat")},
)


def config(callers: str = ANYONE, **trust: Any) -> NodeConfig:
    return msgspec.structs.replace(
        CONFIG,
        access=AccessConfig(callers=callers),
        trust=TrustConfig(**{"spot_share": 1.0, "work_bits": 0, **trust}),
    )


async def work(node: Node, calls: int, assurance: str | float = 0.5) -> None:
    """Have others chat for ``node``, and let what follows happen."""
    prompts: list[JsonValue] = [f"word {number}" for number in range(calls)]
    job = await node.submit(CHATTING, {"prompts": prompts}, Terms(assurance=assurance))
    await node.wait(job)
    await trio.sleep(20.0)


async def llamas(mesh: SimMesh, heard: list[str], **trust: Any) -> tuple[Node, list[str]]:
    """Start a broker, and two that declare what they are; return their agents' ids, too."""
    broker, *others = await start(
        mesh,
        config(**trust),
        b=[],
        one=[chat("llama", declared="llama", heard=heard)],
        other=[chat("llama", declared="llama", heard=heard)],
    )
    return broker, [f"{node.peer}/chat" for node in others]


def asked(heard: list[str]) -> int:
    """Return how many questions are among what was heard."""
    return sum(not text.startswith("word") for text in heard)


def test_who_works_in_jobs_that_want_to_be_sure_is_probed_within_the_share() -> None:
    async def story(mesh: SimMesh) -> None:
        heard: list[str] = []
        broker, agents = await llamas(mesh, heard)
        await work(broker, 10)
        assert asked(heard) == 0, "half of all calls aren't two dozen yet"
        while not asked(heard):
            assert len(heard) < 100
            await work(broker, 10)
        assert asked(heard) == 24
        assert len(heard) - 24 >= 48
        assert [broker.broker.judging.family(CHAT, agent) for agent in agents] == ["llama"] * 2
        mesh.crash("b")
        broker = await mesh.restart("b")
        await until(lambda: len(broker.known()) == 3)
        await work(broker, 60)
        assert asked(heard) == 24, "what was told counts for a week"

    play(story)


@pytest.mark.parametrize(
    ("more", "access", "assurance", "count"),
    [
        ({}, ANYONE, 0.5, 24),
        ({"family_probes": "never"}, ANYONE, 0.5, 0),
        ({"spot_share": 0.0}, ANYONE, 0.5, 0),
        ({}, MEMBERS, 0.5, 0),
        ({"family_probes": "always"}, MEMBERS, 0.5, 24),
        ({}, ANYONE, "", 0),
    ],
    ids=["public", "never", "no share", "private", "private and asked to", "not assured"],
)
def test_nothing_is_probed_that_an_owner_does_not_want(
    more: dict[str, Any], access: str, assurance: str | float, count: int
) -> None:
    async def story(mesh: SimMesh) -> None:
        heard: list[str] = []
        (broker,) = await start(mesh, config(access, **more), b=[])
        for name in ("one", "other"):
            agent = chat("llama", declared="llama", heard=heard)
            await mesh.start(name, agents=partial(tuple, [agent]))
        await until(lambda: len(broker.known()) == 3)
        await work(broker, 60, assurance)
        assert asked(heard) == count

    play(story)


def test_who_declares_alone_what_nobody_knows_is_not_asked() -> None:
    async def story(mesh: SimMesh) -> None:
        heard: list[str] = []
        broker, *_ = await start(
            mesh,
            config(),
            b=[],
            one=[chat("llama", declared="llama", heard=heard)],
            other=[chat("qwen", declared="qwen", heard=heard)],
        )
        await work(broker, 60)
        assert asked(heard) == 0

    play(story)


def test_an_own_agent_is_asked_along_and_costs_nothing_of_the_share() -> None:
    async def story(mesh: SimMesh) -> None:
        heard: list[str] = []
        own, theirs = chat("llama", declared="llama"), chat("llama", declared="llama")
        broker, one, _ = await start(
            mesh,
            config(),
            b=[own],
            one=[chat("llama", declared="llama", heard=heard)],
            other=[theirs],
        )
        offers = broker.market.declared(CHAT)
        probes = broker.spots._probes
        assert probes.wants(CHAT, [f"{one.peer}/chat"])
        probes.earn(CHAT, 24, 0.0)
        taken = probes.take(CHAT)
        assert taken is not None
        assert set(taken.chosen) == set(offers)
        assert probes.take(CHAT) is None, "it is spent, and nobody is wanted"

    play(story)
