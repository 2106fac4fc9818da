"""The sender's way round: letters for whom it can't reach are left at mailboxes, sealed.

A letter is sealed once and that is written down, so that it is the same bytes, and the
same name, at every mailbox and after a restart.  The sender goes on trying the recipient
itself, and asks the mailboxes meanwhile whether it has signed.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from meshnode.errors import MeshError, StoreError
from meshnode.ports import Put
from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.mail import (
    ACKS,
    DEPOSIT,
    FEATURE,
    KEY,
    OUTBOX_SEALED,
    OutboxRow,
)
from meshnode.services.mailboxes import Mailboxes
from meshnode.services.membership import Members
from meshnode.services.outbox import Outbox, Route
from meshnode.services.sessions import Sessions
from protocol import limits
from protocol.codec import encode
from protocol.errors import Malformed, ProtocolError, RemoteProtocolError
from protocol.keys import KEY_SIZE, digest
from protocol.mail import Enclosed, seal_letter
from protocol.mailbox import Acks, Deposit, Inquiry, KeyQuery, KeyRecord, read_body
from protocol.records import sealing_key

#: Whoever can't be reached for so long may be away for longer, seconds.
_PATIENCE_S: Final = 5.0
#: Mailboxes that keep one letter.
COPIES: Final = 2
#: Letters that a mailbox may forget and that it couldn't be told of; the oldest go first:
#: it forgets them by itself in the end.
_DONE_MAX: Final = 1_024
_TIMEOUT_S: Final = 10.0
_SEARCH_S: Final = 5.0


class Depositing:
    """See the module.  It is asked by the outbox; run :meth:`run` as well."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        directory: DirectoryService,
        members: Members,
        outbox: Outbox,
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._directory = directory
        self._members = members
        self._outbox = outbox
        self._keepers = Mailboxes(context, directory=directory, members=members)
        self._done: dict[str, dict[bytes, None]] = {}  # mailbox -> what it may forget
        self._due: dict[str, None] = {}  # mailboxes to be told so
        self._stir = trio.Event()
        outbox.detour_by(self.go_round)
        outbox.on_end(self._ended)
        sessions.on_change(self._session_changed)

    async def go_round(self, route: Route) -> None:
        """Leave the letters of ``route`` at mailboxes, and ask after those that are there.

        Raises:
            StoreError: The disk refused.
        """
        if trio.current_time() < route.since_s + _PATIENCE_S:
            return
        await self._ask(route)
        lacking = [name for name in list(route.letters) if await self._lacks(name)]
        if not lacking:
            return
        mailboxes = await self._mailboxes(route.peer)
        if not mailboxes or not (key := await self._key(route.peer, mailboxes)):
            self._context.emit("letter.no_mailbox", peer=route.peer, mailboxes=len(mailboxes))
            return
        for name in lacking:
            try:
                await self._leave(name, route, key, mailboxes)
            except StoreError:
                raise
            except (MeshError, ProtocolError) as exc:  # one letter's fault, not the others'
                self._context.emit("letter.not_left", letter=name, why=str(exc))

    async def _lacks(self, name: str) -> bool:
        row = await self._outbox.find(name)
        return row is not None and row.state == "waiting" and len(row.mailboxes) < COPIES

    async def _mailboxes(self, recipient: str) -> list[str]:
        """Return where to try, the best first; one that fails is taken out."""
        if not self._directory.featuring(FEATURE):
            await self._directory.search_featuring(FEATURE, timeout_s=_SEARCH_S)
        await self._keepers.meet(recipient)
        return self._keepers.known(recipient)

    # --- sealing ---

    async def _key(self, recipient: str, mailboxes: Sequence[str]) -> bytes:
        """Return the key to seal to, from the recipient's record; empty if nobody has that."""
        record = await self._directory.lookup(recipient)
        if record is not None:
            return record.x25519
        for mailbox in mailboxes:
            try:
                raw = await self._sessions.request(
                    mailbox, KEY, encode(KeyQuery(recipient)), timeout_s=_TIMEOUT_S
                )
                if kept := read_body(raw, KeyRecord).record:
                    return sealing_key(kept, peer=recipient, network=self._context.network)
            except (MeshError, RemoteProtocolError) as exc:
                self._failed(mailbox, exc)
        return b""

    async def _sealed(self, name: str, key: bytes) -> tuple[OutboxRow, bytes] | None:
        """Return a letter sealed, the same each time, and its row with the name of that.

        Return None if it waits no longer.

        Raises:
            Malformed: ``key`` is no key.
        """
        row, envelope = await self._outbox.find(name), await self._outbox.envelope(name)
        if row is None or row.state != "waiting" or envelope is None:
            return None
        known = await self._context.store.read(OUTBOX_SEALED, name)
        if known is not None:
            return row, known
        sealed = seal_letter(
            Enclosed(envelope, list(self._members.links)),
            recipient=row.peer,
            x25519=key,
            network=self._context.network,
            secret=self._context.entropy.token(KEY_SIZE),
        )
        row = msgspec.structs.replace(row, seal=digest(sealed))
        noted = await self._outbox.note(name, row, Put(OUTBOX_SEALED, name, sealed))
        return (row, sealed) if noted else None

    # --- leaving ---

    async def _leave(self, name: str, route: Route, key: bytes, mailboxes: list[str]) -> None:
        """Leave one letter at as many mailboxes as it should be."""
        try:
            found = await self._sealed(name, key)
        except Malformed as exc:
            await self._outbox.fail(name, route.peer, "letter.unsealable", str(exc))
            return
        if found is None:
            return
        row, sealed = found
        body = encode(Deposit(row.peer, row.expires_ms, sealed))
        for mailbox in [peer for peer in mailboxes if peer not in row.mailboxes]:
            if len(row.mailboxes) >= COPIES:
                return
            try:
                await self._sessions.request(mailbox, DEPOSIT, body, timeout_s=_TIMEOUT_S)
            except (MeshError, RemoteProtocolError) as exc:
                self._failed(mailbox, exc)
                mailboxes.remove(mailbox)  # for this round
                continue
            row = msgspec.structs.replace(row, mailboxes=[*row.mailboxes, mailbox])
            if not await self._outbox.note(name, row):
                self._release(mailbox, row.seal)
                return
            self._context.emit("letter.deposited", letter=name, mailbox=mailbox)

    # --- asking ---

    async def _ask(self, route: Route) -> None:
        """Ask mailboxes what the recipient has signed, and end those letters."""
        there: dict[str, dict[bytes, str]] = {}
        for name in list(route.letters):
            row = await self._outbox.find(name)
            for mailbox in row.mailboxes if row is not None else ():
                there.setdefault(mailbox, {})[row.seal if row is not None else b""] = name
        for mailbox, seals in there.items():
            try:
                await self._ask_one(mailbox, route, seals)
            except (MeshError, RemoteProtocolError) as exc:
                self._failed(mailbox, exc)

    async def _ask_one(self, mailbox: str, route: Route, seals: dict[bytes, str]) -> None:
        wanted = [seal for seal, name in seals.items() if name in route.letters]
        for first in range(0, len(wanted), limits.DEPOSITS_MAX):
            some = wanted[first : first + limits.DEPOSITS_MAX]
            answer = read_body(await self._inquire(mailbox, Inquiry(some, [])), Acks)
            for seal, ack in zip(some, answer.acks, strict=False):
                if ack:
                    await self._outbox.acknowledged(seals[seal], route.peer, ack)
            for seal in [seal for seal in some if seal in answer.gone]:
                await self._lost(seals[seal], mailbox)

    async def _lost(self, name: str, mailbox: str) -> None:
        """Note that ``mailbox`` keeps a letter no longer: it is left somewhere anew."""
        row = await self._outbox.find(name)
        if row is None or mailbox not in row.mailboxes:
            return
        left = [peer for peer in row.mailboxes if peer != mailbox]
        if await self._outbox.note(name, msgspec.structs.replace(row, mailboxes=left)):
            self._context.emit("letter.forgotten", letter=name, mailbox=mailbox)

    async def _inquire(self, mailbox: str, inquiry: Inquiry) -> bytes:
        return await self._sessions.request(
            mailbox, ACKS, encode(inquiry), timeout_s=_TIMEOUT_S
        )

    # --- releasing ---

    async def run(self) -> None:
        """Tell mailboxes what they need keep no longer, until cancelled."""
        while True:
            self._stir = trio.Event()
            due = list(self._due)
            self._due.clear()
            for mailbox in due:
                try:
                    await self._tell_done(mailbox)
                except (MeshError, RemoteProtocolError) as exc:  # once there is a session
                    self._failed(mailbox, exc)
            if not self._due:
                await self._stir.wait()

    def _ended(self, row: OutboxRow) -> None:
        for mailbox in row.mailboxes:
            self._release(mailbox, row.seal)

    def _release(self, mailbox: str, seal: bytes) -> None:
        seals = self._done.setdefault(mailbox, {})
        seals[seal] = None
        if len(seals) > _DONE_MAX:
            del seals[next(iter(seals))]
        self._due[mailbox] = None
        self._stir.set()

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened and peer in self._done:
            self._due[peer] = None
            self._stir.set()

    async def _tell_done(self, mailbox: str) -> None:
        while seals := list(self._done.get(mailbox, ()))[: limits.DEPOSITS_MAX]:
            await self._inquire(mailbox, Inquiry([], seals))
            for seal in seals:
                self._done[mailbox].pop(seal, None)
        self._done.pop(mailbox, None)

    def _failed(self, mailbox: str, exc: Exception) -> None:
        self._context.emit("mailbox.failed", mailbox=mailbox, why=str(exc))
