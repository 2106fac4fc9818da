"""What a store is told to do, and what no store does.

Callers take these from :mod:`meshnode.ports`, where the store is.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from meshnode.errors import StoreError


@dataclass(frozen=True, slots=True)
class Put:
    """Set ``table[key]`` to ``value``."""

    table: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove ``table[key]``; nothing happens if it isn't there."""

    table: str
    key: str


@dataclass(frozen=True, slots=True)
class Append:
    """Add entry number ``seq`` to the append-only ``log``, from 0 and without gaps."""

    log: str
    seq: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Add:
    """Add ``amount`` to the whole number in ``table[key]``, which is 0 if it isn't there.

    The store adds, and not its caller, so that concurrent commits of which one fails
    can't lose each other's amounts.  Sums have tables of their own; :func:`read_sum` reads
    a cell.
    """

    table: str
    key: str
    amount: int


@dataclass(frozen=True, slots=True)
class Once:
    """Set ``table[key]`` to ``value`` and apply ``writes``, unless ``table[key]`` is there.

    What is done again with the same key changes nothing, whatever the rest of its commit.
    """

    table: str
    key: str
    value: bytes
    writes: tuple[Put | Add, ...] = ()


Write = Put | Delete | Append | Add | Once

#: Longest key or name of a log, and longest value, of every store.
KEY_BYTES_MAX: Final = 512
VALUE_BYTES_MAX: Final = 16 * 1024 * 1024
_TABLE_NAME: Final = re.compile(r"[a-z_]{1,32}")
_SUM: Final = re.compile(rb"-?[0-9]{1,100}")


def check_write(write: Write) -> None:
    """Refuse a write that no store takes.

    Raises:
        StoreError: Says what is wrong with it.
    """
    if isinstance(write, Append):
        check_text("log", write.log)
        _check_value(write.value)
        return
    check_table(write.table)
    check_text("key", write.key)
    if isinstance(write, Put | Once):
        _check_value(write.value)
    if isinstance(write, Once):
        for inner in write.writes:
            check_write(inner)


def read_sum(value: bytes | None) -> int:
    """Return the number in a cell that :class:`Add` makes: decimal digits, 0 for no cell.

    Raises:
        StoreError: It holds something else.
    """
    if value is None:
        return 0
    if _SUM.fullmatch(value) is None:
        raise StoreError(f"{value[:20]!r} is no sum")
    return int(value)


def check_table(table: str) -> None:
    """Refuse what can't name a table."""
    if not _is_table(table):
        raise StoreError(f"table {table!r} must match {_TABLE_NAME.pattern}")


@lru_cache(maxsize=256)
def _is_table(name: str) -> bool:
    """Tell whether ``name`` may name a table: they are few, and in every write."""
    return _TABLE_NAME.fullmatch(name) is not None


def check_text(what: str, text: str) -> None:
    """Refuse what can't be a key or name a log."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise StoreError(f"{what} {text!r} is not valid Unicode text") from None
    if not 1 <= size <= KEY_BYTES_MAX:
        raise StoreError(f"{what} of {size} bytes, allowed are 1 to {KEY_BYTES_MAX}")


def _check_value(value: bytes) -> None:
    if len(value) > VALUE_BYTES_MAX:
        raise StoreError(f"value of {len(value)} bytes exceeds {VALUE_BYTES_MAX} bytes")
