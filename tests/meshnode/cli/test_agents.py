"""`meshnode agents` and `meshnode wrap function` in words."""

from pathlib import Path
from typing import Any

import pytest

from meshnode.cli import agents
from tests.meshnode.cli.commands import run

ROW: dict[str, Any] = {
    "capability": "text.shout@1",
    "name": "shout",
    "peer": "12D3KooWpeer",
    "alive": True,
    "price_mc": 2,
    "latency_ms": 0,
    "description": "Shouts.",
}


def test_how_near_is_shown_where_nearness_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agents._print([{**ROW, "near": 0.186}])
    head, row = capsys.readouterr().out.splitlines()[:2]
    assert head.split()[:2] == ["near", "capability"]
    assert row.split()[:2] == ["0.19", "text.shout@1"]
    agents._print([ROW])
    assert capsys.readouterr().out.split()[0] == "capability"


def test_what_was_seen_of_an_agent_stands_beside_its_claim(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "claims 200 ms, seen 900 ms (n=14); it overclaims"
    agents._print([{**ROW, "seen": {"text": text}}])
    assert f"shout at KooWpeer {text}" in capsys.readouterr().out
    agents._print([{**ROW, "seen": {"text": ""}}])
    assert "claims" not in capsys.readouterr().out


def test_a_wrapped_function_costs_what_it_says_itself(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "dear_module.py").write_text(
        "from meshnode import agent\n\n"
        '@agent("text.dear@1", price_mc=7)\n'
        'def dear(text: str) -> str:\n    """Cost much."""\n    return text\n'
    )
    said = run(capsys, "wrap", "function", "dear_module:dear", "--home", str(tmp_path / "home"))
    assert "dear: text.dear@1, 7 mc a call" in said.out
