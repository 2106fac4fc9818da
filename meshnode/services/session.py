"""One session at work: a reader, a writer and a heart around the sans-I/O machine.

The reader never waits for a handler: each request runs in a task of its own, so a
slow one stalls nobody; only what takes microseconds is answered at once.  A frozen
peer (its connection still up) is noticed by silence within ``SILENCE_MS_MAX``; every
request to it then ends in :class:`StreamLost`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import outcome
import trio

from meshnode.errors import Busy, MeshError, StoreError, StreamLost
from meshnode.ports import Emit, Stream, WallClock
from protocol import limits
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.session import (
    CancelRequest,
    Credit,
    Failure,
    Goodbye,
    Item,
    Opened,
    Reply,
    Request,
    SessionEvent,
    SessionMachine,
    State,
)

#: Bytes that may wait for a peer that doesn't read before askers wait too.
_WAITING_BYTES_MAX: Final = 4 * 1024 * 1024
#: How often silence is looked for, seconds.
_BEAT_S: Final = 1.0
#: A write that makes no headway for this long ends the session, seconds.
_WRITE_S: Final = 15.0
#: With so many requests open at most, what they say is written at once; with more it waits
#: for the writer, which puts what comes together into one frame of the transport.
_FEW: Final = 2
#: When to ask again a node whose disk refused, milliseconds.
_STORE_RETRY_MS: Final = 1_000


class RequestFailed(MeshError):
    """The peer answered a request with an error."""

    code = "peer.refused"

    def __init__(self, peer: str, failure: Failure) -> None:
        super().__init__(failure.message or f"{peer} refused the request")
        self.peer = peer
        self.failure = failure.code


class RequestTimeout(MeshError):
    """The peer didn't answer in time."""

    code = "peer.timeout"


@dataclass(slots=True)
class Incoming:
    """A request from a peer.

    Attributes:
        peer: Who asks; proved by the transport.
        method: What for.
        body: Up to a frame.
        deadline_s: When the asker gives up, on Trio's clock.
        traceparent: W3C trace context, or empty.
    """

    peer: str
    method: str
    body: bytes
    deadline_s: float
    traceparent: str
    _send: Callable[[bytes], Awaitable[None]]

    async def item(self, body: bytes) -> None:
        """Send one piece of the answer; waits for credit.

        Raises:
            StreamLost: The session ended, or the asker gave up.
        """
        await self._send(body)


Handler = Callable[[Incoming], Awaitable[bytes]]
#: Answers at once, in the task that reads: for what takes microseconds and waits for nothing.
PromptHandler = Callable[[Incoming], bytes]


class Owner(Protocol):
    """What a session needs from :class:`Sessions`."""

    clock: WallClock
    emit: Emit

    def handler(self, method: str) -> Handler | None:
        """Return who answers ``method``."""

    def prompt_handler(self, method: str) -> PromptHandler | None:
        """Return who answers ``method`` at once."""

    def refused(self, peer: str, why: str) -> None:
        """Hear that ``peer`` takes this node's key for one that has ended."""

    def accepted(self, session: "Session") -> None:
        """Hear that ``session``, which the peer dialled, is open."""

    @property
    def bar(self) -> Callable[[str], str]:
        """Return what tells why nothing is had from a peer, or empty."""


@dataclass(eq=False, slots=True)
class _Asked:
    """A request that waits for its answer."""

    on_item: Callable[[bytes], None] | None
    done: trio.Event = field(default_factory=trio.Event)
    answer: bytes | None = None
    error: BaseException | None = None


@dataclass(eq=False, slots=True)
class Session:
    """One stream, open or opening."""

    owner: Owner
    stream: Stream
    machine: SessionMachine
    epoch_ms: int
    opened: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    asked: dict[int, _Asked] = field(default_factory=dict)
    serving: dict[int, trio.CancelScope] = field(default_factory=dict)
    credited: dict[int, trio.Event] = field(default_factory=dict)
    nursery: trio.Nursery | None = None
    reason: str = ""
    stopped: bool = False
    deaf: bool = False  # nobody is there any more for what still comes
    settled: trio.Event = field(default_factory=trio.Event)
    _wake: trio.Event = field(default_factory=trio.Event)
    _writer: bool = False  # there is one: not before something could not be written at once
    _writing: bool = False  # by the writer, which looks again before it rests
    _held: bytes = b""  # taken from the machine, and not yet by the stream

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return self.stream.peer

    @property
    def usable(self) -> bool:
        """Whether requests may be sent on it."""
        return self.machine.state is State.OPEN and not self.ended.is_set()

    async def run(self) -> None:
        """Carry the session until it ends; never raises for what the peer did."""
        self.machine.start(now_ms=self._now_ms())
        try:
            async with trio.open_nursery() as nursery:
                self.nursery = nursery
                if self.stopped:
                    nursery.cancel_scope.cancel()
                self.wake()
                nursery.start_soon(self._beat)
                try:
                    await self._read()
                finally:
                    self.deaf = True  # the nursery closes before its end is noted
                nursery.cancel_scope.cancel()
        finally:
            self._end()
            await self.stream.aclose()

    def _now_ms(self) -> int:
        """Return the machine's time: it began as wall time, but never jumps."""
        return int(trio.current_time() * 1000) + self.epoch_ms

    @property
    def offset_ms(self) -> int:
        """The peer's clock minus ours as it is now; 0 before it was measured."""
        measured = self.machine.offset_ms
        if measured is None:
            return 0
        return measured + self._now_ms() - self.owner.clock.now_ms()

    # --- reading ---

    async def _read(self) -> None:
        try:
            if self.stream.deliver_to(self._take):
                while await self.stream.receive():
                    pass  # never: what comes is delivered
            else:
                while data := await self.stream.receive():
                    self._take(data)
        except StreamLost as exc:
            self.reason = self.reason or str(exc)

    def _take(self, data: bytes) -> None:
        """Take in what came; a peer that breaks the protocol loses the session."""
        if self.deaf or self.ended.is_set() or self.stopped:
            return  # it came while the session was ending
        try:
            for event in self.machine.receive(data, now_ms=self._now_ms()):
                self._hear(event)
        except RemoteProtocolError as exc:
            self.owner.emit(
                "session.violation", peer=self.peer, code=exc.code.name, why=str(exc)
            )
            self.stop(f"{self.peer} broke the protocol: {exc}")
        else:
            self.wake()

    def _hear(  # noqa: C901 - one arm for each event
        self, event: SessionEvent
    ) -> None:
        match event:
            case Opened():
                self._open()
            case Request():
                self._serve(event)
            case Item():
                self._pass_on(event)
            case Reply():
                self._answered(event.rid, answer=event.body)
            case Failure():
                busy = event.code == ErrorCode.BUSY
                retry_ms = max(1, event.retry_after_ms)
                error: MeshError = (
                    Busy(self.peer, retry_after_ms=retry_ms, text=event.message)
                    if busy
                    else RequestFailed(self.peer, event)
                )
                self._answered(event.rid, error=error)
            case CancelRequest():
                if scope := self.serving.get(event.rid):
                    scope.cancel()
            case Credit():
                waiting = self.credited.pop(event.rid, None)
                if waiting is not None:
                    waiting.set()
            case Goodbye():
                self._bidden(event)

    def _open(self) -> None:
        self.opened.set()
        if self.machine.role == "listener":
            self.owner.accepted(self)

    def _bidden(self, goodbye: Goodbye) -> None:
        self.reason = goodbye.reason
        if goodbye.code == ErrorCode.REVOKED:
            self.owner.refused(self.peer, goodbye.reason)

    def _pass_on(self, item: Item) -> None:
        """Let who asked have a piece; what it raises over it ends its request, no more."""
        asked = self.asked.get(item.rid)
        if asked is None or asked.on_item is None:
            return
        heard = outcome.capture(asked.on_item, item.body)
        if isinstance(heard, outcome.Error):
            self.machine.abandon(item.rid)
            self._answered(item.rid, error=heard.error)  # raised where it was asked
        else:
            self.machine.grant(item.rid, 1)

    def _answered(
        self, rid: int, *, answer: bytes | None = None, error: BaseException | None = None
    ) -> None:
        if asked := self.asked.pop(rid, None):
            asked.answer, asked.error = answer, error
            asked.done.set()

    # --- serving ---

    def _serve(self, request: Request) -> None:
        if why := self.owner.bar(self.peer):
            self.machine.fail(request.rid, ErrorCode.REVOKED, why)
        elif (prompt := self.owner.prompt_handler(request.method)) is not None:
            if self.machine.is_serving(request.rid):
                self._answer_at_once(prompt, request)
        elif (handler := self.owner.handler(request.method)) is None:
            self.machine.fail(
                request.rid, ErrorCode.UNKNOWN_TYPE, f"no method {request.method[:60]!r} here"
            )
        elif self.machine.is_serving(request.rid) and self.nursery is not None:
            scope = trio.CancelScope()
            self.serving[request.rid] = scope
            self.nursery.start_soon(self._handle, handler, request, scope)

    def _answer_at_once(self, handler: PromptHandler, request: Request) -> None:
        """Answer; whoever let ``request`` in writes what is to be said."""
        try:
            self.machine.reply(request.rid, handler(self._incoming(request)))
        except Exception as exc:  # noqa: BLE001 - a bug in one handler must not end the session
            self._report(request, exc)

    async def _handle(
        self, handler: Handler, request: Request, scope: trio.CancelScope
    ) -> None:
        incoming = self._incoming(request)
        try:
            with scope:
                answer = await handler(incoming)
                self.machine.reply(request.rid, answer)
            if scope.cancelled_caught:
                self.machine.fail(request.rid, ErrorCode.CANCELLED, "cancelled")
        except Exception as exc:  # noqa: BLE001 - a bug in one handler must not end the session
            self._report(request, exc)
        finally:
            self.serving.pop(request.rid, None)
            self.credited.pop(request.rid, None)
            self.wake()

    def _incoming(self, request: Request) -> Incoming:
        return Incoming(
            self.peer,
            request.method,
            request.body,
            trio.current_time() + request.timeout_ms / 1000,
            request.traceparent,
            lambda body: self.send_item(request.rid, body),
        )

    def _report(self, request: Request, exc: Exception) -> None:
        """Tell the asker why there is no answer, and this node's owner what is amiss here."""
        code, why, retry_ms = ErrorCode.INTERNAL, "an error at this node", 0
        match exc:
            case Busy():
                code, why, retry_ms = ErrorCode.BUSY, str(exc), exc.retry_after_ms
            case RemoteProtocolError():
                code, why = exc.code, str(exc)
                self.owner.emit(
                    "session.refused", peer=self.peer, method=request.method, why=why
                )
            case StoreError():
                # Our own disk, not the asker's fault, and it passes: the asker may try again.
                code, why, retry_ms = ErrorCode.BUSY, "this node can't write", _STORE_RETRY_MS
                self.owner.emit("session.held_up", method=request.method, why=str(exc))
            case MeshError():
                code, why = ErrorCode.REFUSED, f"{exc.code}: {exc}"
            case _:
                self.owner.emit(
                    "session.bug", peer=self.peer, method=request.method, error=repr(exc)
                )
        self.machine.fail(request.rid, code, why, retry_after_ms=retry_ms)

    async def send_item(self, rid: int, body: bytes) -> None:
        """Send a piece of the answer to ``rid`` once there is credit for it."""
        while self.machine.credit(rid) <= 0 or self.machine.waiting_bytes > _WAITING_BYTES_MAX:
            if self.ended.is_set() or not self.machine.is_serving(rid):
                raise StreamLost(f"{self.peer} no longer waits for this answer")
            event = self.credited.setdefault(rid, trio.Event())
            await event.wait()
        self.machine.item(rid, body)
        self.wake()

    # --- asking ---

    async def ask(
        self,
        method: str,
        body: bytes,
        *,
        timeout_s: float,
        on_item: Callable[[bytes], None] | None,
        traceparent: str,
    ) -> bytes:
        """Ask and return the answer; see :meth:`Sessions.request` for the errors."""
        if self.machine.waiting_bytes > _WAITING_BYTES_MAX:
            raise Busy(f"the session to {self.peer}")
        asked = _Asked(on_item)
        rid = self.machine.request(
            method, body, timeout_ms=max(1, int(timeout_s * 1000)), traceparent=traceparent
        )
        self.asked[rid] = asked
        self.wake()
        try:
            with trio.CancelScope(deadline=trio.current_time() + timeout_s):
                await asked.done.wait()
        finally:
            if self.asked.pop(rid, None) is not None:
                self.machine.abandon(rid)
                self.wake()
        if asked.error is not None:
            raise asked.error
        if asked.answer is None:
            raise RequestTimeout(f"{self.peer} did not answer {method} within {timeout_s:g} s")
        return asked.answer

    # --- writing ---

    def wake(self) -> None:
        """See that what waits is written: now if that is possible, else by the writer."""
        if self._writing:
            return
        if self._held or self.machine.open_requests > _FEW:
            self._write_soon()
            return
        try:
            while self.machine.waiting_bytes:
                self._held = self.machine.take()
                if not self.stream.send_nowait(self._held):
                    self._write_soon()
                    return
                self._held = b""
        except StreamLost as exc:
            self.stop(str(exc))
        self._settle()

    def _write_soon(self) -> None:
        self._wake.set()
        if not self._writer and not self.deaf and self.nursery is not None:
            self._writer = True
            self.nursery.start_soon(self._write)

    async def _write(self) -> None:
        """Write what waits, urgent frames first, many small ones in one go."""
        try:
            while True:
                self._wake = trio.Event()
                self._writing = True
                while data := self._held or self.machine.take():
                    self._held = b""
                    if not self.stream.send_nowait(data):
                        with trio.fail_after(_WRITE_S):
                            await self.stream.send(data)
                self._writing = False
                self._settle()
                if self.machine.waiting_bytes == 0:
                    await self._wake.wait()
        except trio.TooSlowError:
            self.stop(f"{self.peer} does not read")
        except StreamLost as exc:
            self.stop(str(exc))

    def _settle(self) -> None:
        """What waited has been written."""
        self.settled.set()
        if self.credited:  # some wait for what is waiting to be less, not for credit
            self._let_send()

    async def _beat(self) -> None:
        """Ask for signs of life, and end the session with who gives none.

        Where the stream itself minds that, this sees to the greeting only.
        """
        minded = self.stream.mind_silence(limits.SILENCE_MS_MAX / 1000, self._silent)
        while not (minded and self.opened.is_set()):
            await trio.sleep(_BEAT_S)
            if not self.machine.tick(now_ms=self._now_ms()):
                self._silent()
            self.wake()

    def _silent(self) -> None:
        self.stop(f"{self.peer} has been silent too long")

    async def quiet(self) -> None:
        """Wait until nothing is asked, served or waiting to be written, or it has ended."""
        while not self.ended.is_set() and not self.machine.idle:
            self.settled = trio.Event()
            await self.settled.wait()

    def stop(self, reason: str) -> None:
        """End the session from this side."""
        self.reason = self.reason or reason
        self.stopped = True
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    def _end(self) -> None:
        self.machine.close()
        self.ended.set()
        self.settled.set()
        why = self.reason or f"the session with {self.peer} ended"
        for asked in self.asked.values():
            asked.error = StreamLost(why)
            asked.done.set()
        self.asked.clear()
        self._let_send()

    def _let_send(self) -> None:
        """Have whoever waits to send a piece look again."""
        for waiting in self.credited.values():
            waiting.set()
        self.credited.clear()
