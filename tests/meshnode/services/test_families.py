"""A probe asks agents the same, and what it told lasts a week and through a restart."""

import pytest

from meshnode.errors import AgentError, StoreError
from meshnode.ports import JsonValue
from meshnode.services.families import AGENTS_MAX, FAMILY_LIFETIME_MS, Families, Reply
from protocol.records import CallLimits, Capability, Measured
from simulations.clock import SimClock
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, play, start, told

CHAT = "text.chat@1"


def chat(family: str) -> Capability:
    return Capability(
        agent="chat",
        name=CHAT,
        description="Chats.",
        examples=[],
        input_schema=b'{"properties":{"prompt":{"type":"string"}},"type":"object"}',
        output_schema=b"{}",
        price_mc=1,
        limits=CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
        measured=Measured(),
        model_family=family,
    )


class Talkers:
    """Agents that can be asked: who declares what, and which model answers in truth."""

    def __init__(self, **models: tuple[str, str]) -> None:
        self.models = models
        self.asked: dict[str, set[str]] = {}

    def declared(self, capability: str) -> dict[str, Capability]:
        assert capability == CHAT
        return {f"{peer}/chat": chat(said) for peer, (said, _) in self.models.items()}

    async def ask(
        self, agent: str, capability: str, value: dict[str, JsonValue], price_max_mc: int
    ) -> Reply:
        assert price_max_mc == 1, "what its record says"
        assert capability == CHAT
        prompt = value["prompt"]
        assert isinstance(prompt, str)
        self.asked.setdefault(agent, set()).add(prompt)
        model = self.models[agent.partition("/")[0]][1]
        if not model:
            raise AgentError("no answer")
        return Reply({"text": f"{model} answers {prompt}"}, 1)


def families(mesh: SimMesh, talkers: Talkers) -> Families:
    context = mesh.node("a").market._context
    return Families(context, declared=talkers.declared, ask=talkers.ask)


def test_families_are_told_from_answers_and_kept() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[TextAgent()])
        talkers = Talkers(
            b=("llama", "llama"),
            c=("llama", "llama"),
            d=("llama", "qwen"),
            e=("phi", "llama"),
            f=("llama", ""),
        )
        probed = families(mesh, talkers)
        assert probed.family("b/chat") == ""
        await probed.probe(CHAT)
        assert [probed.family(f"{peer}/chat") for peer in "bcdef"] == [
            "llama",
            "llama",
            "",
            "llama",
            "",
        ]
        assert {event["agent"] for event in told(node, "families.unlike")} == {
            "d/chat",
            "e/chat",
        }
        assert probed.probed("f/chat") is None, "it gave no answer"
        first = talkers.asked.pop("b/chat")
        assert all(asked == first for asked in talkers.asked.values())
        again = families(mesh, talkers)
        await again.load()
        assert again.family("e/chat") == "llama"
        await again.probe(CHAT)
        assert talkers.asked["b/chat"].isdisjoint(first), "nobody can keep answers ready"

    play(story)


def test_what_was_probed_lapses_and_no_more_are_asked_than_may_be() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[TextAgent()])
        own = node.peer
        many = {f"p{n}": ("llama", "qwen") for n in range(AGENTS_MAX + 3)}
        talkers = Talkers(**{own: ("llama", "llama")}, **many)
        probed = families(mesh, talkers)
        await probed.probe(CHAT)
        assert len(talkers.asked) == AGENTS_MAX
        assert probed.family(f"{own}/chat") == "llama", "this node knows its own"
        assert {probed.family(agent) for agent in talkers.asked} == {"llama", ""}
        row = probed._rows[f"{own}/chat"]
        assert isinstance(node.clock, SimClock)
        node.clock.jump(FAMILY_LIFETIME_MS)
        assert probed.family(f"{own}/chat") == ""
        assert row.family == "llama"

    play(story)


def test_a_full_disk_is_told() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, a=[TextAgent()])
        probed = families(mesh, Talkers(b=("x", "x"), c=("x", "x")))
        mesh.fill_disk("a")
        with pytest.raises(StoreError):
            await probed.probe(CHAT)
        assert probed.family("b/chat") == "x"

    play(story)
