"""Whichever command comes first makes a home that a node then takes."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.adapters.key_file import load_or_create
from meshnode.adapters.system import SystemEntropy
from tests.meshnode.cli.commands import run


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("first", ["config", "wrap"])
def test_a_home_is_the_owners_alone_from_the_first_command_on(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "deep" / "home"
    (tmp_path / "schema").write_text(json.dumps({"type": "object"}))
    schema = str(tmp_path / "schema")
    commands = {
        "config": ("config", "init", "--home", str(home)),
        "wrap": (
            "wrap", "command", "--capability", "a.b@1", "--home", str(home),
            "--input-schema", schema, "--output-schema", schema, "--", sys.executable,
        ),
    }  # fmt: skip
    said = run(capsys, *commands[first])
    assert said.status == 0, said.err
    assert home.stat().st_mode & 0o777 == 0o700
    load_or_create(home / "keys", SystemEntropy())
