"""`meshnode keys certify|pass`: a program's file opens the interface, as far as it may."""

from pathlib import Path

import pytest
import trio

from meshnode.adapters.key_file import load, load_or_create
from meshnode.adapters.system import SystemEntropy
from meshnode.app import Served, serve_node
from meshnode.config import DirectoryConfig, NodeConfig
from tests.meshnode.cli.commands import Said, run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    load_or_create(folder / "keys", SystemEntropy())
    return folder


async def test_a_certified_program_looks_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dashboard.key"

    async def said(*arguments: str) -> Said:
        return await trio.to_thread.run_sync(run, capsys, *arguments)

    made = (await said("keys", "certify", str(file), "--home", str(home), "--json")).line()
    assert file.stat().st_mode & 0o777 == 0o600
    assert made["purposes"] == ["api.read"]
    assert load(home / "keys").seed.hex() not in file.read_text()
    config = NodeConfig(home=str(home), directory=DirectoryConfig(dht=False))
    told: list[Served] = []
    async with trio.open_nursery() as nursery:
        ready = trio.Event()

        def note(served: Served) -> None:
            told.append(served)
            ready.set()

        async def serve() -> None:
            await serve_node(config, ready=note)

        nursery.start_soon(serve)
        await ready.wait()
        where = ("--url", told[0].http, "--token-file", str(file))
        assert (await said("jobs", "list", *where, "--json")).status == 0
        refused = (await said("resume", *where, "--json")).line()
        assert refused["error"]["code"] == "http.not_certified"
        withdrawn = await said("keys", "withdraw", made["app"], "--home", str(home))
        assert withdrawn.status == 0
        refused = (await said("jobs", "list", *where, "--json")).line()
        assert refused["error"]["code"] == "http.unauthorized"
        nursery.cancel_scope.cancel()


def test_a_pass_is_printed_for_programs_that_speak_http(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "ci.key"
    run(capsys, "keys", "certify", str(file), "--for", "jobs", "--home", str(home))
    said = run(capsys, "keys", "pass", str(file))
    assert said.out.startswith("app1.")
    assert said.out.strip() not in file.read_text()
    assert run(capsys, "keys", "pass", str(file), "--json").line()["bearer"][:5] == "app1."


def test_what_can_not_be_certified_is_told(
    capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "app.key")
    command = ("keys", "certify", file, "--home", str(home))
    assert "read, jobs, all" in run(capsys, *command, "--for", "ruling").err
    assert "366 days" in run(capsys, *command, "--expires", "400d").err
    assert not Path(file).exists()
    assert run(capsys, *command).status == 0
    assert "name a new file" in run(capsys, *command).err
    assert "keys certify" in run(capsys, "keys", "pass", str(tmp_path / "none")).err
    Path(file).write_text("app1:" + "A" * 60)
    assert "is damaged" in run(capsys, "keys", "pass", file).err
    Path(file).write_text("t" * 43)
    assert "no app key's file" in run(capsys, "keys", "pass", file).err
