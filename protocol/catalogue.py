"""How two neighbours keep each other's catalogues complete.

Bodies of session requests; nothing here is signed, since every record inside is.

    catalogue.digest   what I hold, as one hash and a count: equal means nothing to do
    catalogue.pull     send me what you have that I don't (peer -> sequence is told)
    catalogue.push     here are records, new to you as far as I know

Specified in protocol/spec/35-catalogue.md; vectors in protocol/vectors/catalogue.json.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from protocol.codec import Count, Hash, decode_as
from protocol.errors import Malformed
from protocol.keys import digest

DIGEST: Final = "catalogue.digest"
PULL: Final = "catalogue.pull"
PUSH: Final = "catalogue.push"

#: Records of one pull's answer or one push: the rest comes with the next.
RECORDS_MAX: Final = 64
#: Bytes of records in one message, so that a frame holds them.
RECORDS_BYTES_MAX: Final = 200_000
#: Peers that one pull may name.
HAVE_MAX: Final = 4_000


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """What a node holds.

    Attributes:
        count: Records.
        hash: :func:`summary` of them.
    """

    count: Count
    hash: Hash


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for what is missing.

    Attributes:
        have: PeerId -> sequence of what the asker holds.
    """

    have: dict[str, Count]


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """Records, each a signed envelope.

    Attributes:
        records: At most :data:`RECORDS_MAX`.
        more: The sender has others; pull again.
    """

    records: list[bytes]
    more: bool = False


B = TypeVar("B", bound=Digest | Pull | Push)
_DECODERS: Final[dict[type, "msgspec.msgpack.Decoder[Any]"]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Digest, Pull, Push)
}


def summary(sequences: Mapping[str, int]) -> Digest:
    """Return the digest of a catalogue: a line for each peer, in order of PeerId.

    Not one encoded map: a catalogue may hold more peers than a frame.
    """
    lines = "".join(f"{peer} {sequences[peer]}\n" for peer in sorted(sequences))
    return Digest(count=len(sequences), hash=digest(lines.encode()))


def read(body: bytes, kind: type[B]) -> B:
    """Return the message in ``body``.

    Raises:
        Malformed: Not one, or over its limits.
    """
    message: B = decode_as(body, _DECODERS[kind])
    if isinstance(message, Push) and len(message.records) > RECORDS_MAX:
        raise Malformed(f"more than {RECORDS_MAX} records in one push")
    if isinstance(message, Pull) and len(message.have) > HAVE_MAX:
        raise Malformed(f"more than {HAVE_MAX} peers in one pull")
    return message
