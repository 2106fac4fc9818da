"""The file with a node's token."""

import os
import stat
from pathlib import Path

import pytest

from meshnode.errors import ConfigError
from meshnode.gateway.token_files import load_or_create_token, read_token


class Counter:
    """Entropy that differs from call to call, and is the same in every run."""

    def __init__(self) -> None:
        self.calls = 0

    def token(self, size: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(size, "big")


def test_the_token_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "token"
    entropy = Counter()
    token = load_or_create_token(path, entropy)
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_token(path, entropy) == token == read_token(path)
    assert [file.name for file in path.parent.iterdir()] == ["token"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_token_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "token"
    load_or_create_token(path, Counter())
    path.chmod(mode)
    with pytest.raises(ConfigError, match="open to others") as caught:
        load_or_create_token(path, Counter())
    assert caught.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 43, b"x" * 2_049])
def test_a_damaged_token_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="is damaged"):
        read_token(path)


def test_a_symlink_or_pipe_in_the_tokens_place_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    load_or_create_token(target, Counter())
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ConfigError, match="symlink"):
        read_token(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="isn't yours"):
        read_token(tmp_path / "pipe")


def test_a_missing_token_file_says_that_no_node_made_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_token(tmp_path / "token")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="can't be"):
        load_or_create_token(tmp_path / "file" / "token", Counter())
