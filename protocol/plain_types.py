"""Types whose every value has a canonical encoding, so that none needs to be walked for it.

The canonical form has no floats, no extension types, no keys but text, and a limit on
depth (:mod:`protocol.codec`).  Whether a struct of fixed types can break one of these
is a question about its type and not about its values: it is answered once.
"""

from collections.abc import Hashable
from functools import lru_cache
from typing import Final

from msgspec import inspect

from protocol.limits import DEPTH_MAX

_LEAVES: Final = (
    inspect.NoneType,
    inspect.BoolType,
    inspect.IntType,
    inspect.StrType,
    inspect.BytesType,
)


@lru_cache(maxsize=512)
def is_plain(kind: Hashable) -> bool:
    """Tell whether ``msgspec`` encodes every value of ``kind`` canonically.

    So it does with structs of integers, text and bytes, and of lists, maps and structs
    of them, up to the depth allowed.  The number of values, and that of bytes, are not
    in a type: they remain to be looked at.
    """
    return _is_plain(inspect.type_info(kind), 0)


def _is_plain(kind: inspect.Type, depth: int) -> bool:
    if depth > DEPTH_MAX:  # such as a struct that holds itself
        return False
    match kind:
        case inspect.StructType(fields=fields, tag=None):
            inner = [field.type for field in fields]
        case inspect.StructType(fields=fields, tag=int(), array_like=True):
            inner = [field.type for field in fields]  # the tag is the array's first integer
        case inspect.ListType(item_type=item):
            inner = [item]
        case inspect.DictType(key_type=inspect.StrType(), value_type=item):
            inner = [item]
        case inspect.UnionType(types=types):
            return all(_is_plain(one, depth) for one in types)
        case inspect.LiteralType(values=values):
            return all(isinstance(value, str) for value in values)
        case inspect.Metadata(type=bare):
            return _is_plain(bare, depth)
        case _:
            return isinstance(kind, _LEAVES)
    return depth < DEPTH_MAX and all(_is_plain(one, depth + 1) for one in inner)
