"""`meshnode keys`: who a node is, and its secret kept by a passphrase."""

import os
from pathlib import Path

import pytest

from meshnode.adapters import key_file
from meshnode.adapters.key_file import NodeKeys, load, load_or_create
from meshnode.adapters.passphrase import CREDENTIAL, find_passphrase
from meshnode.adapters.system import SystemEntropy
from meshnode.app import open_node
from meshnode.config import DirectoryConfig, KeysConfig, NodeConfig
from meshnode.errors import ConfigError
from protocol.keys import Identity
from tests.meshnode.cli.commands import Said, run

WORDS = "correct horse battery staple"


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "ARGON2_PASSES", 1)
    monkeypatch.setattr(key_file, "ARGON2_MEMORY_BYTES", 8192)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    load_or_create(folder / "keys", SystemEntropy())
    return folder


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return secret(tmp_path / "words", f"{WORDS}\n")


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def keys_of(home: Path, passphrase: str | None = None) -> NodeKeys:
    return load(home / "keys", passphrase)


def peer_of(keys: NodeKeys) -> str:
    return Identity(keys.seed, keys.exchange_secret).peer


def holds_no_secret(said: Said, keys: NodeKeys) -> None:
    for part in (keys.seed, keys.exchange_secret):
        assert part.hex() not in said.out + said.err
    assert WORDS not in said.out + said.err


def test_a_key_is_shown_without_its_secret(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    keys = keys_of(home)
    said = run(capsys, "keys", "show", "--home", str(home))
    assert peer_of(keys) in said.out
    assert "keys protect" in said.out
    holds_no_secret(said, keys)
    told = run(capsys, "keys", "show", "--home", str(home), "--json").line()
    assert told["peer_id"] == peer_of(keys)
    assert told["protected"] is False


def test_a_key_is_protected_and_opened_again(
    capsys: pytest.CaptureFixture[str], home: Path, words: Path
) -> None:
    keys = keys_of(home)
    at = ("--home", str(home))
    said = run(capsys, "keys", "protect", *at, "--passphrase-file", str(words))
    assert said.status == 0, said.err
    holds_no_secret(said, keys)
    assert keys.seed not in (home / "keys").read_bytes()
    assert (home / "keys").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["keys"]
    assert keys_of(home, WORDS) == keys
    shown = run(capsys, "keys", "show", *at)
    assert "not known without the passphrase" in shown.out
    shown = run(capsys, "keys", "show", *at, "--passphrase-file", str(words))
    assert peer_of(keys) in shown.out
    refused = run(capsys, "keys", "unprotect", *at)
    assert refused.status == 1
    assert "--passphrase-file" in refused.err
    assert run(capsys, "keys", "unprotect", *at, "--passphrase-file", str(words)).status == 0
    assert keys_of(home) == keys


def test_a_protected_key_gets_another_passphrase(
    capsys: pytest.CaptureFixture[str], home: Path, words: Path, tmp_path: Path
) -> None:
    keys = keys_of(home)
    at = ("--home", str(home))
    run(capsys, "keys", "protect", *at, "--passphrase-file", str(words))
    (home / "node.toml").write_text(f'[keys]\npassphrase_file = "{words}"\n')
    other = secret(tmp_path / "other", "another")
    said = run(capsys, "keys", "protect", *at, "--passphrase-file", str(other))
    assert said.status == 0, said.err
    assert keys_of(home, "another") == keys


def test_a_backup_makes_the_same_node_elsewhere_and_replaces_none(
    capsys: pytest.CaptureFixture[str], home: Path, words: Path, tmp_path: Path
) -> None:
    keys = keys_of(home)
    tmp_path.chmod(0o755)  # a sealed backup may lie anywhere
    backup = tmp_path / "backup.key"
    given = ("--passphrase-file", str(words))
    said = run(capsys, "keys", "export", str(backup), "--home", str(home), *given)
    assert said.status == 0, said.err
    assert keys.seed not in backup.read_bytes()
    again = run(capsys, "keys", "export", str(backup), "--home", str(home), *given)
    assert "exists already" in again.err
    restored = tmp_path / "restored"
    said = run(capsys, "keys", "import", str(backup), "--home", str(restored), *given, "--json")
    assert said.line()["peer_id"] == peer_of(keys)
    holds_no_secret(said, keys)
    assert keys_of(restored) == keys
    kept = (restored / "keys").read_bytes()
    said = run(capsys, "keys", "import", str(backup), "--home", str(restored), *given)
    assert "exists already" in said.err
    assert (restored / "keys").read_bytes() == kept


def test_an_open_key_in_an_open_folder_is_refused(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    home.chmod(0o755)
    said = run(capsys, "keys", "show", "--home", str(home))
    assert f"chmod 700 {home}" in said.err


def test_what_is_wrong_is_told(
    capsys: pytest.CaptureFixture[str], home: Path, words: Path, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert "there is no folder" in run(capsys, "keys", "show", "--home", nowhere).err
    assert not Path(nowhere).exists()
    (home / "keys").chmod(0o644)
    said = run(capsys, "keys", "show", "--home", str(home))
    assert f"chmod 600 {home / 'keys'}" in said.err
    (home / "keys").chmod(0o600)
    said = run(capsys, "keys", "protect", "--home", str(home))
    assert "no passphrase is given" in said.err
    words.chmod(0o644)
    given = ("--passphrase-file", str(words))
    said = run(capsys, "keys", "protect", "--home", str(home), *given)
    assert "is open to others (mode 644)" in said.err
    (home / "keys").unlink()
    assert "meshnode up" in run(capsys, "keys", "show", "--home", str(home)).err


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff", b"x" * 5_000])
def test_a_file_that_holds_no_passphrase_is_told_and_not_shown(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "words"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no passphrase"):
        find_passphrase(str(path), env={})


def test_a_service_gets_it_as_a_credential(tmp_path: Path) -> None:
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert find_passphrase("", env=env) is None
    assert find_passphrase("", env={}) is None
    given = secret(tmp_path / CREDENTIAL, "from systemd")
    given.chmod(0o440)  # as its access lists show
    assert find_passphrase("", env=env) == "from systemd"
    chosen = secret(tmp_path / "chosen", "chosen")
    assert find_passphrase(str(chosen), env=env) == "chosen"


async def test_a_node_starts_with_its_passphrase_and_not_without(
    home: Path, words: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(home)
    key_file.replace(home / "keys", keys, SystemEntropy(), WORDS)
    plain = NodeConfig(home=str(home), directory=DirectoryConfig(dht=False))
    with pytest.raises(ConfigError, match="protected by a passphrase") as caught:
        async with open_node(plain):
            pass
    assert "keys.passphrase_file" in caught.value.hint
    told = NodeConfig(
        home=str(home),
        directory=DirectoryConfig(dht=False),
        keys=KeysConfig(passphrase_file=str(words)),
    )
    async with open_node(told) as node:
        assert node.peer == peer_of(keys)
        happened = " ".join(str(event.fields) for event in node.events.recent)
    assert WORDS not in happened + str(os.environ)
