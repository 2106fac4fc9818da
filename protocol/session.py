"""The session: one long-lived stream between two nodes that carries all small messages.

This module is the session without the stream.  It is fed bytes and the time and
answers with events; it is asked to say something and answers with bytes to write.
It knows nothing of sockets, tasks or clocks, which is why the same class runs over
libp2p and in virtual time.

    FRESH --hello sent--> GREETING --welcome/hello read--> OPEN --goodbye--> DRAINING --> CLOSED

The dialler sends ``Hello``; the listener answers ``Welcome`` with the version and
features it picked.  Both measure the other's clock with every ping (as NTP does:
half a round trip is the error).  Any side may ask (``Request``); the answer is any
number of ``Item`` within the credit granted, then one ``Reply`` or ``Failure``.

Specified in protocol/spec/50-sessions.md; vectors in protocol/vectors/session.json.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Literal

from protocol import limits
from protocol.errors import (
    CreditExceeded,
    ErrorCode,
    LocalProtocolError,
    Malformed,
    OutOfTurn,
    WrongNetwork,
)
from protocol.framing import FrameReader
from protocol.session_frames import (
    CancelRequest,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Item,
    Ping,
    Pong,
    Reply,
    Request,
    SessionFrame,
    Welcome,
    decode_frame,
    encode_frame,
)

__all__ = [
    "PROTOCOL",
    "TRANSITIONS",
    "URGENT",
    "VERSION",
    "CancelRequest",
    "Credit",
    "Failure",
    "Goodbye",
    "Hello",
    "Item",
    "Opened",
    "Ping",
    "Pong",
    "Reply",
    "Request",
    "SessionEvent",
    "SessionFrame",
    "SessionMachine",
    "State",
    "Welcome",
    "decode_frame",
    "encode_frame",
]

PROTOCOL: Final = "/meshnode/session/1"
VERSION: Final = 1

#: Written before everything else that waits: they keep the session alive and stop work.
URGENT: Final = (Hello, Welcome, Ping, Pong, CancelRequest, Credit, Goodbye, Failure)


class State(Enum):
    """Where a session stands."""

    FRESH = auto()
    GREETING = auto()
    OPEN = auto()
    DRAINING = auto()
    CLOSED = auto()


#: (state, frame type) -> state after; what is not here is out of turn.  The rows of
#: OPEN hold in DRAINING too, but that new requests are refused there.
TRANSITIONS: Final[dict[tuple[State, type], State]] = {
    (State.FRESH, Hello): State.OPEN,
    (State.GREETING, Welcome): State.OPEN,
    **{
        (state, kind): state
        for state in (State.OPEN, State.DRAINING)
        for kind in (Ping, Pong, Request, Item, Reply, Failure, CancelRequest, Credit)
    },
    (State.OPEN, Goodbye): State.DRAINING,
    (State.DRAINING, Goodbye): State.DRAINING,
}


@dataclass(frozen=True, slots=True)
class Opened:
    """Both sides agreed; ``features`` are those that both have."""

    version: int
    features: frozenset[str]


SessionEvent = Opened | Request | Item | Reply | Failure | CancelRequest | Credit | Goodbye


@dataclass(slots=True)
class SessionMachine:
    """One side of one session.

    Attributes:
        role: Who dialled.
        network: The only mesh it will talk in.
        features: What this side can do.
        state: Where it stands.
        offset_ms: The peer's clock minus ours, or None before it was measured.
        round_trip_ms: Of the best measurement so far.
        waiting_bytes: Bytes that wait to be taken (:meth:`take`).
    """

    role: Literal["dialler", "listener"]
    network: str
    features: frozenset[str] = frozenset()
    state: State = State.FRESH
    offset_ms: int | None = None
    round_trip_ms: int | None = None
    heard_ms: int = 0
    pinged_ms: int = 0
    started_ms: int = 0
    _reader: FrameReader = field(default_factory=FrameReader)
    waiting_bytes: int = 0
    _urgent: deque[bytes] = field(default_factory=deque)
    _normal: deque[bytes] = field(default_factory=deque)
    _unsent: dict[int, bytes] = field(default_factory=dict)  # rid -> request that waits
    _next_rid: int = 1
    _asked: dict[int, int] = field(default_factory=dict)  # rid -> credit the peer has left
    _serving: dict[int, int] = field(default_factory=dict)  # rid -> credit we have left

    # --- saying ---

    def start(self, *, now_ms: int) -> None:
        """Begin: the dialler greets, the listener waits to be greeted."""
        self.heard_ms = self.pinged_ms = self.started_ms = now_ms
        if self.role == "dialler":
            self._say(Hello(self.network, [VERSION], sorted(self.features), now_ms))
            self.state = State.GREETING

    def request(
        self,
        method: str,
        body: bytes,
        *,
        timeout_ms: int,
        credit: int = limits.CREDIT_INITIAL,
        traceparent: str = "",
    ) -> int:
        """Ask, and return the request id that answers will carry.

        Raises:
            LocalProtocolError: The session isn't open, too many requests are, or the
                peer would refuse this one (body, credit or timeout out of range).
        """
        if self.state is not State.OPEN:
            raise LocalProtocolError(f"no request while {self.state.name}")
        if len(self._asked) >= limits.REQUESTS_MAX:
            raise LocalProtocolError(f"more than {limits.REQUESTS_MAX} open requests")
        if not 0 <= credit <= limits.CREDIT_MAX or timeout_ms <= 0:
            raise LocalProtocolError("credit or timeout out of range")
        rid = self._next_rid
        self._say(Request(rid, method, timeout_ms, credit, traceparent, body))
        self._next_rid += 1
        self._asked[rid] = credit
        self._unsent[rid] = self._normal[-1]
        return rid

    def grant(self, rid: int, items: int) -> None:
        """Let the peer send ``items`` more pieces of the answer to ``rid``.

        Raises:
            LocalProtocolError: It would hold more than :data:`~protocol.limits.CREDIT_MAX`.
        """
        if rid not in self._asked:
            return
        if items <= 0 or self._asked[rid] + items > limits.CREDIT_MAX:
            raise LocalProtocolError(f"credit out of range for request {rid}")
        self._asked[rid] += items
        # Credit overtakes what waits, but not the request that it is for.
        self._say(Credit(rid, items), urgent=rid not in self._unsent)

    def abandon(self, rid: int) -> None:
        """Tell the peer that the answer to ``rid`` is no longer wanted."""
        if self._asked.pop(rid, None) is None or self.state is State.CLOSED:
            return
        unsent = self._unsent.pop(rid, None)
        if unsent is None:
            self._say(CancelRequest(rid))
        else:  # a cancel would overtake it, and the peer work for nobody
            self._normal.remove(unsent)
            self.waiting_bytes -= len(unsent)

    def credit(self, rid: int) -> int:
        """Return how many pieces may be sent for ``rid`` now; 0 when it has ended."""
        return self._serving.get(rid, 0)

    def is_serving(self, rid: int) -> bool:
        """Tell whether the peer still waits for the answer to ``rid``."""
        return rid in self._serving

    def item(self, rid: int, body: bytes) -> None:
        """Send one piece of an answer.

        Raises:
            LocalProtocolError: Without credit, or after the end.
        """
        if self._serving.get(rid, 0) <= 0:
            raise LocalProtocolError(f"no credit for request {rid}")
        self._say(Item(rid, body))
        self._serving[rid] -= 1

    def reply(self, rid: int, body: bytes) -> None:
        """End an answer; nothing is sent if the peer gave up on it before."""
        if rid in self._serving:
            self._say(Reply(rid, body))
            del self._serving[rid]

    def fail(self, rid: int, code: ErrorCode, message: str, *, retry_after_ms: int = 0) -> None:
        """End a request with an error; nothing is sent if the peer gave up on it before."""
        if self._serving.pop(rid, None) is not None:
            self._say(Failure(rid, code, message[:500], retry_after_ms))

    def goodbye(self, code: ErrorCode, reason: str) -> None:
        """Ask for no more requests, and take none."""
        if self.state in {State.OPEN, State.DRAINING}:
            self._say(Goodbye(code, reason[:200]))
            self.state = State.DRAINING

    def close(self) -> list[int]:
        """The stream has ended: return the requests that will get no answer."""
        self.state = State.CLOSED
        orphans = list(self._asked)
        self._asked.clear()
        self._serving.clear()
        self._unsent.clear()
        return orphans

    def take(self, size_max: int = 64 * 1024) -> bytes:
        """Return bytes to write now, urgent ones first; empty when there is nothing.

        At least one frame is returned if any waits, then as many as fit ``size_max``.
        """
        taken: list[bytes] = []
        size = 0
        for queue in (self._urgent, self._normal):
            while queue and (not taken or size + len(queue[0]) <= size_max):
                taken.append(queue.popleft())
                size += len(taken[-1])
            if queue:
                break
        self.waiting_bytes -= size
        if not self._normal:
            self._unsent.clear()
        elif self._unsent:
            gone = set(map(id, taken))
            self._unsent = {k: v for k, v in self._unsent.items() if id(v) not in gone}
        return taken[0] if len(taken) == 1 else b"".join(taken)

    @property
    def open_requests(self) -> int:
        """How many are asked and not answered, on either side."""
        return len(self._asked) + len(self._serving)

    @property
    def idle(self) -> bool:
        """Nothing asked, nothing served, nothing to write."""
        return not (self._asked or self._serving or self._urgent or self._normal)

    # --- time ---

    def tick(self, *, now_ms: int) -> bool:
        """Ping when it has been quiet; return False once the peer must be taken for gone."""
        silence_ms = now_ms - self.heard_ms
        if self.state in {State.FRESH, State.GREETING}:
            # From the start, not from the last byte: a greeting may not be dripped.
            return now_ms - self.started_ms < limits.HELLO_MS_MAX
        if silence_ms >= limits.SILENCE_MS_MAX:
            return False
        if silence_ms >= limits.HEARTBEAT_MS and now_ms - self.pinged_ms >= limits.HEARTBEAT_MS:
            self.ping(now_ms=now_ms)
        return True

    def ping(self, *, now_ms: int) -> None:
        """Ask for a sign of life and the peer's time."""
        if self.state in {State.OPEN, State.DRAINING}:
            self.pinged_ms = now_ms
            self._say(Ping(now_ms))

    # --- hearing ---

    def receive(self, data: bytes, *, now_ms: int) -> list[SessionEvent]:
        """Return what ``data`` brings, in order.

        Args:
            data: Bytes as they came; any cut will do.
            now_ms: Milliseconds, on this node's clock.

        Raises:
            RemoteProtocolError: The peer broke a rule.  Close the session with the code.
        """
        self.heard_ms = now_ms
        heard = (self._hear(decode_frame(body), now_ms) for body in self._reader.feed(data))
        return [event for event in heard if event is not None]

    def _hear(  # noqa: C901, PLR0912 - one arm for each frame type
        self, message: SessionFrame, now_ms: int
    ) -> SessionEvent | None:
        after = TRANSITIONS.get((self.state, type(message)))
        if after is None or (isinstance(message, Hello) and self.role == "dialler"):
            raise OutOfTurn(type(message).__name__, self.state.name)
        self.state = after
        match message:
            case Hello():
                return self._greeted(message, now_ms)
            case Welcome():
                self._measure(message.echo_ms, message.time_ms, now_ms)
                if message.version != VERSION:
                    raise Malformed(f"version {message.version} was not offered")
                if len(message.features) > limits.FEATURES_MAX:
                    raise Malformed("too many features")
                return Opened(message.version, self.features & frozenset(message.features))
            case Ping():
                self._say(Pong(message.time_ms, now_ms))
                return None
            case Pong():
                self._measure(message.echo_ms, message.time_ms, now_ms)
                return None
            case Request():
                return self._asked_of_us(message)
            case Item():
                return self._item(message)
            case Reply() | Failure():
                known = self._asked.pop(message.rid, None) is not None
                return message if known else None
            case CancelRequest():
                known = self._serving.pop(message.rid, None) is not None
                return message if known else None
            case Credit():
                return self._credited(message)
            case Goodbye():
                return message

    def _greeted(self, hello: Hello, now_ms: int) -> Opened:
        if hello.network != self.network:
            raise WrongNetwork(f"this node is in {self.network!r}, not {hello.network[:40]!r}")
        if (
            len(hello.versions) > limits.VERSIONS_MAX
            or len(hello.features) > limits.FEATURES_MAX
        ):
            raise Malformed("too many versions or features")
        if VERSION not in hello.versions:
            raise Malformed(f"no common version: this node speaks {VERSION}")
        shared = self.features & frozenset(hello.features)
        self._say(Welcome(VERSION, sorted(self.features), now_ms, hello.time_ms))
        self.ping(now_ms=now_ms)  # the listener measures the clock as well
        return Opened(VERSION, shared)

    def _asked_of_us(self, request: Request) -> Request | None:
        if request.rid in self._serving:
            raise Malformed(f"request id {request.rid} is in use")
        if not 0 <= request.credit <= limits.CREDIT_MAX or request.timeout_ms <= 0:
            raise Malformed("credit or timeout out of range")
        if len(self._serving) >= limits.REQUESTS_MAX:
            raise CreditExceeded(f"more than {limits.REQUESTS_MAX} open requests")
        self._serving[request.rid] = request.credit
        if self.state is State.DRAINING:
            self.fail(request.rid, ErrorCode.BUSY, "this session is closing")
            return None  # nobody may work on what was just refused
        return request

    def _item(self, item: Item) -> Item | None:
        credit = self._asked.get(item.rid)
        if credit is None:
            return None  # abandoned here while the piece was on its way
        if credit <= 0:
            raise CreditExceeded(f"a piece beyond the credit of request {item.rid}")
        self._asked[item.rid] = credit - 1
        return item

    def _credited(self, credit: Credit) -> Credit | None:
        if credit.rid not in self._serving:
            return None
        total = self._serving[credit.rid] + credit.items
        if credit.items <= 0 or total > limits.CREDIT_MAX:
            raise Malformed("credit out of range")
        self._serving[credit.rid] = total
        return credit

    def _measure(self, echo_ms: int, peer_ms: int, now_ms: int) -> None:
        """Keep the offset of the shortest round trip: it has the smallest error."""
        trip_ms = now_ms - echo_ms
        if trip_ms < 0:
            return  # our own clock was set back since, or the echo is made up
        if self.round_trip_ms is None or trip_ms <= self.round_trip_ms:
            self.round_trip_ms = trip_ms
            self.offset_ms = peer_ms - (echo_ms + now_ms) // 2

    def _say(self, message: SessionFrame, *, urgent: bool = True) -> None:
        """Queue ``message``; first of all encode it, so that a refusal changes nothing."""
        body = encode_frame(message)
        is_urgent = urgent and isinstance(message, URGENT)
        (self._urgent if is_urgent else self._normal).append(body)
        self.waiting_bytes += len(body)
