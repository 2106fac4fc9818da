"""What a node saw of agents is kept with what taught it, and counts the same ever after.

Real nodes in virtual time (a MockClock's).
"""

from random import Random
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio

from meshnode.config import MEMBERS, AccessConfig, NodeConfig
from meshnode.domain.trust.accounts import account_of, carry
from meshnode.domain.trust.credibility import credibility
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.trust.rules import DAY_MS, Kind
from meshnode.node import Node
from meshnode.services import evidence_rows, reputation
from meshnode.services.evidence_rows import EVIDENCE
from meshnode.services.membership import Edge
from simulations.mesh import CONFIG, SimMesh
from simulations.opinions import check_opinions
from tests.meshnode.services.worlds import play, start

if TYPE_CHECKING:
    from meshnode.services.reputation import Noted

SHOUT: Final = "text.shout@1"
AGENT: Final = "12D3KooWStranger/shout"
TAUGHT: Final[tuple[Kind, ...]] = (
    *("gold_passed", "agreed", "accepted_alone", "served", "outvoted", "absent"),
    *("check_passed", "gold_failed", "agreed_in_family", "accepted", "caught"),
)


async def learn(node: Node, *kinds: Kind, agent: str = AGENT, at_ms: int | None = None) -> None:
    """Have a node learn of an agent, a commit each."""
    for kind in kinds:
        source = kind.encode()
        noted = node.reputation.note(SHOUT, agent, kind, source=source, at_ms=at_ms)
        await node._ports.store.commit(*noted.writes)
        node.reputation.learned(noted)


async def kept(node: Node, agent: str = AGENT) -> Standing:
    """Return how an agent stands by what is in the store, folded anew."""
    found = await node.reputation.kept(SHOUT, agent)
    return carry((row.event for row in found.rows), found.carried).standing


async def events(node: Node, agent: str = AGENT) -> list[Evidence]:
    """Return what is in the store of an agent, row by row."""
    return [row.event for row in (await node.reputation.kept(SHOUT, agent)).rows]


def test_a_restart_changes_no_bit_of_what_is_known() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        chance = Random(1)
        others = [f"12D3KooWOther{number}/shout" for number in range(5)]
        at_ms = node.clock.now_ms() - 100 * DAY_MS
        for _ in range(150):
            agent = chance.choice([AGENT, *others])
            await learn(node, chance.choice(TAUGHT), agent=agent, at_ms=at_ms)
            at_ms += chance.choice([1_000, DAY_MS])
        before = {agent: node.reputation.standing(SHOUT, agent) for agent in (AGENT, *others)}
        mesh.crash("a")
        node = await mesh.restart("a")
        after = {agent: node.reputation.standing(SHOUT, agent) for agent in (AGENT, *others)}
        assert after == before
        assert len({credibility(one) for one in after.values()}) > 1
        assert node.reputation.known() == sorted((SHOUT, agent) for agent in before)

    play(story)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_folded_in_the_order_of_the_list_however_commits_return(seed: int) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        chance, book = Random(seed), node.reputation
        under_way: list[Noted] = []
        for kind in TAUGHT * 3:
            under_way.append(book.note(SHOUT, AGENT, kind))
            chance.shuffle(under_way)
            while under_way and chance.random() < 0.5:
                noted = under_way.pop()
                if chance.random() < 0.2:
                    book.dropped(noted)
                else:
                    await node._ports.store.commit(*noted.writes)
                    book.learned(noted)
                    # What is under way before it is not waited for.
                    assert book.standing(SHOUT, AGENT) == await kept(node)
        book.dropped(*under_way)
        assert book.standing(SHOUT, AGENT) == await kept(node)
        assert book.standing(SHOUT, AGENT).events > 5

    play(story)


def test_what_is_noted_counts_once_it_is_learned_and_not_before() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        book = node.reputation
        noted = [book.note(SHOUT, AGENT, "gold_passed"), book.note(SHOUT, AGENT, "served")]
        assert book.standing(SHOUT, AGENT) == Standing()
        assert book.known() == []
        await node._ports.store.commit(*(write for one in noted for write in one.writes))
        book.learned(*noted)
        book.learned(*noted)
        assert book.standing(SHOUT, AGENT).events == 2
        assert book.credibility(SHOUT, AGENT) == credibility(await kept(node)) > 0.5
        book.dropped(*noted)
        assert book.standing(SHOUT, AGENT) == await kept(node)

    play(story)


@pytest.mark.parametrize("committed", [True, False])
def test_what_its_caller_was_cancelled_in_is_looked_up(committed: bool) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        noted = node.reputation.note(SHOUT, AGENT, "gold_failed")
        if committed:
            await node._ports.store.commit(*noted.writes)
        await learn(node, "agreed", "served")
        await trio.sleep(300)
        found = node.reputation.standing(SHOUT, AGENT)
        assert found == await kept(node)
        assert found.events == 2 + committed
        assert not node.reputation._under_way

    play(story)


def test_idle_days_show_without_being_asked_for() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        for _ in range(9):
            await learn(node, "gold_passed")
        before = node.reputation.credibility(SHOUT, AGENT)
        node.reputation._clock = mesh.world.clock(skew_ms=40 * DAY_MS)
        now_ms = node.reputation._clock.now_ms()
        assert node.reputation.credibility(SHOUT, AGENT) < before
        assert node.reputation.standing(SHOUT, AGENT) == (await kept(node)).at(now_ms)
        await learn(node, "gold_passed")
        assert node.reputation.standing(SHOUT, AGENT) == await kept(node)
        assert now_ms // DAY_MS == (await kept(node)).day

    play(story)


PRIVATE: Final = msgspec.structs.replace(CONFIG, access=AccessConfig(callers=MEMBERS))


def _edge(peer: str, name: str = "") -> Edge:
    return Edge(relation="invited", peer=peer, invite=b"12345678", name=name, since_ms=1)


@pytest.mark.parametrize(
    ("config", "invite", "begins"),
    [
        (CONFIG, None, 0.4),
        (CONFIG, "a friend", 9 / 10.5),
        (CONFIG, "seed list", 0.4),
        (PRIVATE, "a friend", 9 / 10.5),
        (PRIVATE, "seed list", 0.8),
    ],
)
def test_who_was_let_in_begins_with_what_that_is_worth(
    config: NodeConfig, invite: str | None, begins: float
) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, config, a=[])
        if invite is not None:
            edge = _edge("12D3KooWStranger", invite)
            node.members._edges["invited", edge.peer] = edge
        book = node.reputation
        assert book.credibility(SHOUT, AGENT) == pytest.approx(begins)
        assert book.known() == []
        await learn(node, "served")
        # What it began with is in the store now, and once.
        assert book.credibility(SHOUT, AGENT) == pytest.approx(begins)
        assert credibility(await kept(node)) == pytest.approx(begins)
        await learn(node, "served")
        assert (await kept(node)).events == 2 + (begins > 0.4)
        account, _ = await book.account(SHOUT, AGENT)
        assert account.credibility == book.credibility(SHOUT, AGENT)
        assert node.reputation.standing(SHOUT, AGENT) == await kept(node)

    play(story)


def test_members_of_a_private_mesh_are_accountable_and_this_node_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, PRIVATE, a=[])
        assert node.reputation.credibility(SHOUT, AGENT) == pytest.approx(0.4)
        assert node.reputation.credibility(SHOUT, f"{node.peer}/shout") == pytest.approx(0.8)
        monkeypatch.setattr(node.members, "standing", lambda _: "member")
        assert node.reputation.credibility(SHOUT, AGENT) == pytest.approx(0.8)

    play(story)


def test_who_turns_out_to_be_a_member_is_credited_with_that_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, PRIVATE, a=[])
        await learn(node, "served", "agreed")
        monkeypatch.setattr(node.members, "standing", lambda _: "member")
        await learn(node, "served", "agreed", "agreed")
        told = [event.kind for event in await events(node)]
        assert told == ["served", "agreed", "member", "served", "agreed", "agreed"]
        mesh.crash("a")
        node = await mesh.restart("a")
        monkeypatch.setattr(node.members, "standing", lambda _: "member")
        await learn(node, "agreed")
        assert (await kept(node)).events == 7

    play(story)


def test_a_long_list_is_cut_and_says_the_same_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence_rows, "LONG_ROWS", 12)
    monkeypatch.setattr(reputation, "LONG_ROWS", 12)
    monkeypatch.setattr(evidence_rows, "KEPT_ROWS", 5)

    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        chance, all_of_it = Random(2), []
        for _ in range(4):
            for _ in range(11):
                await learn(node, chance.choice(TAUGHT))
                all_of_it.append((await events(node))[-1])
            under_way = node.reputation.note(SHOUT, AGENT, "agreed")
            await trio.sleep(130)
            assert len(await events(node)) <= 12
            await node._ports.store.commit(*under_way.writes)
            node.reputation.learned(under_way)
            all_of_it.append(under_way.rows[0].event)
        now_ms = node.clock.now_ms()
        found = await node.reputation.kept(SHOUT, AGENT)
        assert len(found.rows) < 20 < len(all_of_it)
        assert node.reputation.standing(SHOUT, AGENT) == fold(all_of_it) == await kept(node)
        told = account_of(
            (row.event for row in found.rows), now_ms=now_ms, carried=found.carried
        )
        assert told == account_of(all_of_it, now_ms=now_ms)
        mesh.crash("a")
        node = await mesh.restart("a")
        assert node.reputation.standing(SHOUT, AGENT) == fold(all_of_it)

    play(story)


@pytest.mark.parametrize("wrong", ["", "lost", "twice", "early"])
def test_what_a_node_believes_is_held_against_its_disk(wrong: str) -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, a=[])
        await learn(node, "gold_passed", "agreed")
        noted = node.reputation.note(SHOUT, AGENT, "served", source=b"award")
        if wrong != "early":
            await node._ports.store.commit(*noted.writes)
        node.reputation.learned(noted)
        if wrong == "lost":
            del mesh.members["a"].disk.tables[EVIDENCE][noted.writes[0].key]
        if wrong == "twice":
            await learn(node, "agreed")
        troubles = list(check_opinions(mesh))
        assert len(troubles) == (wrong != "")
        assert all(AGENT in trouble for trouble in troubles)

    play(story)
