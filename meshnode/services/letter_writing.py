"""Letters as they are written: checked in words for their owner, signed, and named.

A letter's name is the hash of its envelope, in hex; nothing of it is on the disk yet.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.errors import InputInvalid
from meshnode.ports import Write
from meshnode.services.mail import OutboxRow
from meshnode.services.signer import Signer, Topic
from protocol import limits
from protocol.errors import LocalProtocolError
from protocol.keys import digest
from protocol.mail import Letter, sign_letter
from protocol.messages import Label

_LIFETIME_S_MIN: Final = 1.0
_LIFETIME_S_MAX: Final = limits.LETTER_LIFETIME_MS_MAX / 1000

#: What is committed with a letter of that name.
Keep = Callable[[str], Sequence[Write]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A letter that isn't signed yet.

    Attributes:
        peer: Whom it is for.
        body: What is said.
        kind: Media type of the body.
        lifetime_s: From now.
        subject: One line, or empty.
    """

    peer: str
    body: bytes
    kind: str
    lifetime_s: float
    subject: str = ""


def nothing_else(_: str) -> Sequence[Write]:
    """Commit nothing with a letter."""
    return ()


def check_draft(draft: Draft) -> None:
    """Refuse what can't be a letter, in words for its owner.

    Raises:
        InputInvalid: Body, subject or lifetime is out of bounds.
    """
    if len(draft.body) > limits.LETTER_BODY_SIZE_MAX:
        raise InputInvalid(
            f"a letter of {len(draft.body)} bytes",
            hint=f"at most {limits.LETTER_BODY_SIZE_MAX}",
        )
    if len(draft.subject) > limits.LETTER_SUBJECT_SIZE_MAX or not draft.subject.isprintable():
        raise InputInvalid(
            "a subject is one line",
            hint=f"of at most {limits.LETTER_SUBJECT_SIZE_MAX} characters",
        )
    if not _LIFETIME_S_MIN <= draft.lifetime_s <= _LIFETIME_S_MAX:  # false for NaN too
        raise InputInvalid(
            f"a letter that expires in {draft.lifetime_s:g} s", hint="1 second to 30 days"
        )


def written(signer: Signer, draft: Draft) -> tuple[str, bytes, OutboxRow]:
    """Return a letter's name, its envelope, and the row that says that it waits.

    Raises:
        InputInvalid: Its kind is no media type.
    """
    topic = Topic(label=Label(secrecy=3))
    header = signer.header(draft.peer, topic, lifetime_ms=round(draft.lifetime_s * 1000))
    letter = Letter(
        h=header, kind=draft.kind, subject=draft.subject, body=draft.body, answers=b""
    )
    try:
        envelope = sign_letter(signer.identity, letter)
    except LocalProtocolError as exc:
        raise InputInvalid(str(exc), hint="check the kind, such as text/plain") from exc
    row = OutboxRow(
        peer=draft.peer,
        kind=draft.kind,
        subject=draft.subject,
        size=len(envelope),
        sent_ms=header.issued_ms,
        expires_ms=header.expires_ms,
    )
    return digest(envelope).hex(), envelope, row
