"""docs/delegation.md is run: what it prints is what it says, and its tables are complete."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from meshnode import errors
from meshnode.services.job_terms import Terms

PAGE = (Path(__file__).parents[2] / "docs" / "delegation.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.timeout(120)
def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS["python"]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == BLOCKS["text"]


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
