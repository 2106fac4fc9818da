"""Families are told over a mesh, by tasks that look like any; agreement counts by them.

In virtual time (a MockClock's).
"""

from meshnode.adapters.agents.function import FunctionAgent
from meshnode.ports import Agent
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import play, start

CHAT = "text.chat@1"


def chat(model: str, *, declared: str) -> Agent:
    """Return an agent that answers as a model does, and declares what it likes."""

    async def answer(prompt: str) -> str:
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
