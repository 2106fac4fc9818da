"""A mailbox: keeps sealed letters for nodes that are away.

It can't read what it keeps, and its word on anything is worth nothing: who sends goes on
trying, who receives signs for what it has, and only that lets the mailbox forget a letter
before its time.  The signed word is kept for the depositor instead, who may be away too.

Everything has a limit: all letters together, those that one node brings, those for one
node, those by one for one, and the time.  With nothing to forget it rests.
"""

from typing import Final

import msgspec
import trio

from meshnode.domain.shares import Shares
from meshnode.errors import Busy, MeshError, StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.admission import Admission
from meshnode.services.context import Context
from meshnode.services.mail import (
    ACKS,
    COLLECT,
    DEPOSIT,
    HELD,
    HELD_BY,
    HELD_KEYS,
    HELD_ROW,
    HELD_SEALED,
    KEY,
    ROWS_MAX,
    WAITING,
    HeldRow,
    LetterRefused,
)
from meshnode.services.sessions import Incoming, Sessions
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Expired, RemoteProtocolError
from protocol.keys import digest
from protocol.mail import read_ack
from protocol.mailbox import (
    Acks,
    Collect,
    Collected,
    Deposit,
    Held,
    Inquiry,
    KeyQuery,
    KeyRecord,
    read_body,
)
from protocol.records import sealing_key

#: Nobody knows when there is room again: ask after this, milliseconds.
_FULL_RETRY_MS: Final = 600_000
_TELL_S: Final = 5.0
#: What has expired is looked for no more often than this, seconds.
_SWEEP_S: Final = 60.0
_SWEPT_MAX: Final = 500
#: Records of those who collect here; whoever comes later is sealed to by its own record.
_KEYS_MAX: Final = 1_000
#: What one brings for another is at most this part of what is kept for that one, so that
#: nobody by itself shuts it off.
_PAIR_PART: Final = 8
_ALL: Final = ""


class Mailbox:
    """See the module.  Run :meth:`run`."""

    def __init__(self, context: Context, *, sessions: Sessions, door: Admission) -> None:
        config = context.config.mailbox
        self._context = context
        self._store = context.store
        self._sessions = sessions
        self._door = door
        self._keep_ms = round(config.keep_s * 1000)
        self._keys = -1  # how many records there are, once that is known
        self._all = Shares(count_max=config.letters_max, bytes_max=config.bytes_max)
        each = {"count_max": config.peer_letters_max, "bytes_max": config.peer_bytes_max}
        self._depositors = Shares(**each)
        self._recipients = Shares(**each)
        self._pairs = Shares(  # what one brings for another
            count_max=max(1, config.peer_letters_max // _PAIR_PART),
            bytes_max=max(limits.SEALED_SIZE_MAX, config.peer_bytes_max // _PAIR_PART),
        )
        self._counted = False
        self._earliest_ms = limits.NUMBER_MAX
        self._turn = trio.Lock()
        self._stir = trio.Event()
        self._telling: dict[str, bool] = {}  # -> whether something came meanwhile
        self._nursery: trio.Nursery | None = None
        for method, handler in (
            (DEPOSIT, self._on_deposit),
            (COLLECT, self._on_collect),
            (ACKS, self._on_acks),
            (KEY, self._on_key),
        ):
            sessions.handle(method, door.limited(handler, method))
        sessions.on_change(self._session_changed)

    # --- those who bring ---

    async def _on_deposit(self, incoming: Incoming) -> bytes:
        """Keep a sealed letter; durable on return."""
        deposit = read_body(incoming.body, Deposit)
        await self._let_in(incoming.peer)
        now_ms = self._context.clock.now_ms()
        if deposit.expires_ms <= now_ms:
            raise Expired("a deposit that nobody wants any more")
        row = HeldRow(
            recipient=deposit.recipient,
            depositor=incoming.peer,
            size=len(deposit.sealed),
            expires_ms=min(deposit.expires_ms, now_ms + self._keep_ms),
            since_ms=now_ms,
        )
        name = digest(deposit.sealed).hex()
        async with self._turn:
            if await self._store.read(HELD, f"{row.recipient}/{name}") is None:
                await self._count()
                self._make_sure_of_room(row)
                await self._keep(row, name, deposit.sealed)
        self._tell(row.recipient)
        return b""

    async def _let_in(self, peer: str) -> None:
        if await self._door.stranger(peer) is not None:
            raise LetterRefused("this mailbox is for members of its mesh only")

    def _make_sure_of_room(self, row: HeldRow) -> None:
        if not self._depositors.fits(row.depositor, row.size):
            what = "this mailbox keeps as many letters by you as it may"
        elif not self._recipients.fits(row.recipient, row.size):
            what = "this mailbox keeps as many letters for that node as it may"
        elif not self._pairs.fits(_pair(row), row.size):
            what = "this mailbox keeps as many letters by you for that node as it may"
        elif not self._all.fits(_ALL, row.size):
            what = "this mailbox is full"
        else:
            return
        self._context.emit("mailbox.put_off", peer=row.depositor, why=what)
        raise Busy("the mailbox", retry_after_ms=_FULL_RETRY_MS, text=what)

    async def _keep(self, row: HeldRow, name: str, sealed: bytes) -> None:
        await self._commit(
            [
                Put(HELD, f"{row.recipient}/{name}", encode(row)),
                Put(HELD_SEALED, f"{row.recipient}/{name}", sealed),
                Put(HELD_BY, f"{row.depositor}/{name}", row.recipient.encode()),
            ]
        )
        self._add(row)
        self._stir.set()
        self._context.emit("mailbox.kept", depositor=row.depositor, recipient=row.recipient)

    async def _on_acks(self, incoming: Incoming) -> bytes:
        """Tell a depositor what its recipients have signed, and forget what it has read."""
        inquiry = read_body(incoming.body, Inquiry)
        await self._let_in(incoming.peer)
        acks: list[bytes] = []
        gone: list[bytes] = []
        for name in inquiry.sealed:
            found = await self._brought(incoming.peer, name)
            acks.append(found[1].ack if found is not None else b"")
            if found is None:
                gone.append(name)
        async with self._turn:
            done = dict.fromkeys(inquiry.done)
            rows = [await self._brought(incoming.peer, name) for name in done]
            await self._forget([found for found in rows if found is not None])
        return encode(Acks(acks, gone))

    async def _brought(self, depositor: str, name: bytes) -> tuple[str, HeldRow] | None:
        """Return the key and row of what ``depositor`` brought under that hash."""
        recipient = await self._store.read(HELD_BY, f"{depositor}/{name.hex()}")
        if recipient is None:
            return None
        key = f"{recipient.decode()}/{name.hex()}"
        raw = await self._store.read(HELD, key)
        return None if raw is None else (key, decode_as(raw, HELD_ROW))

    async def _on_key(self, incoming: Incoming) -> bytes:
        """Hand out the record of one who collects here."""
        query = read_body(incoming.body, KeyQuery)
        await self._let_in(incoming.peer)
        return encode(KeyRecord(await self._store.read(HELD_KEYS, query.peer) or b""))

    # --- those who collect ---

    async def _on_collect(self, incoming: Incoming) -> bytes:
        """Forget what the asker has signed for, and hand out the rest."""
        collect = read_body(incoming.body, Collect)
        peer = incoming.peer
        await self._let_in(peer)
        async with self._turn:
            await self._take_acks(peer, collect.acks)
            await self._note_key(peer, collect.record)
        return encode(await self._next(peer, collect.after))

    async def _next(self, peer: str, after: bytes) -> Collected:
        """Return what an answer holds of what waits, from that after ``after`` on."""
        waiting = await self._waiting(peer)
        known = await self._store.read(HELD, f"{peer}/{after.hex()}") if after else None
        if known is not None:
            last = _place(f"{peer}/{after.hex()}", decode_as(known, HELD_ROW))
            waiting = [found for found in waiting if _place(*found) > last]
        letters: list[Held] = []
        size = passed = 0
        for key, row in waiting[: limits.DEPOSITS_MAX]:
            sealed = await self._store.read(HELD_SEALED, key) or b""  # just signed for
            size += len(sealed)
            if letters and size > limits.COLLECTED_BYTES_MAX:
                break
            passed += 1
            if sealed:
                letters.append(Held(row.depositor, sealed))
        return Collected(letters, more=passed < len(waiting))

    async def _waiting(self, peer: str) -> list[tuple[str, HeldRow]]:
        """Return what is kept for ``peer`` and not signed for, the oldest first."""
        now_ms = self._context.clock.now_ms()
        rows = await self._store.scan(HELD, f"{peer}/", count_max=ROWS_MAX)
        read = [(key, decode_as(raw, HELD_ROW)) for key, raw in rows]
        live = [(key, row) for key, row in read if not row.ack and row.expires_ms > now_ms]
        return sorted(live, key=lambda found: _place(*found))

    async def _take_acks(self, peer: str, acks: list[bytes]) -> None:
        """Put the asker's signed word in the place of what it is about."""
        await self._count()
        taken: dict[str, tuple[HeldRow, HeldRow]] = {}  # what was there, what will be
        for raw in acks:
            try:
                ack = read_ack(raw, network=self._context.network)
            except RemoteProtocolError as exc:
                self._context.emit("mailbox.ack_refused", peer=peer, why=str(exc))
                continue
            key = f"{peer}/{ack.sealed.hex()}"
            held = await self._store.read(HELD, key) if ack.h.issuer == peer else None
            if held is None or key in taken or (row := decode_as(held, HELD_ROW)).ack:
                continue
            taken[key] = row, msgspec.structs.replace(row, ack=raw, size=len(raw))
        writes: list[Write] = []
        for key, (_, done) in taken.items():
            writes += [Put(HELD, key, encode(done)), Delete(HELD_SEALED, key)]
        await self._commit(writes)
        for row, done in taken.values():
            self._remove(row)
            self._add(done)
            self._context.emit("mailbox.collected", recipient=peer, depositor=row.depositor)

    async def _commit(self, writes: list[Write]) -> None:
        """Write; what is counted is right again when the caller has counted it."""
        if writes:
            self._counted = False  # until it is known what became of the commit
            await self._store.commit(*writes)
            self._counted = True

    async def _note_key(self, peer: str, record: bytes) -> None:
        """Keep the record of one who collects, unless its key is known."""
        if not record or await self._store.read(HELD_KEYS, peer) is not None:
            return
        sealing_key(record, peer=peer, network=self._context.network)
        if self._keys < 0:
            self._keys = len(await self._store.scan(HELD_KEYS, count_max=_KEYS_MAX))
        if self._keys < _KEYS_MAX:
            self._keys += 1
            await self._store.commit(Put(HELD_KEYS, peer, record))

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened and (self._recipients.count(peer) or not self._counted):
            self._tell(peer)

    def _tell(self, peer: str) -> None:
        """Let ``peer`` know that something waits, if it is there.

        Nobody is dialled for that: a depositor names whom it likes.
        """
        if peer not in self._sessions.connected():
            return
        if peer in self._telling:
            self._telling[peer] = True
        elif self._nursery is not None:
            self._telling[peer] = True
            self._nursery.start_soon(self._tell_now, peer)

    async def _tell_now(self, peer: str) -> None:
        try:
            while self._telling[peer]:
                self._telling[peer] = False
                if await self._waiting(peer) and peer in self._sessions.connected():
                    await self._sessions.request(peer, WAITING, b"", timeout_s=_TELL_S)
        except MeshError as exc:  # it is away, or this node's disk is: it comes by itself
            self._context.emit("mailbox.untold", peer=peer, why=str(exc))
        finally:
            del self._telling[peer]

    # --- forgetting ---

    async def run(self) -> None:
        """Forget what has expired, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                self._stir = trio.Event()
                try:
                    await self._sweep()
                except StoreError as exc:
                    self._context.emit("mailbox.held_up", why=str(exc))
                left_s = (self._earliest_ms - self._context.clock.now_ms()) / 1000
                if self._earliest_ms == limits.NUMBER_MAX:
                    await self._stir.wait()
                else:
                    await self._rest(max(_SWEEP_S, left_s))

    async def _rest(self, wait_s: float) -> None:
        """Wait until something expires; what comes meanwhile may do so earlier."""
        with trio.move_on_after(wait_s):
            await self._stir.wait()
            await trio.sleep(min(wait_s, _SWEEP_S))  # many come together

    async def _sweep(self) -> None:
        async with self._turn:
            await self._count()
            now_ms = self._context.clock.now_ms()
            if self._earliest_ms > now_ms:
                return
            rows = await self._store.scan(HELD, count_max=ROWS_MAX)
            read = [(key, decode_as(raw, HELD_ROW)) for key, raw in rows]
            past = [(key, row) for key, row in read if row.expires_ms <= now_ms][:_SWEPT_MAX]
            await self._forget(past)
            self._counted = False  # to learn which is the next to expire
            await self._count()
            self._context.emit("mailbox.expired", letters=len(past))

    async def _forget(self, rows: list[tuple[str, HeldRow]]) -> None:
        await self._count()
        writes: list[Write] = []
        for key, row in rows:
            by = f"{row.depositor}/{key.partition('/')[2]}"
            writes += [Delete(HELD, key), Delete(HELD_SEALED, key), Delete(HELD_BY, by)]
        await self._commit(writes)
        for _, row in rows:
            self._remove(row)

    async def _count(self) -> None:
        """Count what is here: at first, and after something has gone."""
        if self._counted:
            return
        for shares in (self._all, self._depositors, self._recipients, self._pairs):
            shares.clear()
        self._earliest_ms = limits.NUMBER_MAX
        for _, raw in await self._store.scan(HELD, count_max=ROWS_MAX):
            self._add(decode_as(raw, HELD_ROW))
        self._counted = True

    def _add(self, row: HeldRow) -> None:
        for shares, who in self._counted_for(row):
            shares.add(who, row.size)
        self._earliest_ms = min(self._earliest_ms, row.expires_ms)

    def _remove(self, row: HeldRow) -> None:
        for shares, who in self._counted_for(row):
            shares.remove(who, row.size)

    def _counted_for(self, row: HeldRow) -> list[tuple[Shares, str]]:
        """Return whose a row is; what is signed for waits for its depositor alone."""
        owners = [(self._all, _ALL), (self._depositors, row.depositor)]
        if not row.ack:
            owners += [(self._recipients, row.recipient), (self._pairs, _pair(row))]
        return owners


def _place(key: str, row: HeldRow) -> tuple[int, str]:
    """Return where a letter stands in the order in which it is handed out."""
    return row.since_ms, key


def _pair(row: HeldRow) -> str:
    return f"{row.depositor}/{row.recipient}"
