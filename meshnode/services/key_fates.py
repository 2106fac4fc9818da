"""Keys that have ended: heard from anybody, kept, passed on, and held against everyone.

A statement verifies itself, so it is believed whoever brings it; each peer may bring so
many.  News goes at once to everybody there is a session with, and once a session opens,
a node that knows of ended keys asks the other for what it lacks.  Where nobody knows of
any, nothing is sent.

What follows from it is done by those who ask: sessions and the door with :meth:`bar`, the
directory with :attr:`ended`, membership and whoever keeps accounts of peers with
:meth:`heir`.  They hear of each change by :meth:`on_change`, in the order in which they asked.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from meshnode.domain.fates import Change, Fates, Heard
from meshnode.errors import ConfigError, MeshError, StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.allowance import Allowance
from meshnode.services.context import Context
from meshnode.services.sessions import Incoming, Sessions
from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import Expired, RemoteProtocolError
from protocol.lifecycle import (
    COMPARE,
    TELL,
    EndsKnown,
    EndsTold,
    Statement,
    read_known,
    read_statement,
    read_told,
)

__all__ = ["KeyFates", "Statement"]

#: ``PeerId/heir`` -> :class:`_Row`.
TABLE: Final = "key_end"

_REQUEST_S: Final = 10.0
#: A peer that lacked something is asked what else it has no more often than this, seconds.
_ASK_AGAIN_S: Final = 60.0
#: Peers of which that is remembered, the oldest forgotten first.
_ASKED_MAX: Final = 4_096
#: When a disk that refused is tried again, seconds.
_STORE_AGAIN_S: Final = 5.0


class _Row(msgspec.Struct, frozen=True):
    envelope: bytes
    at_ms: Count
    known: bool


_ROW: Final = msgspec.msgpack.Decoder(_Row)


class KeyFates:
    """See the module.  :meth:`load` first, then :meth:`run`.

    Args:
        context: The node's ground.
        sessions: Over which statements travel, and which ended keys don't get.
        knows: Tells whether this node knows a peer for another reason than its end.
    """

    def __init__(
        self, context: Context, *, sessions: Sessions, knows: Callable[[str], bool]
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._knows = knows
        self._fates = Fates()
        self._listeners: list[Callable[[str], None]] = []
        self._unsaved: list[Write] = []
        self._news: list[tuple[str, str]] = []  # (key that ended, who brought it)
        self._woken = trio.Event()
        self._asked_s: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self._brought = Allowance("the intake of ended keys", burst=256, per_s=1)
        self._compared = Allowance("the comparison of ended keys", burst=64, per_s=1)
        sessions.handle(TELL, self._on_tell)
        sessions.handle(COMPARE, self._on_compare)
        sessions.on_change(self._session_changed)
        sessions.bar = self.bar

    # --- asking ---

    @property
    def ended(self) -> Mapping[str, object]:
        """The keys that have ended, as a view that stays up to date."""
        return self._fates.ended

    def bar(self, peer: str) -> str:
        """Return why nothing is had from ``peer`` any more, for people; empty if it is."""
        if peer not in self._fates.ended:
            return ""
        if follower := self._fates.follower(peer):
            return f"the key {peer} was followed by {follower}"
        reasons = [heard.said.reason for heard in self._fates.of(peer) if heard.said.reason]
        return f"the key {peer} is revoked" + "".join(f": {reason}" for reason in reasons)

    def heir(self, peer: str) -> str:
        """Return who stands for ``peer`` now: its newest heir, or ``peer`` itself.

        Whoever keeps something about peers asks this, and again after each
        :meth:`on_change`.
        """
        return self._fates.heir(peer)

    def ended_ms(self, peer: str) -> int | None:
        """Return from when the key of ``peer`` has ended, Unix time; None if it hasn't."""
        return self._fates.ended_ms(peer)

    def has_heir(self, peer: str) -> bool:
        """Tell whether somebody goes on for ``peer``."""
        return self._fates.heir(peer) != peer

    def followed(self, peer: str) -> Sequence[str]:
        """Return the keys that ``peer`` is the newest heir of."""
        return [key for key in self._fates.ended if key != peer and self.heir(key) == peer]

    def first(self, peer: str) -> str:
        """Return the oldest of the keys of the node that ``peer`` is one of."""
        if not self._fates.ended:
            return peer
        newest = self.heir(peer)
        old = {newest, *self.followed(newest)}
        heirs = {self._fates.follower(key) for key in old}
        return min(old - heirs, default=peer)

    def shown(self, peers: Iterable[str]) -> list[bytes]:
        """Return the envelopes that show who the heirs of ``peers`` are."""
        paths = [self._fates.path(peer) for peer in peers]
        return list(dict.fromkeys(said.envelope for path in paths for said in path))

    def of(self, peer: str) -> Sequence[Heard]:
        """Return what is kept about ``peer``."""
        return self._fates.of(peer)

    def all(self) -> Sequence[Heard]:
        """Return all that is kept."""
        return self._fates.all()

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with each key of whose end something new is known."""
        self._listeners.append(listener)

    # --- learning ---

    def take(self, envelope: bytes, *, source: str) -> Statement:
        """Learn a statement, from anybody; what follows from it has followed on return.

        Raises:
            RemoteProtocolError: It doesn't hold, or doesn't count yet.
        """
        now_ms = self._context.clock.now_ms()
        said = read_statement(envelope, network=self._context.network, now_ms=now_ms)
        change = self._fates.take(said, at_ms=now_ms, known=self._is_known(said.peer))
        if change is None:
            return said
        self._context.emit("keys.ended", peer=said.peer, heir=said.heir, source=source)
        self._keep(change)
        self._news.append((said.peer, source))
        self._woken.set()
        for listener in self._listeners:
            listener(said.peer)
        self._sessions.expel(said.peer)
        if said.peer == self._context.peer:
            self._context.emit("keys.own_ended", heir=said.heir, reason=said.reason)
        return said

    async def publish(self, envelope: bytes) -> Statement:
        """Learn what the owner says, durably, and let the mesh know.

        Raises:
            RemoteProtocolError: It doesn't hold.
            StoreError: It can't be written down; it is told all the same.
        """
        said = self.take(envelope, source=self._context.peer)
        await self._save()
        return said

    def _is_known(self, peer: str) -> bool:
        return peer == self._context.peer or self._knows(peer)

    def _keep(self, change: Change) -> None:
        for heard in change.gone:
            self._unsaved.append(Delete(TABLE, _key(heard.said)))
        for heard in change.kept:
            row = _Row(heard.said.envelope, heard.at_ms, heard.known)
            self._unsaved.append(Put(TABLE, _key(heard.said), encode(row)))

    async def _save(self) -> None:
        writes, self._unsaved = self._unsaved, []
        if not writes:
            return
        try:
            await self._context.store.commit(*writes)
        except StoreError:
            self._unsaved = [*writes, *self._unsaved]
            raise

    # --- living ---

    async def load(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: It can't be read, or doesn't hold.
            ConfigError: This node's own key has ended.
        """
        rows = await self._context.store.scan(TABLE)
        for key, raw in rows:
            row = decode_as(raw, _ROW)
            try:
                said = read_statement(
                    row.envelope, network=self._context.network, now_ms=limits.NUMBER_MAX
                )
            except RemoteProtocolError as exc:
                # Of another mesh that this home was in, or damaged: either says nothing here.
                self._context.emit("keys.unread", key=key, why=str(exc))
                continue
            self._fates.take(said, at_ms=row.at_ms, known=row.known)
        if why := self.bar(self._context.peer):
            raise ConfigError(
                f"{why}: nobody would speak with this node",
                hint="start with the heir's key, or a new home and a new invite",
            )

    async def run(self) -> None:
        """Write down and pass on what is learned, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for peer in self._sessions.connected():
                self._session_changed(peer, True)  # noqa: FBT003 - as Sessions calls it
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                news, self._news = self._news, []
                for key, source in news:
                    self._pass_on(key, source, nursery)
                try:
                    await self._save()
                except StoreError as exc:
                    self._context.emit("keys.unsaved", why=str(exc))
                    await trio.sleep(_STORE_AGAIN_S)
                    self._woken.set()

    def _pass_on(self, key: str, source: str, nursery: trio.Nursery) -> None:
        told = encode(EndsTold([heard.said.envelope for heard in self._fates.of(key)]))
        for peer in self._sessions.connected():
            if peer != source:
                nursery.start_soon(self._tell, peer, told)

    async def _tell(self, peer: str, body: bytes) -> None:
        """Tell ``peer``; best effort: it compares with others, too."""
        try:
            await self._sessions.request(peer, TELL, body, timeout_s=_REQUEST_S)
        except MeshError as exc:
            self._context.emit("keys.untold", peer=peer, why=str(exc))

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened and self._fates.ended and self._nursery is not None:
            self._nursery.start_soon(self._compare, peer)

    # --- comparing ---

    async def _compare(self, peer: str) -> None:
        """Ask ``peer`` for what is lacking here; best effort."""
        self._note_asked(peer)
        try:
            for _ in range(limits.STATEMENTS_MAX // limits.STATEMENTS_TOLD_MAX):
                body = encode(EndsKnown(sorted(self._names())))
                answer = await self._sessions.request(peer, COMPARE, body, timeout_s=_REQUEST_S)
                told, before = read_told(answer), self._names()
                self._take_all(told, peer)
                if len(told) < limits.STATEMENTS_TOLD_MAX or self._names() <= before:
                    return
        except (MeshError, RemoteProtocolError) as exc:
            self._context.emit("keys.uncompared", peer=peer, why=str(exc))

    def _names(self) -> frozenset[bytes]:
        return frozenset(heard.said.name for heard in self._fates.all())

    def _note_asked(self, peer: str) -> None:
        self._asked_s.pop(peer, None)
        if len(self._asked_s) >= _ASKED_MAX:
            del self._asked_s[next(iter(self._asked_s))]
        self._asked_s[peer] = trio.current_time()

    def _take_all(self, told: Sequence[bytes], peer: str) -> None:
        """Learn what ``peer`` told.

        Raises:
            Busy: It has brought too many.
            RemoteProtocolError: One doesn't hold: the others were taken all the same.
        """
        wrong: RemoteProtocolError | None = None
        names = {heard.said.envelope for heard in self._fates.all()}
        new = [envelope for envelope in told if envelope not in names]
        now_s = trio.current_time()
        self._brought.sweep(now_s=now_s)
        self._brought.take(peer, len(new), now_s=now_s)
        for envelope in new:
            try:
                self.take(envelope, source=peer)
            except Expired:
                continue  # clocks differ: it comes again
            except RemoteProtocolError as exc:
                wrong = exc
        if wrong is not None:
            raise wrong

    # --- being asked ---

    async def _on_tell(self, incoming: Incoming) -> bytes:
        self._take_all(read_told(incoming.body), incoming.peer)
        await trio.lowlevel.checkpoint()
        return b""

    async def _on_compare(self, incoming: Incoming) -> bytes:
        now_s, peer = trio.current_time(), incoming.peer
        self._compared.sweep(now_s=now_s)
        self._compared.take(peer, 1, now_s=now_s)
        theirs = read_known(incoming.body)
        lacking = theirs - self._names()
        lately = now_s < self._asked_s.get(peer, -_ASK_AGAIN_S) + _ASK_AGAIN_S
        if lacking and not lately and self._nursery is not None:
            self._nursery.start_soon(self._compare, peer)
        await trio.lowlevel.checkpoint()
        mine = [one.said for one in self._fates.all() if one.said.name not in theirs]
        return encode(EndsTold([said.envelope for said in mine[: limits.STATEMENTS_TOLD_MAX]]))


def _key(said: Statement) -> str:
    return f"{said.peer}/{said.heir}"


def record_of_end(envelope: bytes, said: Statement, *, at_ms: int) -> Put:
    """Return what has a node know of an end when it starts: for a store that is at rest."""
    return Put(TABLE, _key(said), encode(_Row(envelope, at_ms, known=True)))
