"""What the services for letters share: requests, tables, and the rows in them.

A letter is named by the hash of its envelope, in hex, at both ends.  Small rows say how it
stands, and are listed; the letters themselves are in tables of their own, which are
written once.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from meshnode.errors import MeshError
from meshnode.ports import Write
from protocol.codec import Count
from protocol.keys import digest
from protocol.mail import Letter

LETTER: Final = "letter"
DEPOSIT: Final = "mail.deposit"
COLLECT: Final = "mail.collect"
ACKS: Final = "mail.acks"
KEY: Final = "mail.key"
WAITING: Final = "mail.waiting"

#: Letters that came: name -> :class:`InboxRow`, name -> envelope.
INBOX: Final = "inbox"
INBOX_LETTERS: Final = "inbox_letter"
#: What has come, deleted or not, until it expires: ``sender/id`` -> :class:`SeenRow`.
SEEN: Final = "inbox_seen"

#: Letters of this node: name -> :class:`OutboxRow`, name -> envelope, name -> nothing for
#: those that wait, name -> the letter sealed.
OUTBOX: Final = "outbox"
OUTBOX_LETTERS: Final = "outbox_letter"
OUTBOX_DUE: Final = "outbox_due"
OUTBOX_SEALED: Final = "outbox_sealed"

#: Kept for others: ``recipient/hash`` -> :class:`HeldRow`, the same -> the sealed letter;
#: ``depositor/hash`` -> recipient.
HELD: Final = "mailbox"
HELD_SEALED: Final = "mailbox_sealed"
HELD_BY: Final = "mailbox_by"
#: Records of those who collect here: PeerId -> envelope.
HELD_KEYS: Final = "mailbox_key"

#: What a mailbox's record says.
FEATURE: Final = "mailbox"

#: Rows that one table may have, at most.
ROWS_MAX: Final = 1_000_000

State = Literal["waiting", "delivered", "failed"]


class InboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """A letter that came.

    Attributes:
        sender: PeerId.
        kind: Media type of the body.
        subject: One line, or empty.
        size: Of the whole letter, bytes.
        sent_ms: Unix time by the sender's clock.
        received_ms: Unix time.
        read_ms: When the owner read it first; 0 when he hasn't.
        by: The mailbox that it came through; empty when it came straight.
    """

    sender: str
    kind: str
    subject: str
    size: Count
    sent_ms: Count
    received_ms: Count
    read_ms: Count = 0
    by: str = ""


class SeenRow(msgspec.Struct, frozen=True, array_like=True):
    """Which letter has come under an id, and until when that matters, Unix time."""

    name: bytes
    until_ms: Count


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """A letter of this node.

    Attributes:
        peer: Whom it is for.
        kind: Media type of the body.
        subject: One line, or empty.
        size: Of the whole letter, bytes.
        sent_ms: When it was written, Unix time.
        expires_ms: When it is given up.
        state: How it stands.
        ended_ms: When it was delivered or failed; 0 while it waits.
        code: Stable code of why it failed, or empty.
        text: The same for people.
        mailboxes: Where it is kept for the recipient.
        seal: Hash of the sealed letter, or empty.
    """

    peer: str
    kind: str
    subject: str
    size: Count
    sent_ms: Count
    expires_ms: Count
    state: State = "waiting"
    ended_ms: Count = 0
    code: str = ""
    text: str = ""
    mailboxes: list[str] = []
    seal: bytes = b""


class HeldRow(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed letter that is kept for somebody.

    Attributes:
        recipient: For whom; nobody else gets it.
        depositor: Who brought it.
        size: Bytes.
        expires_ms: When it goes, Unix time.
        since_ms: When it came.
        ack: The recipient's acknowledgement; then the letter itself has gone.
    """

    recipient: str
    depositor: str
    size: Count
    expires_ms: Count
    since_ms: Count
    ack: bytes = b""


INBOX_ROW: Final = msgspec.msgpack.Decoder(InboxRow)
SEEN_ROW: Final = msgspec.msgpack.Decoder(SeenRow)
OUTBOX_ROW: Final = msgspec.msgpack.Decoder(OutboxRow)
HELD_ROW: Final = msgspec.msgpack.Decoder(HeldRow)


def ranked(recipient: str, mailboxes: Iterable[str]) -> list[str]:
    """Return ``mailboxes`` in the order in which they are used for ``recipient``.

    Sender and recipient come to the same order without having spoken; each recipient has
    another one.
    """
    return sorted(mailboxes, key=lambda peer: digest(f"{recipient}\0{peer}".encode()))


#: What the record of a node says that does work ordered by letter.
ORDERS_FEATURE: Final = "orders"


class LetterUnfit(MeshError):
    """A letter that is for no person, and that this node can do nothing with.

    Attributes:
        reason: Stable code, for its sender.
    """

    code = "letter.unfit"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Carrier(NamedTuple):
    """What is done with the letters of one kind, which no owner sees.

    Attributes:
        read: Return what is committed with that the letter came.  Raises LetterUnfit, or a
            RemoteProtocolError, if nothing can be done with it; Busy and StoreError if it
            should come again.
        kept: Is told when that was committed; must not block.
    """

    read: Callable[[Letter], Awaitable[Sequence[Write]]]
    kept: Callable[[Letter], None]


class LetterRefused(MeshError):
    """The owner doesn't take letters from whoever sent this one."""

    code = "letter.refused"
