"""The simulated DHT against the real one: the same course of events, the same figures.

The real one is py-libp2p's ``KadDHT`` under our adapter, over connections in memory and
in virtual time (:mod:`tests.simulations.kademlia_course`).  Both are small here; the
larger form is ``python -m tests.simulations.kademlia_course --nodes 50``.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from inspect import signature

import pytest
import trio
import trio.testing
from libp2p.kad_dht import common, peer_routing, provider_store
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from meshnode.adapters import kad_directory, libp2p_patches
from meshnode.adapters.kad_directory import KadDirectory, open_directory
from simulations.kademlia import Rules
from simulations.kademlia_node import Population
from simulations.kademlia_table import key_at
from tests.contracts.libp2p_ports import judge_record, make_record, seed
from tests.meshnode.adapters.memory_libp2p import address_of, memory_transport, open_wire
from tests.simulations.kademlia_course import (
    Course,
    Figures,
    compared,
    run_model,
    run_real,
    strays,
)

#: More nodes than a bucket holds; a third are killed, and their ports refuse.
REFUSING = Course(22, seed=1, lookups=8, newcomers=2, names=1)
#: Their hosts are gone with them, so whoever asks them waits.
SILENT = Course(14, seed=2, silent=True, lookups=5, newcomers=2)
Request = Callable[[], Awaitable[object]]
RULES = Rules(network="test")
DELAY_S = 0.05

# Whichever test comes first waits for the real nodes: 20 s of computing.
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def refusing() -> Figures:
    """What the real DHT does among nodes that die."""
    return run_real(REFUSING).figures


@pytest.fixture(scope="module")
def silent() -> Figures:
    """What the real DHT does among nodes whose hosts die."""
    return run_real(SILENT).figures


def test_the_model_does_what_the_real_one_does_when_nodes_die(refusing: Figures) -> None:
    assert strays(refusing, run_model(REFUSING).figures) == []


def test_the_model_does_what_the_real_one_does_when_hosts_die(silent: Figures) -> None:
    assert strays(silent, run_model(SILENT).figures) == []


@pytest.mark.parametrize(
    ("wrong", "told_by"),
    [
        (replace(RULES, replicas=1), "first publish: found"),
        (replace(RULES, alpha=3), "all alive: record: finds"),
        (replace(RULES, bucket_max=8), "first publish: found"),
        (replace(RULES, quorum=1), "all alive: record: requests"),
        (replace(RULES, parallel_max=1), "all alive: providers: elapsed_s"),
        (replace(RULES, request_trips=2.0), "all alive: record: elapsed_s"),
        (replace(RULES, dial_trips=0.0), "first publish: elapsed_s"),
    ],
    ids=["replicas", "alpha", "bucket", "quorum", "parallel", "request trips", "dial trips"],
)
def test_a_wrong_model_is_told_apart(refusing: Figures, wrong: Rules, told_by: str) -> None:
    assert told_by in _names(strays(refusing, run_model(REFUSING, wrong).figures))


def test_a_model_in_which_nobody_dies_is_told_apart(refusing: Figures) -> None:
    immortal = run_model(replace(REFUSING, dead=0.0)).figures
    assert "second publish: found" in _names(strays(refusing, immortal))


def test_a_model_in_which_the_dead_always_refuse_is_told_apart(silent: Figures) -> None:
    refused = run_model(replace(SILENT, silent=False)).figures
    assert "some dead: record: elapsed_s" in _names(strays(silent, refused))


def test_figures_are_there_to_be_compared(refusing: Figures, silent: Figures) -> None:
    for real in (refusing, silent):
        names = [name for name, _, _, allowed in compared(real, real) if allowed > 0]
        assert len(names) > 40
        assert strays(real, real) == []


def _names(told: list[str]) -> list[str]:
    return [line.partition(": real")[0] for line in told]


# --- numbers ----------------------------------------------------------------------


def test_the_rules_are_the_constants_of_the_real_one() -> None:
    rules = Rules()
    assert (rules.bucket_max, rules.replicas) == (common.BUCKET_SIZE, common.BUCKET_SIZE)
    assert rules.buckets_max == common.MAXIMUM_BUCKETS
    assert rules.alpha == common.ALPHA
    assert rules.rounds_max == peer_routing.MAX_PEER_LOOKUP_ROUNDS
    assert rules.seeds_min == peer_routing.MIN_PEERS_THRESHOLD
    assert rules.record_life_s == common.DEFAULT_TTL
    assert rules.provider_life_s == provider_store.PROVIDER_RECORD_EXPIRATION_INTERVAL
    assert rules.parallel_max == kad_directory.PARALLEL_MAX
    assert rules.attempts == kad_directory.ATTEMPTS
    assert rules.retry_s == kad_directory.RETRY_S
    assert rules.operation_s == kad_directory.OPERATION_S
    assert rules.operations_max == kad_directory.OPERATIONS_MAX
    assert rules.providers_max == kad_directory.PROVIDERS_MAX
    assert rules.names_max == kad_directory.NAMES_MAX
    assert rules.maintain_s == kad_directory.MAINTAIN_S
    assert rules.request_s == libp2p_patches.DHT_QUERY_S
    assert rules.quorum == signature(open_directory).parameters["quorum"].default


def test_entries_belong_where_the_real_one_has_them() -> None:
    population = Population(RULES, lambda _one, _other: 0.0, lambda _one, _other: True)
    place_of = kad_directory.place_of
    assert population.record_key("x") == key_at(place_of("/mesh/test/x"))
    assert population.name_key("text") == key_at(place_of("mesh/test/cap/text"))


async def test_a_request_takes_the_round_trips_that_the_rules_have(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_wire(DELAY_S) as wire,
        memory_transport(wire, seed(0), address_of(0)) as here,
        memory_transport(wire, seed(1), address_of(1)) as there,
        open_directory(here, "test", judge_record) as asker,
        open_directory(there, "test", judge_record) as asked,
    ):
        to: ID = asked.dht.local_peer_id
        here.host.get_peerstore().add_addrs(to, [Multiaddr(address_of(1))], 3600)
        first = await _trips(asker, to)
        assert first["find"] == RULES.dial_trips + RULES.request_trips
        for name, trips in (await _trips(asker, to)).items():
            expected = RULES.announce_trips if name == "announce" else RULES.request_trips
            assert trips == expected, name
        wire.kill(address_of(1))
        await trio.sleep(1)
        assert set((await _trips(asker, to)).values()) == {1.0}, "refusals"


async def _trips(asker: KadDirectory, to: ID) -> dict[str, float]:
    """Make each kind of request; return how many round trips each took."""
    dht, peer = asker.dht, str(asker.dht.local_peer_id)
    key = f"/mesh/test/{peer}".encode()
    providers = dht.provider_store
    requests: dict[str, Request] = {
        "find": lambda: dht.peer_routing._query_peer_for_closest(to, b"key"),
        "get": lambda: dht.value_store._get_from_peer(to, key),
        "store": lambda: dht.value_store._store_at_peer(to, key, make_record(peer, 1)),
        "announce": lambda: providers._send_add_provider(to, b"key"),
        "providers": lambda: providers._get_providers_from_peer_with_closers(to, b"key"),
    }
    took: dict[str, float] = {}
    for name, request in requests.items():
        begun_s = trio.current_time()
        await request()
        took[name] = round((trio.current_time() - begun_s) / (2 * DELAY_S), 3)
        await trio.sleep(5)  # identify and the server's handlers come to their ends
    return took
