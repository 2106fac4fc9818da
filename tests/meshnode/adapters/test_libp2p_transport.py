"""The transport on real sockets: what the contract suite can't ask of every transport."""

import logging
import signal
from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID
from multiaddr import Multiaddr

from meshnode.adapters import libp2p_patches, libp2p_swarm
from meshnode.adapters.libp2p_tcp import AddressUnusable, PortInUse
from meshnode.adapters.libp2p_transport import STREAMS_MAX, Libp2pTransport, open_transport
from meshnode.adapters.libp2p_transport import parse_peer as pid
from meshnode.adapters.libp2p_yamux import MeshYamux
from meshnode.adapters.yamux import DATA, HEADER, WINDOW_BYTES
from meshnode.errors import Busy, ConfigError, StreamLost, Unreachable
from meshnode.ports import Stream
from protocol.keys import Identity
from tests.meshnode.adapters.libp2p_nodes import (
    ECHO,
    Events,
    child,
    echo,
    seed,
    stock_transport,
)


async def dial(here: Libp2pTransport, there: Libp2pTransport, protocol: str = ECHO) -> Stream:
    return await here.open(there.peer, protocol, addresses=there.addresses())


async def ping(stream: Stream, text: bytes = b"ping") -> None:
    await stream.send(text)
    got = b""
    while len(got) < len(text):
        part = await stream.receive()
        assert part
        got += part
    assert got == text


def muxer(here: Libp2pTransport, there: Libp2pTransport) -> MeshYamux:
    """The muxed connection between the two, at ``here``."""
    conn = here.swarm.best_connection(pid(there.peer))
    assert conn is not None
    assert isinstance(conn.muxed_conn, MeshYamux)
    return conn.muxed_conn


# --- identity and addresses -------------------------------------------------------


async def test_the_peer_id_is_the_one_that_signatures_are_checked_against() -> None:
    async with open_transport(seed("a")) as transport:
        assert transport.peer == Identity(seed("a"), seed("x")).peer


async def test_a_port_in_use_is_an_error_that_names_it() -> None:
    async with open_transport(seed("a")) as first:
        address = first.addresses()[0]
        with pytest.raises(PortInUse, match=address) as caught:
            async with open_transport(seed("b"), listen=[address]):
                pytest.fail("two nodes listen on one port")
        assert caught.value.code == "transport.port_in_use"
        assert caught.value.hint


@pytest.mark.parametrize("address", ["nonsense", "/ip4/127.0.0.1", "/ip4/192.0.2.1/tcp/0"])
async def test_an_address_that_cannot_be_used_is_a_config_error(address: str) -> None:
    with pytest.raises(AddressUnusable):
        async with open_transport(seed("a"), listen=[address]):
            pytest.fail("it listens on what is no address")


async def test_a_wildcard_is_never_given_to_others() -> None:
    async with (
        open_transport(seed("a"), listen=["/ip4/0.0.0.0/tcp/0"]) as wild,
        open_transport(seed("b")) as other,
    ):
        assert wild.addresses()
        assert not [a for a in wild.addresses() if "/0.0.0.0/" in a or a.endswith("/tcp/0")]
        assert not [a for a in wild.host.get_addrs() if "/0.0.0.0/" in str(a)]
        wild.serve(ECHO, echo)
        await ping(await dial(other, wild))


async def test_what_the_body_raises_leaves_as_itself() -> None:
    with pytest.raises(ValueError, match="mine"):
        async with open_transport(seed("a")):
            raise ValueError("mine")


async def test_only_noise_and_yamux_are_offered() -> None:
    async with open_transport(seed("a")) as transport:
        upgrader = transport.swarm.upgrader
        assert set(upgrader.security_multistream.transports) == {"/noise"}
        assert set(upgrader.muxer_multistream.transports) == {PROTOCOL_ID}


# --- dialling ---------------------------------------------------------------------


async def test_those_who_dial_at_once_share_a_connection() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo)

        async def one() -> None:
            await ping(await dial(here, there))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        assert len(there.swarm.usable(pid(here.peer))) == 1


async def test_a_cancelled_dial_is_not_cancelled_for_the_others() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo)
        async with trio.open_nursery() as nursery:

            async def one() -> None:
                await ping(await dial(here, there))

            nursery.start_soon(one)
            with trio.CancelScope() as scope:
                scope.cancel()
                await dial(here, there)
        assert scope.cancelled_caught


async def test_after_a_failed_dial_a_new_address_is_tried_at_once() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo)
        with pytest.raises(Unreachable, match="/tcp/1"):
            await here.open(there.peer, ECHO, addresses=["/ip4/127.0.0.1/tcp/1"])
        await ping(await dial(here, there))


async def test_services_of_py_libp2p_dial_that_way_too() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        swarm, peer = here.swarm, pid(there.peer)
        swarm.peerstore.add_addrs(peer, [Multiaddr("/ip4/127.0.0.1/tcp/1")], 60)
        with pytest.raises(SwarmException):
            await swarm.dial_peer(peer)
        swarm.peerstore.add_addrs(peer, [Multiaddr(a) for a in there.addresses()], 60)
        (conn,) = await swarm.dial_peer(peer)
        assert conn is swarm.best_connection(peer)


async def test_py_libp2p_itself_refuses_that_peer_for_a_minute() -> None:
    """Why :class:`MeshSwarm` dials by itself: fails when py-libp2p has mended it."""
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        swarm, peer = here.swarm, pid(there.peer)
        swarm.peerstore.add_addrs(peer, [Multiaddr("/ip4/127.0.0.1/tcp/1")], 60)
        with pytest.raises(SwarmException):
            await Swarm.dial_peer(swarm, peer)
        swarm.peerstore.clear_addrs(peer)
        swarm.peerstore.add_addrs(peer, [Multiaddr(a) for a in there.addresses()], 60)
        with pytest.raises(SwarmException, match="negative cache"):
            await Swarm.dial_peer(swarm, peer)


async def test_a_stale_address_does_not_hide_a_good_one() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo)
        stale = ["/ip4/127.0.0.1/tcp/1", "nonsense", f"/ip4/127.0.0.1/tcp/2/p2p/{here.peer}"]
        await ping(await here.open(there.peer, ECHO, addresses=[*stale, *there.addresses()]))


async def test_an_address_that_accepts_and_says_nothing_ends_at_the_dial_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libp2p_swarm, "DIAL_S", 0.2)
    silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent[0].socket.getsockname()[1]
    async with open_transport(seed("a")) as here:
        with pytest.raises(Unreachable, match="no answer"):
            await here.open(
                Identity(seed("b"), seed("x")).peer,
                ECHO,
                addresses=[f"/ip4/127.0.0.1/tcp/{port}"],
            )
    await silent[0].aclose()


async def test_nobody_is_dialled_unasked() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        swarm, peer = here.swarm, pid(there.peer)
        swarm.peerstore.add_addrs(peer, [Multiaddr(a) for a in there.addresses()], 60)
        await swarm.auto_connector.start()
        await swarm.auto_connector.maybe_connect()
        assert not here.connected()
        stock = AutoConnector(swarm)  # what py-libp2p does although both watermarks are 0
        await stock.start()
        await stock.maybe_connect()
        assert here.connected() == [there.peer]


async def test_of_two_connections_one_is_left_and_streams_in_use_survive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libp2p_swarm, "DUPLICATE_GRACE_S", 0.05)
    async with open_transport(seed("a")) as one, open_transport(seed("b")) as two:
        one.serve(ECHO, echo)
        two.serve(ECHO, echo)
        small, large = sorted((one, two), key=lambda t: pid(t.peer).to_bytes())
        # The one that must go has a stream in use when the other one comes up.
        stream = await dial(large, small)
        address = Multiaddr(large.addresses()[0])
        await small.swarm._dial_addr_single_attempt(address, pid(large.peer))
        assert len(small.swarm.usable(pid(large.peer))) == 2
        await small.swarm._close_idle_duplicates(pid(large.peer))
        assert len(small.swarm.usable(pid(large.peer))) == 2
        await ping(stream, b"one")
        await stream.aclose()
        while len(small.swarm.usable(pid(large.peer))) > 1:
            await trio.testing.wait_all_tasks_blocked(0.01)
        (left,) = small.swarm.usable(pid(large.peer))
        assert left.direction.name == "OUTBOUND", "the smaller PeerId's own dial stays"
        await ping(await dial(large, small))
        await ping(await dial(small, large))


# --- streams ----------------------------------------------------------------------


async def test_a_handler_that_raises_is_reported_and_its_stream_breaks() -> None:
    events = Events()

    async def fails(stream: Stream) -> None:
        await stream.receive()
        raise ValueError("a bug")

    async with (
        open_transport(seed("a")) as here,
        open_transport(seed("b"), emit=events.emit) as there,
    ):
        there.serve(ECHO, fails)
        stream = await dial(here, there)
        await stream.send(b"?")
        with pytest.raises(StreamLost):
            await stream.receive()
        await trio.testing.wait_all_tasks_blocked(0.01)  # the reset travels faster than it
        (report,) = events.named("transport.handler_failed")
        assert report["peer"] == here.peer
        assert "a bug" in str(report["error"])
        there.serve(ECHO, echo)
        await ping(await dial(here, there))


async def test_one_stream_too_many_is_busy_and_does_not_wait() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo, per_peer_max=300)
        streams: list[Stream] = []

        async def open_too_many() -> None:
            for _ in range(STREAMS_MAX + 1):
                streams.append(await dial(here, there))  # noqa: PERF401 - what was opened is wanted

        with pytest.raises(Busy):
            await open_too_many()
        assert STREAMS_MAX - 5 <= len(streams) <= STREAMS_MAX, "but for identify's"
        await streams.pop().aclose()
        await ping(await dial(here, there))


async def test_what_had_arrived_is_received_although_the_connection_is_gone() -> None:
    async def say_and_leave(stream: Stream) -> None:
        await stream.send(b"last words")
        await stream.finish()

    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, say_and_leave)
        stream = await dial(here, there)
        await trio.testing.wait_all_tasks_blocked(0.02)
        await there.disconnect(here.peer)
        while here.connected():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert await stream.receive() == b"last words"
        assert await stream.receive() == b""


async def test_half_a_frame_is_a_break_and_never_an_end() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        ends: list[object] = []
        over = trio.Event()

        async def read(stream: Stream) -> None:
            try:
                while True:
                    ends.append(await stream.receive())
            except StreamLost as exc:
                ends.append(exc)
            over.set()

        there.serve(ECHO, read)
        await dial(here, there)
        conn = muxer(here, there)
        conn.push(HEADER.pack(0, DATA, 0, max(conn.machine.channels), 1000) + b"half")
        await conn.secured_conn.close()
        await over.wait()
        assert ends[0] == b"half"
        assert isinstance(ends[1], StreamLost)


async def test_a_peer_that_ignores_the_window_loses_its_connection() -> None:
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:

        async def never_read(stream: Stream) -> None:
            await trio.sleep_forever()

        there.serve(ECHO, never_read)
        await dial(here, there)
        conn = muxer(here, there)
        frame = HEADER.pack(0, DATA, 0, max(conn.machine.channels), 60_000)
        held = muxer(there, here).machine.channels
        most = 0
        with trio.fail_after(10):
            while here.connected():
                if conn.backlog_bytes < 200_000:
                    with suppress(ConnectionClosedError):
                        conn.push(frame + bytes(60_000))
                await trio.testing.wait_all_tasks_blocked()
                most = max(most, *(channel.buffered for channel in held.values()), 0)
        assert 60_000 <= most <= WINDOW_BYTES


# --- cancellation -----------------------------------------------------------------


async def stock_survives_cancelled_writes(
    here: Libp2pTransport, there: Libp2pTransport
) -> bool:
    """The same with py-libp2p's own streams, which ours can't wrap."""

    async def read_slowly(stream: INetStream) -> None:
        while await stream.read(4096):
            await trio.lowlevel.checkpoint()

    async def echo_once(stream: INetStream) -> None:
        await stream.write(await stream.read(100))
        await stream.close()

    there.host.set_stream_handler(TProtocol("/sink/1"), read_slowly)
    there.host.set_stream_handler(TProtocol("/echo/1"), echo_once)
    peer = pid(there.peer)
    conn = await here.swarm.reach(peer, [Multiaddr(a) for a in there.addresses()])
    breakages: list[Exception] = []
    report = breakages.append
    try:
        with trio.fail_after(4):
            await cancel_stock_writes(here, peer)
    except Exception as exc:  # noqa: BLE001 - it breaks in several ways
        report(exc)
    return not breakages and not conn.is_closed


async def cancel_stock_writes(here: Libp2pTransport, peer: ID) -> None:
    for round_ in range(40):
        sink = await here.host.new_stream(peer, [TProtocol("/sink/1")])
        with trio.move_on_after(0.0005 * (round_ % 8)):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sink.write, bytes(200_000))
        probe = await here.host.new_stream(peer, [TProtocol("/echo/1")])
        await probe.write(b"round %d" % round_)
        assert await probe.read(100) == b"round %d" % round_


async def test_cancelled_writes_leave_the_connection_usable() -> None:
    async def read_slowly(stream: Stream) -> None:
        while await stream.receive(4096):
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
            there.serve("/meshnode/test-sink/1", read_slowly, per_peer_max=200)
            there.serve(ECHO, echo)
            probe = await dial(here, there)
            conn = muxer(here, there)
            for round_ in range(60):
                sinks = [await dial(here, there, "/meshnode/test-sink/1") for _ in range(3)]
                with trio.move_on_after(0.0005 * (round_ % 8)):
                    async with trio.open_nursery() as nursery:
                        for sink in sinks:
                            nursery.start_soon(sink.send, bytes(200_000))
                await ping(probe, b"round %d" % round_)
                for sink in sinks[:2]:
                    await sink.aclose()
            assert muxer(here, there) is conn, "still the first connection"


async def test_py_libp2p_itself_breaks_when_writes_are_cancelled() -> None:
    """Why :class:`MeshYamux` writes as it does: fails when py-libp2p has mended it."""
    async with stock_transport("a") as here, stock_transport("b") as there:
        assert not await stock_survives_cancelled_writes(here, there)


async def test_a_send_to_a_frozen_process_is_cancelled_at_once() -> None:
    with trio.fail_after(60):
        async with (
            child("echo", "frozen") as (process, frozen),
            child("echo", "healthy") as (_, healthy),
            open_transport(seed("a")) as here,
        ):
            streams = {}
            for address in (frozen, healthy):
                streams[address] = await here.open(
                    address.rpartition("/")[2], ECHO, addresses=[address]
                )
                await ping(streams[address], b"hello from another process")
            process.send_signal(signal.SIGSTOP)
            with trio.move_on_after(0.3) as scope:
                while True:  # until the socket's buffers are full
                    await streams[frozen].send(bytes(60_000))
            assert scope.cancelled_caught
            assert trio.current_time() - scope.deadline < 0.2
            await ping(streams[healthy])
            # Neither more of it, nor opening, nor closing waits for the frozen one.
            for work in (
                lambda: streams[frozen].send(bytes(60_000)),
                streams[frozen].receive,
                lambda: here.open(frozen.rpartition("/")[2], ECHO),
            ):
                with trio.move_on_after(0.05) as scope:
                    await work()
                assert scope.cancelled_caught
            with trio.fail_after(2):
                await streams[frozen].aclose()
                await here.disconnect(frozen.rpartition("/")[2])
            await ping(streams[healthy])
            process.send_signal(signal.SIGCONT)


# --- patches ----------------------------------------------------------------------


def test_another_version_of_py_libp2p_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_patches, "VERSION", "0.8.2")
    with pytest.raises(ConfigError, match=r"0\.8\.1"):
        libp2p_patches.apply()


def test_a_part_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Swarm, "_dial_addr_single_attempt")
    with pytest.raises(ConfigError, match="_dial_addr_single_attempt"):
        libp2p_patches.apply()


async def test_py_libp2p_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_transport(seed("a")) as here, open_transport(seed("b")) as there:
        there.serve(ECHO, echo)
        await ping(await dial(here, there))
        await here.disconnect(there.peer)
    assert not caplog.records
    noisy = logging.getLogger("libp2p.network.auto_connector")
    assert not noisy.isEnabledFor(logging.ERROR), "it sets a level of its own"
