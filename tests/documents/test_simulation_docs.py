"""docs/simulation.md says what there is: every key, every command, a scenario that plays."""

import re
import shlex
from pathlib import Path

import pytest

from simulations import reference
from simulations.reference import TABLES, written_into
from simulations.runs.takes import Take, play_take
from simulations.scenario import parse_scenario
from tests.meshnode.cli.commands import run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "simulation.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_keys_are_those_that_the_classes_read() -> None:
    assert written_into(PAGE) == PAGE, "run: python -m simulations.reference docs/simulation.md"


@pytest.mark.parametrize("kind", [kind for _, kind in TABLES], ids=lambda kind: kind.__name__)
def test_every_key_is_explained(kind: type) -> None:
    rows = [line.split(" | ") for line in reference._rows(kind)]
    fields = getattr(kind, "__struct_fields__", None) or kind.__dataclass_fields__  # type: ignore[attr-defined]
    assert [row[0].strip("| `") for row in rows] == list(fields)
    assert all(len(row) == 4 and row[3].strip(" |") for row in rows)


def test_every_table_of_a_scenario_is_there() -> None:
    told = {kind for _, kind in TABLES}
    for name in ("Group", "Load", "Trouble", "Churn", "Mishaps", "Expect", "Weather", "Temper"):
        assert name in {kind.__name__ for kind in told}


def test_the_scenario_on_the_page_is_played() -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    outcome = play_take(Take(scenario=parse_scenario(text, where="docs"), seed=0))
    assert outcome.passed, outcome.troubles


def commands() -> list[str]:
    shown = "\n".join(text for language, text in BLOCKS if language == "sh")
    return re.findall(r"^meshnode (.*?)(?: +#.*)?$", shown, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_every_command_on_the_page_is_one(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, *shlex.split(command), "--help").status == 0
    assert run(capsys, *shlex.split(command), "--no-such-option").status == 2


@pytest.mark.parametrize("name", re.findall(r"make ([a-z-]+)", PAGE))
def test_every_recipe_on_the_page_is_one(name: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{name}: ", makefile, re.MULTILINE)
    for variable in ("SEEDS", "WORKERS", "MINUTES", "SCENARIO"):
        assert f"`{variable}`" in PAGE
        assert f"$({variable})" in makefile
