"""Nodes find each other, through neighbours and through the DHT."""

from itertools import combinations
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.config import DirectoryConfig
from meshnode.services.directory import validate_record
from meshnode.services.records import names_of
from meshnode.services.sessions import RequestFailed
from protocol import limits
from protocol.catalogue import DIGEST, PULL, PUSH, summary
from protocol.codec import encode
from protocol.errors import ErrorCode, Malformed
from simulations.clock import EPOCH_MS, SimClock
from simulations.directory import LIKE_KADEMLIA
from tests.meshnode.services.mesh import (
    NETWORK,
    Mesh,
    Node,
    capability,
    forged,
    identity,
    joined_mesh,
    open_mesh,
    signed,
)

CATALOGUE_ONLY = DirectoryConfig(dht=False)
NO_STRANGERS = DirectoryConfig(dht=False, provide_interval_s=9_999.0)
DHT_ONLY = DirectoryConfig(catalogue=False)


# --- the catalogue alone --------------------------------------------------------------


async def test_eight_nodes_that_join_through_one_all_know_each_other(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 8, CATALOGUE_ONLY)
        for node in nodes:
            assert [r.peer for r, _ in node.service.providers("work.kind5@1")] == [
                nodes[4].peer
            ]
            assert len(node.service.providers("work")) == 8


async def test_an_update_reaches_everyone_at_once(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 8, CATALOGUE_ONLY)
        await trio.sleep(30)
        nodes[3].offered.append(capability("text.translation@2", agent="new"))
        nodes[3].service.changed()
        took_s = await mesh.until(
            lambda: all(node.service.providers("text") for node in nodes), within_s=1
        )
        assert took_s < 0.5, "faster than any comparison of digests"


async def test_an_update_reaches_everyone_although_no_push_is_sent(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 5, NO_STRANGERS)
        await trio.sleep(30)
        for node in nodes:
            assert node.service._exchange is not None
            node.service._exchange._intake._listeners.clear()
        asked = record_requests(nodes)
        nodes[3].offered.append(capability("text.translation@2", agent="new"))
        nodes[3].service.changed()
        await mesh.until(
            lambda: all(node.service.providers("text") for node in nodes), within_s=60
        )
        assert set(asked) == {DIGEST, PULL}


def record_requests(nodes: list[Node]) -> list[str]:
    """Return a list that the methods of all further requests are added to."""
    asked: list[str] = []

    def record(node: Node) -> None:
        original = node.sessions.request

        async def request(peer: str, method: str, body: bytes, **more: Any) -> bytes:
            asked.append(method)
            return await original(peer, method, body, **more)

        node.sessions.request = request  # type: ignore[method-assign]

    for node in nodes:
        record(node)
    return asked


async def test_a_node_has_as_many_neighbours_as_it_may_and_keeps_them(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 14, CATALOGUE_ONLY)
        await trio.sleep(60)
        before = {node.peer: node.service.neighbours() for node in nodes}
        await trio.sleep(120)
        for node in nodes:
            assert 3 <= len(node.service.neighbours()) <= 8
            assert len(set(before[node.peer]) & set(node.service.neighbours())) >= 3
        assert is_connected(nodes)
        mesh.kill(nodes.pop(0))
        await trio.sleep(30)
        assert is_connected(nodes), "without the one that all joined through"


def is_connected(nodes: list[Node]) -> bool:
    edges = {node.peer: set(node.service.neighbours()) for node in nodes}
    seen, todo = set[str](), [nodes[0].peer]
    while todo:
        peer = todo.pop()
        if peer not in seen:
            seen.add(peer)
            todo += [o for o in edges if o in edges[peer] or peer in edges[o]]
    return seen == set(edges)


async def test_a_dead_nodes_record_expires(autojump_clock: MockClock) -> None:
    config = DirectoryConfig(dht=False, record_lifetime_s=40.0)
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 6, config)
        dead = nodes.pop()
        last_ms = max(r.expires_ms for r in nodes[0].service.known() if r.peer == dead.peer)
        mesh.kill(dead)
        limit_s = 40 + limits.SKEW_MS_MAX / 1000 + config.digest_interval_s + 1
        await mesh.until(
            lambda: all(dead.peer not in node.known() for node in nodes), within_s=limit_s
        )
        assert SimClock().now_ms() >= last_ms
        await trio.sleep(config.digest_interval_s)
        assert all(node.count("directory.expired", peer=dead.peer) == 1 for node in nodes)
        everyone = {node.peer for node in nodes}
        assert all(node.known() == everyone for node in nodes), "the living were renewed"


async def test_a_node_that_leaves_is_gone_at_once_and_stays_so(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 6, CATALOGUE_ONLY)
        left = nodes.pop()
        await left.service.leave()
        mesh.kill(left)
        await mesh.until(
            lambda: all(left.peer not in node.known() for node in nodes), within_s=1
        )
        await trio.sleep(900)
        assert all(left.peer not in node.known() for node in nodes)
        assert not any(node.service.providers("work.kind6@1") for node in nodes)


async def test_a_node_that_left_is_not_brought_back_by_who_missed_it(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 4, CATALOGUE_ONLY)
        away, left = nodes[2], nodes.pop()
        mesh.network.partition([away.peer], [n.peer for n in (*nodes[:2], left)])
        await left.service.leave()
        mesh.kill(left)
        await trio.sleep(230)
        assert left.peer in away.known()
        mesh.network.partition()
        await mesh.until(lambda: left.peer not in away.known(), within_s=250)
        for _ in range(60):
            assert all(left.peer not in node.known() for node in nodes)
            await trio.sleep(5)


async def test_two_halves_that_were_apart_find_together(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 8, CATALOGUE_ONLY)
        halves = nodes[:4], nodes[4:]
        mesh.network.partition(*[[node.peer for node in half] for half in halves])
        await trio.sleep(120)
        nodes[1].offered.append(capability("text.translation@2", agent="new"))
        nodes[1].service.changed()
        await trio.sleep(60)
        assert all(n.service.providers("text") for n in halves[0])
        assert not any(n.service.providers("text") for n in halves[1])
        mesh.network.partition()
        await mesh.until(lambda: all(n.service.providers("text") for n in nodes), within_s=400)


async def test_clocks_that_are_apart_still_agree(autojump_clock: MockClock) -> None:
    config = DirectoryConfig(dht=False, record_lifetime_s=30.0)
    async with open_mesh() as mesh:
        early = await mesh.add(1, "a@1", config=config, skew_ms=-25_000)
        late = await mesh.add(2, "b@1", config=config, skew_ms=25_000)
        right = await mesh.add(3, "c@1", config=config)
        await mesh.join(early, right)
        await mesh.join(late, right)
        everyone = {early.peer, late.peer, right.peer}
        await mesh.until(lambda: all(n.known() == everyone for n in mesh.nodes), within_s=3)
        await trio.sleep(300)
        assert all(n.known() == everyone for n in mesh.nodes)
        mesh.kill(late)
        await trio.sleep(200)
        assert all(n.known() == everyone - {late.peer} for n in mesh.nodes)


async def test_a_node_whose_clock_is_minutes_off_holds_what_the_others_hold(
    autojump_clock: MockClock,
) -> None:
    """And nobody asks it, or is asked by it, for what it would refuse."""
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 5, NO_STRANGERS)
        slow = await mesh.add(40, "slow@1", config=NO_STRANGERS, skew_ms=-180_000)
        await mesh.join(slow, nodes[0])
        fast = await mesh.add(41, "fast@1", config=NO_STRANGERS, skew_ms=180_000)
        await mesh.join(fast, nodes[1])
        everyone = {node.peer for node in mesh.nodes}
        await mesh.until(
            lambda: all(node.known() == everyone for node in mesh.nodes), within_s=3
        )
        await trio.sleep(60)
        asked = record_requests(list(mesh.nodes))
        await trio.sleep(100)
        assert set(asked) == {DIGEST}
        assert not any(node.service.refused() for node in mesh.nodes)


async def test_little_is_said_when_nothing_happens(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 8, NO_STRANGERS)
        await trio.sleep(60)
        asked = record_requests(nodes)
        await trio.sleep(100)
        assert set(asked) == {DIGEST}
        assert len(asked) <= 8 * 8 * 100 / 7.5


async def test_who_comes_back_is_not_told_again_what_it_was_told(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 4, NO_STRANGERS)  # so few that all are neighbours
        await trio.sleep(60)
        asked = record_requests(nodes)
        for _ in range(5):
            for one, other in combinations(nodes, 2):
                if other.peer in one.sessions.connected():
                    mesh.network.break_link(one.peer, other.peer)
            await trio.sleep(30)
        assert set(asked) == {DIGEST}, "they are neighbours again and compare, that is all"
        nodes[3].offered.append(capability("text.translation@2", agent="new"))
        nodes[3].service.changed()
        await mesh.until(
            lambda: all(node.service.providers("text") for node in nodes), within_s=1
        )
        assert PUSH in asked  # and who compares at that very moment pulls it


# --- dialling -------------------------------------------------------------------------


async def test_addresses_are_known_for_dialling_and_a_failed_dial_demotes(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 4, CATALOGUE_ONLY)
        one, other = nodes[0], nodes[3]
        address = mesh.network.transport(other.peer).addresses()
        assert one.service.addresses_of(other.peer) == tuple(address)
        assert one.service.addresses_of(identity(77).peer) == ()
        last = one.service.known()[0].peer
        one.service.failed(last)
        assert one.service.providers("work")[-1][0].peer == last
        target = next(node for node in nodes if node.peer == last)
        target.service.changed()
        await trio.sleep(2)
        assert one.service.providers("work")[0][0].peer == last


# --- the DHT alone ----------------------------------------------------------------------


async def six_providers(mesh: Mesh, config: DirectoryConfig) -> tuple[Node, list[Node]]:
    providers = [await mesh.add(n, "text.summarization@1", config=config) for n in range(1, 7)]
    return await mesh.add(7, "other@1", config=config), providers


@pytest.mark.parametrize("query", ["text.summarization@1", "text.summarization", "text@1"])
async def test_the_dht_alone_finds_all_six_providers(
    query: str, autojump_clock: MockClock
) -> None:
    async with open_mesh(lossiness=LIKE_KADEMLIA) as mesh:
        asker, providers = await six_providers(mesh, DHT_ONLY)
        await trio.sleep(10)
        assert asker.service.providers(query) == []
        found = await asker.service.search(query, timeout_s=20)
        assert {record.peer for record, _ in found} == {node.peer for node in providers}
        assert asker.service.providers(query) == found, "kept"
        assert all(not node.sessions.connected() for node in mesh.nodes)


async def test_a_search_that_needs_few_brings_few_and_the_next_one_others(
    autojump_clock: MockClock,
) -> None:
    """Each record is a lookup of its own, in a mesh where hundreds offer the same."""
    async with open_mesh() as mesh:
        asker, providers = await six_providers(mesh, DHT_ONLY)
        others = [await mesh.add(n, "other@1", config=DHT_ONLY) for n in range(20, 24)]
        await trio.sleep(10)
        drawn = set()
        for node in (asker, *others):
            found = await node.service.search("text", timeout_s=20, records_max=2)
            assert len(found) == 2
            drawn.add(frozenset(record.peer for record, _ in found))
        assert len(drawn) > 1, "not all of them bring the same"
        found = await asker.service.search("text", timeout_s=20, records_max=2)
        assert len(found) == 4
        found = await asker.service.search("text", timeout_s=20, records_max=32)
        assert len(found) == len(providers)


async def test_without_a_catalogue_nothing_is_exchanged_or_answered(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        one = await mesh.add(1, "a@1", config=DHT_ONLY)
        other = await mesh.add(2, "b@1", config=CATALOGUE_ONLY)
        await mesh.join(other, one)
        await trio.sleep(30)
        assert one.known() == {one.peer}
        assert other.known() == {other.peer}
        with pytest.raises(RequestFailed) as refused:
            await other.sessions.request(one.peer, DIGEST, encode(summary({})), timeout_s=1)
        assert refused.value.failure == ErrorCode.UNKNOWN_TYPE


async def test_with_the_dht_off_it_is_not_used(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        asker, _ = await six_providers(mesh, CATALOGUE_ONLY)
        await trio.sleep(30)
        assert await asker.service.search("text", timeout_s=5) == []
        assert mesh.directory.listed("text") == []


async def test_a_search_ends_in_time_although_nobody_answers(autojump_clock: MockClock) -> None:
    async with open_mesh(lossiness=LIKE_KADEMLIA) as mesh:
        asker = await mesh.add(1, config=DHT_ONLY)
        start_s = trio.current_time()
        assert await asker.service.search("text@1", timeout_s=1.0) == []
        assert trio.current_time() - start_s <= 1.0


async def test_a_search_for_what_is_no_name_says_so(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        asker = await mesh.add(1)
        with pytest.raises(Malformed, match="Text"):
            await asker.service.search("Text", timeout_s=1)


async def test_a_record_is_published_again_until_the_dht_takes_it_and_then_at_intervals(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        mesh.directory.up = False
        node = await mesh.add(1, "a@1", config=DHT_ONLY)
        await trio.sleep(20)
        assert node.count("directory.provide_failed") >= 4
        mesh.directory.up = True
        await mesh.until(lambda: mesh.directory.listed("a") == [node.peer], within_s=45)
        before = node.count("directory.provided")
        await trio.sleep(250)
        assert 1 <= node.count("directory.provided") - before <= 5


async def test_a_changed_capability_is_published_at_once(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        node = await mesh.add(1, "a@1", config=DHT_ONLY)
        await trio.sleep(5)
        node.offered.append(capability("b.c@1", agent="b"))
        node.service.changed()
        await mesh.until(lambda: mesh.directory.listed("b") == [node.peer], within_s=1)


async def test_a_peer_is_looked_up_in_the_dht_if_it_is_unknown_or_was_not_there(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        one = await mesh.add(1, config=DHT_ONLY)
        other = await mesh.add(2, "a@1", config=DHT_ONLY)
        await trio.sleep(2)
        record = await one.service.lookup(other.peer)
        assert record is not None
        assert record.peer == other.peer
        assert await one.service.lookup(identity(77).peer) is None
        one.service.failed(other.peer)
        other.service.changed()
        await trio.sleep(1)
        again = await one.service.lookup(other.peer)
        assert again is not None
        assert again.sequence > record.sequence


async def test_what_the_dht_holds_is_verified(autojump_clock: MockClock) -> None:
    """A DHT node that checks nothing serves what it likes."""
    async with open_mesh() as mesh:
        asker = await mesh.add(1, config=DHT_ONLY)
        mesh.directory._validate = lambda _peer, _record: 1
        past_ms = EPOCH_MS - 10**9
        mesh.directory.put(identity(2).peer, signed(2, 1, issued_ms=past_ms), ["x"])
        mesh.directory.put(identity(3).peer, forged(3), ["x"])
        mesh.directory.put(identity(4).peer, signed(4, 1, name="y@1"), ["x"])
        mesh.directory.put(identity(5).peer, signed(5, 1), ["x"])
        found = await asker.service.search("x", timeout_s=5)
        assert [record.peer for record, _ in found] == [identity(5).peer]


# --- both ways --------------------------------------------------------------------------


async def test_nodes_without_a_common_neighbour_find_one_through_the_dht(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh(lossiness=LIKE_KADEMLIA) as mesh:
        for number in range(1, 7):
            await mesh.add(number, f"a.b{number}@1")
        everyone = {node.peer for node in mesh.nodes}
        await mesh.until(
            lambda: all(node.known() == everyone for node in mesh.nodes), within_s=60
        )


def test_a_node_is_listed_under_full_names_and_prefixes() -> None:
    capabilities = [capability("a.b.c@2"), capability("a.d@1", agent="b")]
    assert names_of(capabilities) == ["a", "a.b", "a.b.c", "a.b.c@2", "a.d", "a.d@1"]


async def test_validation_for_directories_gives_the_sequence_or_refuses(
    autojump_clock: MockClock,
) -> None:
    validate = validate_record(NETWORK, SimClock())
    good = signed(1, 42)
    assert validate(identity(1).peer, good) == 42
    assert validate(identity(2).peer, good) is None, "another peer's key"
    assert validate(identity(1).peer, good + b"\0") is None
    assert validate(identity(1).peer, signed(1, 1, network="other")) is None
    assert validate(identity(1).peer, signed(1, 1, issued_ms=EPOCH_MS - 10**9)) is None
