"""`meshnode simulate`: what is played, shown and kept, and how it ends."""

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from meshnode.cli import simulate_view
from simulations.outcome import Outcome
from simulations.player import play
from simulations.runs.takes import Take, play_take
from simulations.scenario import parse_scenario
from simulations.scenarios import names
from tests.meshnode.cli.commands import run

TINY = """
name = "tiny"
story = "Given two nodes. Then one asks."
nodes = 2
minutes = 0.2
agents = [{ skill = "upper", count = 1 }]
load = [{ per_minute = 30 }]
"""
FAILS = TINY.replace('skill = "upper"', 'skill = "echo"').replace("30", "30, deadline_s = 2")
FAILS += "[expect]\ncompleted_min = 0.5\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "fails.toml").write_text(FAILS)
    (tmp_path / "long.toml").write_text(TINY.replace("0.2", "1440"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that are really played."""
    seeds: list[int] = []
    real = play_take

    def counting(take: Take, *more: object) -> Outcome:
        seeds.append(take.seed)
        return real(take, *more)  # type: ignore[arg-type] # passed on as they are

    monkeypatch.setattr("simulations.runs.workers.play_take", counting)
    return seeds


def here(*arguments: str) -> tuple[str, ...]:
    """Play in this process, which is quick to begin."""
    return ("simulate", *arguments, "--workers", "1")


@pytest.mark.parametrize("arguments", [("simulate",), ("simulate", "--list")])
def test_alone_it_lists_what_there_is(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    said = run(capsys, *arguments)
    assert said.status == 0
    lines = said.out.splitlines()
    for name in names():
        assert [line for line in lines if line.startswith(f"{name} ")], name
    assert f"meshnode simulate {names()[0]}" in said.out, "how to go on"
    told = run(capsys, *arguments, "--json").line()["scenarios"]
    assert [one["name"] for one in told] == names()
    assert set(told[0]) == {"name", "title", "story", "nodes", "minutes"}


def test_seeds_have_a_line_each_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, *here("tiny.toml", "--seed", "3", "--seeds", "2"))
    assert said.status == 0, said.err
    assert [line[:16] for line in said.out.splitlines()[:2]] == [
        "seed 3     ok   ",
        "seed 4     ok   ",
    ]
    assert "figure over the seeds   least" in said.out
    assert "took_p95_s" in said.out
    assert said.out.splitlines()[-1].startswith("2 seeds, ")
    assert said.out.splitlines()[-1].endswith("all that must hold holds")


def test_json_is_one_document_with_every_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "simulate", "tiny.toml", "--seeds", "2", "--json")
    assert said.err == ""
    told = said.line()
    assert (told["passed"], told["failed"]) == (True, [])
    assert told["scenario"]["nodes"] == 2
    assert told["scenario"]["expect"]["took_p95_s_max"] is None, "JSON has no infinity"
    first, second = told["outcomes"]
    assert [first["seed"], second["seed"]] == [0, 1]
    own = play(parse_scenario(TINY, where="here"), seed=1, replay=second["replay"])
    assert Outcome(**{**second, "troubles": tuple(second["troubles"])}).digest == own.digest
    assert second["figures"] == own.figures
    assert told["figures"]["jobs"]["most"] == max(
        first["figures"]["jobs"], second["figures"]["jobs"]
    )


def test_a_seed_that_fails_is_told_with_the_command_that_plays_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = ("--nodes", "3", "--minutes", "0.25")
    said = run(capsys, *here("fails.toml", "--seed", "7", *changes))
    assert said.status == 1
    assert said.err == ""
    assert "seed 7     FAILED" in said.out
    assert "of the jobs completed, expected 50.00%" in said.out
    (replay,) = [line for line in said.out.splitlines() if "replay: " in line]
    command = replay.partition("replay: meshnode ")[2].split()
    assert command == ["simulate", "fails.toml", "--seed", "7", *changes]
    again = run(capsys, *command, "--workers", "1")
    assert again.out == said.out
    told = run(capsys, *here("fails.toml", "--seed", "7", *changes), "--json")
    assert told.status == 1
    assert told.line()["failed"] == [7]
    assert told.line()["outcomes"][0]["troubles"]


def test_with_many_seeds_only_the_failed_have_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulate_view, "LINES_MAX", 1)
    assert "seed 0" not in run(capsys, *here("tiny.toml", "--seeds", "2")).out
    assert "seed 0 " in run(capsys, *here("fails.toml", "--seeds", "2")).out


def test_resuming_plays_only_what_is_missing(
    capsys: pytest.CaptureFixture[str], played: list[int]
) -> None:
    first = run(capsys, *here("tiny.toml", "--seeds", "2", "--resume", "kept.jsonl", "--json"))
    assert played == [0, 1]
    more = run(capsys, *here("tiny.toml", "--seeds", "3", "--resume", "kept.jsonl", "--json"))
    assert played == [0, 1, 2]
    assert more.line()["outcomes"][:2] == first.line()["outcomes"]
    said = run(capsys, *here("tiny.toml", "--seeds", "2", "--resume", "kept.jsonl"))
    assert played == [0, 1, 2]
    assert "2 seeds (2 played before)" in said.out
    other = run(capsys, *here("fails.toml", "--resume", "kept.jsonl"))
    assert other.status == 1
    assert "error: kept.jsonl can't be gone on with: it holds outcomes of" in other.err


def test_the_trace_of_one_seed_is_told(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    whole = run(capsys, "simulate", "tiny.toml", "--trace", "trace.txt")
    assert "trace: trace.txt" in whole.out
    lines = (folder / "trace.txt").read_text().splitlines()
    assert len(lines) > 100
    last = run(capsys, "simulate", "tiny.toml", "--lines", "5").out.splitlines()
    assert last[1:6] == lines[-5:]
    told = run(capsys, "simulate", "tiny.toml", "--lines", "5", "--json").line()
    assert told["trace"] == lines[-5:]
    refused = run(capsys, "simulate", "tiny.toml", "--lines", "5", "--seeds", "2")
    assert "for one seed" in refused.err


def test_a_report_is_written(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    said = run(capsys, *here("fails.toml", "--seeds", "2", "--html", "report.html"))
    assert said.status == 1, "written all the same"
    assert "report: report.html" in said.out
    text = (folder / "report.html").read_text("utf-8")
    assert "2 of 2 failed" in text
    assert "meshnode simulate fails.toml --seed 1" in text
    refused = run(capsys, *here("tiny.toml", "--html", "no/where.html"))
    assert "error: no/where.html can't be written: No such file" in refused.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("flash-cowd",),
            "there is no scenario 'flash-cowd' (did you mean flash-crowd or flood?)",
        ),
        (("none.toml",), "none.toml can't be read: No such file"),
        (("flash-crowd", "--nodes", "-2"), "nodes is -2"),
        (("flash-crowd", "--minutes", "1e9"), "minutes is 1e+09"),
        (("tiny.toml", "--trace", "no/where", "--minutes", "0.1"), "no/where can't be written"),
        (("tiny.toml", "--resume", "tiny.toml/x"), "tiny.toml/x can't be written"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    said = run(capsys, "simulate", *arguments)
    assert said.status == 1
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    error = run(capsys, "simulate", *arguments, "--json").line()["error"]
    assert says in f"{error['message']} ({error['hint']})"


def wait_for_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the processes that play are there, and return them."""
    parent = psutil.Process(process.pid)
    while True:
        assert process.poll() is None, "it ended by itself"
        children: list[psutil.Process] = parent.children()
        with suppress(psutil.NoSuchProcess):  # git, which was asked for the commit
            if any("simulations.runs.worker" in one.cmdline() for one in children):
                return children


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("kept", [True, False], ids=["resumable", "not"])
def test_an_interrupt_ends_cleanly_and_says_how_to_go_on(
    folder: Path, how: signal.Signals, kept: bool
) -> None:
    resume = ["--resume", "kept.jsonl"] if kept else []
    process = subprocess.Popen(
        [sys.executable, "-m", "meshnode", "simulate", "long.toml", "--seeds", "3", *resume],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        children = wait_for_workers(process)
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: interrupted after 0 of 3 seeds (")
    again = "meshnode simulate long.toml --seed 0 --seeds 3 --resume kept.jsonl"
    assert (again in line) is kept
    assert ("--resume FILE" in line) is not kept
    assert psutil.wait_procs(children, timeout=10)[1] == []


@pytest.mark.parametrize("how", ["--workers", "--lines"])
def test_an_interrupt_ends_a_seed_that_is_played_in_this_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(
        simulate_view.View, "told", lambda *_: signal.raise_signal(signal.SIGINT)
    )
    said = run(capsys, "simulate", "long.toml", how, "1")
    assert said.status == 130
    assert said.err.startswith("error: interrupted after 0 of 1 seeds")


def test_json_is_json_whatever_is_in_the_story(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "odd.toml").write_text(TINY.replace("tiny", "[red]\\u001b[2J</script>"))
    said = run(capsys, *here("odd.toml"))
    assert "\x1b" not in said.out
    told = json.loads(run(capsys, *here("odd.toml"), "--json").out)
    assert told["scenario"]["name"] == "[red]\x1b[2J</script>"
