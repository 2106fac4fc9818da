"""The directory on the real DHT: what the contract suite can't ask of every directory."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing
from libp2p.kad_dht.kad_dht import DHTMode
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from meshnode.adapters import kad_directory, libp2p_patches
from meshnode.adapters.kad_directory import (
    RECORD_BYTES_MAX,
    KadDirectory,
    RecordValidator,
    open_directory,
)
from meshnode.adapters.libp2p_transport import open_transport
from meshnode.adapters.libp2p_transport import parse_peer as pid
from meshnode.errors import ConfigError, Unreachable
from protocol.keys import Identity
from tests.contracts.libp2p_ports import bootstrap_address, judge_record, make_record
from tests.meshnode.adapters.libp2p_nodes import NAME, child, seed
from tests.meshnode.adapters.memory_libp2p import address_of, memory_transport, open_wire

EXPIRED = b"expired"


def judge(peer: str, record: bytes) -> int | None:
    """Judge as a node does: nothing forged, nothing expired."""
    # Padding is no reason of the judge's, so that size alone decides.
    return None if record.endswith(EXPIRED) else judge_record(peer, record.rstrip(b"\0"))


@asynccontextmanager
async def nodes(count: int) -> AsyncIterator[Sequence[KadDirectory]]:
    """Run DHT nodes; the first one's address is all the others get."""
    async with AsyncExitStack() as stack:
        made: list[KadDirectory] = []
        bootstrap: list[str] = []
        for number in range(count):
            transport = await stack.enter_async_context(open_transport(seed(f"n{number}")))
            bootstrap = bootstrap or []
            made.append(
                await stack.enter_async_context(
                    open_directory(transport, "test", judge, bootstrap=bootstrap)
                )
            )
            bootstrap = bootstrap or [bootstrap_address(transport)]
        yield made


@asynccontextmanager
async def memory_nodes(count: int) -> AsyncIterator[Sequence[KadDirectory]]:
    """Run what :func:`nodes` runs in virtual time."""
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(open_wire(delay_s=0.05))
        made: list[KadDirectory] = []
        bootstrap: list[str] = []
        for number in range(count):
            transport = await stack.enter_async_context(
                memory_transport(wire, seed(f"n{number}"), address_of(number))
            )
            directory = open_directory(transport, "test", judge, bootstrap=bootstrap)
            made.append(await stack.enter_async_context(directory))
            bootstrap = bootstrap or [bootstrap_address(transport)]
        yield made


def peer_of(directory: KadDirectory) -> str:
    return str(directory.dht.local_peer_id)


def key_of(peer: str) -> str:
    return f"/mesh/test/{peer}"


def unacceptable(peer: str) -> dict[str, tuple[str, bytes]]:
    """What a stranger may try to store: key and value."""
    good = make_record(peer, 3)
    return {
        "forged": (key_of(peer), good[:-1] + b"!"),
        "expired": (key_of(peer), good + EXPIRED),
        "too large": (key_of(peer), good + bytes(RECORD_BYTES_MAX)),
        "another peer's": (key_of(peer), make_record("12D3KooWother", 3)),
        "another network's": (f"/mesh/other/{peer}", good),
        "in no namespace": ("plain-key", good),
        "in an unknown namespace": (f"/other/{peer}", good),
    }


@pytest.mark.parametrize("why", list(unacceptable("x")))
async def test_a_server_does_not_store(why: str) -> None:
    with trio.fail_after(20):
        async with nodes(2) as (server, stranger):
            await stranger._rejoin()
            key, value = unacceptable(peer_of(stranger))[why]
            store_at = stranger.dht.value_store._store_at_peer
            assert not await store_at(pid(peer_of(server)), key.encode(), value)
            assert not server.dht.value_store.store
            good = make_record(peer_of(stranger), 3)
            good_key = key_of(peer_of(stranger)).encode()
            assert await store_at(pid(peer_of(server)), good_key, good), "and what is good is"


@pytest.mark.parametrize("why", ["forged", "expired", "too large", "another peer's"])
async def test_a_lookup_does_not_return(why: str) -> None:
    with trio.fail_after(20):
        async with nodes(3) as (liar, victim, asker):
            key, value = unacceptable(peer_of(victim))[why]
            liar.dht.value_store.put(key.encode(), value)
            assert await asker.record(peer_of(victim)) is None


async def test_a_stale_copy_here_does_not_hide_a_newer_record_there() -> None:
    with trio.fail_after(20):
        async with nodes(3) as (_, one, asker):
            peer = peer_of(one)
            await one.publish(make_record(peer, 2), [])
            asker.dht.value_store.put(key_of(peer).encode(), make_record(peer, 1))
            assert await asker.record(peer) == make_record(peer, 2)
            assert await asker.dht.get_value(key_of(peer)) == make_record(peer, 1), (
                "py-libp2p's own lookup is content with it"
            )


async def test_providers_known_here_do_not_end_the_search() -> None:
    with trio.fail_after(20):
        async with nodes(4) as (_, one, two, asker):
            for who in (one, two):
                await who.publish(make_record(peer_of(who), 1), [NAME])
            everyone = {peer_of(one), peer_of(two)}
            asker.dht.provider_store.providers.clear()
            await asker.publish(make_record(peer_of(asker), 1), [NAME])
            asker.dht.provider_store.providers[asker._name_key(NAME)] = {
                key: record
                for key, record in asker.dht.provider_store.providers[
                    asker._name_key(NAME)
                ].items()
                if key == peer_of(asker)
            }
            assert set(await asker.providers(NAME)) == everyone | {peer_of(asker)}


async def test_all_of_a_nodes_names_are_listed_although_they_are_many() -> None:
    names = [f"text.kind_{number}@1" for number in range(30)]
    with trio.fail_after(30):
        async with nodes(3) as (bootstrap, one, asker):
            await one.publish(make_record(peer_of(one), 1), names)
            found = [n for n in names if peer_of(one) in await asker.providers(n)]
            assert found == names
            assert bootstrap.dht.provider_store.size() >= len(names)


async def test_of_too_many_names_the_full_ones_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kad_directory, "NAMES_MAX", 3)
    names = ["a", "a.b", "a.b@1", "c", "c@1", "d", "d@1"]
    with trio.fail_after(20):
        async with nodes(2) as (server, one):
            await one.publish(make_record(peer_of(one), 1), names)
            listed = [name for name in names if await server.providers(name)]
            assert listed == ["a.b@1", "c@1", "d@1"]


async def test_who_has_gone_is_not_told_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others name it for hours: each name would be a dial, and a line in the log."""
    gone, deaf = (Identity(seed(name), seed(name)).peer for name in ("gone", "deaf"))
    names = [f"text.name{number}@1" for number in range(12)]
    told: list[str] = []
    events: list[str] = []
    with trio.fail_after(30):
        async with nodes(2) as (here, asker):
            closest = [pid(peer_of(here)), pid(gone), pid(deaf)]
            values, providers = asker.dht.value_store, asker.dht.provider_store
            send = providers._send_add_provider

            async def find(_: bytes) -> list[ID]:
                await trio.lowlevel.checkpoint()
                return closest

            async def store_at(peer: ID, *_: bytes) -> bool:
                await trio.lowlevel.checkpoint()
                return str(peer) != gone

            async def send_to(peer: ID, key: bytes) -> bool:
                told.append(str(peer))
                return str(peer) != deaf and bool(await send(peer, key))

            monkeypatch.setattr(asker, "_closest", find)
            monkeypatch.setattr(values, "_store_at_peer", store_at)
            monkeypatch.setattr(providers, "_send_add_provider", send_to)
            monkeypatch.setattr(
                asker._transport, "_emit", lambda what, /, **_: events.append(what)
            )
            await asker.publish(make_record(peer_of(asker), 1), names)
            listed = await here.providers(names[-1])
    assert gone not in told
    assert deaf in told
    assert events.count("directory.announcement_failed") == 1
    assert listed == [peer_of(asker)]


async def test_a_record_is_looked_for_at_those_whom_others_name(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with memory_nodes(3) as (first, holder, asker):
        await trio.sleep(10)  # they have looked around: nobody knew of anybody
        absent = Identity(seed("absent"), seed("absent")).peer
        holder.dht.value_store.put(key_of(absent).encode(), make_record(absent, 1))
        await first.dht.routing_table.add_peer(pid(peer_of(holder)))
        assert asker.dht.routing_table.get_peer_ids() == [pid(peer_of(first))]
        assert await asker.record(absent) == make_record(absent, 1)


async def test_publishing_alone_is_unreachable() -> None:
    async with nodes(1) as (alone,):
        with pytest.raises(Unreachable, match="no directory peer"):
            await alone.publish(make_record(peer_of(alone), 1), [NAME])


async def test_a_bootstrap_that_the_dht_forgot_is_known_again() -> None:
    with trio.fail_after(20):
        async with nodes(2) as (bootstrap, one):
            await one.publish(make_record(peer_of(one), 1), [])
            one.dht.routing_table.remove_peer(pid(peer_of(bootstrap)))
            await one._transport.disconnect(peer_of(bootstrap))
            await one.publish(make_record(peer_of(one), 2), [])
            assert await bootstrap.record(peer_of(one)) == make_record(peer_of(one), 2)


async def test_a_client_publishes_and_looks_up_but_serves_nobody() -> None:
    with trio.fail_after(20):
        async with nodes(2) as (_, one), open_transport(seed("c"), listen=[]) as transport:
            address = bootstrap_address(one._transport)
            async with open_directory(
                transport, "test", judge, bootstrap=[address], server=False
            ) as client:
                assert client.dht.mode is DHTMode.CLIENT
                await client.publish(make_record(transport.peer, 1), [])
                assert await one.record(transport.peer) == make_record(transport.peer, 1)
                protocols = transport.host.get_mux().get_protocols()
                assert "/ipfs/kad/1.0.0" not in protocols


async def test_an_expired_record_is_dropped_by_its_holder() -> None:
    async with nodes(1) as (alone,):
        key = key_of(peer_of(alone)).encode()
        alone.dht.value_store.put(key, make_record(peer_of(alone), 1) + EXPIRED)
        alone._expire()
        assert alone.dht.value_store.get(key) is None


async def test_an_operation_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kad_directory, "OPERATION_S", 0.3)
    async with nodes(2) as (_, one):

        async def for_ever(key: bytes) -> list[object]:
            await trio.sleep_forever()
            return []

        monkeypatch.setattr(one.dht.peer_routing, "find_closest_peers_network", for_ever)
        with trio.fail_after(5):
            with pytest.raises(Unreachable):
                await one.publish(make_record(peer_of(one), 1), [NAME])
            assert await one.record(peer_of(one)) is not None, "what it holds itself"
            assert await one.record("nobody") is None
            assert await one.providers("nothing") == []


async def test_a_peer_that_accepts_and_says_nothing_does_not_hold_a_lookup_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libp2p_patches, "DHT_QUERY_S", 0.3)
    monkeypatch.setattr(kad_directory, "DHT_QUERY_S", 0.3)
    (silent,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent.socket.getsockname()[1]
    with trio.fail_after(20):
        async with nodes(3) as (_, one, asker):
            await one.publish(make_record(peer_of(one), 1), [NAME])
            mute = pid(Identity(seed("mute"), seed("x")).peer)
            place = Multiaddr(f"/ip4/127.0.0.1/tcp/{port}")
            asker._transport.swarm.peerstore.add_addrs(mute, [place], 60)
            await asker.dht.routing_table.add_peer(
                PeerInfo(mute, [place]), skip_server_mode_check=True
            )
            before_s = trio.current_time()
            assert list(await asker.providers(NAME)) == [peer_of(one)]
            assert trio.current_time() - before_s < 2, "the dial alone would take 5 s"
    libp2p_patches.apply()  # with the module's own figure
    await silent.aclose()


def test_the_highest_sequence_is_selected_and_of_equals_the_last() -> None:
    validator = RecordValidator("test", judge)
    key = key_of("p")
    low, high = make_record("p", 1), make_record("p", 2)
    assert validator.select(key, [low, high]) == 1
    assert validator.select(key, [high, low]) == 0
    assert validator.select(key, [high, high]) == 1, "else a repeated put is refused"
    assert validator.select(key, [low, b"rubbish"]) == 0


@pytest.mark.parametrize("network", ["", "a/b", "x" * 33])
async def test_what_is_no_network_id_is_refused(network: str) -> None:
    async with open_transport(seed("a")) as transport:
        with pytest.raises(ConfigError):
            KadDirectory(transport, network, judge)


@pytest.mark.parametrize("address", ["", "/ip4/127.0.0.1/tcp/1", "/ip4/x/tcp/1/p2p/y"])
async def test_what_is_no_bootstrap_address_is_refused(address: str) -> None:
    async with open_transport(seed("a")) as transport:
        with pytest.raises(ConfigError):
            KadDirectory(transport, "test", judge, bootstrap=[address])


@pytest.mark.timeout(60)
async def test_six_processes_are_all_found_from_a_bootstrap_address_alone() -> None:
    with trio.fail_after(50):
        async with AsyncExitStack() as stack:
            there = await stack.enter_async_context(open_transport(seed("bootstrap")))
            await stack.enter_async_context(open_directory(there, "test", judge_record))
            providers: set[str] = set()

            async def start(name: str) -> None:
                _, peer = await stack.enter_async_context(
                    child("provider", name, bootstrap_address(there))
                )
                providers.add(peer)

            for number in range(6):
                await start(f"provider {number}")
            asker = await stack.enter_async_context(open_transport(seed("asker")))
            directory = await stack.enter_async_context(
                open_directory(
                    asker, "test", judge_record, bootstrap=[bootstrap_address(there)]
                )
            )
            assert set(await directory.providers(NAME)) == providers
            for peer in providers:
                assert await directory.record(peer) == make_record(peer, 1)
