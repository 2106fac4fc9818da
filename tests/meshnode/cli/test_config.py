"""``meshnode config``: the file explains every setting, and says what is wrong in one."""

import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from meshnode.cli.config import CONFIG_FILE, descriptions, template
from meshnode.config import NodeConfig, parse_config
from tests.meshnode.cli.commands import run


def structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    inner = [getattr(kind(), name) for name in kind.__struct_fields__]
    return [kind, *(type(value) for value in inner if isinstance(value, msgspec.Struct))]


@pytest.mark.parametrize("kind", structs(NodeConfig))
def test_every_setting_is_described(kind: type[msgspec.Struct]) -> None:
    tables = {
        n for n in kind.__struct_fields__ if isinstance(getattr(kind(), n), msgspec.Struct)
    }
    assert set(descriptions(kind)) | tables == set(kind.__struct_fields__) | tables
    assert all(text.strip() for text in descriptions(kind).values())


def test_the_template_holds_every_setting_at_its_default() -> None:
    text = template()
    assert tomllib.loads(text) == {table: {} for table in tomllib.loads(text)}
    lines = [line.removeprefix("# ") if " = " in line else line for line in text.splitlines()]
    told = "\n".join(line for line in lines if not line.startswith("#"))
    assert parse_config(told, env={}, where="template") == NodeConfig()
    for kind in structs(NodeConfig):
        for name in kind.__struct_fields__:
            assert f"# {name} = " in text or f"[{name}]" in text


def test_a_file_is_written_once_checked_and_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--home", str(tmp_path))
    assert run(capsys, "config", "init", *at).status == 0
    path = tmp_path / CONFIG_FILE
    assert path.read_text() == template()
    assert "is there already" in run(capsys, "config", "init", *at).err
    assert "in order" in run(capsys, "config", "check", *at).out
    path.write_text('network = "mine"\n[http]\nport = 8100\n')
    monkeypatch.setenv("MESHNODE_HOST__CALLS_MAX", "7")
    shown: dict[str, Any] = json.loads(run(capsys, "config", "show", *at, "--json").out)
    rows = {row["setting"]: (row["value"], row["from"]) for row in shown["settings"]}
    assert rows["network"] == ("mine", "file")
    assert rows["http.port"] == (8100, "file")
    assert rows["host.calls_max"] == (7, "$MESHNODE_HOST__CALLS_MAX")
    assert rows["http.host"] == ("127.0.0.1", "default")
    assert "http.port" in run(capsys, "config", "show", *at).out


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("netwrok = 'x'", "did you mean 'network'"),
        ("[http]\nprot = 1", "did you mean 'http.port'"),
        ("[htttp]\nport = 1", "did you mean 'http'"),
        ("[http]\nport = 99999999", "is no port"),
        ("listen = 3", "listen"),
        ("listen = [", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(
    text: str, why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text)
    said = run(capsys, "config", "check", str(path))
    assert said.status == 1
    assert why in said.err
    assert "node.toml" in said.err
