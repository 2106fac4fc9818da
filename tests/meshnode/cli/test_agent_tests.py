"""`meshnode agents test`: what comes back is held against what an agent promises."""

import json
import sys
from pathlib import Path

import msgspec
import pytest

from meshnode.adapters.agents.agent_files import AgentFile, write_agent_file
from meshnode.ports import Example
from tests.meshnode.cli.commands import run
from tests.meshnode.services.worlds import TextAgent

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
UPPER = "import json, sys; v = json.load(sys.stdin); print(json.dumps(v['text'].upper()))"
FILE = AgentFile(
    kind="command",
    name="upper",
    capability="text.upper@1",
    command=[sys.executable, "-c", UPPER],
    input_schema=TEXT,
    output_schema={"type": "string"},
    examples=[{"input": {"text": "a"}, "output": "A"}],
)
TEST = ("agents", "test", "upper", "--home")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_agent_file(tmp_path, FILE)
    return tmp_path


def having(home: Path, *examples: tuple[object, object]) -> None:
    given = [{"input": value, "output": output} for value, output in examples]
    write_agent_file(home, msgspec.structs.replace(FILE, examples=given))


def test_an_agent_that_does_as_it_says_passes(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    said = run(capsys, *TEST, str(home))
    assert said.status == 0
    assert "1 of 1 examples pass" in said.out
    told = run(capsys, *TEST, str(home), "--json").line()
    assert (told["agent"], told["capability"], told["passed"]) == ("upper", "text.upper@1", 1)
    (row,) = told["examples"]
    assert row.pop("ms") >= 0
    assert row == {
        "input": {"text": "a"}, "expected": "A", "output": "A", "outcome": "same",
    }  # fmt: skip


def test_what_differs_fails_and_is_shown_beside_what_was_expected(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    having(home, ({"text": "a"}, "A"), ({"text": "b"}, "C\x1b[2J"))
    said = run(capsys, *TEST, str(home))
    assert said.status == 1
    assert "1 of 2 examples pass" in said.out
    assert "example 2: different" in said.out
    assert '"B"' in said.out
    assert "\x1b" not in said.out


def test_a_models_words_may_differ_unless_they_must_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [Example({"text": "a"}, {"text": "other words"})]
    model = TextAgent(examples=examples, model_family="tiny")
    monkeypatch.setattr("meshnode.cli.agent_tests.find_agent", lambda *_: model)
    said = run(capsys, "agents", "test", "shout")
    assert said.status == 0
    assert "example 1: different words" in said.out
    assert run(capsys, "agents", "test", "shout", "--exact").status == 1


def test_an_input_that_it_does_not_take_and_a_crash_are_told(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    having(home, ({"text": 3}, "A"), ({"text": "b"}, "B"))
    said = run(capsys, *TEST, str(home), "--json")
    assert said.status == 1
    first, second = said.line()["examples"]
    assert first["outcome"] == "failed"
    assert "can't take this input" in first["error"]
    assert second["outcome"] == "same", "one failure doesn't hide the rest"
    crash = msgspec.structs.replace(FILE, command=[sys.executable, "-c", "raise SystemExit(3)"])
    write_agent_file(home, crash)
    said = run(capsys, *TEST, str(home))
    assert said.status == 1
    assert "0 of 1 examples pass" in said.out
    assert "example 1: failed" in said.out


def test_a_specialist_is_tested_without_a_home(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = run(capsys, "agents", "test", "unit_conversion", "--home", str(tmp_path / "none"))
    assert said.status == 0, said.out + said.err
    assert not (tmp_path / "none").exists()


def test_who_is_not_there_or_has_no_examples_is_told(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    said = run(capsys, "agents", "test", "uper", "--home", str(home))
    assert said.status == 1
    assert "there is no agent 'uper'" in said.err
    assert "there are: upper; and the specialists: abstract_writing" in said.err
    having(home)
    said = run(capsys, *TEST, str(home), "--json")
    assert said.line()["error"]["code"] == "agent.no_examples"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "is no list of 1 to 4 examples"),
        ("[]", "is no list of 1 to 4 examples"),
        (json.dumps([{"input": 1, "output": 1}] * 5), "is no list of 1 to 4 examples"),
        ('[{"input": 1}]', "example 1 has no input and output"),
        (json.dumps([{"input": "x" * 3000, "output": 1}]), "example 1 has 3003 bytes"),
        ("[", "is not JSON"),
    ],
)
def test_examples_that_cant_be_are_told_when_an_agent_is_wrapped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(TEXT))
    (tmp_path / "examples.json").write_text(text)
    wrap = ("wrap", "command", "--capability", "a.b@1", "--home", str(tmp_path / "home"))
    schema = str(tmp_path / "schema.json")
    schemas = ("--input-schema", schema, "--output-schema", schema)
    given = ("--examples", str(tmp_path / "examples.json"), "--", sys.executable)
    said = run(capsys, *wrap, *schemas, *given)
    assert said.status == 1
    assert says in said.err
    assert not (tmp_path / "home").exists()


def test_examples_that_are_given_when_it_is_wrapped_are_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "in.json").write_text(json.dumps(TEXT))
    (tmp_path / "out.json").write_text('{"type": "string"}')
    (tmp_path / "examples.json").write_text('[{"input": {"text": "q"}, "output": "Q"}]')
    home = str(tmp_path / "home")
    said = run(
        capsys, "wrap", "command", "--capability", "text.upper@1", "--home", home,
        "--input-schema", str(tmp_path / "in.json"), "--output-schema",
        str(tmp_path / "out.json"), "--examples", str(tmp_path / "examples.json"),
        "--", sys.executable, "-c", UPPER,
    )  # fmt: skip
    assert said.status == 0, said.err
    assert run(capsys, *TEST, home).status == 0
