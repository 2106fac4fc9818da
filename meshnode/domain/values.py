"""JSON values: their one encoding, and places in them.

Agents' inputs and outputs are RFC 8785 bytes everywhere they are hashed, so two
nodes that hold the same value hold the same artifact.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

import rfc8785

from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.keys import digest

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*")  # RFC 6901
_SAFE_MAX: Final = 2**53 - 1
_DIGITS_MAX: Final = 22  # RFC 8785 writes larger numbers with an exponent
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def canonical(value: JsonValue) -> bytes:
    """Return the RFC 8785 bytes of ``value``.

    Raises:
        InputInvalid: It has none: NaN, an integer over 53 bits, a lone surrogate.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as exc:
        raise InputInvalid(f"no canonical JSON: {exc}") from exc


def fingerprint(value: JsonValue) -> str:
    """Return what ``value`` is recognised by; the same for equal values alone.

    Raises:
        InputInvalid: It has no canonical JSON.
    """
    return digest(canonical(value)).hex()


def parse(data: bytes) -> JsonValue:
    """Return the JSON value in ``data``.

    Raises:
        InputInvalid: Not JSON as RFC 8259 has it (``NaN`` isn't).
    """
    try:
        # As text: given bytes, `loads` would take UTF-16 and UTF-32 too.
        return json.loads(  # type: ignore[no-any-return]
            data.decode(), parse_int=_integer, parse_constant=_refuse
        )
    except (ValueError, RecursionError) as exc:
        raise InputInvalid(f"not JSON: {exc}") from exc


def is_canonical(data: bytes) -> bool:
    """Tell whether ``data`` is a JSON value in its one encoding, whoever wrote it."""
    try:
        return canonical(parse(data)) == data
    except InputInvalid:
        return False


def _integer(digits: str) -> JsonValue:
    """Return the number; a large one is the float that RFC 8785 writes so, if there is one.

    ``1e20`` is written ``100000000000000000000``.  What no float is written as stays an
    integer, which :func:`canonical` refuses: rounding it would be silent.
    """
    number = int(digits)
    if abs(number) <= _SAFE_MAX or len(digits) > _DIGITS_MAX:
        return number
    rounded = float(number)
    return rounded if rfc8785.dumps(rounded) == digits.encode() else number


def _refuse(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def sendable(text: str) -> str:
    """Return ``text`` with ``?`` for what no encoding holds: half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()


def resolve(value: JsonValue, pointer: str) -> JsonValue:
    """Return what ``pointer`` (RFC 6901) names in ``value``.

    Raises:
        InputInvalid: There is no such place.
    """
    found = list(resolve_all(value, pointer, star=False))
    return found[0]


def resolve_all(value: JsonValue, pointer: str, *, star: bool = True) -> Iterator[JsonValue]:
    """Yield every place that ``pointer`` names; a ``*`` segment ranges over a list.

    Raises:
        InputInvalid: A segment without ``*`` names nothing.
    """
    if not _POINTER.fullmatch(pointer):
        raise InputInvalid(f"{pointer[:60]!r} is no JSON Pointer")
    yield from _walk(value, pointer.split("/")[1:], star=star)


def _walk(value: JsonValue, segments: Sequence[str], *, star: bool) -> Iterator[JsonValue]:
    if not segments:
        yield value
    elif star and segments[0] == "*" and isinstance(value, list):
        for item in value:
            yield from _walk(item, segments[1:], star=star)
    else:
        key = segments[0].replace("~1", "/").replace("~0", "~")
        yield from _walk(_child(value, key), segments[1:], star=star)


def pick(value: JsonValue, pointer: str) -> JsonValue:
    """Return what ``pointer`` names: a list of places if it has a ``*``, else the one place.

    Raises:
        InputInvalid: There is no such place.
    """
    if "*" in pointer.split("/"):
        return list(resolve_all(value, pointer))
    return resolve(value, pointer)


def resolve_list(value: JsonValue, pointer: str) -> list[JsonValue]:
    """Return the list that ``pointer`` names, as :func:`pick` does.

    Raises:
        InputInvalid: There is no such place, or no list there.
    """
    found = pick(value, pointer)
    if not isinstance(found, list):
        raise InputInvalid(f"{pointer or 'the value'} is no list, so it can't be mapped over")
    return found


def _child(value: JsonValue, key: str) -> JsonValue:
    if isinstance(value, dict) and key in value:
        return value[key]
    if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
        return value[int(key)]
    raise InputInvalid(f"there is no {key[:60]!r} in the value")
