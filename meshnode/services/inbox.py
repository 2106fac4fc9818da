"""The inbox: letters for this node's owner, each taken once, and kept until he deletes it.

A letter is on the disk before it is acknowledged, together with its sender and id, by
which a repeated one is known: after a restart, and after the owner has deleted it.  So
nothing is lost by a crash, whenever it comes, and nothing is there twice.

Each sender has a share of the room, so that one can't fill it.  A letter that there is no
room for is put off and not lost: its sender has it still.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from meshnode.domain.shares import Shares
from meshnode.errors import Busy, NotFound
from meshnode.ports import Delete, Put
from meshnode.services.admission import Admission
from meshnode.services.context import Context
from meshnode.services.mail import (
    INBOX,
    INBOX_LETTERS,
    INBOX_ROW,
    LETTER,
    ROWS_MAX,
    SEEN,
    SEEN_ROW,
    Carrier,
    InboxRow,
    LetterRefused,
    LetterUnfit,
    SeenRow,
)
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.signer import Topic
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Malformed, RemoteProtocolError, Stale
from protocol.keys import digest
from protocol.mail import Letter, LetterAck, check_letter_time, read_letter, sign_ack

#: Nobody knows when the owner will make room: ask again after this, milliseconds.
_FULL_RETRY_MS: Final = 600_000
#: Ids that are past their time are forgotten when a letter comes, no more often than this.
_SWEEP_S: Final = 3_600.0
_SWEPT_MAX: Final = 500
#: An acknowledgement matters for as long as a letter may.
_ACK_MS: Final = limits.LETTER_LIFETIME_MS_MAX
#: The longest that any letter counts from the moment that it is taken.
_REMEMBERED_MS_MAX: Final = (
    limits.LETTER_LIFETIME_MS_MAX + limits.LETTER_SKEW_MS_MAX + 2 * limits.SKEW_MS_MAX
)
#: All senders together.
_ALL: Final = ""


class Inbox:
    """See the module."""

    def __init__(self, context: Context, *, sessions: Sessions, door: Admission) -> None:
        config = context.config.inbox
        self._context = context
        self._sessions = sessions
        self._door = door
        self._all = Shares(count_max=config.letters_max, bytes_max=config.bytes_max)
        self._senders = Shares(
            count_max=config.sender_letters_max, bytes_max=config.sender_bytes_max
        )
        self._carriers: dict[str, Carrier] = {}
        self._counted = False
        self._swept_s = -_SWEEP_S
        self._turn = trio.Lock()  # one letter is taken at a time, or limits would be passed
        sessions.handle(LETTER, door.limited(self._on_letter, LETTER))

    def carry(self, kind: str, carrier: Carrier) -> None:
        """Give letters of that kind to ``carrier``, and not to this node's owner."""
        self._carriers[kind] = carrier

    # --- letters that come ---

    async def _on_letter(self, incoming: Incoming) -> bytes:
        """Take a letter straight from its sender."""
        letter = read_letter(incoming.body, network=self._context.network)
        if letter.h.issuer != incoming.peer:
            raise Malformed("a letter comes from its sender, or sealed")
        now_ms = self._context.clock.now_ms() + self._sessions.offset_ms(incoming.peer)
        check_letter_time(letter, audience=self._context.peer, now_ms=now_ms)
        if await self._door.stranger(incoming.peer) is not None:
            raise LetterRefused("this node takes letters from members of its mesh only")
        name = digest(incoming.body)
        try:
            await self.take(incoming.body, letter, sender_now_ms=now_ms)
        except LetterUnfit as exc:
            return self.refuse(letter.h.issuer, name, sealed=b"", reason=exc.reason)
        return self.acknowledge(letter, name)

    async def take(
        self, envelope: bytes, letter: Letter, *, sender_now_ms: int, by: str = ""
    ) -> bool:
        """Keep a letter that holds; durable on return.  Return False if it was here before.

        Args:
            envelope: Its bytes.
            letter: What is in them, checked.
            sender_now_ms: Unix time of the clock that it was checked by.
            by: The mailbox that it came through.

        Raises:
            Stale: Another letter came under its id.
            LetterUnfit: It is for no person, and nothing can be done with it.
            Busy: There is no room for it.
            StoreError: It can't be written down.
        """
        name = digest(envelope)
        key = f"{letter.h.issuer}/{letter.h.id.hex()}"
        async with self._turn:
            seen = await self._context.store.read(SEEN, key)
            if seen is not None:
                if decode_as(seen, SEEN_ROW).name != name:
                    raise Stale("another letter came under this id")
                self._context.emit("letter.repeated", letter=name.hex(), peer=letter.h.issuer)
                return False
            until_ms = _remembered_until_ms(letter, self._context.clock.now_ms(), sender_now_ms)
            seen_row = Put(SEEN, key, encode(SeenRow(name, until_ms)))
            if (carrier := self._carriers.get(letter.kind)) is not None:
                await self._hand_on(letter, carrier, seen_row)
            else:
                await self._count()
                self._make_sure_of_room(letter.h.issuer, len(envelope))
                await self._keep(name, envelope, letter, by, seen_row)
        self._context.emit("letter.kept", letter=name.hex(), peer=letter.h.issuer, by=by)
        return True

    async def _hand_on(self, letter: Letter, carrier: Carrier, seen: Put) -> None:
        """Have a letter's carrier read it, and commit what follows with that it came."""
        try:
            writes = await carrier.read(letter)
        except RemoteProtocolError as exc:
            self._context.emit("letter.unfit", peer=letter.h.issuer, why=str(exc))
            raise LetterUnfit("order.malformed", str(exc)) from exc
        except LetterUnfit as exc:
            self._context.emit("letter.unfit", peer=letter.h.issuer, why=str(exc))
            raise
        await self._context.store.commit(*writes, seen, *await self._past_ids())
        carrier.kept(letter)

    async def _keep(
        self, name: bytes, envelope: bytes, letter: Letter, by: str, seen: Put
    ) -> None:
        row = InboxRow(
            sender=letter.h.issuer,
            kind=letter.kind,
            subject=letter.subject,
            size=len(envelope),
            sent_ms=letter.h.issued_ms,
            received_ms=self._context.clock.now_ms(),
            by=by,
        )
        forgotten = await self._past_ids()
        self._counted = False  # until it is known what became of the commit
        await self._context.store.commit(
            Put(INBOX, name.hex(), encode(row)),
            Put(INBOX_LETTERS, name.hex(), envelope),
            seen,
            *forgotten,
        )
        self._add(row)
        self._counted = True

    def _make_sure_of_room(self, sender: str, size: int) -> None:
        if not self._senders.fits(sender, size):
            what = "this node keeps as many letters of yours as it may"
        elif not self._all.fits(_ALL, size):
            what = "this node's inbox is full"
        else:
            return
        self._context.emit("letter.put_off", peer=sender, why=what)
        raise Busy("the inbox", retry_after_ms=_FULL_RETRY_MS, text=what)

    async def _past_ids(self) -> list[Delete]:
        """Return what forgets ids that no letter can come under any more, now and then."""
        if trio.current_time() < self._swept_s + _SWEEP_S:
            return []
        self._swept_s = trio.current_time()
        now_ms = self._context.clock.now_ms()
        rows = await self._context.store.scan(SEEN, count_max=ROWS_MAX)
        past = [key for key, raw in rows if decode_as(raw, SEEN_ROW).until_ms <= now_ms]
        return [Delete(SEEN, key) for key in past[:_SWEPT_MAX]]

    def acknowledge(self, letter: Letter, name: bytes, *, sealed: bytes = b"") -> bytes:
        """Return the signed word that ``letter`` is kept."""
        return self._ack(letter.h.issuer, name, sealed=sealed)

    def refuse(self, depositor: str, name: bytes, *, sealed: bytes, reason: str) -> bytes:
        """Return the signed word that what came in ``sealed`` never will be."""
        return self._ack(depositor, name, sealed=sealed, reason=reason)

    def _ack(self, peer: str, name: bytes, *, sealed: bytes, reason: str = "") -> bytes:
        signer = self._context.signer
        ack = LetterAck(
            h=signer.header(peer, Topic(), lifetime_ms=_ACK_MS),
            letter=name,
            sealed=sealed,
            state="refused" if reason else "kept",
            reason=reason,
        )
        return sign_ack(signer.identity, ack)

    # --- counting ---

    async def _count(self) -> None:
        """Count what is here: at first, and when a commit was given up on half way."""
        if self._counted:
            return
        for shares in (self._all, self._senders):
            shares.clear()
        for _, row in await self.rows():
            self._add(row)
        self._counted = True

    def _add(self, row: InboxRow) -> None:
        self._all.add(_ALL, row.size)
        self._senders.add(row.sender, row.size)

    # --- the owner's ---

    async def rows(self) -> Sequence[tuple[str, InboxRow]]:
        """Return every letter's name and row, the newest first."""
        kept = await self._context.store.scan(INBOX, count_max=ROWS_MAX)
        found = [(name, decode_as(raw, INBOX_ROW)) for name, raw in kept]
        return sorted(found, key=lambda item: (-item[1].received_ms, item[0]))

    async def letter(self, name: str) -> tuple[InboxRow, Letter]:
        """Return a letter and its row.

        Raises:
            NotFound: There is none of that name.
        """
        row = await self._row(name)
        envelope = await self._context.store.read(INBOX_LETTERS, name)
        if envelope is None:
            raise _unknown(name)
        return row, read_letter(envelope, network=self._context.network)

    async def mark_read(self, name: str) -> InboxRow:
        """Note that the owner has read a letter.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._turn:
            row = await self._row(name)
            if not row.read_ms:
                now_ms = self._context.clock.now_ms()
                row = msgspec.structs.replace(row, read_ms=now_ms)
                await self._context.store.commit(Put(INBOX, name, encode(row)))
            return row

    async def delete(self, name: str) -> None:
        """Delete a letter; that it came is remembered until it expires.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._turn:
            await self._row(name)
            self._counted = False
            await self._context.store.commit(Delete(INBOX, name), Delete(INBOX_LETTERS, name))
        self._context.emit("letter.deleted", letter=name)

    async def _row(self, name: str) -> InboxRow:
        raw = await self._context.store.read(INBOX, name) if name else None
        if raw is None:
            raise _unknown(name)
        return decode_as(raw, INBOX_ROW)


def _remembered_until_ms(letter: Letter, now_ms: int, sender_now_ms: int) -> int:
    """Return until when the id of a letter matters, Unix time by this node's clock.

    The letter may come again until it has lapsed by the sender's clock, straight, or by
    this node's, through a mailbox; whatever it says, not for longer than a letter may.
    """
    by_sender_ms = now_ms + letter.h.expires_ms - sender_now_ms
    until_ms = max(by_sender_ms, letter.h.expires_ms) + 2 * limits.SKEW_MS_MAX
    return min(until_ms, now_ms + _REMEMBERED_MS_MAX)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no letter {name[:64]!r} here", hint="see `meshnode inbox`")
