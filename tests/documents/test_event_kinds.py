"""The specification lists every kind of event, with what it holds."""

import re
from pathlib import Path

from meshnode.domain.facts import KINDS, Ranked

SPEC = Path(__file__).parents[2] / "protocol" / "spec" / "80-journal.md"
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)


def test_the_spec_lists_the_event_kinds_with_their_fields() -> None:
    section = SPEC.read_text("utf-8").split("## Event kinds")[1].split("\n## ")[0]
    told = {kind: re.findall(r"`(\w+)`", fields) for kind, fields in ROW.findall(section)}
    assert told == {kind: list(fact.__struct_fields__) for kind, fact in KINDS.items()}


def test_the_spec_lists_what_is_told_of_a_candidate() -> None:
    (line,) = re.findall(
        r"^Each entry of `ranked` .*: (.*)\.$", SPEC.read_text("utf-8"), re.MULTILINE
    )
    assert re.findall(r"`(\w+)`", line) == list(Ranked.__struct_fields__)
