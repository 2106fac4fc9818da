"""What a peer may use of this node: slots, rates and time for every inbound stream.

py-libp2p limits nothing per peer (one peer held 3,118 streams), its DHT server has
12 slots in all and waits for ever in each (12 idle streams switch it off), and an
exception that escapes a handler ends the host.  So every inbound stream passes here
twice: :class:`Door` before the protocol is negotiated, whatever the protocol will
be, and :func:`guarded` around the handler of each protocol.  What is over a limit is
reset, which tells the peer at once, and never queued.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import StreamHandlerFn
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectError
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.stream_muxer.exceptions import MuxedStreamError

from meshnode.ports import Emit

if TYPE_CHECKING:
    from meshnode.adapters.libp2p_yamux import MeshYamuxStream

#: How long a peer may take to close its side after a handler of py-libp2p's is done.
LINGER_S: Final = 5.0
_DISCARD_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """What the streams of one protocol may use.

    Attributes:
        per_peer_max: Streams at once from one peer.
        total_max: Streams at once from all peers.
        idle_s: Longest wait for the next bytes, seconds.
        total_s: Longest life of a stream, seconds.
        rate_hz: New streams per second and peer, in the long run.
        burst_max: New streams that one peer may open at once after a pause.
    """

    per_peer_max: int
    total_max: int
    idle_s: float
    total_s: float
    rate_hz: float
    burst_max: int


#: Until a protocol is agreed on; and how many streams of all protocols a peer may hold.
DOOR: Final = Limits(
    per_peer_max=256, total_max=4096, idle_s=5.0, total_s=5.0, rate_hz=500.0, burst_max=1000
)
DHT: Final = Limits(
    per_peer_max=2, total_max=256, idle_s=5.0, total_s=10.0, rate_hz=50.0, burst_max=200
)
#: Identify, identify/push and ping.
HOUSEKEEPING: Final = Limits(
    per_peer_max=4, total_max=256, idle_s=5.0, total_s=10.0, rate_hz=10.0, burst_max=50
)


class Slots:
    """Counts who uses how much of something that is limited per peer and in all."""

    def __init__(self, per_peer_max: int, total_max: int) -> None:
        self._per_peer_max = per_peer_max
        self._total_max = total_max
        self._taken: Counter[str] = Counter()
        self._total = 0

    def take(self, peer: str) -> bool:
        """Take a slot for ``peer``, if one is free."""
        if self._total >= self._total_max or self._taken[peer] >= self._per_peer_max:
            return False
        self._taken[peer] += 1
        self._total += 1
        return True

    def give_back(self, peer: str) -> None:
        """Free a slot that :meth:`take` gave."""
        self._taken[peer] -= 1
        self._total -= 1
        if self._taken[peer] <= 0:
            del self._taken[peer]


class Buckets:
    """A token bucket per peer; the peers heard from longest ago are forgotten."""

    PEERS_MAX: Final = 4096

    def __init__(self, rate_hz: float, burst_max: int) -> None:
        self._rate_hz = rate_hz
        self._burst_max = burst_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str, *, now_s: float) -> bool:
        """Take a token of ``peer``'s, if it has one left."""
        tokens, at_s = self._buckets.pop(peer, (float(self._burst_max), now_s))
        tokens = min(self._burst_max, tokens + (now_s - at_s) * self._rate_hz)
        granted = tokens >= 1
        self._buckets[peer] = (tokens - 1 if granted else tokens, now_s)
        if len(self._buckets) > self.PEERS_MAX:
            self._buckets.popitem(last=False)
        return granted


def peer_of(stream: INetStream) -> str:
    """Return the PeerId at the other end of a stream."""
    return str(stream.muxed_conn.peer_id)


class Door:
    """Takes every inbound stream of a host: admits, negotiates, hands to the handler."""

    def __init__(self, multiselect: Multiselect, emit: Emit, limits: Limits = DOOR) -> None:
        self._multiselect = multiselect
        self._emit = emit
        self._limits = limits
        self._slots = Slots(limits.per_peer_max, limits.total_max)
        self._buckets = Buckets(limits.rate_hz, limits.burst_max)

    async def __call__(self, stream: INetStream) -> None:
        """Serve one stream to its end; never raises, whatever the handler does."""
        peer = peer_of(stream)
        if not self._buckets.take(peer, now_s=trio.current_time()) or not self._slots.take(
            peer
        ):
            self._emit("transport.stream_refused", peer=peer, protocol="", why="limit")
            await stream.reset()
            return
        try:
            await self._serve(stream)
        except Exception as exc:  # noqa: BLE001 - reported to emit; it must not end the host
            self._emit(
                "transport.handler_failed",
                peer=peer,
                protocol=str(stream.get_protocol()),
                error=repr(exc),
            )
            await stream.reset()
        finally:
            self._slots.give_back(peer)
            with trio.CancelScope(shield=True):
                await stream.reset()  # a handler may have left it open; else it is a no-op

    async def _serve(self, stream: INetStream) -> None:
        try:
            with trio.fail_after(self._limits.total_s):
                protocol, handler = await self._multiselect.negotiate(
                    MultiselectCommunicator(stream), int(self._limits.total_s)
                )
        except (MultiselectError, trio.TooSlowError):
            self._emit(
                "transport.stream_refused", peer=peer_of(stream), protocol="", why="negotiation"
            )
            await stream.reset()
            return
        if protocol is None or handler is None:
            await stream.reset()
            return
        stream.set_protocol(protocol)
        await handler(stream)


def guarded(handler: StreamHandlerFn, limits: Limits, emit: Emit) -> StreamHandlerFn:
    """Return ``handler`` within ``limits``; for handlers that have none of their own."""
    slots = Slots(limits.per_peer_max, limits.total_max)
    buckets = Buckets(limits.rate_hz, limits.burst_max)

    async def serve(stream: INetStream) -> None:
        peer = peer_of(stream)

        def refuse(why: str) -> None:
            emit(
                "transport.stream_refused",
                peer=peer,
                protocol=str(stream.get_protocol()),
                why=why,
            )

        if not buckets.take(peer, now_s=trio.current_time()) or not slots.take(peer):
            refuse("limit")
            await stream.reset()
            return
        try:
            with trio.move_on_after(limits.total_s) as scope:
                _bound_reads(stream, limits.idle_s, lambda: refuse("idle"))
                await handler(stream)
            if scope.cancelled_caught:
                refuse("slow")
            else:
                await _linger(stream)
        finally:
            slots.give_back(peer)

    return serve


def _bound_reads(stream: INetStream, idle_s: float, on_idle: Callable[[], None]) -> None:
    """Make each read of ``stream`` end within ``idle_s``, by resetting the stream."""
    read = stream.read

    async def read_soon(n: int | None = None) -> bytes:
        with trio.move_on_after(idle_s):
            return await read(n)
        on_idle()
        await stream.reset()
        raise StreamError(f"nothing came for {idle_s:.0f} s")

    stream.read = read_soon  # type: ignore[method-assign]  # its handlers take no other stream


async def _linger(stream: INetStream) -> None:
    """Wait a little for the peer to finish, so that it gets the answer before a reset."""
    muxed = cast("MeshYamuxStream", getattr(stream, "muxed_stream", None))
    with trio.move_on_after(LINGER_S):
        try:
            while await muxed.read(_DISCARD_BYTES):
                pass
        except MuxedStreamError:
            return  # finished, or gone: either is what was waited for
