"""What an agent's example says in words: the texts in its input."""

from typing import Final

from meshnode.ports import JsonValue

_CHARACTERS_MAX: Final = 300
_DEPTH_MAX: Final = 6


def example_words(example: JsonValue) -> str:
    """Return the texts in ``example`` as one; of ``{"input", "output"}`` those of the input."""
    if isinstance(example, dict) and example.keys() == {"input", "output"}:
        example = example["input"]
    return _words(example, _DEPTH_MAX)[:_CHARACTERS_MAX]


def _words(value: JsonValue, depth: int) -> str:
    if isinstance(value, str):
        return value
    if depth == 0 or not isinstance(value, dict | list):
        return ""
    parts = value.values() if isinstance(value, dict) else value
    return " ".join(filter(None, (_words(part, depth - 1) for part in parts)))
