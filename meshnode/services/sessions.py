"""Sessions: one with each peer, on which everything small is said.

Any task may ask any peer; the session is dialled when there is none.  When both
nodes dial at once, the session that the smaller PeerId dialled stays, and what runs
on the other finishes first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import trio

from meshnode.errors import Busy, StreamLost, Unreachable
from meshnode.ports import Emit, Started, Stream, Transport, WallClock
from meshnode.services.session import (
    Handler,
    Incoming,
    PromptHandler,
    RequestFailed,
    RequestTimeout,
    Session,
)
from protocol import limits
from protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from protocol.session import PROTOCOL, Failure, SessionMachine

#: Streams of the session protocol that one peer may hold: both dialled, and one reconnecting.
_STREAMS_PER_PEER: Final = 4
#: After a failed dial the peer isn't dialled again for this long, seconds.
_REDIAL_S: Final = 1.0
#: Nor is who says that this node's key has ended, for this long, seconds.
_REFUSED_S: Final = 60.0
#: Whoever is turned away hears why within this, or not, seconds.
_TURN_AWAY_S: Final = 1.0
#: Failed dials that are remembered, the oldest forgotten first: names can be made up.
_FAILED_MAX: Final = 1_024

OnChange = Callable[[str, bool], None]

__all__ = [
    "Handler",
    "Incoming",
    "OnChange",
    "PromptHandler",
    "RequestFailed",
    "RequestTimeout",
    "Sessions",
]


class Sessions:
    """Every session of this node.

    Run :meth:`run` in a nursery first; then any task may :meth:`request`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        network: str,
        clock: WallClock,
        emit: Emit,
        addresses: Callable[[str], Sequence[str]],
        features: frozenset[str] = frozenset(),
    ) -> None:
        self.clock = clock
        self.emit = emit
        self._transport = transport
        self._network = network
        self._addresses = addresses
        self._features = features
        self._handlers: dict[str, Handler] = {}
        self._prompt: dict[str, PromptHandler] = {}
        self._sessions: dict[str, Session] = {}
        self._dialling: dict[str, trio.Event] = {}
        self._failed_s: dict[str, tuple[float, str]] = {}
        self._refused_s: dict[str, float] = {}
        self._callbacks: list[OnChange] = []
        self._nursery: trio.Nursery | None = None
        self._closing = False
        #: Why nothing is had from a peer, or empty; see KeyFates.
        self.bar: Callable[[str], str] = _nobody

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self._transport.peer

    def handle(self, method: str, handler: Handler) -> None:
        """Let ``handler`` answer requests for ``method``."""
        self._handlers[method] = handler
        self._prompt.pop(method, None)

    def handle_promptly(self, method: str, handler: PromptHandler) -> None:
        """Let ``handler`` answer requests for ``method`` at once; it may not wait."""

        async def answer(incoming: Incoming) -> bytes:
            await trio.lowlevel.checkpoint()
            return handler(incoming)

        self._handlers[method] = answer  # for this node itself
        self._prompt[method] = handler

    def handler(self, method: str) -> Handler | None:
        """Return who answers ``method``."""
        return self._handlers.get(method)

    def prompt_handler(self, method: str) -> PromptHandler | None:
        """Return who answers ``method`` at once."""
        return self._prompt.get(method)

    def on_change(self, callback: OnChange) -> None:
        """Call ``callback(peer, opened)`` whenever a session opens or ends."""
        self._callbacks.append(callback)

    def connected(self) -> Sequence[str]:
        """Return the peers with an open session, sorted."""
        return sorted(peer for peer, session in self._sessions.items() if session.usable)

    def offset_ms(self, peer: str) -> int:
        """Return the peer's clock minus ours; 0 before it was measured."""
        session = self._sessions.get(peer)
        return session.offset_ms if session else 0

    def offsets_ms(self) -> Mapping[str, int]:
        """Return the clocks of all peers with an open session minus ours."""
        return {p: session.offset_ms for p, session in self._sessions.items() if session.usable}

    def round_trip_ms(self, peer: str) -> int | None:
        """Return the shortest round trip measured, or None."""
        session = self._sessions.get(peer)
        return session.machine.round_trip_ms if session else None

    async def run(self, *, task_status: Started = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and carry sessions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._transport.serve(PROTOCOL, self._accept, per_peer_max=_STREAMS_PER_PEER)
            task_status.started()
            await trio.sleep_forever()

    async def _accept(self, stream: Stream) -> None:
        session = self._new(stream, "listener")
        await session.run()
        self._forget(session)

    def _new(self, stream: Stream, role: str) -> Session:
        machine = SessionMachine(
            "dialler" if role == "dialler" else "listener", self._network, self._features
        )
        epoch_ms = self.clock.now_ms() - int(trio.current_time() * 1000)
        return Session(self, stream, machine, epoch_ms)

    def accepted(self, session: Session) -> None:
        """Hear that ``session``, which the peer dialled, is open."""
        self._register(session)

    def _register(self, session: Session) -> None:
        """Keep ``session``, or the one that is there, by the rule both sides share."""
        peer = session.peer
        if self.bar(peer):
            self._turn_away(session)
            return
        there = self._sessions.get(peer)
        if there is not None and there is not session and there.usable:
            keep_dialled_by = min(self.peer, peer)
            dialled_by = self.peer if session.machine.role == "dialler" else peer
            if there.machine.role == session.machine.role:
                # The peer dials anew: it has lost the old one, which this side hasn't noticed.
                there.stop("replaced by a newer session")
            elif dialled_by == keep_dialled_by:
                self._retire(there)
            else:
                self._retire(session)
                return
        self._sessions[peer] = session
        self._failed_s.pop(peer, None)
        self.emit("session.opened", peer=peer, role=session.machine.role)
        if there is None or not there.usable:
            self._changed(peer, opened=True)

    def expel(self, peer: str) -> None:
        """End the session with ``peer``, if there is one and nothing is had from it."""
        session = self._sessions.get(peer)
        if session is not None and self.bar(peer):
            self._turn_away(session)

    def _turn_away(self, session: Session) -> None:
        why = self.bar(session.peer)
        self.emit("session.turned_away", peer=session.peer, why=why)
        session.machine.goodbye(ErrorCode.REVOKED, why)
        session.wake()
        if self._nursery is not None:
            self._nursery.start_soon(self._end_soon, session, why)

    async def _end_soon(self, session: Session, why: str) -> None:
        """Let what is to be written be written, and end ``session``."""
        with trio.move_on_after(_TURN_AWAY_S):
            await session.quiet()
        session.stop(why)

    def _retire(self, session: Session) -> None:
        """Let what runs on ``session`` finish, then end it."""
        if self._nursery is not None:
            self._nursery.start_soon(self._drain, session)

    async def _drain(self, session: Session) -> None:
        session.machine.goodbye(ErrorCode.CANCELLED, "another session is kept")
        session.wake()
        with trio.move_on_after(limits.SILENCE_MS_MAX / 1000):
            await session.quiet()
        session.stop("another session is kept")

    def _forget(self, session: Session) -> None:
        peer = session.peer
        if self._sessions.get(peer) is session:
            del self._sessions[peer]
            self.emit("session.closed", peer=peer, why=session.reason)
            self._changed(peer, opened=False)

    def _changed(self, peer: str, *, opened: bool) -> None:
        for callback in self._callbacks:
            callback(peer, opened)

    # --- asking ---

    async def connect(self, peer: str, *, addresses: Sequence[str] = ()) -> None:
        """Make sure that there is an open session with ``peer``.

        Raises:
            Unreachable: It can't be dialled, or doesn't speak this protocol or network.
        """
        await self._session(peer, addresses)

    async def _session(self, peer: str, addresses: Sequence[str] = ()) -> Session:
        while True:
            session = self._sessions.get(peer)
            if session is not None and session.usable:
                return session
            if self._closing or self._nursery is None:
                raise Unreachable(peer, "this node is closing")
            if why := self.bar(peer):
                raise Unreachable(peer, why)
            if peer == self.peer:
                raise Unreachable(peer, "that is this node itself")
            if trio.current_time() < self._refused_s.get(peer, -_REFUSED_S) + _REFUSED_S:
                raise Unreachable(peer, "it says that this node's key has ended")
            if (dialling := self._dialling.get(peer)) is not None:
                await dialling.wait()
                if (failed := self._failed_s.get(peer)) is not None:
                    raise Unreachable(peer, failed[1])
                continue
            failed = self._failed_s.get(peer)
            if failed is not None and trio.current_time() < failed[0] + _REDIAL_S:
                raise Unreachable(peer, failed[1])
            await self._dial(peer, addresses)

    async def _dial(self, peer: str, addresses: Sequence[str]) -> None:
        self._dialling[peer] = trio.Event()
        try:
            known = tuple(dict.fromkeys((*addresses, *self._addresses(peer))))
            stream = await self._transport.open(peer, PROTOCOL, addresses=known)
            await self._greet(stream)
            self._failed_s.pop(peer, None)
        except (Unreachable, StreamLost, Busy) as exc:
            self._note_failed(peer, str(exc))
            self.emit("session.dial_failed", peer=peer, why=str(exc))
            if isinstance(exc, Unreachable):
                raise
            raise Unreachable(peer, str(exc)) from exc
        finally:
            self._dialling.pop(peer).set()

    def _note_failed(self, peer: str, why: str) -> None:
        self._failed_s.pop(peer, None)
        if len(self._failed_s) >= _FAILED_MAX:
            del self._failed_s[next(iter(self._failed_s))]
        self._failed_s[peer] = (trio.current_time(), why)

    def refused(self, peer: str, why: str) -> None:
        """Hear that ``peer`` takes this node's key for one that has ended."""
        self.emit("session.refused_key", peer=peer, why=why)  # its owner may not know
        self._refused_s.pop(peer, None)
        if len(self._refused_s) >= _FAILED_MAX:
            del self._refused_s[next(iter(self._refused_s))]
        self._refused_s[peer] = trio.current_time()

    async def _greet(self, stream: Stream) -> None:
        """Start a dialled session and wait until both sides agreed."""
        session = self._new(stream, "dialler")
        if self._nursery is None:
            await stream.aclose()
            raise StreamLost("this node is closing")
        self._nursery.start_soon(self._carry, session)
        try:
            await self._await_welcome(session)
        except BaseException:  # whoever dialled gave up: nobody would use it
            session.stop("given up before it was open")
            raise
        self._register(session)

    async def _await_welcome(self, session: Session) -> None:
        with trio.move_on_after(limits.HELLO_MS_MAX / 1000):
            async with trio.open_nursery() as nursery:

                async def either(event: trio.Event) -> None:
                    await event.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(either, session.opened)
                nursery.start_soon(either, session.ended)
        if not session.opened.is_set():
            session.stop("no welcome in time")
            raise StreamLost(session.reason or "the peer did not welcome this node")

    async def _carry(self, session: Session) -> None:
        await session.run()
        self._forget(session)

    async def request(
        self,
        peer: str,
        method: str,
        body: bytes,
        *,
        timeout_s: float,
        on_item: Callable[[bytes], None] | None = None,
        traceparent: str = "",
    ) -> bytes:
        """Ask ``peer`` and return its answer.

        Args:
            peer: Whom; dialled when there is no session.
            method: Such as ``cfp``.
            body: At most a frame, larger things are artifacts.
            timeout_s: For dialling and answering together.
            on_item: Called with each piece of a streamed answer; must not block. What it
                raises ends this request and is raised from here.
            traceparent: W3C trace context.

        Raises:
            Unreachable: No session can be had.
            StreamLost: The session ended before the answer.
            RequestTimeout: No answer in time.
            RequestFailed: The peer answered with an error.
            Busy: The peer, or the session to it, is at its limit.
        """
        start_s = trio.current_time()
        if peer == self.peer:
            return await self._ask_self(method, body, timeout_s, on_item, traceparent)
        session = self._sessions.get(peer)
        if session is None or not session.usable:
            with trio.move_on_after(timeout_s) as scope:
                session = await self._session(peer)
            if session is None or scope.cancelled_caught:
                raise RequestTimeout(f"no session with {peer} within {timeout_s:g} s")
        left_s = max(0.001, timeout_s - (trio.current_time() - start_s))
        try:
            return await session.ask(
                method, body, timeout_s=left_s, on_item=on_item, traceparent=traceparent
            )
        except LocalProtocolError as exc:
            if session.usable:
                raise Busy(f"the session to {peer}") from exc
            raise StreamLost(f"the session with {peer} ended") from exc

    async def _ask_self(
        self,
        method: str,
        body: bytes,
        timeout_s: float,
        on_item: Callable[[bytes], None] | None,
        traceparent: str,
    ) -> bytes:
        """Answer a request of this node to itself, as if it came over a session."""
        handler = self._handlers.get(method)
        if handler is None:
            failure = Failure(0, ErrorCode.UNKNOWN_TYPE, f"no method {method} here", 0)
            raise RequestFailed(self.peer, failure)

        async def send(item: bytes) -> None:
            await trio.lowlevel.checkpoint()
            if on_item is not None:
                on_item(item)

        deadline_s = trio.current_time() + timeout_s
        with trio.move_on_at(deadline_s):
            try:
                return await handler(
                    Incoming(self.peer, method, body, deadline_s, traceparent, send)
                )
            except RemoteProtocolError as exc:
                raise RequestFailed(self.peer, Failure(0, exc.code, str(exc), 0)) from exc
        raise RequestTimeout(f"this node did not answer {method} within {timeout_s:g} s")

    async def drop(self, peer: str) -> None:
        """End the session with ``peer``, if there is one."""
        if session := self._sessions.get(peer):
            session.stop("dropped here")
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Say goodbye to everyone and take no more requests."""
        self._closing = True
        for session in list(self._sessions.values()):
            session.machine.goodbye(ErrorCode.CANCELLED, "the node is closing")
            session.wake()
        await trio.lowlevel.checkpoint()


def _nobody(_: str) -> str:
    """Bar nobody."""
    return ""
