"""What every page of ours stands in: a file that opens from the disk and can load nothing."""

from importlib.resources import files
from typing import Final

from simulations.report.markup import Child, Markup, tag

_CSP: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def document(title: str, *sections: Child) -> str:
    """Return a page of ``sections``, with its style in it and no right to anything outside."""
    style = files("simulations.report").joinpath("page.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_CSP),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *sections))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
