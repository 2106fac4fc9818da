"""The test suite itself: a hang fails and the rest runs, and CI doesn't skip.

Each case is a small suite of its own, run by a second pytest with this project's settings.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HANG = """
import gc, pytest, trio

gc.disable()  # when it collects is chance, and nothing here may depend on it

@pytest.mark.timeout(1)
async def test_sleeps_for_ever():
    await trio.sleep_forever()

@pytest.mark.timeout(1)
async def test_hangs_where_cancelling_does_not_reach():
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

@pytest.mark.timeout(1)
async def test_never_yields():
    while True:
        pass

async def test_the_next_one_runs():
    await trio.lowlevel.checkpoint()
"""
SKIP = """
import pytest

def test_needs_a_program():
    pytest.skip("no bwrap here")

@pytest.mark.xfail
def test_is_known_to_fail():
    raise AssertionError
"""
SKIP_MODULE = """
import pytest

pytest.skip("no chromium here", allow_module_level=True)
"""


def _run(folder: Path, source: str, **environment: str) -> tuple[int, dict[str, int]]:
    """Run a suite of one file; return pytest's status and its counts by outcome."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    (folder / "test_it.py").write_text(source, encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    inherited = {key: value for key, value in os.environ.items() if key != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={folder}", str(folder)],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)  # noqa: T201 - pytest shows it if a claim doesn't hold
    summary = done.stdout.rstrip().rpartition("\n")[2]
    counts = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z]+)", summary)}
    return done.returncode, counts


def test_a_hang_fails_and_the_next_test_runs(tmp_path: Path) -> None:
    assert _run(tmp_path, HANG) == (pytest.ExitCode.TESTS_FAILED, {"failed": 3, "passed": 1})


def test_elsewhere_a_missing_program_skips(tmp_path: Path) -> None:
    assert _run(tmp_path, SKIP) == (pytest.ExitCode.OK, {"skipped": 1, "xfailed": 1})


def test_in_ci_a_missing_program_fails(tmp_path: Path) -> None:
    status, counts = _run(tmp_path, SKIP, CI="true")
    assert (status, counts) == (pytest.ExitCode.TESTS_FAILED, {"failed": 1, "xfailed": 1})


def test_in_ci_a_module_that_skips_fails(tmp_path: Path) -> None:
    status, _ = _run(tmp_path, SKIP_MODULE, CI="true")
    assert status == pytest.ExitCode.INTERRUPTED
