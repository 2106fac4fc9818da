"""HTML from values: whatever is no markup of our own is escaped, wherever it stands.

There is one way to make markup, :func:`tag`, and text that reaches it is text: nobody has to
remember to escape what a scenario or a node said.
"""

import unicodedata
from collections.abc import Iterable
from html import escape

#: What may stand in a tag: text, markup, nothing, or several of them.
Child = str | None | Iterable[str | None]

_VOID = frozenset({"meta", "br"})


class Markup(str):
    """Text that is HTML already; only :func:`tag` and :func:`joined` make it."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        name: Of the element.
        *children: Text is escaped, markup is not, None is left out.
        **attributes: ``stroke_width`` is ``stroke-width``, ``class_`` is ``class``; None is
            left out.
    """
    named = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(visible(_shown(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{named}>")
    return Markup(f"<{name}{named}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Return ``children`` one after another."""
    return Markup("".join(_markup(child) for child in children))


def visible(text: str) -> str:
    """Return ``text`` with nothing unseen in it: what controls, hides or turns the rest."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, str):
        return escape(visible(child))
    return "".join(_markup(one) for one in child)


def _shown(value: str | float) -> str:
    """Return a number as short as a drawing needs it."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
