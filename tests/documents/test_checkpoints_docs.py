"""docs/checkpoints.md is run, and says what the code does."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from meshnode.adapters.agents import checkpoint_file
from meshnode.errors import CheckpointTooLarge
from meshnode.services import checkpoints
from tests.documents.shell import blocks, run_program

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text("utf-8")
BLOCKS = blocks(PAGE)


@pytest.mark.timeout(120)
def test_the_program_prints_what_the_page_says(tmp_path: Path) -> None:
    printed = run_program(BLOCKS["python"], tmp_path)
    said = re.search(r"It prints `([^`]*)` and `([^`]*)`", PAGE)
    assert said is not None
    assert printed.splitlines() == [*said.groups()]


def test_the_commands_put_a_file_in_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    said = []
    for number in "12":
        env = {**os.environ, checkpoint_file.VARIABLE: str(path), "round": number}
        script = BLOCKS["sh"] + 'echo "after $begun"\n'
        done = subprocess.run(["sh", "-ec", script], env=env, capture_output=True, check=True)
        assert path.read_text() == f"{number}\n"
        said.append(done.stdout)
    assert said == [b"after \n", b"after 1\n"]


def test_its_limits_are_the_codes() -> None:
    mib = 1024 * 1024
    assert f"| one checkpoint | {checkpoints.CHECKPOINT_BYTES_MAX // mib} MiB |" in PAGE
    assert f"| all checkpoints of an award | {checkpoints.AWARD_BYTES_MAX // mib} MiB |" in PAGE
    assert checkpoints.CHECKPOINT_BYTES_MAX == checkpoint_file._BYTES_MAX
    assert f"`{CheckpointTooLarge.code}`" in PAGE
    assert checkpoint_file._LOOK_S == 0.5, "twice a second"
