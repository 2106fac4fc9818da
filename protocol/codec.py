"""Bytes to values and back, in exactly one way.

Signatures are made over bytes, so one value must have one encoding.  We use a
subset of MessagePack and refuse everything outside it: maps have string keys in
strictly ascending order of their UTF-8 bytes, every header takes its shortest
form, there are no extension types, and there are no floats (a price is an integer
number of millicredits, a duration an integer number of milliseconds).

:func:`scan` walks the raw bytes once, before anything is built from them, and
proves all of that together with the depth and node limits; only then is the C
decoder let loose on them.  A megabyte of nested empty lists costs a refusal and
not sixty megabytes.

The walk is in Python and costs a hundred times what the C decoder does, so it is left
out where it can prove nothing new.  A small frame is read and written again: if the same
bytes come out, they are the canonical ones, given that nothing was read that has no place
here.  Of a struct of plain types (:mod:`protocol.plain_types`) that is known beforehand;
of other values it is looked up in what was read.  If not, the walk has the last word, and
says what is wrong where.

Specified in protocol/spec/10-codec.md; vectors in protocol/vectors/codec.json.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec

from protocol.errors import LocalProtocolError, Malformed, TooLarge
from protocol.limits import DEPTH_MAX, FRAME_SIZE_MAX, NODES_MAX, NUMBER_MAX
from protocol.plain_types import is_plain

Value = None | bool | int | str | bytes | Sequence["Value"] | Mapping[str, "Value"]

#: A count, price, duration or time: never negative, and exact in JSON and SQL too.
Count = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]

#: A SHA-256 that may not be left out.
Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]

T = TypeVar("T")

_ENCODER: Final = msgspec.msgpack.Encoder(order="sorted")
_DECODER: Final = msgspec.msgpack.Decoder()


def encode(value: Any) -> bytes:  # noqa: ANN401 - any builtin or struct: scan() decides
    """Return the one encoding of ``value``: builtins or ``msgspec`` structs of them.

    Raises:
        LocalProtocolError: ``value`` has no encoding (a float, a key that isn't text,
            an integer over 64 bits, too deep, too many values, too long).
    """
    try:
        frame = _ENCODER.encode(value)
        # Read back, because a constructor takes what its type forbids, such as a float.
        if not isinstance(value, msgspec.Struct) or _reread(frame, _own(type(value))) is None:
            scan(frame)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise LocalProtocolError(f"no encoding for {type(value).__name__}: {exc}") from exc
    except (Malformed, TooLarge) as exc:
        raise LocalProtocolError(f"no canonical encoding: {exc}") from exc
    return frame


def decode(frame: bytes) -> Value:
    """Return the value that ``frame`` encodes, or refuse it.

    Total over byte strings: any input either returns a value ``v`` with
    ``encode(v) == frame`` or raises a :class:`RemoteProtocolError`.

    Raises:
        TooLarge: ``frame`` is longer than :data:`FRAME_SIZE_MAX`.
        Malformed: ``frame`` is not one canonical encoding.
    """
    scan(frame)
    return _DECODER.decode(frame)  # type: ignore[no-any-return]


def decode_as(frame: bytes, decoder: "msgspec.msgpack.Decoder[T]") -> T:
    """Return ``frame`` as the struct of ``decoder``; unknown fields are passed over.

    Canonicity is proved for the raw bytes, so what this version doesn't know is
    still covered by the signature and kept by whoever keeps the bytes.

    Raises:
        TooLarge: As :func:`decode`.
        Malformed: As :func:`decode`, or a field is missing or of another type.
    """
    known = _reread(frame, decoder)
    if known is not None:
        return known
    scan(frame)
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as exc:
        raise Malformed(str(exc)) from exc


def _reread(frame: bytes, decoder: "msgspec.msgpack.Decoder[T]") -> T | None:
    """Return what is in ``frame`` if that proves it canonical; None leaves it to the walk."""
    # Each value takes a byte at least: so short a frame can't hold too many.
    kind: Any = decoder.type
    if len(frame) > NODES_MAX or not is_plain(kind):
        return None
    try:
        value = decoder.decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if _ENCODER.encode(value) == frame else None


@lru_cache(maxsize=512)
def _own(kind: type[Any]) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(kind)


def scan(frame: bytes) -> None:
    """Prove that ``frame`` is one canonical encoding within the limits.

    Raises:
        TooLarge: ``frame`` is longer than :data:`FRAME_SIZE_MAX`.
        Malformed: It isn't; the message says where and why.
    """
    size = len(frame)
    if size > FRAME_SIZE_MAX:
        raise TooLarge(size, FRAME_SIZE_MAX)
    if _comes_back(frame):
        return
    end = _Scan(frame).value(0, 0)
    if end != size:
        raise Malformed(f"{size - end} bytes after the value")


def _comes_back(frame: bytes) -> bool:
    """Tell whether reading and writing ``frame`` proves it; a walk says what is wrong.

    A walk over bytes takes Python some five times as long as one over what is in them.
    """
    if len(frame) > NODES_MAX:
        return False
    try:
        value = _DECODER.decode(frame)
        return _ENCODER.encode(value) == frame and _is_canonical(value, 0)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return False


#: Of decoded values; a float, a time or an extension is none of them.
_SCALARS: Final = frozenset({type(None), bool, int, str, bytes})


def _is_canonical(value: object, depth: int) -> bool:
    kind = type(value)
    if kind in _SCALARS:
        return True
    if depth >= DEPTH_MAX:
        return False
    if isinstance(value, dict):
        items: Iterable[object] = value.values()  # an encoder that sorts takes text as keys
    elif isinstance(value, list):
        items = value
    else:
        return False
    for one in items:  # a loop is twice as fast as all()
        if type(one) not in _SCALARS and not _is_canonical(one, depth + 1):
            return False
    return True


#: Header byte -> (bytes of length or number that follow, smallest value that needs them).
_UNSIGNED: Final = {0xCC: (1, 0x80), 0xCD: (2, 0x100), 0xCE: (4, 0x1_0000), 0xCF: (8, 1 << 32)}
_SIGNED: Final = {0xD0: (1, -0x20), 0xD1: (2, -0x80), 0xD2: (4, -0x8000), 0xD3: (8, -(1 << 31))}
_BIN: Final = {0xC4: (1, 0), 0xC5: (2, 0x100), 0xC6: (4, 0x1_0000)}
_STR: Final = {0xD9: (1, 32), 0xDA: (2, 0x100), 0xDB: (4, 0x1_0000)}
_ARRAY: Final = {0xDC: (2, 16), 0xDD: (4, 0x1_0000)}
_MAP: Final = {0xDE: (2, 16), 0xDF: (4, 0x1_0000)}
_CONSTANTS: Final = frozenset({0xC0, 0xC2, 0xC3})  # nil, false, true


class _Scan:
    """One walk over one frame; positions in, positions out."""

    __slots__ = ("frame", "nodes")

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.nodes = 0

    def value(self, at: int, depth: int) -> int:
        """Check the value that starts ``at`` and return where it ends."""
        self._count(at, 1)
        head = self.frame[at]
        if head < 0x80 or head >= 0xE0 or head in _CONSTANTS:  # small integers, constants
            return at + 1
        if 0xA0 <= head < 0xC0:
            return self._text(at + 1, head & 0x1F)
        if head < 0x90:
            return self._map(at + 1, head & 0x0F, depth)
        if head < 0xA0:
            return self._array(at + 1, head & 0x0F, depth)
        return self._sized(at, head, depth)

    def _sized(self, at: int, head: int, depth: int) -> int:
        if form := _STR.get(head):
            return self._text(*self._length(at, form))
        if form := _BIN.get(head):
            start, size = self._length(at, form)
            return self._within(start + size)
        if form := _UNSIGNED.get(head):
            return self._length(at, form)[0]
        if form := _SIGNED.get(head):
            end = self._within(at + 1 + form[0])
            if int.from_bytes(self.frame[at + 1 : end], "big", signed=True) >= form[1]:
                raise Malformed(f"a longer integer than needed at byte {at}")
            return end
        if form := _ARRAY.get(head):
            return self._array(*self._length(at, form), depth)
        if form := _MAP.get(head):
            return self._map(*self._length(at, form), depth)
        raise Malformed(f"no such value: byte {at} is 0x{head:02x}")

    def _length(self, at: int, form: tuple[int, int]) -> tuple[int, int]:
        """Return where the header ends and the number in it."""
        end = self._within(at + 1 + form[0])
        number = int.from_bytes(self.frame[at + 1 : end], "big")
        if number < form[1]:
            raise Malformed(f"a longer header than needed at byte {at}")
        return end, number

    def _text(self, start: int, size: int) -> int:
        end = self._within(start + size)
        try:
            self.frame[start:end].decode("utf-8")
        except UnicodeDecodeError as exc:
            raise Malformed(f"text at byte {start} is not UTF-8") from exc
        return end

    def _array(self, at: int, length: int, depth: int) -> int:
        self._enter(at, length, depth)
        for _ in range(length):
            at = self.value(at, depth + 1)
        return at

    def _map(self, at: int, length: int, depth: int) -> int:
        self._enter(at, 2 * length, depth)
        previous: bytes | None = None
        for _ in range(length):
            self._within(at + 1)
            head = self.frame[at]
            if not (0xA0 <= head < 0xC0 or head in _STR):
                raise Malformed(f"the key at byte {at} is not text")
            end = self.value(at, depth + 1)
            header = 1 if head < 0xC0 else 1 + _STR[head][0]
            key = self.frame[at + header : end]
            if previous is not None and key <= previous:
                raise Malformed(f"the key at byte {at} is out of order or repeated")
            previous = key
            at = self.value(end, depth + 1)
        return at

    def _enter(self, at: int, values: int, depth: int) -> None:
        if depth >= DEPTH_MAX:
            raise Malformed(f"nested deeper than {DEPTH_MAX} levels at byte {at}")
        # Refuse by the header alone: the announced values must fit budget and frame.
        if self.nodes + values > NODES_MAX or at + values > len(self.frame):
            raise Malformed(f"more values than fit at byte {at}")

    def _count(self, at: int, values: int) -> None:
        self.nodes += values
        if self.nodes > NODES_MAX:
            raise Malformed(f"more than {NODES_MAX} values")
        self._within(at + 1)

    def _within(self, end: int) -> int:
        if end > len(self.frame):
            raise Malformed(f"ends early: {end - len(self.frame)} bytes missing")
        return end
