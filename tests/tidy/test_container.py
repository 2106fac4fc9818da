"""The Dockerfile: what it copies, installs and runs is there.

No container is built here; what can be held against the repository is.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from meshnode.config import parse_config
from tests.meshnode.cli.commands import run

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def instructions(word: str) -> Iterator[str]:
    """Arguments of every instruction ``word``; continued lines are one."""
    for line in re.sub(r"\\\n\s*", "", TEXT).splitlines():
        name, _, rest = line.partition(" ")
        if name == word:
            yield rest


def copied() -> set[str]:
    """What is taken from the checkout."""
    lines = [line.split() for line in instructions("COPY") if "--from" not in line]
    return {source for line in lines for source in line[:-1]}


def test_what_is_copied_is_there_and_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[0] == "*", "nothing comes in unnamed"
    assert {f"!{name}" for name in copied()} <= set(ignored)
    assert all((ROOT / name).exists() for name in copied())


def test_all_that_the_wheel_is_made_of_is_copied() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert {*packages, *files, "pyproject.toml", "constraints.txt"} == copied()


def test_its_python_is_one_that_we_take() -> None:
    versions = {line.split(":")[1].split("-")[0] for line in instructions("FROM")}
    (version,) = versions
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])


def test_it_does_not_run_as_root_and_its_home_is_a_volume() -> None:
    (user,) = instructions("USER")
    assert user != "root"
    (volume,) = instructions("VOLUME")
    assert f"MESHNODE_HOME={volume}" in TEXT


@pytest.mark.parametrize("word", ["CMD", "HEALTHCHECK"])
def test_its_commands_are_ours(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = instructions(word)
    arguments = json.loads(line[line.index("[") :])
    if word == "HEALTHCHECK":
        assert arguments.pop(0) == "meshnode"
    else:
        (entry,) = instructions("ENTRYPOINT")
        assert json.loads(entry) == ["meshnode"]
    # Unknown options are refused before --help is shown.
    assert run(capsys, *arguments, "--help").status == 0
    assert run(capsys, *arguments, "--no-such-option").status == 2


def test_its_port_is_the_one_it_listens_on() -> None:
    (port,) = instructions("EXPOSE")
    (line,) = instructions("CMD")
    arguments = json.loads(line)
    listen = arguments[arguments.index("--listen") + 1]
    assert listen.endswith(f"/tcp/{port}")
    parse_config("", env={"MESHNODE_LISTEN": listen}, where="Dockerfile")
