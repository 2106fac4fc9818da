"""Options, environment and file become one node's settings; files are read before asking."""

from pathlib import Path

import pytest

from meshnode.adapters.running_file import read_running, running_file
from meshnode.cli.job_files import read_inputs
from meshnode.cli.settings import Given, settings
from meshnode.errors import ConfigError
from protocol.keys import Identity

PEER = Identity(bytes(32), bytes(32)).peer
ADDRESS = f"/ip4/192.0.2.1/tcp/4001/p2p/{PEER}"


def test_an_option_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text('network = "file"\nhome = "from-file"\n[http]\nport = 1\nhost = "::1"\n')
    env = {"MESHNODE_NETWORK": "env", "MESHNODE_HTTP__PORT": "2"}
    told = settings(Given(file=str(file), network="option"), env)
    assert (told.network, told.home, told.http.port, told.http.host) == (
        "option",
        "from-file",
        2,
        "::1",
    )


def test_every_option_reaches_its_setting() -> None:
    given = Given(
        home="h",
        network="n",
        listen=["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"],
        join=[ADDRESS],
        specialists=["lint", "summarization"],
        functions=["a:b", "c:d"],
        http="[::1]:8000",
        dht=False,
        catalogue=False,
    )
    told = settings(given, {})
    assert (told.home, told.network) == ("h", "n")
    assert told.listen == ("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1")
    assert (told.join, told.specialists) == ((ADDRESS,), ("lint", "summarization"))
    assert told.functions == ("a:b", "c:d")
    assert (told.http.host, told.http.port) == ("::1", 8000)
    assert (told.directory.dht, told.directory.catalogue) == (False, False)
    plain = settings(Given(), {})
    assert (plain.directory.dht, plain.directory.catalogue) == (True, True)


def test_a_seed_list_is_joined_with_what_else_is_named(tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"
    file.write_text(f"# here\n{ADDRESS}\n")
    assert settings(Given(join=[f"@{file}", ADDRESS]), {}).join == (ADDRESS,)


def test_files_become_a_list_with_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.md").write_text("A")
    Path("x=y.md").write_text("its name has a sign in it")
    found = read_inputs(["a.md", "more=a.md", "x=y.md", "./a.md"], ["n=[1, null]", 's="t=u"'])
    assert found == {
        "files": [
            {"path": "a.md", "text": "A"},
            {"path": "x=y.md", "text": "its name has a sign in it"},
            {"path": "a.md", "text": "A"},
        ],
        "more": [{"path": "a.md", "text": "A"}],
        "n": [1, None],
        "s": "t=u",
    }


def test_the_note_of_a_running_node_is_its_own_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "http.json"
    assert read_running(path) is None
    with running_file(path, {"url": "u", "pid": 7}):
        assert read_running(path) == {"url": "u", "pid": 7}
        assert path.stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["http.json"]
    assert not path.exists()


def test_the_note_of_a_killed_node_counts_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "http.json"
    path.write_text('{"url": "u", "pid": 1}')
    assert read_running(path) is None
    with running_file(path, {"url": "new"}):
        assert read_running(path) == {"url": "new"}


def test_a_note_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="can't be read"):
        read_running(tmp_path / "link")
    with (
        pytest.raises(ConfigError, match="can't be written"),
        running_file(tmp_path / "no" / "http.json", {}),
    ):
        pass
