"""Which finished contracts may be told others, in the store, the newest of a capability first.

``capability/time counted down/award hash`` -> nothing: written and forgotten with the receipt.
"""

from typing import Any, Final

import msgspec

from meshnode.services.bodies import ReceiptRow
from protocol.limits import HALF_SIZE_MAX
from protocol.signing import peek

TESTIMONY: Final = "testimony"
#: Later than any time in a key.
_TIME_MAX: Final = 10**15 - 1


class _Header(msgspec.Struct):
    audience: str


class _Half(msgspec.Struct):
    h: _Header
    capability: str
    below: list[Any] = []


_HALF: Final = msgspec.msgpack.Decoder(_Half)


def testimony_key(award: str, row: ReceiptRow, *, now_ms: int) -> str:
    """Return the key under which a contract may be told; empty if it may not.

    It isn't told if its receipt tells of work below, if it was accepted by a later broker,
    which two halves can't prove, or if a half is larger than others take.

    Args:
        award: Its hash, in hex.
        row: What this node keeps of it, checked.
        now_ms: Unix time.
    """
    if max(len(row.receipt), len(row.acceptance)) > HALF_SIZE_MAX:
        return ""
    half = _HALF.decode(peek(row.receipt).p)
    if half.below or half.h.audience != peek(row.acceptance).i:
        return ""
    return f"{half.capability}/{_TIME_MAX - now_ms:015}/{award}"


def read_place(key: str) -> str:
    """Return ``time/award hash`` of a key: what comes later is greater."""
    _, time, award = key.split("/")
    return f"{_TIME_MAX - int(time):015}/{award}"
