"""What a greedy peer gets: its share, and nothing of anybody else's."""

from contextlib import suppress

import pytest
import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.kad_dht.common import PROTOCOL_ID as DHT_PROTOCOL

from meshnode.adapters import libp2p_guards
from meshnode.adapters.kad_directory import KadDirectory, open_directory
from meshnode.adapters.libp2p_guards import Buckets, Door, Limits, Slots, guarded
from meshnode.adapters.libp2p_transport import Libp2pStream, Libp2pTransport, open_transport
from meshnode.adapters.libp2p_transport import parse_peer as pid
from meshnode.errors import StreamLost, Unreachable
from tests.contracts.libp2p_ports import bootstrap_address, judge_record, make_record
from tests.meshnode.adapters.libp2p_nodes import ECHO, Events, echo, seed

GUARDED = TProtocol("/meshnode/test-guarded/1")


async def hang(stream: INetStream) -> None:
    """Wait for more, as a handler without limits does."""
    while await stream.read(100):
        pass


def test_slots_end_per_peer_and_in_all() -> None:
    slots = Slots(per_peer_max=2, total_max=3)
    assert [slots.take("a") for _ in range(3)] == [True, True, False]
    assert [slots.take("b") for _ in range(2)] == [True, False]
    slots.give_back("a")
    assert slots.take("c")
    assert not slots.take("a")


def test_a_bucket_refills_at_its_rate_and_is_each_peers_own() -> None:
    buckets = Buckets(rate_hz=2.0, burst_max=3)
    assert [buckets.take("a", now_s=0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", now_s=0)
    assert [buckets.take("a", now_s=1) for _ in range(3)] == [True, True, False]
    assert [buckets.take("a", now_s=1000) for _ in range(4)] == [True, True, True, False]


def test_buckets_of_many_peers_are_bounded() -> None:
    buckets = Buckets(rate_hz=1.0, burst_max=1)
    for number in range(Buckets.PEERS_MAX + 100):
        buckets.take(str(number), now_s=0)
    assert len(buckets._buckets) == Buckets.PEERS_MAX


@pytest.mark.parametrize(("idle_s", "total_s"), [(0.1, 30.0), (30.0, 0.1)])
async def test_an_idle_stream_is_reset(
    idle_s: float, total_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_guards, "LINGER_S", 0.1)
    limits = Limits(4, 4, idle_s=idle_s, total_s=total_s, rate_hz=100, burst_max=100)
    events = Events()
    with trio.fail_after(10):
        async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
            there.host.set_stream_handler(GUARDED, guarded(hang, limits, events.emit))
            stream = await here.open(there.peer, GUARDED, addresses=there.addresses())
            with pytest.raises(StreamLost):
                await stream.receive()
            assert events.named("transport.stream_refused")


async def test_streams_over_a_peers_share_are_reset_and_another_peer_is_served() -> None:
    events = Events()
    limits = Limits(20, 40, idle_s=30, total_s=30, rate_hz=1000, burst_max=1000)
    with trio.fail_after(20):
        async with (
            open_transport(seed("greedy")) as greedy,
            open_transport(seed("honest")) as honest,
            open_transport(seed("b")) as there,
        ):
            there.serve(ECHO, echo)
            there.swarm.set_stream_handler(Door(there.host.get_mux(), events.emit, limits))
            conn = await greedy.swarm.reach(pid(there.peer), there.host.get_transport_addrs())
            # Not even a protocol is named: only the door sees these.
            opened = [Libp2pStream(await greedy.swarm.open_on(conn)) for _ in range(100)]
            over = 0

            async def wait_for_reset(stream: Libp2pStream) -> None:
                nonlocal over
                with suppress(StreamLost):
                    while await stream.receive():  # the greeting of the negotiation
                        pass
                    pytest.fail("an end, not a reset")
                over += 1
                if over == 80:
                    nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                for stream in opened:
                    nursery.start_soon(wait_for_reset, stream)
            assert len(events.named("transport.stream_refused")) >= 80
            ours = await honest.open(there.peer, ECHO, addresses=there.addresses())
            await ours.send(b"still here?")
            assert await ours.receive() == b"still here?"


async def publish_beside_idle_streams(*, guard: bool) -> None:
    """Hold a dozen idle DHT streams to a bootstrap node, then publish through it."""
    events = Events()
    with trio.fail_after(20):
        async with (
            open_transport(seed("bootstrap"), emit=events.emit) as there,
            open_directory(there, "test", judge_record) as served,
            open_transport(seed("idler")) as idler,
            open_transport(seed("honest")) as honest,
        ):
            if not guard:
                there.host.set_stream_handler(DHT_PROTOCOL, served.dht.handle_stream)
                served.dht._inbound_limiter.total_tokens = 12
            await hold_idle_streams(idler, there, 12)
            if guard:
                refused = events.named("transport.stream_refused")
                assert len([e for e in refused if e["peer"] == idler.peer]) == 10
            directory = KadDirectory(
                honest, "test", judge_record, bootstrap=[bootstrap_address(there)]
            )
            await directory.publish(make_record(honest.peer, 1), ["a.name@1"])
            assert await served.record(honest.peer) == make_record(honest.peer, 1)


async def hold_idle_streams(
    idler: Libp2pTransport, there: Libp2pTransport, count: int
) -> list[object]:
    held: list[object] = []
    for _ in range(count):
        try:
            held.append(await idler.open(there.peer, DHT_PROTOCOL, addresses=there.addresses()))
        except StreamLost:
            continue  # over the limit: refused while it was being opened
    return held


async def test_twelve_idle_streams_do_not_switch_the_dht_off() -> None:
    await publish_beside_idle_streams(guard=True)


async def test_twelve_idle_streams_switch_an_unguarded_dht_off() -> None:
    """Why the handler is guarded: fails when py-libp2p has mended it."""
    with pytest.raises(Unreachable):
        await publish_beside_idle_streams(guard=False)
