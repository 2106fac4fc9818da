"""``--help`` is quick and teaches."""

import subprocess
import sys

import pytest

from meshnode.cli import COMMANDS, DEFAULTS, GROUPS, bench
from tests.meshnode.cli.commands import run

#: Python's own among them, 370 in CPython 3.11: each is some half a millisecond.  How long it
#: takes is measured by ``meshnode bench startup`` (P7).
MODULES_MAX = 430
HEAVY = ("libp2p", "trio", "rich", "httpx", "starlette", "hypercorn", "multiaddr")
PROGRAM = f"""
import sys
from meshnode.cli import main
try:
    main(["up", "--help"])
finally:
    print([name for name in {HEAVY!r} if name in sys.modules])
    print(len(sys.modules))
"""


def test_help_loads_little_and_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    heavy, count = done.stdout.splitlines()[-2:]
    assert heavy == "[]"
    assert int(count) <= MODULES_MAX


def test_without_arguments_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys)
    assert said.status == 0
    for name in COMMANDS:
        assert f"  {name} " in said.out


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_what_a_list_says_of_a_command_is_whole(
    capsys: pytest.CaptureFixture[str], group: str
) -> None:
    out = run(capsys, *group.split(), "--help").out
    assert "Commands:" in out
    assert "..." not in out.partition("Commands:")[2]


#: They print nothing else.
ALWAYS_JSON = {"mcp", "jobs outputs"}
WORDS = [f"{group} {word}" for group, (_, words) in GROUPS.items() for word in words]


@pytest.mark.parametrize("name", [*COMMANDS, *DEFAULTS, *WORDS])
def test_every_command_has_an_example_and_json(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    said = run(capsys, *name.split(), "--help")
    assert said.status == 0
    assert "--json" in said.out or name in ALWAYS_JSON
    assert f"  meshnode {name}" in said.out, "an example"


def test_specialists_named_in_the_help_are_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from meshnode.adapters.agents.registry import SPECIALISTS

    text = " ".join(run(capsys, "up", "--help").out.split())
    listed = text.partition("Specialists: ")[2].partition(".")[0]
    assert listed.split(", ") == sorted(SPECIALISTS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "version").out.startswith("meshnode ")
    assert set(run(capsys, "version", "--json").line()) == {"version", "libp2p", "python"}


def test_the_benches_that_are_named_are_those_there_are() -> None:
    assert sorted(bench._benches()) == list(bench._NAMES)
