"""A node's secrets at rest: made once, read back, refused when anyone else could read them."""

import multiprocessing
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from meshnode.adapters import key_file
from meshnode.adapters.key_file import NodeKeys, load_or_create
from meshnode.adapters.system import SystemEntropy
from meshnode.errors import ConfigError

ENTROPY = SystemEntropy()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "node.key"


@pytest.fixture(autouse=True)
def cheap_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "ARGON2_PASSES", 1)
    monkeypatch.setattr(key_file, "ARGON2_MEMORY_BYTES", 8192)


def refusal(path: Path, passphrase: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_or_create(path, ENTROPY, passphrase)
    assert str(path.name) in caught.value.line()
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("passphrase", [None, "correct horse", "pässphrase 🐎"])
def test_keys_are_made_once_and_read_back(path: Path, passphrase: str | None) -> None:
    made = load_or_create(path, ENTROPY, passphrase)
    content = path.read_bytes()
    assert load_or_create(path, ENTROPY, passphrase) == made
    assert path.read_bytes() == content
    assert (len(made.seed), len(made.exchange_secret)) == (32, 32)
    assert made.seed != made.exchange_secret


def test_two_files_hold_two_identities(tmp_path: Path) -> None:
    first = load_or_create(tmp_path / "a" / "node.key", ENTROPY)
    assert load_or_create(tmp_path / "b" / "node.key", ENTROPY) != first


def test_file_and_folder_are_for_the_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create(path, ENTROPY)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_a_file_with_any_bit_for_others_is_refused(path: Path, mode: int) -> None:
    load_or_create(path, ENTROPY)
    path.chmod(mode)
    assert "open to others" in refusal(path)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o720, 0o701, 0o777])
def test_a_folder_with_any_bit_for_others_is_refused(path: Path, mode: int) -> None:
    load_or_create(path, ENTROPY)
    path.parent.chmod(mode)
    with pytest.raises(ConfigError, match=r"folder .* is open to others") as caught:
        load_or_create(path, ENTROPY)
    assert caught.value.hint == f"chmod 700 {path.parent}"


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_or_create(path, ENTROPY)
    monkeypatch.setattr(os, "geteuid", lambda: 123_456)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load_or_create(path, ENTROPY)


@pytest.mark.parametrize("exists", [True, False])
def test_a_symlink_is_refused_and_not_followed(path: Path, exists: bool) -> None:
    target = path.with_name("elsewhere")
    path.parent.mkdir(mode=0o700)
    if exists:
        load_or_create(target, ENTROPY)
    path.symlink_to(target)
    assert "is a symlink" in refusal(path)
    assert target.exists() == exists


def test_a_pipe_in_the_files_place_is_refused_at_once(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.mkfifo(path, 0o600)
    assert "is not a file" in refusal(path)


@pytest.mark.parametrize("passphrase", [None, "secret"])
@pytest.mark.parametrize("change", [-200, -1, 1, 100_000])
def test_a_file_of_the_wrong_size_is_refused_and_kept(
    path: Path, change: int, passphrase: str | None
) -> None:
    load_or_create(path, ENTROPY, passphrase)
    content = path.read_bytes()
    content = content[:change] if change < 0 else content + bytes(change)
    path.write_bytes(content)
    assert "damaged or not a key file" in refusal(path, passphrase)
    assert path.read_bytes() == content


def test_a_file_of_zeros_is_refused(path: Path) -> None:
    load_or_create(path, ENTROPY)
    path.write_bytes(bytes(path.stat().st_size))
    assert "damaged" in refusal(path)


def test_a_passphrase_that_is_wrong_missing_superfluous_or_empty_is_refused(
    path: Path,
) -> None:
    load_or_create(path, ENTROPY, "right")
    assert "doesn't open" in refusal(path, "wrong")
    assert "is protected by a passphrase" in refusal(path)
    plain = path.with_name("plain.key")
    load_or_create(plain, ENTROPY)
    assert "isn't protected" in refusal(plain, "right")
    assert "is empty" in refusal(plain, "")


def test_any_flipped_byte_of_a_sealed_file_is_noticed(path: Path) -> None:
    load_or_create(path, ENTROPY, "secret")
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        refusal(path, "secret")


def test_a_sealed_file_holds_no_secret(path: Path) -> None:
    keys = load_or_create(path, ENTROPY, "secret")
    content = path.read_bytes()
    assert keys.seed not in content
    assert keys.exchange_secret not in content


def test_secrets_appear_in_no_repr_or_message(path: Path) -> None:
    seed, exchange = b"\x41" * 32, b"\x42" * 32
    keys = NodeKeys(seed, exchange)
    for text in (repr(keys), str(keys), f"{keys}", repr([keys]), f"{keys!a}"):
        assert "AAA" not in text
        assert "BBB" not in text
    load_or_create(path, ENTROPY, "hunter2")
    for passphrase in ("hunter3", None):
        said = refusal(path, passphrase)
        assert "hunter" not in said


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "can't be used" in refusal(tmp_path / "file" / "node.key")


def test_a_crash_halfway_leaves_nothing_that_a_restart_trips_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", crash)
        with pytest.raises(KeyboardInterrupt):
            load_or_create(path, ENTROPY)
    assert not path.exists()
    aside = path.with_name(f".node.key.{os.getpid()}")
    aside.write_bytes(b"half")
    load_or_create(path, ENTROPY)
    assert [file.name for file in path.parent.iterdir()] == ["node.key"]


def _load(path: Path) -> tuple[bytes, bytes]:
    keys = load_or_create(path, SystemEntropy())
    return keys.seed, keys.exchange_secret


def test_processes_that_start_together_share_one_identity(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        found = set(pool.map(_load, [path] * 12))
    assert len(found) == 1
