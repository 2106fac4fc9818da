"""The README is run: its commands, its graph, its agent."""

import re
import shutil
from pathlib import Path

import pytest

from meshnode.config import QuotaConfig, parse_config
from meshnode.domain.graph_files import parse_graph
from tests.documents.shell import run_commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


def test_every_make_recipe_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
    assert named == {"demo", "test"}
    for recipe in named:
        assert re.search(rf"^{recipe}:", makefile, re.MULTILINE), recipe


def test_the_graph_in_the_readme_is_one() -> None:
    graph = parse_graph(blocks("toml")[0], where="README.md")
    assert [task.id for task in graph.subtasks] == ["summaries", "lengths"]


def test_the_settings_in_the_readme_hold() -> None:
    _, text = blocks("toml")
    config = parse_config(text, env={}, where="README.md")
    assert config.access.opening == ("mon-fri 20:00-08:00", "sat-sun")
    assert config.quota != QuotaConfig()


@pytest.mark.timeout(180)
def test_the_ten_lines_run(tmp_path: Path) -> None:
    (script,) = [text for text in blocks("sh") if text.startswith("export PATH")]
    graph = blocks("toml")[0]
    (module,) = blocks("python")
    (tmp_path / "summaries.toml").write_text(graph)
    (tmp_path / "word_count.py").write_text(module)
    shutil.copy(ROOT / "README.md", tmp_path)
    done = run_commands(script, tmp_path, homes=["desk", "two", "one", "seed"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "result" / "provenance.journal").is_file()
    assert "text.word_count@1" in done.stdout
