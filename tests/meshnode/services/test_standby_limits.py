"""What a standby keeps, fetches and believes is bounded, whoever its job's owner is.

Real nodes in virtual time (a MockClock's); a hostile owner is worked by hand.
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import HostConfig, StandbyConfig
from meshnode.domain.facts import Called
from meshnode.errors import ArtifactError, Busy
from meshnode.node import Terms
from meshnode.services import standby_artifacts, standbys
from meshnode.services.artifact_rows import META_ROW
from meshnode.services.artifacts import Artifacts, Wanted
from meshnode.services.checking import SCHEMAS
from meshnode.services.seats import EPOCH
from meshnode.services.shipping import Shipping
from protocol.charter import Ask, Charter, read_answer, sign_charter
from protocol.codec import encode
from protocol.limits import NUMBER_MAX
from protocol.messages import Budget
from protocol.shipping import Ship
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.test_failover import WITH, WORDS, mesh_of, terms
from tests.meshnode.services.test_failover_safety import begun, seat_of
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    until,
)


def kept(mesh: SimMesh, name: str) -> int:
    return len(mesh.node(name).successions._standbys._copies)


def test_what_is_kept_of_a_job_in_memory_goes_when_it_is_over() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent(answers_after(0.5)))
        for _ in range(3):
            job = await owner.submit(shouting(2), inputs("one", "two"), terms(mesh))
            await trio.sleep(0.3)
            assert kept(mesh, "c") == 1
            await owner.wait(job)
            await until(lambda: kept(mesh, "c") == kept(mesh, "d") == 0)
        mesh.crash("c")
        await mesh.restart("c")
        assert kept(mesh, "c") == 0

    play(story)


def test_artifacts_are_fetched_some_at_once_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, now, most, count = Artifacts.fetch, [0], [0], [0]

    async def slow(self: Artifacts, wanted: Wanted, *, timeout_s: float) -> bytes:
        if timeout_s != standby_artifacts._FETCH_S:
            return await fetch(self, wanted, timeout_s=timeout_s)
        now[0] += 1
        count[0] += 1
        most[0] = max(most[0], now[0])
        try:
            if count[0] == 6:
                raise ArtifactError("it was cut off")
            await trio.sleep(1.0)
            return await fetch(self, wanted, timeout_s=timeout_s)
        finally:
            now[0] -= 1

    monkeypatch.setattr(Artifacts, "fetch", slow)

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(0.2))
        owner, *_ = await mesh_of(mesh, agent)
        mesh.crash("d")
        graph = shouting(8, batch_items_max=1)
        job = await owner.submit(graph, inputs(*WORDS), terms(mesh))
        begun_s = trio.current_time()
        await until(lambda: bool(agent.calls))
        assert most[0] == 4
        assert trio.current_time() - begun_s < 8, "one after another takes longer"
        await owner.wait(job)

    play(story)


def test_what_is_here_for_another_is_not_given_away_by_its_hash() -> None:
    async def story(mesh: SimMesh) -> None:
        await begun(mesh)
        node, seat = mesh.node("c"), seat_of(mesh, "c")
        secret = await node.artifacts.put(b"a secret", job="another", broker="somebody")
        have = node.successions._standbys._artifacts
        plan = Called(unit="say/0", attempt=0, cfps={})
        with pytest.raises(ArtifactError):
            await have._have(seat, plan, (secret.artifact, secret.size, mesh.peer("a"), b""))
        rows = await node.broker._context.store.scan("artifact_job", secret.artifact.hex())
        assert [key.rpartition("/")[2] for key, _ in rows] == ["another"]

    play(story)


def test_a_jobs_artifacts_take_its_owners_room() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent(answers_after(1.0)))
        room = HostConfig(lease_s=10.0, artifact_peer_bytes_max=64)
        small = msgspec.structs.replace(WITH, host=room)
        await start(mesh, small, e=[])
        peers = (mesh.peer("c"), mesh.peer("e"))
        job = await owner.submit(shouting(8), inputs(*WORDS), Terms(standbys=peers))
        await owner.wait(job)
        rows = await mesh.node("e").broker._context.store.scan("artifact")
        metas = [META_ROW.decode(raw) for _, raw in rows]
        assert {meta.broker for meta in metas} <= {owner.peer}
        on_their_way = standby_artifacts._FETCHES_MAX * max(meta.size for meta in metas)
        assert sum(meta.size for meta in metas) <= 64 + on_their_way
        assert seat_of(mesh, "e").position.events == 0, "it has less than it would need"

    play(story)


def charter_of(mesh: SimMesh, *, by: str = "a", **fields: Any) -> bytes:
    now_ms = mesh.world.clock().now_ms()
    settings: dict[str, Any] = {
        "job": "job-1",
        "owner": mesh.peer("a"),
        "standbys": [mesh.peer("c"), mesh.peer("d")],
        "budget": Budget(cost_mc=1),
        "first_epoch": 1,
        "lease_ms": 1_000,
        "skew_ms": 100,
        "issued_ms": now_ms,
        "expires_ms": now_ms + 3_600_000,
    }
    charter = Charter(**{**settings, **fields})
    return sign_charter(mesh.identity(by), NETWORK, charter)


async def ask_for(
    mesh: SimMesh, name: str, envelope: bytes, epoch: int, *, by: str = "a"
) -> bytes:
    node = mesh.node(by)
    ask = Ask(envelope, epoch, mesh.world.clock().now_ms(), 0, 0)
    raw = await node.sessions.request(mesh.peer(name), EPOCH, encode(ask), timeout_s=5)
    return read_answer(raw).grant


def test_no_owner_takes_all_the_jobs_that_a_node_stands_by_for() -> None:
    async def story(mesh: SimMesh) -> None:
        await start(mesh, a=[], b=[])
        some = msgspec.structs.replace(WITH, standby=StandbyConfig(enabled=True, jobs_max=4))
        (c,) = await start(mesh, some, c=[])
        await start(mesh, WITH, d=[])

        async def is_taken(owner: str, job: str) -> bool:
            charter = charter_of(mesh, by=owner, job=job, owner=mesh.peer(owner))
            try:
                return bool(await ask_for(mesh, "c", charter, 1, by=owner))
            except Busy:
                return False

        taken = [await is_taken("a", f"job-{number}") for number in range(4)]
        assert taken == [True, True, False, False], "half is left for others"
        assert await is_taken("b", "other-1")
        assert not await is_taken("b", "other-2"), "and half of that for others again"
        assert c.successions._seats.held == 3

    play(story)


def test_an_owner_that_leaves_no_epoch_to_stand_for_stops_no_node() -> None:
    async def story(mesh: SimMesh) -> None:
        await mesh_of(mesh, TextAgent())
        envelope = charter_of(mesh, first_epoch=NUMBER_MAX)
        assert await ask_for(mesh, "c", envelope, NUMBER_MAX)
        assert await ask_for(mesh, "d", envelope, NUMBER_MAX)
        mesh.crash("a")
        await trio.sleep(10)
        assert mesh.up("c")
        assert mesh.up("d")

    play(story)


def test_a_schema_is_kept_only_if_an_award_names_it() -> None:
    async def story(mesh: SimMesh) -> None:
        await begun(mesh)
        node, seat = mesh.node("c"), seat_of(mesh, "c")
        have, store = node.successions._standbys._artifacts, node.broker._context.store
        there = await store.scan(SCHEMAS)
        assert there, "those that were named"
        await have.fetch(seat, Ship(b"", b"", 0, [], b"", [b"{}" * 1000], []))
        assert await store.scan(SCHEMAS) == there

    play(story)


def test_no_more_of_a_journal_is_kept_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standbys, "_JOURNAL_BYTES_MAX", 4_000)

    async def story(mesh: SimMesh) -> None:
        await begun(mesh)
        await trio.sleep(5)
        node = mesh.node("c")
        copy = await node.successions._standbys._copy(seat_of(mesh, "c").chartered.name)
        size = sum(len(body) for one in copy.segments for body in one.events)
        assert 0 <= size <= 4_000

    play(story)


def test_a_job_that_was_never_shipped_waits_for_its_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nothing(self: Shipping, member: str) -> None:
        await trio.sleep_forever()

    ship_to = Shipping._ship_to
    monkeypatch.setattr(Shipping, "_ship_to", nothing)

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        owner, *_ = await mesh_of(mesh, agent)
        job = await owner.submit(shouting(), inputs("one"), terms(mesh, deadline_s=600.0))
        await trio.sleep(1)
        mesh.crash("a")
        monkeypatch.setattr(Shipping, "_ship_to", ship_to)
        await trio.sleep(60)
        for name in ("c", "d"):
            assert await mesh.node(name).broker.jobs() == [], "both leave it to the owner"
            seat = seat_of(mesh, name)
            assert not mesh.node(name).successions._seats.acts(seat)
        assert agent.calls == []
        again = await mesh.restart("a")
        with trio.fail_after(60):
            state = await again.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert agent.calls == ["one"]

    play(story)
