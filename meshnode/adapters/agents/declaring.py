"""What an owner writes of how an agent's answers compare, in code or in the agent's file."""

import msgspec

from meshnode.errors import ConfigError
from protocol.errors import Malformed
from protocol.likeness import Likeness, check_likeness


def read_likeness(value: object) -> Likeness | None:
    """Return the likeness that an owner writes as its kind, or as a table.

    Raises:
        ConfigError: It is none.
    """
    if value is None or value in ("", {}):
        return None
    if isinstance(value, Likeness):
        return value
    fields = {"kind": value} if isinstance(value, str) else value
    hint = "write normalised, or {kind = 'numeric', relative_ppm = 1000}"
    if not isinstance(fields, dict) or not fields.keys() <= {*Likeness.__struct_fields__}:
        raise ConfigError(f"{str(value)[:100]!r} doesn't say when answers are alike", hint=hint)
    try:
        like = msgspec.convert(fields, Likeness)
        check_likeness("like", like)
    except (msgspec.ValidationError, Malformed) as exc:
        raise ConfigError(f"like: {exc}", hint=hint) from exc
    return like
