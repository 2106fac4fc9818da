"""Whatever is wrong, a user is told in one line what it is, and a program in JSON."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.cli.failure import INTERRUPTED, describe, first
from meshnode.cli.printing import plain
from meshnode.errors import Busy, MeshError, NoProvider
from protocol.errors import Malformed
from protocol.invites import Invite, write_token
from protocol.keys import Identity
from tests.meshnode.cli.commands import run

GRAPH = '[subtasks.a]\ncapability = "text.upper@1"\ninputs.text = "@t"\n[outputs]\nx = "a"\n'
CYCLE = (
    '[subtasks.a]\ncapability = "t.u@1"\ninputs.x = "b"\n'
    '[subtasks.b]\ncapability = "t.u@1"\ninputs.x = "a"\n[outputs]\nx = "a"\n'
)
DANGLING = '[subtasks.a]\ncapability = "t.u@1"\ninputs.x = "c"\n[outputs]\nx = "a"\n'
FILES = {
    "good.toml": GRAPH,
    "cycle.toml": CYCLE,
    "dangling.toml": DANGLING,
    "broken.toml": "name = [",
    "broken.json": '{"name": ',
    "config.toml": "[http]\nprt = 1\n",
    "network.toml": 'network = "No Good"\n',
    "seeds.txt": "nobody\n",
    "journal": "not a journal",
    "token": "short",
}
HERE = ("--home", "home")
_INVITER = Identity(b"k" * 32, b"x" * 32)


def invite_to(network: str) -> str:
    return write_token(
        Invite(
            network=network,
            peer=_INVITER.peer,
            addresses=["/ip4/127.0.0.1/tcp/9"],
            invite=b"i" * 8,
            secret=b"s" * 16,
            expires_ms=1,
        )
    )


INVITE = invite_to("one")
ASK = ("ask", "--home", "nowhere", "--graph")
UP = ("up", *HERE)

#: Arguments, status, code, and what must be in the line.
CASES: list[tuple[tuple[str, ...], int, str, str]] = [
    (("dance",), 2, "cli.usage", "dance"),
    (("jobs",), 2, "cli.usage", "`meshnode jobs` needs a command: list, show, events"),
    (("jobs", "show"), 2, "cli.usage", "see `meshnode jobs show --help`"),
    (("jobs", "list", "--limit", "x"), 2, "cli.usage", "'--limit': this should be a whole"),
    (("jobs", "list", "--limit", "0"), 2, "cli.usage", "'--limit': this should be 1 or more"),
    (("ask", "x", "--hedges", "101"), 2, "cli.usage", "'--hedges': this should be 100 or less"),
    (("simulate", "--minutes", "x"), 2, "cli.usage", "'--minutes': this should be a number"),
    (("ask",), 2, "cli.usage", "say what is to be done"),
    (("keys", "import", "none", *HERE), 1, "cli.failed", "`meshnode keys export FILE` writes"),
    (("served", "--since", "32d"), 1, "cli.failed", "at most 31d"),
    (("up", "--wth", "lint"), 2, "cli.usage", "--wth"),
    (("ask",), 2, "cli.usage", "--graph"),
    (("ask", "--graph", "good.toml", "--budget", "much"), 2, "cli.usage", "--budget"),
    ((*ASK, "none.toml"), 1, "cli.no_file", "none.toml can't be read: No such file"),
    ((*ASK, "."), 1, "cli.no_file", "Is a directory"),
    ((*ASK, "broken.toml"), 1, "graph.invalid", "broken.toml is not TOML"),
    ((*ASK, "broken.json"), 1, "graph.invalid", "broken.json is not JSON"),
    ((*ASK, "cycle.toml"), 1, "graph.invalid", "cycle: a -> b -> a"),
    ((*ASK, "dangling.toml"), 1, "graph.invalid", "dangling.toml, line 1: sub-task 'a'"),
    ((*ASK, "good.toml", "--file", "none.md"), 1, "cli.no_file", "none.md"),
    ((*ASK, "good.toml", "--file", "binary"), 1, "cli.failed", "binary is not UTF-8 text"),
    ((*ASK, "good.toml", "--input", "t"), 1, "cli.failed", "'t' is not NAME=JSON"),
    ((*ASK, "good.toml", "--input", "t=hello"), 1, "input.invalid", "quotes of its own"),
    ((*ASK, "good.toml", "--input", "t=1", "--input", "t=2"), 1, "cli.failed", "given twice"),
    ((*ASK, "good.toml", "--out", "journal"), 1, "cli.failed", "journal can't be written"),
    (
        ("wrap", "openai", "--base-url", "h/v1", "--model", "m", "--capability", "a", *HERE),
        1,
        "config.invalid",
        "base_url 'h/v1' is no URL (http://HOST:PORT/v1)",
    ),
    ((*ASK, "good.toml"), 1, "cli.no_node", "start one with `meshnode up`"),
    (("agents", "--home", "nowhere"), 1, "cli.no_node", "no node runs at nowhere"),
    (("agents", "--url", "ftp://x"), 1, "cli.failed", "'ftp://x' is no URL"),
    (("agents", "--url", "http://127.0.0.1:9", *HERE), 1, "cli.failed", "no token file"),
    (
        ("agents", "--url", "http://127.0.0.1:9", "--token-file", "token"),
        1,
        "config.invalid",
        "token is damaged",
    ),
    (("inbox", "--home", "nowhere"), 1, "cli.no_node", "no node runs at nowhere"),
    (("inbox", "send", "ada", *HERE), 2, "cli.failed", "a letter has a text, or a --file"),
    (("inbox", "send", "a", "b", "--file", "binary"), 2, "cli.failed", "give one of them"),
    (("inbox", "send", "ada", "--file", "none"), 1, "system", "none: No such file"),
    (("inbox", "send", "ada", "--file", "large"), 1, "input.invalid", "at most 65536 bytes"),
    (("inbox", "send", "a", "b", "--expires", "soon"), 1, "config.invalid", "'soon'"),
    (("down", "--home", "nowhere"), 1, "cli.no_node", "no node runs at nowhere"),
    (("verify", "none"), 1, "cli.no_file", "none can't be read"),
    (("verify", "journal"), 1, "provenance.refused", "not a meshnode journal"),
    ((*UP, "--config", "none.toml"), 1, "cli.no_file", "none.toml can't be read"),
    ((*UP, "--config", "broken.toml"), 1, "config.invalid", "broken.toml is not TOML"),
    ((*UP, "--config", "config.toml"), 1, "config.invalid", "prt"),
    ((*UP, "--config", "network.toml"), 1, "config.invalid", "'No Good' is no network id"),
    ((*UP, "--with", "lnt"), 1, "config.invalid", "there is no specialist 'lnt'"),
    ((*UP, "--function", "none"), 1, "config.invalid", "module:name"),
    ((*UP, "--function", "no_such_module:f"), 1, "config.invalid", "on PYTHONPATH"),
    ((*UP, "--http", "8000"), 1, "config.invalid", "HOST:PORT"),
    ((*UP, "--http", "127.0.0.1:99999"), 1, "config.invalid", "99999"),
    ((*UP, "--join", "node.example"), 1, "config.invalid", "join 'node.example' is no invite"),
    ((*UP, "--join", "/ip4/127.0.0.1/tcp/1"), 1, "config.invalid", "names no peer"),
    ((*UP, "--join", INVITE[:-20]), 1, "config.invalid", "was cut or mistyped"),
    ((*UP, "--join", INVITE[:9]), 1, "config.invalid", "copy the whole word"),
    (
        (*UP, "--join", INVITE, "--network", "two"),
        1,
        "config.invalid",
        "the invite is for mesh 'one', this node is told to be in 'two'",
    ),
    (
        (*UP, "--join", INVITE, "--join", invite_to("two")),
        1,
        "config.invalid",
        "invites to 2 meshes: one, two",
    ),
    ((*UP, "--join", "@none.txt"), 1, "cli.no_file", "none.txt"),
    ((*UP, "--join", "@seeds.txt"), 1, "config.invalid", "seeds.txt, line 1"),
    ((*UP, "--listen", "here"), 1, "config.invalid", "listen 'here' is not a multiaddr"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    (tmp_path / "large").write_bytes(bytes(65_537))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("arguments", "status", "code", "says"), CASES)
def test_what_is_wrong_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    status: int,
    code: str,
    says: str,
) -> None:
    said = run(capsys, *arguments)
    assert said.status == status
    assert said.out == ""
    (line,) = said.err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    told = run(capsys, *arguments, "--json")
    assert told.status == status
    assert told.err == ""
    error = told.line()["error"]
    assert error["code"] == code
    assert says in f"{error['message']} ({error['hint']})"


def test_an_unexpected_failure_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr("meshnode.cli.job_files.read_graph", broken)
    said = run(capsys, *ASK, "good.toml")
    assert said.status == 1
    (line,) = said.err.splitlines()
    assert "ZeroDivisionError: one two" in line
    monkeypatch.setenv("MESHNODE_TRACE", "1")
    with pytest.raises(ZeroDivisionError):
        run(capsys, *ASK, "good.toml")


def test_of_a_group_what_was_meant_is_told() -> None:
    meant = NoProvider("nobody", hint="wait")
    group = BaseExceptionGroup("g", [ValueError("x"), ExceptionGroup("h", [meant])])
    assert first(group) is meant
    assert describe(meant).line() == "error: nobody (wait)"
    assert describe(Busy("it")).code == "node.busy"
    assert describe(Malformed("bytes")).code == "protocol.malformed"
    assert describe(MeshError("a\nb")).line() == "error: a b"
    assert "\x1b" not in describe(MeshError("a peer's \x1b[2J", hint="\x1b")).line()
    assert describe(KeyboardInterrupt()).status == INTERRUPTED


@given(st.text())
def test_printed_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = plain(text, lines=True)
    assert all(c in "\n\t" or (c.isprintable() or c.isspace()) for c in shown), repr(shown)
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\u202e" not in shown
    assert "\n" not in plain(text)


def test_long_text_is_cut() -> None:
    assert plain("x" * 10, size_max=3) == "xxx…"
