"""``meshnode sandbox`` and ``wrap command --sandbox``: what is held, and what is refused."""

import json
from pathlib import Path

import pytest

from tests.meshnode.cli.commands import run


def test_it_is_told_whether_there_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(capsys, "sandbox").out.startswith("there is a sandbox here: bubblewrap")
    told = run(capsys, "sandbox", "--json").line()
    assert told["available"] is True
    assert told["held_by"].startswith("bubblewrap")
    monkeypatch.setenv("PATH", "/nowhere")
    said = run(capsys, "sandbox")
    assert said.status == 1
    assert "bwrap was not found (install bubblewrap" in said.err
    assert run(capsys, "sandbox", "--json").line()["error"]["code"] == "sandbox.unavailable"


def test_a_command_is_wrapped_in_one_or_not_at_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "any.json").write_text(json.dumps({"type": "object"}))
    schema, home = str(tmp_path / "any.json"), tmp_path / "home"
    wrap = (
        "wrap", "command", "--capability", "text.echo@1", "--input-schema", schema,
        "--output-schema", schema, "--home", str(home), "--sandbox",
    )  # fmt: skip
    said = run(capsys, *wrap, "--read", "/usr/share", "--network", "--", "/bin/cat")
    assert said.status == 0, said.err
    written = (home / "agents" / "echo.toml").read_text()
    assert "sandbox = true" in written
    assert "sandbox_network = true" in written
    assert '"/usr/share"' in written

    outside = tmp_path / "tool"
    outside.write_text("#!/bin/sh\ncat\n")
    outside.chmod(0o755)
    said = run(capsys, *wrap, "--name", "other", "--", str(outside))
    assert said.status == 1
    assert "can't be run in the sandbox" in said.err
    monkeypatch.setattr("shutil.which", lambda name, **_: None if name == "bwrap" else name)
    said = run(capsys, *wrap, "--name", "other", "--", "/bin/cat")
    assert said.status == 1
    assert "there is no sandbox here" in said.err
    assert [path.name for path in (home / "agents").iterdir()] == ["echo.toml"]
