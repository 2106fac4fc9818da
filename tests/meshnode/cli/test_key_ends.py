"""`meshnode keys rotate|revoke`: a home goes on with another key, or says that one is lost."""

from binascii import a2b_base64
from pathlib import Path

import pytest
import trio

from meshnode.adapters import key_file
from meshnode.adapters.key_file import load, load_or_create
from meshnode.adapters.sqlite_store import open_store
from meshnode.adapters.system import SystemEntropy
from meshnode.app import STORE_FILE, open_node
from meshnode.config import DirectoryConfig, NodeConfig
from meshnode.ports import Put
from meshnode.services.job_rows import JOBS, JobRow
from protocol.codec import encode
from protocol.keys import Identity
from protocol.lifecycle import read_statement
from tests.meshnode.cli.commands import run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    load_or_create(folder / "keys", SystemEntropy())
    return folder


def peer_in(path: Path) -> str:
    keys = load(path)
    return Identity(keys.seed, keys.exchange_secret).peer


def config(home: Path) -> NodeConfig:
    return NodeConfig(home=str(home), directory=DirectoryConfig(dht=False))


def heir_after_a_start(home: Path, peer: str) -> tuple[str, str]:
    """Start the node of ``home``: return who it is, and who stands for ``peer``."""

    async def look() -> tuple[str, str]:
        async with open_node(config(home)) as node:
            return node.peer, node.fates.heir(peer)

    return trio.run(look)


def test_a_home_goes_on_with_a_new_key_and_its_node_knows_whose_heir_it_is(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    was = peer_in(home / "keys")
    told = run(capsys, "keys", "rotate", "--home", str(home), "--json").line()
    new = peer_in(home / "keys")
    assert (told["was"], told["peer_id"]) == (was, new)
    assert was != new
    assert peer_in(Path(told["old_key"])) == was
    assert not (home / "keys.next").exists()
    assert heir_after_a_start(home, was) == (new, new)
    said = run(capsys, "keys", "rotate", "--home", str(home))
    assert "meshnode up" in said.out
    newest = peer_in(home / "keys")
    assert heir_after_a_start(home, was) == (newest, newest)


@pytest.mark.parametrize("step", ["save", "replace"])
def test_a_rotation_that_broke_off_is_finished_with_the_same_heir(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    was = peer_in(home / "keys")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(key_file, step, die)
        assert run(capsys, "keys", "rotate", "--home", str(home)).status != 0
    assert peer_in(home / "keys") == was
    heir = peer_in(home / "keys.next")
    told = run(capsys, "keys", "rotate", "--home", str(home), "--json").line()
    assert told["peer_id"] == heir == peer_in(home / "keys")
    assert heir_after_a_start(home, was) == (heir, heir)


def test_a_home_with_jobs_that_have_not_ended_keeps_its_key(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    async def begin() -> None:
        async with open_store(home / STORE_FILE) as store:
            row = JobRow(done=False, name="audit", planned_ms=1)
            await store.commit(Put(JOBS, "job-1", encode(row)))

    trio.run(begin)
    was = peer_in(home / "keys")
    said = run(capsys, "keys", "rotate", "--home", str(home))
    assert said.status == 1
    assert "such as job-1" in said.err
    assert peer_in(home / "keys") == was


async def test_a_node_that_runs_keeps_its_key(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    async with open_node(config(home)):
        said = await trio.to_thread.run_sync(run, capsys, "keys", "rotate", "--home", str(home))
    assert said.status == 1
    assert "meshnode down" in said.err


def test_a_revocation_is_prepared_for_later(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "revocation"
    command = ("keys", "revoke", "--home", str(home), "--prepare", str(file))
    said = run(capsys, *command, "--reason", "lost")
    assert said.status == 0, said.err
    assert file.stat().st_mode & 0o777 == 0o600
    last = file.read_bytes().splitlines()[-1]
    statement = read_statement(a2b_base64(last), network="meshnode", now_ms=1)
    peer = peer_in(home / "keys")
    assert (statement.peer, statement.heir, statement.reason) == (peer, "", "lost")
    assert load(home / "keys").seed.hex() not in file.read_text() + said.out
    assert "name a new file" in run(capsys, *command).err


def test_a_key_is_not_revoked_by_mistake(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    said = run(capsys, "keys", "revoke", "--home", str(home))
    assert "--yes" in said.err
    said = run(capsys, "keys", "revoke", "--home", str(home), "--yes", "--json")
    assert said.line()["error"]["code"] == "cli.no_node"
    none = tmp_path / "none"
    none.write_text("# nothing\nnot base64!\n")
    said = run(capsys, "keys", "publish", str(none), "--home", str(home))
    assert "--prepare FILE" in said.err
