"""docs/testing.md is run, and its tables name what there is."""

import re
from pathlib import Path

import pytest

import simulations.trial  # noqa: F401 - once for all runs: each drops what it imports itself
from meshnode import public  # noqa: F401 - the same
from meshnode.adapters.agents import openai_compatible  # noqa: F401 - the same
from simulations import pytest_plugin
from simulations.jobs import JobEnd
from simulations.stage import JobTerms, Place, Stage
from simulations.wires import Wires
from tests.simulations.model_server import serving

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
URL = "http://127.0.0.1:11434/v1"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of a section's tables."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_examples_pass(pytester: pytest.Pytester) -> None:
    assert [name for name, _ in BLOCKS] == [
        "test_crash.py",
        "test_partition.py",
        "test_summary.py",
        "test_crash_points.py",
    ]
    with serving() as model:
        for name, source in BLOCKS:
            (pytester.path / name).write_text(source.replace(URL, model.url))
        pytester.runpytest_inprocess("--record-answers").assert_outcomes(passed=6)
        assert model.asked == ["Name a colour."]
        assert (pytester.path / "answers" / "llama.json").is_file()
        pytester.runpytest_inprocess("test_summary.py").assert_outcomes(passed=1)
        assert len(model.asked) == 1


def test_fifty_nodes_and_a_crash_take_less_than_twenty_lines(
    pytester: pytest.Pytester,
) -> None:
    page = Path(__file__).parents[2] / "docs" / "tutorial.md"
    (test,) = re.findall(
        r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert "n=50" in test
    assert len(test.splitlines()) < 20
    pytester.makepyfile(test_fifty=test)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_what_a_mesh_can_do_is_there() -> None:
    told = " ".join(row[0] for row in rows("The fixture"))
    names = re.findall(r"mesh\.(\w+)", told)
    assert {"add", "submit", "crash", "settle"} <= set(names)
    assert [name for name in names if not hasattr(Stage, name) and name != "network"] == []
    assert [
        name for name in re.findall(r"[` ]\.(\w+)\(", told) if not hasattr(Wires, name)
    ] == []
    known = {*JobTerms.__annotations__, *Place.__annotations__, *JobEnd.__dataclass_fields__}
    known |= {"name", "for_s", "at", "between", "agents", "n"}
    described = " ".join(cell for row in rows("The fixture") for cell in row)
    arguments = re.findall(r"(\w+)=", described)
    assert [name for name in arguments if name not in known] == []


def test_the_marker_and_the_options_are_all_there(pytester: pytest.Pytester) -> None:
    table = rows("The marker and the options")
    marker = {
        row[0].strip("`"): row[2].strip("`")
        for row in table
        if row[0].startswith("`") and len(row) == 3
    }
    plain = {
        name: str(value).replace("3600.0", "3600")
        for name, value in pytest_plugin.DEFAULT.items()
    }
    assert {name: value.strip('"') for name, value in marker.items()} == plain
    offered = pytester.runpytest_inprocess("--help").stdout.str()
    options = [row[0].strip("`").split("=")[0] for row in table if "--" in row[0]]
    assert [option for option in options if option not in offered] == []
    group = offered.split("simulated meshes (meshnode):")[1].split("\n\n")[0]
    assert set(re.findall(r"--[a-z-]+", group)) == set(options)
