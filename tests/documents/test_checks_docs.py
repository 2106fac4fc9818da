"""docs/checks.md: its program prints what it says, its graph is one, its tables are whole."""

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from meshnode.domain import programs
from meshnode.domain.graph_files import parse_graph
from meshnode.services.program_checks import WITHIN
from protocol.graph import Check, Likeness
from tests.documents.shell import blocks, run_program

PAGE = (Path(__file__).parents[2] / "docs" / "checks.md").read_text("utf-8")
BLOCKS = blocks(PAGE)


@pytest.mark.timeout(120)
def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    said = re.search(r"^It prints `([^`]*)`", PAGE, re.MULTILINE)
    assert said is not None
    assert run_program(BLOCKS["python"], tmp_path).strip() == said[1]


def test_the_graph_is_read_with_its_checks() -> None:
    (task,) = parse_graph(BLOCKS["toml"], where="code.toml").subtasks
    assert [check.kind for check in task.checks] == ["program", "expected"]


@pytest.mark.parametrize(("kind", "head"), [(Check, "`kind`"), (Likeness, "`like`")])
def test_each_kind_has_its_row(kind: type, head: str) -> None:
    table = PAGE.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    told = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert tuple(told) == get_args(get_type_hints(kind)["kind"])


def test_its_limits_are_the_codes() -> None:
    assert f"for {WITHIN.timeout_s:g} s, {WITHIN.cpu_s_max} s of processor time" in PAGE
    assert f"{WITHIN.memory_bytes_max // 1024 // 1024} MiB at most" in PAGE
    assert f"(1 to {programs.CASES_MAX})" in PAGE
    assert f"hundredths ({Likeness().alike_pct})" in PAGE
