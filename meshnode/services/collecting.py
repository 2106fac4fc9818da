"""The recipient's way to its mailboxes: what they keep is fetched, opened, signed for.

It goes when it learns of a mailbox, when one says that something waits, and now and then.
A mailbox is believed nothing: what it hands out must open with this node's key, hold a
letter that its sender signed to this node, and is taken as if it had come straight.
"""

from typing import Final

import trio

from meshnode.errors import Busy, MeshError, StoreError
from meshnode.services.admission import Admission
from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.inbox import Inbox
from meshnode.services.mail import COLLECT, FEATURE, WAITING, LetterUnfit
from meshnode.services.mailboxes import Mailboxes
from meshnode.services.membership import Members
from meshnode.services.sessions import Incoming, Sessions
from protocol.codec import encode
from protocol.errors import Expired, RemoteProtocolError, Stale
from protocol.keys import digest
from protocol.mail import Letter, check_letter_time, open_sealed, read_letter
from protocol.mailbox import Collect, Collected, Held, read_body
from protocol.records import NodeRecord

#: Where there are mailboxes, they are looked at this often, seconds.
_LOOK_S: Final = 900.0
#: Mailboxes that are remembered as looked at, the oldest forgotten first.
_MET_MAX: Final = 1_024
_JITTER: Final = (0.75, 1.25)
_TIMEOUT_S: Final = 20.0
#: Answers of one visit, within what a mailbox answers at a time; the rest comes later.
_ROUNDS_MAX: Final = 64


class Collecting:
    """See the module.  Run :meth:`run`."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        door: Admission,
        directory: DirectoryService,
        members: Members,
        inbox: Inbox,
    ) -> None:
        self._context = context
        self._sessions = sessions
        self._directory = directory
        self._members = members
        self._inbox = inbox
        self._mailboxes = Mailboxes(context, directory=directory, members=members)
        self._due: dict[str, None] = {}
        self._met: dict[str, None] = {}
        self._stir = trio.Event()
        sessions.handle(WAITING, door.limited(self._on_waiting, WAITING))
        directory.on_news(self._heard)

    async def _on_waiting(self, incoming: Incoming) -> bytes:
        """Go and see; whoever is no mailbox isn't gone to."""
        await trio.lowlevel.checkpoint()
        if incoming.peer in self._mailboxes.known(self._context.peer):
            self._go(incoming.peer)
        return b""

    def _heard(self, record: NodeRecord) -> None:
        """Go to a mailbox that is new, or was away."""
        if FEATURE not in record.features:
            self._met.pop(record.peer, None)
        elif record.peer not in self._met and record.peer != self._context.peer:
            if len(self._met) >= _MET_MAX:
                del self._met[next(iter(self._met))]
            self._met[record.peer] = None
            self._go(record.peer)

    def _go(self, mailbox: str) -> None:
        self._due[mailbox] = None
        self._stir.set()

    async def run(self) -> None:
        """Collect until cancelled; rests where no mailbox is known."""
        look_s = float("inf")  # the next look at all: whoever stirs doesn't put it off
        while True:
            self._stir = trio.Event()
            mailboxes = await self._used()
            now_s = trio.current_time()
            if now_s >= look_s:
                self._due.update(dict.fromkeys(mailboxes))
            if not mailboxes:
                look_s = float("inf")
            elif not now_s < look_s < float("inf"):
                look_s = now_s + _LOOK_S * self._context.rng.uniform(*_JITTER)
            due = [peer for peer in mailboxes if peer in self._due]
            self._due.clear()
            for mailbox in due:
                await self._visit(mailbox)
            with trio.move_on_at(look_s):
                await self._stir.wait()

    async def _used(self) -> list[str]:
        """Return the mailboxes that senders would use for this node."""
        await self._mailboxes.meet(self._context.peer)
        return self._mailboxes.known(self._context.peer)

    async def _visit(self, mailbox: str) -> None:
        """Take what ``mailbox`` keeps for this node, and sign for it."""
        acks: list[bytes] = []
        after = b""  # the last that was put off: what came before it is signed for, or was too
        try:
            for _ in range(_ROUNDS_MAX):
                body = encode(Collect(self._directory.own, acks, after))
                raw = await self._sessions.request(mailbox, COLLECT, body, timeout_s=_TIMEOUT_S)
                collected = read_body(raw, Collected)
                before = after
                acks, after = await self._take_all(mailbox, collected, after)
                if not acks and (after == before or not collected.more):
                    return
        except (MeshError, RemoteProtocolError) as exc:
            self._met.pop(mailbox, None)  # its next record is a reason to come again
            self._context.emit("mailbox.failed", mailbox=mailbox, why=str(exc))
        else:
            self._context.emit("mailbox.endless", mailbox=mailbox)

    async def _take_all(
        self, mailbox: str, collected: Collected, after: bytes
    ) -> tuple[list[bytes], bytes]:
        """Return what is signed, and which is the last that was put off, or ``after``."""
        acks: list[bytes] = []
        for held in collected.letters:
            if ack := await self._take(mailbox, held):
                acks.append(ack)
            else:
                after = digest(held.sealed)
        return acks, after

    async def _take(self, mailbox: str, held: Held) -> bytes:
        """Take one letter; return what is signed for it, or nothing if it is put off."""
        sealed = digest(held.sealed)
        try:
            letter, envelope, links = self._opened(held)
        except RemoteProtocolError as exc:
            self._context.emit("letter.unreadable", mailbox=mailbox, why=str(exc))
            code = "letter.expired" if isinstance(exc, Expired) else "letter.unreadable"
            return self._inbox.refuse(held.depositor, b"", sealed=sealed, reason=code)
        sender, name = letter.h.issuer, digest(envelope)
        if not self._members.admits(sender, links):
            self._context.emit("letter.refused", peer=sender, mailbox=mailbox)
            return self._inbox.refuse(sender, name, sealed=sealed, reason="letter.refused")
        try:
            now_ms = self._context.clock.now_ms()
            await self._inbox.take(envelope, letter, sender_now_ms=now_ms, by=mailbox)
        except LetterUnfit as exc:
            return self._inbox.refuse(sender, name, sealed=sealed, reason=exc.reason)
        except Stale:
            return self._inbox.refuse(sender, name, sealed=sealed, reason="letter.stale")
        except (Busy, StoreError) as exc:  # it stays where it is
            self._context.emit("letter.left", peer=sender, mailbox=mailbox, why=str(exc))
            return b""
        return self._inbox.acknowledge(letter, name, sealed=sealed)

    def _opened(self, held: Held) -> tuple[Letter, bytes, list[bytes]]:
        """Return the letter in a sealed one, its envelope and its sender's chain.

        Raises:
            RemoteProtocolError: It can't be opened, or doesn't hold.
        """
        context = self._context
        enclosed = open_sealed(context.signer.identity, held.sealed, network=context.network)
        letter = read_letter(enclosed.letter, network=context.network)
        check_letter_time(letter, audience=context.peer, now_ms=context.clock.now_ms())
        return letter, enclosed.letter, enclosed.links
