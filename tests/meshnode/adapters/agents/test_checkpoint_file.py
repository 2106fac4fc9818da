"""A command's checkpoint is a file: what it puts there is kept, and found by the next run."""

import os
import subprocess
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from meshnode.adapters.agents.checkpoint_file import _read, _stamp
from meshnode.adapters.agents.checkpoint_folders import Folder, sweep
from meshnode.adapters.agents.command import CommandAgent
from meshnode.errors import AgentError, CheckpointTooLarge, MeshError, StoreError
from meshnode.ports import AgentCall, AgentSpec, Output

#: Says what it found, saves what it is given, and ends when that was kept.
SCRIPT = """
import json, os, sys, time
path = os.environ["MESHNODE_CHECKPOINT"]
found = open(path).read() if os.path.exists(path) else None
told = json.load(sys.stdin)
if told["save"]:
    with open(path + ".new", "w") as file:
        file.write(told["save"] * told.get("times", 1))
    os.replace(path + ".new", path)
    while not os.path.exists(told["kept"]):
        time.sleep(0.01)
print(json.dumps({"found": found, "folder": os.path.dirname(path)}))
"""


class Keeper:
    """Keeps what is saved, and says so by a file."""

    def __init__(self, told: Path, saved: bytes | None = None, *, full: int = 0) -> None:
        self.saved = saved
        self.told = told
        self.full = full

    async def save(self, data: bytes) -> None:
        if len(data) > 100:
            raise CheckpointTooLarge("too much")
        await trio.lowlevel.checkpoint()
        if self.full:
            self.full -= 1
            raise StoreError("the disk is full")
        self.saved = data
        self.told.touch()


async def run(keeper: Keeper | None, value: dict[str, Any]) -> Any:
    agent = CommandAgent(
        AgentSpec("tool", "x.tool@1", "A tool.", {}, {}), [sys.executable, "-c", SCRIPT]
    )
    call = AgentCall("key-1", trio.current_time() + 60, checkpoint=keeper)
    async with aclosing(cast("Any", agent.run(value, call))) as items:
        async for item in items:
            assert isinstance(item, Output)
            return item.value
    raise AssertionError("no output")


async def test_what_one_run_saves_the_next_one_finds(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept")
    told = {"save": "half", "kept": str(keeper.told)}
    first = await run(keeper, told)
    assert first["found"] is None
    assert keeper.saved == b"half"
    second = await run(keeper, {"save": ""})
    assert second["found"] == "half"
    assert not Path(first["folder"]).exists(), "nothing is left behind"
    assert not Path(second["folder"]).exists()


async def test_a_disk_that_is_full_for_a_while_is_tried_again(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept", full=1)
    await run(keeper, {"save": "half", "kept": str(keeper.told)})
    assert (keeper.saved, keeper.full) == (b"half", 0)


async def test_who_saves_too_much_is_stopped_and_told(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "kept")
    with pytest.raises(MeshError, match="too much") as caught:
        await run(keeper, {"save": "x", "times": 101, "kept": str(keeper.told)})
    assert isinstance(caught.value, CheckpointTooLarge)
    assert keeper.saved is None


async def test_a_call_under_no_award_has_no_file() -> None:
    assert await run(None, {"save": ""}) == {"found": None, "folder": ""}


#: Makes a folder, says where, and is killed.
KILLED = """
import os, signal
from meshnode.adapters.agents.checkpoint_folders import Folder
folder = Folder()
folder.path.joinpath("checkpoint").write_text("half")
print(folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_node_left_goes_and_what_another_uses_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Folder()
    told = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        check=False,
    )
    left = Path(told.stdout.decode().strip())
    assert left.is_dir()
    secret = tmp_path / "secret"
    secret.mkdir()
    link = tmp_path / "meshnode-checkpoint-link"
    link.symlink_to(secret)
    assert sweep() == 1
    assert not left.exists()
    assert folder.path.is_dir(), "its node runs"
    assert link.is_symlink()
    assert secret.is_dir()
    folder.remove()
    assert not folder.path.exists()


async def test_a_command_that_is_opened_clears_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tempfile.mkdtemp(prefix="meshnode-checkpoint-")
    await CommandAgent(AgentSpec("tool", "x.tool@1", "A tool.", {}, {}), ["true"]).open()
    assert list(tmp_path.iterdir()) == []


def test_only_a_file_is_read_and_nothing_that_a_command_puts_in_its_place(
    tmp_path: Path,
) -> None:
    secret, link, pipe = tmp_path / "secret", tmp_path / "link", tmp_path / "pipe"
    secret.write_bytes(b"the node's")
    link.symlink_to(secret)
    os.mkfifo(pipe)
    for place in (link, pipe, tmp_path, tmp_path / "none"):
        assert _stamp(place) is None, place
    with pytest.raises(OSError, match="link"):
        _read(link)  # it was a file when it was looked at
    assert _read(pipe) is None, "opened, it would wait for a writer"
    assert _read(tmp_path) is None
    assert _read(tmp_path / "none") is None
    assert _read(secret) == b"the node's"


async def test_a_node_without_room_for_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(AgentError, match="can't be made"):
        await run(Keeper(tmp_path / "kept"), {"save": ""})
