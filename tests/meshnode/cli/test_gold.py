"""``meshnode gold`` reads golds from a file, and tells how they went."""

import json
from pathlib import Path
from typing import Any

import pytest

from meshnode.cli import gold, jobs
from tests.meshnode.cli.commands import run

ROW: dict[str, Any] = {
    "gold": "3f8a12bc00000000",
    "capability": "text.upper@1",
    "inputs": {"text": "so\x1b[2J it is"},
    "output": "SO IT IS",
    "like": "exact",
    "origin": "owner",
    "added_ms": 0,
    "expires_ms": None,
    "given": 3,
    "passed": 2,
    "failed": 0,
    "absent": 1,
}
JOB: dict[str, Any] = {
    "job": "11dc65ce50adaecfc6d0",
    "name": "text.upper@1",
    "gold": True,
    "planned_ms": 0,
    "ended": True,
    "state": "completed",
    "cost_mc": 2,
    "elapsed_s": 1.0,
}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Answer as a node would; return what was asked."""
    asked: list[tuple[str, str, Any]] = []

    def answer(_: object, method: str, path: str, *, body: Any = None, **query: str) -> Any:
        asked.append((method, path, body or query))
        if path == "/api/jobs":
            return {"jobs": [JOB]}
        if method == "GET":
            return {"golds": [ROW]}
        return {"removed": ["x"]} if body is None else {"golds": ["g"] * len(body["golds"])}

    for module in (gold, jobs):
        monkeypatch.setattr(module, "answer_of", answer)
    return asked


def test_a_file_of_golds_goes_to_the_node_in_parts(
    capsys: pytest.CaptureFixture[str], requests: list[Any], tmp_path: Path
) -> None:
    golds = [{"inputs": {"text": "x" * 60_000}, "output": str(n)} for n in range(6)]
    path = tmp_path / "golds.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in golds) + "\n\n", "utf-8")
    said = run(
        capsys, *("gold", "add", "text.upper@1", str(path)),
        *("--like", "numeric", "--within", "0.001", "--json"),
    )  # fmt: skip
    assert len(said.line()["golds"]) == 6
    bodies = [body for _, _, body in requests]
    assert len(bodies) == 2
    assert [one for body in bodies for one in body["golds"]] == golds
    assert bodies[0]["like"] == {"kind": "numeric", "relative_ppm": 1_000}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"inputs": {}}', '{"inputs": 1, "outputs": 2}']
)
def test_a_line_that_is_no_gold_is_told_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], requests: list[Any], tmp_path: Path, text: str
) -> None:
    path = tmp_path / "golds.jsonl"
    path.write_text(text, "utf-8")
    said = run(capsys, "gold", "add", "text.upper@1", str(path))
    assert said.status != 0
    assert "golds.jsonl" in said.err
    assert requests == []


def test_the_list_says_how_each_went(
    capsys: pytest.CaptureFixture[str], requests: list[Any]
) -> None:
    said = run(capsys, "gold", "list", "--capability", "text.upper@1")
    assert "3f8a12bc" in said.out
    assert "\x1b[2J" not in said.out
    assert run(capsys, "gold", "list", "--json").line() == {"golds": [ROW]}
    assert run(capsys, "gold", "remove", "3f8a12").out == "1 gold removed\n"
    assert requests[-1][1] == "/api/golds/3f8a12/remove"
    assert "text.upper@1 (gold)" in run(capsys, "jobs", "list").out
