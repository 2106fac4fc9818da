"""docs/delegation.md is run: what it prints is what it says, and its tables are complete."""

import re
from pathlib import Path

import pytest

from meshnode import errors
from meshnode.services.job_terms import Terms
from tests.documents.shell import blocks, run_program

PAGE = (Path(__file__).parents[2] / "docs" / "delegation.md").read_text("utf-8")
BLOCKS = blocks(PAGE)


@pytest.mark.timeout(120)
def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    printed = run_program(BLOCKS["python"], tmp_path)
    assert printed == BLOCKS["text"]


def test_each_limit_is_as_the_table_says() -> None:
    rows = re.findall(r"^\| .* \| `--[\w-]+ N` \| `(\w+)` \| (\d+)", PAGE, re.MULTILINE)
    terms = Terms()
    assert {name: int(value) for name, value in rows} == {
        name: getattr(terms, name) for name in ("subtasks_max", "fan_out_max", "depth_max")
    }


def test_each_code_is_in_the_table() -> None:
    told = set(re.findall(r"^\| `(bounds\.\w+)` \|", PAGE, re.MULTILINE))
    codes = {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.BoundReached)
    }
    assert told == codes - {errors.BoundReached.code}
