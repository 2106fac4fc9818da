"""A node's own record: signed in time, told at once, with a sequence that only grows."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from meshnode.config import DirectoryConfig
from meshnode.errors import ConfigError, StoreError
from meshnode.services.records import TABLE
from protocol.codec import encode
from simulations.clock import EPOCH_MS, SimClock
from simulations.store import MemoryDisk
from tests.meshnode.services.mesh import (
    capability,
    joined_mesh,
    open_mesh,
    signed,
)

CATALOGUE_ONLY = DirectoryConfig(dht=False)
NO_STRANGERS = DirectoryConfig(dht=False, provide_interval_s=9_999.0)
DHT_ONLY = DirectoryConfig(catalogue=False)


async def test_the_own_record_is_renewed_long_before_it_expires(
    autojump_clock: MockClock,
) -> None:
    config = DirectoryConfig(dht=False, record_lifetime_s=100.0)
    async with open_mesh() as mesh:
        node = await mesh.add(1, "a@1", config=config)
        seen = []
        for _ in range(300):
            await trio.sleep(1)
            (record,) = node.service.known()
            assert SimClock().now_ms() < record.issued_ms + 52_000
            seen.append(record)
        sequences = [record.sequence for record in seen]
        assert sequences == sorted(sequences)
        assert 6 <= len(set(sequences)) <= 9


async def test_a_change_of_addresses_is_told_without_being_asked(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        node = await mesh.add(1, "a@1", config=CATALOGUE_ONLY)
        node.service._addresses = lambda: ("/memory/77",)
        await trio.sleep(11)
        assert node.service.addresses_of(node.peer) == ("/memory/77",)


async def test_many_changes_at_once_make_few_records(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        node = await mesh.add(1, "a@1", config=CATALOGUE_ONLY)
        await trio.sleep(5)
        before = node.count("directory.learned", peer=node.peer)
        for _ in range(100):
            node.service.changed()
            await trio.sleep(0.01)
        await trio.sleep(1)
        assert 1 <= node.count("directory.learned", peer=node.peer) - before <= 7


async def test_sequences_grow_over_restarts_although_the_clock_went_back(
    autojump_clock: MockClock,
) -> None:
    disk = MemoryDisk()
    sequences = []
    for skew_ms in (50_000, 0, -50_000):
        async with open_mesh() as mesh:
            node = await mesh.add(1, config=CATALOGUE_ONLY, disk=disk, skew_ms=skew_ms)
            sequences.append(node.sequence_of(node.peer))
        assert disk.user is not None
        await disk.user.aclose()
    assert all(one < other for one, other in pairwise(sequences))


async def test_a_node_that_lost_its_store_still_signs_higher(
    autojump_clock: MockClock,
) -> None:
    sequences = []
    for _ in range(2):
        async with open_mesh() as mesh:
            node = await mesh.add(1, config=CATALOGUE_ONLY)
            for _ in range(5):
                node.service.changed()
                await trio.sleep(1)
            sequences.append(node.sequence_of(node.peer))
    assert sequences[0] < sequences[1]
    assert sequences[0] >= EPOCH_MS


async def test_a_node_that_forgot_its_sequence_outbids_what_others_hold(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        one, other = await joined_mesh(mesh, 2, CATALOGUE_ONLY)
        ahead = SimClock().now_ms() + 10_000_000
        await one.sessions.request(
            other.peer, "catalogue.push", push(signed(2, ahead)), timeout_s=1
        )
        await mesh.until(lambda: one.sequence_of(other.peer) > ahead, within_s=1)
        assert one.service.providers("work.kind2@1")
        assert not one.service.providers("x@1")


def push(*records: bytes) -> bytes:
    return encode({"more": False, "records": list(records)})


async def test_a_node_whose_agents_make_no_valid_record_does_not_start(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        with pytest.RaisesGroup(ConfigError, flatten_subgroups=True, allow_unwrapped=True):
            await mesh.add(1, "no version")
        mesh.nursery.cancel_scope.cancel()


async def test_a_later_capability_that_makes_no_valid_record_leaves_the_others_told(
    autojump_clock: MockClock,
) -> None:
    config = DirectoryConfig(dht=False, record_lifetime_s=50.0)
    async with open_mesh() as mesh:
        node = await mesh.add(1, "a@1", config=config)
        node.offered.append(capability("b@1", agent="b", description="x" * 2000))
        node.service.changed()
        await trio.sleep(500)
        assert [c.name for _, c in node.service.providers("a")] == ["a@1"]
        assert 1 <= node.count("directory.record_invalid") <= 30
        node.offered[1] = capability("b@1", agent="b")
        await trio.sleep(11)
        assert node.service.providers("b@1")


async def test_a_damaged_sequence_is_not_taken_for_none(autojump_clock: MockClock) -> None:
    disk = MemoryDisk()
    disk.tables[TABLE] = {"sequence": b"what?"}
    async with open_mesh() as mesh:
        with pytest.RaisesGroup(StoreError, flatten_subgroups=True, allow_unwrapped=True):
            await mesh.add(1, disk=disk)
        mesh.nursery.cancel_scope.cancel()
