"""docs/python.md is run: what it prints is what it says, and its tables are complete."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import meshnode
from meshnode.domain import facts
from tests.documents.shell import run_program

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(program: str, folder: Path) -> list[str]:
    return run_program(program, folder).splitlines()


@pytest.mark.timeout(120)
def test_the_first_program_prints_what_the_page_says(tmp_path: Path) -> None:
    lines = run(BLOCKS[0], tmp_path)
    said = re.search(r"The last line printed is `([^`]*)`", PAGE)
    assert said is not None
    assert lines[-1] == said[1]
    kinds = [line.split()[1] for line in lines[:-1]]
    assert kinds[0] == "planned"
    assert kinds[-1] == "done"
    assert [int(line.split()[0]) for line in lines[:-1]] == list(range(len(kinds)))


@pytest.mark.timeout(120)
def test_the_asyncio_program_reverses(tmp_path: Path) -> None:
    assert run(BLOCKS[1], tmp_path) == ["mesh"]


def test_every_kind_of_event_is_in_the_table() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    kinds = {
        fact.KIND
        for fact in vars(facts).values()
        if isinstance(fact, type) and issubclass(fact, facts.Fact) and fact is not facts.Fact
    }
    assert named == kinds


@pytest.mark.parametrize("name", meshnode.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(meshnode, name).__doc__


def test_only_what_needs_a_node_imports_libp2p() -> None:
    program = (
        "import sys, meshnode"
        "; from meshnode import agent, Agent, AgentCall, AgentSpec, Chunk, Output"
        "; from meshnode import JobFailed, MeshError, NodeConfig, Place, TaskGraph"
        "; assert 'libp2p' not in sys.modules"
        "; from meshnode import Node, Job, JobResult; assert 'libp2p' in sys.modules"
        "; import meshnode.public as public"
        "; assert all(getattr(public, n) is getattr(meshnode, n) for n in meshnode.__all__)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
