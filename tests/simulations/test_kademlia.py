"""The simulated DHT: who holds what, who knows whom, and what goes wrong with both."""

from collections.abc import Sequence
from random import Random

import pytest
import trio
import trio.testing

from meshnode.errors import Unreachable
from simulations.answering import Eclipsing, Replaying
from simulations.kademlia import Operation, Rules, SimKademlia
from simulations.kademlia_node import KadNode, Kept
from simulations.kademlia_table import key_of, nearest
from simulations.trace import Trace
from tests.contracts.simulated_ports import made_up_record, sequence_of

HOP_S = 0.05
NAME = "text.summarization@1"

Clock = trio.testing.MockClock


class Mesh:
    """A DHT of nodes ``n0``, ``n1`` …, all joined through the first."""

    def __init__(self, count: int, *, seed: int = 1, rules: Rules | None = None) -> None:
        self.cut: set[str] = set()
        self.trace = Trace(lines_max=100_000)
        self.dht = SimKademlia(
            Random(seed),
            sequence_of,
            delay_s=lambda _one, _other: HOP_S,
            reaches=lambda one, other: (one in self.cut) == (other in self.cut),
            rules=rules,
            trace=self.trace,
        )
        self.operations: list[Operation] = []
        self.dht.watch = self.operations.append
        self.peers = [f"n{i}" for i in range(count)]
        for peer in self.peers:
            self.join(peer)

    def join(self, peer: str) -> None:
        self.dht.join(peer, self.peers[:1])

    async def meet(self) -> None:
        """Let everybody look around once."""
        for peer in self.peers:
            await self.publish(peer, 0)

    async def publish(self, peer: str, sequence: int, *names: str) -> None:
        await self.dht.port(peer).publish(made_up_record(peer, sequence), names)

    async def record(self, asker: str, peer: str) -> int | None:
        """Return the sequence of what ``asker`` finds."""
        found = await self.dht.port(asker).record(peer)
        return None if found is None else sequence_of(peer, found)

    async def providers(self, asker: str, name: str = NAME) -> Sequence[str]:
        return await self.dht.port(asker).providers(name)

    def holders(self, peer: str, sequence: int = 0) -> list[str]:
        """Return the others that hold ``peer``'s record, of that sequence or a later one."""
        found = []
        for other in self.peers:
            node = self.dht.node(other)
            held = None if node is None or other == peer else node.held(peer)
            if held is not None and held.sequence >= sequence:
                found.append(other)
        return found

    def stranger(self) -> str:
        """Return somebody who is far from its own record: its own copy is not met."""
        at = self.dht.record_key
        keys = [key_of(p) for p in self.peers]
        return next(p for p in self.peers if key_of(p) not in nearest(keys, at(p), 40))

    def nearest(self, peer: str, count: int) -> list[str]:
        """Return who is nearest to where ``peer``'s record belongs."""
        others = {key_of(p): p for p in self.peers if p != peer}
        at = self.dht.record_key(peer)
        return [others[key] for key in nearest(others, at, count)]


# --- who holds what ---------------------------------------------------------------


async def test_a_record_is_with_the_twenty_nearest_and_nowhere_else(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(200)
    await mesh.meet()
    await mesh.meet()
    right = 0
    for peer in mesh.peers[20:60]:
        await mesh.publish(peer, 1)
        holders = mesh.holders(peer, 1)
        assert len(holders) <= 20
        right += len(set(holders) & set(mesh.nearest(peer, 20)))
    assert right > 0.9 * 40 * 20, "a lookup may end a little early"


async def test_a_record_is_found_by_somebody_who_knew_only_the_first(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(200)
    await mesh.meet()
    await mesh.publish("n7", 3)
    mesh.peers.append("stranger")
    mesh.join("stranger")
    assert await mesh.record("stranger", "n7") == 3


async def test_a_record_goes_with_those_who_held_it_until_it_is_published_again(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(100)
    await mesh.meet()
    peer = mesh.stranger()
    await mesh.publish(peer, 1)
    for holder in mesh.holders(peer):
        mesh.dht.crash(holder)
        mesh.join(holder)
    asker = next(p for p in mesh.peers[1:] if p != peer)
    assert await mesh.record(asker, peer) is None
    await mesh.publish(peer, 2)
    assert await mesh.record(asker, peer) == 2


async def test_a_node_that_crashed_comes_back_with_nothing(autojump_clock: Clock) -> None:
    mesh = Mesh(30)
    await mesh.meet()
    before = mesh.dht.node("n3")
    assert before is not None
    assert len(before.table) > 5
    mesh.dht.crash("n3")
    assert mesh.dht.node("n3") is None
    with pytest.raises(Unreachable):
        await mesh.publish("n3", 1)
    assert await mesh.record("n3", "n4") is None
    mesh.join("n3")
    after = mesh.dht.node("n3")
    assert after is not None
    assert after.held("n4") is None
    await mesh.publish("n3", 1)
    assert await mesh.record("n4", "n3") == 1


async def test_a_record_and_a_provider_entry_lapse_unless_said_again(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(20, rules=Rules(record_life_s=100.0, provider_life_s=150.0))
    await mesh.meet()
    for peer in ("n1", "n2"):
        await mesh.publish(peer, 1, NAME)
    await trio.sleep(90)
    await mesh.publish("n2", 1, NAME)
    await trio.sleep(70)
    assert await mesh.record("n9", "n1") is None
    assert await mesh.record("n9", "n2") == 1
    assert await mesh.providers("n9") == ["n2"]


async def test_what_has_lapsed_is_dropped_at_the_next_upkeep(autojump_clock: Clock) -> None:
    mesh = Mesh(20, rules=Rules(record_life_s=100.0, provider_life_s=100.0))
    await mesh.meet()
    await mesh.publish("n1", 1, NAME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mesh.dht.run)
        await trio.sleep(2000)
        nursery.cancel_scope.cancel()
    for peer in mesh.peers:
        node = mesh.dht.node(peer)
        assert node is not None
        assert not node._records
        assert not node._providers


async def test_a_server_lists_twenty_under_one_name_and_no_more(autojump_clock: Clock) -> None:
    mesh = Mesh(40)
    await mesh.meet()
    for peer in mesh.peers:
        await mesh.publish(peer, 1, NAME)
    lengths = []
    for peer in mesh.peers:
        node = mesh.dht.node(peer)
        assert node is not None
        lengths.append(len(node.listed(NAME)))
    assert max(lengths) == 20
    assert len(await mesh.providers("n0")) <= 20


async def test_an_older_record_is_taken_by_nobody(autojump_clock: Clock) -> None:
    mesh = Mesh(30)
    await mesh.meet()
    await mesh.publish("n1", 5)
    with pytest.raises(Unreachable):
        await mesh.publish("n1", 4)
    mesh.dht.crash("n1")
    mesh.join("n1")  # it has lost its own copy
    holders = set(mesh.holders("n1"))
    with pytest.raises(Unreachable):
        await mesh.publish("n1", 4)
    assert set(mesh.holders("n1")) == holders
    assert await mesh.record("n2", "n1") == 5


@pytest.mark.parametrize(("newest", "found"), [(0, 2), (2, 2), (19, 1)])
async def test_of_the_first_three_records_the_highest_wins(
    autojump_clock: Clock, newest: int, found: int
) -> None:
    mesh = Mesh(60)
    await mesh.meet()
    await mesh.meet()
    peer = mesh.stranger()
    holders = mesh.nearest(peer, 20)
    for place, holder in enumerate(holders):
        node = mesh.dht.node(holder)
        assert node is not None
        sequence = 2 if place == newest else 1
        node.keep(peer, Kept(made_up_record(peer, sequence), sequence, 1e9))
    asker = next(p for p in mesh.peers if p not in (*holders, peer))
    await mesh.record(asker, mesh.peers[-1])
    assert await mesh.record(asker, peer) == found


# --- who knows whom ---------------------------------------------------------------


async def test_hops_are_counted_and_take_their_time(autojump_clock: Clock) -> None:
    mesh = Mesh(300)
    await mesh.meet()
    begun_s = trio.current_time()
    await mesh.record("n17", "n200")
    (*_, done) = mesh.operations
    assert done.kind == "record"
    assert done.rounds >= 1
    assert done.finds > 5
    assert trio.current_time() - begun_s == pytest.approx(done.elapsed_s)
    trips = done.elapsed_s / (2 * HOP_S)
    assert trips >= 2 * (done.rounds + 1), "two round trips a hop, and two for the record"


async def test_a_node_learns_whom_it_is_told_of_and_who_asks_it_twice(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(2)
    first = mesh.dht.node("n0")
    assert first is not None
    assert key_of("n1") not in first.table, "its address came with its first request"
    await mesh.record("n1", "n0")
    assert key_of("n1") in first.table
    mesh.peers.append("n2")
    mesh.join("n2")
    third = mesh.dht.node("n2")
    assert third is not None
    assert key_of("n1") in third.table, "the first one named it"


async def bereaved(*, silent: bool) -> tuple[Mesh, KadNode, Sequence[str]]:
    """Return a mesh, one that knows it well, and the three nearest to n30, which have died."""
    mesh = Mesh(40)
    await mesh.meet()
    await mesh.meet()
    asker = mesh.dht.node("n1")
    assert asker is not None
    dead = mesh.nearest("n30", 3)
    for peer in dead:
        mesh.dht.crash(peer, silent=silent)
    return mesh, asker, dead


async def test_who_refuses_is_dropped_by_the_first_request_and_comes_back_by_hearsay(
    autojump_clock: Clock,
) -> None:
    mesh, asker, dead = await bereaved(silent=False)
    assert all(key_of(peer) in asker.table for peer in dead), "until it asks them"
    await mesh.record("n1", "n30")
    (*_, done) = mesh.operations
    assert done.unanswered >= 3
    assert done.elapsed_s < 3


async def test_who_says_nothing_costs_three_seconds_and_stays(autojump_clock: Clock) -> None:
    mesh, asker, dead = await bereaved(silent=True)
    await mesh.record("n1", "n30")
    (*_, done) = mesh.operations
    assert done.elapsed_s > 3
    assert all(key_of(peer) in asker.table for peer in dead)


async def test_an_operation_ends_at_its_deadline_and_keeps_what_it_had_done(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(60)
    await mesh.meet()
    await mesh.meet()
    for peer in mesh.peers[2:]:
        mesh.dht.crash(peer, silent=True)
    begun_s = trio.current_time()
    assert await mesh.record("n1", "n30") in (0, None)
    assert trio.current_time() - begun_s == pytest.approx(10.0)


async def test_across_a_cut_nothing_is_found_and_after_it_everything_again(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(40)
    await mesh.meet()
    await mesh.publish("n5", 1)
    mesh.cut = {"n39"}
    assert await mesh.record("n39", "n5") in (None, 1), "it may hold a copy itself"
    with pytest.raises(Unreachable):
        await mesh.publish("n39", 1)
    mesh.cut = set()
    await mesh.publish("n39", 2)
    assert await mesh.record("n5", "n39") == 2


async def test_publishing_alone_is_unreachable_and_looking_finds_nothing(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(1)
    with pytest.raises(Unreachable):
        await mesh.publish("n0", 1)
    assert await mesh.record("n0", "n1") is None
    assert list(await mesh.providers("n0")) == []


async def test_a_client_publishes_and_looks_up_but_holds_nothing(autojump_clock: Clock) -> None:
    mesh = Mesh(10)
    await mesh.meet()
    client = mesh.dht.join("client", ["n0"], server=False)
    await client.publish(made_up_record("client", 1), [NAME])
    await client.publish(made_up_record("client", 2), [NAME])
    assert await mesh.record("n4", "client") == 2
    assert await mesh.providers("n4") == ["client"]
    for peer in mesh.peers:
        node = mesh.dht.node(peer)
        assert node is not None
        assert key_of("client") not in node.table


async def test_no_more_operations_of_one_node_run_at_once_than_the_rules_have(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(10, rules=Rules(operations_max=2))
    await mesh.meet()
    begun_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(mesh.record, "n1", "n2")
    (*_, done) = mesh.operations
    assert trio.current_time() - begun_s == pytest.approx(2 * done.elapsed_s, rel=0.5)


async def test_upkeep_makes_neighbours_of_those_who_joined_at_once(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(40)

    def sizes() -> list[int]:
        nodes = [mesh.dht.node(peer) for peer in mesh.peers]
        return [len(node.table) for node in nodes if node is not None]

    before = sum(sizes())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mesh.dht.run)
        await trio.sleep(2000)
        nursery.cancel_scope.cancel()
    assert sum(sizes()) > 3 * before
    assert min(sizes()) > 20


# --- adversaries ------------------------------------------------------------------


async def test_who_stands_nearest_and_lies_hides_a_record(autojump_clock: Clock) -> None:
    mesh = Mesh(100)
    await mesh.meet()
    target = mesh.dht.record_key("n50")
    tried = {key_of(name): name for name in (f"evil{i}" for i in range(20_000))}
    evil = [tried[key] for key in nearest(tried, target, 20)]
    for peer in evil:
        mesh.peers.append(peer)
        mesh.join(peer)
    await mesh.meet()
    await mesh.publish("n50", 1)
    assert await mesh.record("n51", "n50") == 1, "as long as they are honest"
    liar = Eclipsing(evil)
    for peer in evil:
        mesh.dht.corrupt(peer, liar)
    await mesh.publish("n50", 2)
    found = [await mesh.record(f"n{i}", "n50") for i in range(60, 90)]
    hidden = [i for i, sequence in enumerate(found) if sequence is None]
    assert len(hidden) > 20
    await mesh.publish("n49", 3)
    assert await mesh.record("n60", "n49") == 3, "others' records are not hidden"


async def test_a_few_who_replay_are_outvoted_and_all_of_them_are_not(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(40)
    await mesh.meet()
    await mesh.publish("n5", 1)
    holders = mesh.holders("n5")
    for holder in holders:
        mesh.dht.corrupt(holder, Replaying())
    asker = next(p for p in mesh.peers if p not in holders and p != "n5")
    assert await mesh.record(asker, "n5") == 1, "now each of those asked has seen it"
    for holder in holders[2:]:
        mesh.dht.corrupt(holder, None)
    await mesh.publish("n5", 2)
    assert await mesh.record(asker, "n5") == 2


async def test_all_who_hold_it_can_replay_an_old_record_but_make_none(
    autojump_clock: Clock,
) -> None:
    mesh = Mesh(40)
    await mesh.meet()
    for peer in mesh.peers:
        replaying = Replaying()
        mesh.dht.corrupt(peer, replaying)
        replaying.record("", "n5", made_up_record("n5", 1))
    await mesh.publish("n5", 2)
    assert await mesh.record("n6", "n5") in (1, 2), "its own copy is not replayed to itself"
    for peer in mesh.peers:
        forging = Replaying()
        mesh.dht.corrupt(peer, forging)
        forging.record("", "n5", b"n5 9 forged")
    mesh.dht.crash("n6")
    mesh.join("n6")
    assert await mesh.record("n6", "n5") is None
