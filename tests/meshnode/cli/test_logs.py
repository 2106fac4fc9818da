"""One stream of events feeds every log, and no log holds a secret."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from meshnode.cli import logs
from meshnode.cli.logs import DETAILS, WARNINGS, LogFile, as_json, as_text, keep_log, level_of
from meshnode.config import LogConfig, parse_config
from meshnode.errors import ConfigError
from meshnode.services.events import Events, Happening
from protocol.invites import Invite, write_token
from protocol.keys import Identity
from simulations.clock import SimClock

ROOT = Path(__file__).parents[3]


def happening(name: str, **fields: object) -> Happening:
    return Happening(3, 1_700_000_000_123, name, fields)


def emitted() -> Iterator[str]:
    """Names of the events that the source can emit, as far as they stand there whole."""
    for path in (ROOT / "meshnode").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_name_with_a_level_is_one_that_is_emitted() -> None:
    # The table itself holds each name once more; whoever emits it holds it too.
    counted: dict[str, int] = {}
    for name in emitted():
        counted[name] = counted.get(name, 0) + 1
    dead = {name for name in WARNINGS | DETAILS if counted.get(name, 0) < 2}
    assert dead == set()
    assert not WARNINGS & DETAILS


def test_a_line_of_json_is_the_event_of_the_interface_with_its_level() -> None:
    line = as_json(happening("clock.off", why="an hour\nbehind", at=b"\x01"))
    assert "\n" not in line
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "number": 3,
        "at_ms": 1_700_000_000_123,
        "event": "clock.off",
        "fields": {"why": "an hour\nbehind", "at": "01"},
    }


def test_a_line_for_people_has_nothing_that_a_terminal_obeys() -> None:
    line = as_text(happening("node.join_failed", why="a\x1b[2Jb\nc"))
    assert line.replace("\N{REPLACEMENT CHARACTER}", "#") == (
        "22:13:20 ! node.join_failed why=a#[2Jb#c"
    )


@pytest.mark.parametrize("render", [as_json, as_text])
def test_neither_invites_nor_what_flows_through_a_job_are_logged(render: logs.Render) -> None:
    token = "mesh1:5gBMsz1234abcd"
    told = render(happening("node.join_failed", why=f"join {token} failed", all=[token]))
    assert "5gBMsz" not in told
    told = render(happening("award.progress", unit="a/0", text="dear diary"))
    assert "a/0" in told
    assert "diary" not in told


def test_a_real_token_is_what_is_scrubbed() -> None:
    invite = Invite(
        network="m", peer=Identity(b"k" * 32, b"x" * 32).peer, addresses=["/ip4/1.2.3.4/tcp/1"],
        invite=b"i" * 8, secret=b"s" * 16, expires_ms=1,
    )  # fmt: skip
    token = write_token(invite)
    assert logs.scrubbed(f"x {token} y") == "x mesh1:… y"


@pytest.mark.parametrize(
    ("level", "names"),
    [
        ("debug", ["mdns.seen", "node.started", "clock.off"]),
        ("info", ["node.started", "clock.off"]),
        ("warning", ["clock.off"]),
    ],
)
async def test_a_level_shows_what_matters_as_much_and_more(
    tmp_path: Path, level: str, names: list[str]
) -> None:
    events = Events(SimClock())
    events.emit("mdns.seen")  # what happened before is logged too
    path = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        config = LogConfig(form="json", level=level, file=str(path))
        nursery.start_soon(keep_log, events, config)
        await trio.testing.wait_all_tasks_blocked()
        events.emit("node.started")
        events.emit("clock.off", why="x")
        with trio.fail_after(30):
            while not path.exists() or "clock.off" not in path.read_text():
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == names
    assert path.stat().st_mode & 0o777 == 0o600


async def test_what_a_slow_log_loses_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events(SimClock())
    path = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_log, events, LogConfig(form="json", file=str(path)))
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(2_500):
            events.emit("node.started")
        events.emit("clock.off")
        with trio.fail_after(30):
            while not path.exists() or "clock.off" not in path.read_text():
                await trio.testing.wait_all_tasks_blocked()
        events.emit("clock.off")
        with trio.fail_after(30):
            while "log.lost" not in path.read_text():
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    (lost,) = [json.loads(line) for line in path.read_text().splitlines() if "log.lost" in line]
    assert lost["fields"]["count"] == 501
    assert lost["level"] == "warning"


def test_a_full_file_is_put_aside_and_a_broken_one_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = LogFile(str(tmp_path / "log"), bytes_max=10)
    for text in ("first line\n", "second line\n", "third\n"):
        log.write(text)
    assert (tmp_path / "log").read_text() == "third\n"
    assert (tmp_path / "log.1").read_text() == "second line\n"
    gone = LogFile(str(tmp_path / "nowhere" / "log"))
    gone.write("x\n")
    gone.write("x\n")
    assert capsys.readouterr().err.count("can't be written") == 1


@pytest.mark.parametrize(
    ("setting", "says"),
    [("form", "say human or json"), ("level", "say debug or info or warning")],
)
def test_a_form_or_level_that_there_is_not_is_told(setting: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"log.{setting} is 'loud'") as caught:
        parse_config(f'[log]\n{setting} = "loud"', env={}, where="file")
    assert says in caught.value.hint


def test_levels_are_three() -> None:
    assert [level_of(name) for name in ("clock.off", "node.started", "mdns.seen")] == [
        "warning",
        "info",
        "debug",
    ]
