"""The outbox: letters of this node's owner, until each is acknowledged or has expired.

A letter is written down before anything is sent, and stays due on the disk until its
reader's signed acknowledgement is there, so a crash in between sends it again, which the
reader knows.

Letters go by *route*, one for each recipient: who is away is tried once for all of them,
with pauses that grow, and at once when a session with it opens.  With nothing to send
nothing here wakes up.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from meshnode.errors import Busy, MeshError, NotFound, StreamLost, Unreachable
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context
from meshnode.services.letter_writing import (
    Draft,
    Keep,
    check_draft,
    nothing_else,
    written,
)
from meshnode.services.mail import (
    LETTER,
    OUTBOX,
    OUTBOX_DUE,
    OUTBOX_LETTERS,
    OUTBOX_ROW,
    OUTBOX_SEALED,
    ROWS_MAX,
    OutboxRow,
    State,
)
from meshnode.services.sessions import RequestFailed, RequestTimeout, Sessions
from protocol.codec import decode_as, encode
from protocol.errors import (
    ErrorCode,
    ProtocolError,
    RemoteProtocolError,
)
from protocol.mail import LetterAck, read_ack

#: A letter is given up after this, unless its owner says otherwise, seconds.
LIFETIME_S: Final = 7 * 86_400.0
_TIMEOUT_S: Final = 10.0
#: Pauses between tries: the first, and the longest, seconds; each is drawn around.
_PAUSE_S: Final = 1.0
_PAUSE_S_MAX: Final = 600.0
_JITTER: Final = (0.5, 1.0)
#: Recipients that are tried at once.
_ROUTES_MAX: Final = 16
#: Letters that have ended and are still listed, the oldest forgotten first.
_ENDED_MAX: Final = 1_000
#: Refusals that pass; any other one is the end of the letter.
_PASSING: Final = frozenset(
    {
        ErrorCode.BUSY,
        ErrorCode.INTERNAL,
        ErrorCode.CANCELLED,
        ErrorCode.DEADLINE,
        ErrorCode.UNKNOWN_TYPE,  # a node of an older version may be a younger one tomorrow
    }
)


@dataclass(eq=False, slots=True)
class Route:
    """The letters that wait for one recipient.

    Attributes:
        peer: Who it is.
        letters: Name -> when it expires, Unix time; the oldest first.
        next_s: When it is tried again, on Trio's clock.
        tries: How often it could not be reached since it last could.
        since_s: Since when it can't be reached; infinite while it can.
        busy: It is being tried.
    """

    peer: str
    letters: dict[str, int] = field(default_factory=dict)
    next_s: float = 0.0
    tries: int = 0
    since_s: float = float("inf")
    busy: bool = False


#: What is done for a route whose recipient can't be reached.
Detour = Callable[[Route], Awaitable[None]]
#: What is done with the row of a letter that waits no longer; must not block.
OnEnd = Callable[[OutboxRow], None]


class Outbox:
    """See the module.  Run :meth:`run`; then letters may be written."""

    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        self._context = context
        self._sessions = sessions
        self._letters_max = context.config.inbox.outbox_letters_max
        self._routes: dict[str, Route] = {}
        self._ended: dict[str, None] = {}  # the oldest first
        self._detour: Detour | None = None
        self._on_end: list[OnEnd] = []
        self._news = trio.Event()
        self._loaded = trio.Event()
        self._trying = 0
        self._turn = trio.Lock()  # what is written of a letter is written while it is here
        sessions.on_change(self._session_changed)

    def detour_by(self, detour: Detour) -> None:
        """Have ``detour`` done for each recipient that can't be reached.

        It is another way, and raises nothing but StoreError.
        """
        self._detour = detour

    def on_end(self, told: OnEnd) -> None:
        """Tell ``told`` of each letter that waits no longer."""
        self._on_end.append(told)

    @property
    def waiting(self) -> int:
        """How many letters wait."""
        return sum(len(route.letters) for route in self._routes.values())

    # --- the owner's ---

    async def write(
        self,
        peer: str,
        body: bytes,
        *,
        subject: str = "",
        kind: str = "text/plain",
        lifetime_s: float = LIFETIME_S,
    ) -> str:
        """Take a letter for ``peer`` and return its name; it is on the disk on return.

        Raises:
            InputInvalid: Body, subject, kind or lifetime is out of bounds.
            Busy: As many letters wait as may.
            StoreError: It can't be written down.
        """
        return await self.post(Draft(peer, body, kind, lifetime_s, subject))

    async def post(self, draft: Draft, keep: Keep = nothing_else) -> str:
        """Take a letter, and commit with it what ``keep`` makes of its name; see :meth:`write`.

        Raises:
            InputInvalid: As for :meth:`write`.
            Busy: Likewise.
            StoreError: Likewise.
        """
        check_draft(draft)
        await self._loaded.wait()
        if self.waiting >= self._letters_max:
            raise Busy(
                "the outbox",
                retry_after_ms=60_000,
                text=f"{self.waiting} letters wait to be delivered, as many as may",
            )
        name, envelope, row = written(self._context.signer, draft)
        with trio.CancelScope(shield=True):  # half way nobody would know whether it is sent
            await self._context.store.commit(
                Put(OUTBOX, name, encode(row)),
                Put(OUTBOX_LETTERS, name, envelope),
                Put(OUTBOX_DUE, name, b""),
                *keep(name),
            )
        self._context.emit("letter.written", letter=name, peer=draft.peer)
        self._enlist(name, row)
        return name

    async def rows(self) -> Sequence[tuple[str, OutboxRow]]:
        """Return every letter's name and row, the newest first."""
        kept = await self._context.store.scan(OUTBOX, count_max=ROWS_MAX)
        found = [(name, decode_as(raw, OUTBOX_ROW)) for name, raw in kept]
        return sorted(found, key=lambda item: (-item[1].sent_ms, item[0]))

    async def row(self, name: str) -> OutboxRow:
        """Return how a letter stands.

        Raises:
            NotFound: There is none of that name.
        """
        row = await self.find(name)
        if row is None:
            raise NotFound(
                f"there is no letter {name[:64]!r} here", hint="see `meshnode inbox sent`"
            )
        return row

    async def find(self, name: str) -> OutboxRow | None:
        """Return how a letter stands, or None if it is no longer here."""
        raw = await self._context.store.read(OUTBOX, name) if name else None
        return None if raw is None else decode_as(raw, OUTBOX_ROW)

    async def delete(self, name: str) -> None:
        """Forget a letter; one that waits is not sent again.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._turn:
            row = await self.row(name)
            with trio.CancelScope(shield=True):  # half way it might be sent all the same
                await self._context.store.commit(*_gone(name))
            self._ended.pop(name, None)
            self._dismiss(row.peer, name)
        if row.state == "waiting":
            self._tell_end(row)
        self._context.emit("letter.deleted", letter=name)

    def _tell_end(self, row: OutboxRow) -> None:
        for told in self._on_end:
            told(row)

    # --- what services do ---

    async def envelope(self, name: str) -> bytes | None:
        """Return the letter itself, or None if it is no longer here."""
        return await self._context.store.read(OUTBOX_LETTERS, name)

    async def note(self, name: str, row: OutboxRow, *writes: Write) -> bool:
        """Keep what has become of a letter that waits still, with ``writes``.

        Return False, and keep nothing, if it waits no longer.

        Raises:
            StoreError: It can't be written down.
        """
        async with self._turn:
            if not self._waits(row.peer, name):
                return False
            await self._context.store.commit(Put(OUTBOX, name, encode(row)), *writes)
            return True

    def _waits(self, peer: str, name: str) -> bool:
        route = self._routes.get(peer)
        return route is not None and name in route.letters

    async def acknowledged(self, name: str, peer: str, raw: bytes) -> bool:
        """End a letter that ``raw`` acknowledges; return False if that isn't so.

        Raises:
            StoreError: It can't be written down.
        """
        row = await self.find(name)
        if row is None:  # its owner has deleted it meanwhile
            self._dismiss(peer, name)
            return True
        try:
            ack = read_ack(raw, network=self._context.network)
        except RemoteProtocolError as exc:
            self._context.emit("letter.ack_refused", letter=name, peer=peer, why=str(exc))
            return False
        if not self._is_about(ack, name, row):
            why = "it acknowledges something else, or is another's"
            self._context.emit("letter.ack_refused", letter=name, peer=peer, why=why)
            return False
        if ack.state == "kept":
            await self._end(name, peer, "delivered")
        else:
            await self._end(name, peer, "failed", ack.reason, "its reader could not take it")
        return True

    def _is_about(self, ack: LetterAck, name: str, row: OutboxRow) -> bool:
        """Tell whether ``ack`` is its recipient's word on that letter."""
        names = {ack.letter.hex(), *((name,) if row.seal and ack.sealed == row.seal else ())}
        sides = (ack.h.issuer, ack.h.audience) == (row.peer, self._context.peer)
        return sides and name in names

    # --- running ---

    async def run(self) -> None:
        """Deliver letters until cancelled; begins with those that a restart left."""
        await self._load()
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                now_s = trio.current_time()
                for route in [r for r in self._routes.values() if self._is_due(r, now_s)]:
                    if self._trying < _ROUTES_MAX:
                        self._trying += 1
                        route.busy = True
                        nursery.start_soon(self._travel, route)
                with trio.move_on_at(self._next_s()):
                    await self._news.wait()

    @staticmethod
    def _is_due(route: Route, now_s: float) -> bool:
        return not route.busy and route.next_s <= now_s

    def _next_s(self) -> float:
        """Return when there is something to do again if nothing happens until then."""
        if self._trying >= _ROUTES_MAX:
            return float("inf")
        return min(
            (route.next_s for route in self._routes.values() if not route.busy),
            default=float("inf"),
        )

    async def _load(self) -> None:
        """Take up what is due."""
        store = self._context.store
        due = {key for key, _ in await store.scan(OUTBOX_DUE, count_max=ROWS_MAX)}
        for name, row in reversed(await self.rows()):
            if name in due:
                self._enlist(name, row)
            else:
                self._ended[name] = None
        self._loaded.set()

    def _enlist(self, name: str, row: OutboxRow) -> None:
        route = self._routes.setdefault(row.peer, Route(row.peer))
        route.letters[name] = row.expires_ms
        route.tries = 0  # many letters in a row are not many failures
        self._hurry(route)

    def _hurry(self, route: Route) -> None:
        route.next_s = trio.current_time()
        self._news.set()

    def _dismiss(self, peer: str, name: str) -> None:
        route = self._routes.get(peer)
        if route is not None:
            route.letters.pop(name, None)
            if not route.letters and not route.busy:
                del self._routes[peer]

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        route = self._routes.get(peer)
        # A route that is being tried may have opened it: its own pauses hold.
        if opened and route is not None and not route.busy:
            self._hurry(route)

    # --- one route ---

    async def _travel(self, route: Route) -> None:
        """Try to deliver what waits for one recipient."""
        try:
            route.next_s = float("inf")
            await self._end_expired(route)
            wait_s = await self._deliver(route) if route.letters else 0.0
            if wait_s:
                self._put_off(route, wait_s)
        except (MeshError, ProtocolError) as exc:  # what is due stays due
            self._context.emit("outbox.held_up", peer=route.peer, why=str(exc))
            self._put_off(route, self._pause_s(route))
        finally:
            route.busy = False
            self._trying -= 1
            if not route.letters:
                self._routes.pop(route.peer, None)
            self._news.set()

    def _put_off(self, route: Route, wait_s: float) -> None:
        """Try again after ``wait_s``, or when a letter expires; earlier if somebody said so."""
        if not route.letters:  # their owner has deleted them meanwhile
            return
        now_s, now_ms = trio.current_time(), self._context.clock.now_ms()
        expiry_s = max(0.0, (min(route.letters.values()) - now_ms) / 1000)
        route.next_s = min(route.next_s, now_s + min(wait_s, max(expiry_s, _PAUSE_S)))

    def _pause_s(self, route: Route) -> float:
        """Return how long to wait after one more failure."""
        pause_s = min(_PAUSE_S_MAX, _PAUSE_S * 2.0 ** min(route.tries, 30))
        route.tries += 1
        return pause_s * self._context.rng.uniform(*_JITTER)

    async def _end_expired(self, route: Route) -> None:
        now_ms = self._context.clock.now_ms()
        for name in [name for name, until_ms in route.letters.items() if until_ms <= now_ms]:
            why = "nobody took it before it expired"
            await self.fail(name, route.peer, "letter.expired", why)

    async def _deliver(self, route: Route) -> float:
        """Send what waits, one after another; return how long to wait, 0 when all is done."""
        for name in list(route.letters):
            envelope = await self.envelope(name)
            if envelope is None or name not in route.letters:
                self._dismiss(route.peer, name)
                continue
            try:
                raw = await self._sessions.request(
                    route.peer, LETTER, envelope, timeout_s=_TIMEOUT_S
                )
            except Busy as exc:
                self._reached(route)
                self._undelivered(name, route, str(exc))
                return min(_PAUSE_S_MAX, max(_PAUSE_S, exc.retry_after_ms / 1000))
            except (Unreachable, StreamLost, RequestTimeout) as exc:
                self._undelivered(name, route, str(exc))
                return await self._go_round(route)
            except RequestFailed as exc:
                self._reached(route)
                self._undelivered(name, route, str(exc))
                if exc.failure in _PASSING:
                    return self._pause_s(route)
                await self.fail(name, route.peer, f"letter.{_code(exc)}", str(exc))
                continue
            self._reached(route)
            if not await self.acknowledged(name, route.peer, raw):
                return self._pause_s(route)
            route.tries = 0
        return 0.0

    def _reached(self, route: Route) -> None:
        route.since_s = float("inf")

    async def _go_round(self, route: Route) -> float:
        """Look for another way to who can't be reached; return how long to wait."""
        if route.peer in self._sessions.connected():  # lost one session, has another
            route.tries = 0
        route.since_s = min(route.since_s, trio.current_time())
        if self._detour is not None:
            await self._detour(route)
        return self._pause_s(route)

    def _undelivered(self, name: str, route: Route, why: str) -> None:
        self._context.emit("letter.undelivered", letter=name, peer=route.peer, why=why)

    async def fail(self, name: str, peer: str, code: str, text: str) -> None:
        """End a letter to ``peer`` that never will be delivered.

        Raises:
            StoreError: It can't be written down.
        """
        await self._end(name, peer, "failed", code, text)

    async def _end(
        self, name: str, peer: str, state: State, code: str = "", text: str = ""
    ) -> None:
        """Keep that a letter was delivered, or never will be, if it is still here."""
        async with self._turn:
            row = await self.find(name)
            if row is not None and row.state == "waiting":
                await self._keep_ended(name, row, state, code, text)
            self._dismiss(peer, name)

    async def _keep_ended(
        self, name: str, row: OutboxRow, state: State, code: str, text: str
    ) -> None:
        ended = msgspec.structs.replace(
            row,
            state=state,
            ended_ms=self._context.clock.now_ms(),
            code=code,
            text=text[:300],
        )
        forgotten = list(self._ended)[: max(0, len(self._ended) + 1 - _ENDED_MAX)]
        await self._context.store.commit(
            Put(OUTBOX, name, encode(ended)),
            Delete(OUTBOX_DUE, name),
            Delete(OUTBOX_SEALED, name),
            *(write for old in forgotten for write in _gone(old)),
        )
        for old in forgotten:
            self._ended.pop(old, None)
        self._ended[name] = None
        self._tell_end(ended)
        self._context.emit(f"letter.{state}", letter=name, peer=row.peer, why=text)


def _code(exc: RequestFailed) -> str:
    """Return the name of the code of a refusal."""
    known = (one.name for one in ErrorCode if one == exc.failure)
    return next(known, ErrorCode.INTERNAL.name).lower()


def _gone(name: str) -> list[Write]:
    tables = (OUTBOX, OUTBOX_LETTERS, OUTBOX_DUE, OUTBOX_SEALED)
    return [Delete(table, name) for table in tables]
