"""A node as a service: the unit is one that systemd takes, and the node tells it how it is."""

import os
import shutil
import socket
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from meshnode.cli.service import unit
from tests.e2e.processes import MESHNODE, running


def directives(text: str) -> ConfigParser:
    parsed = ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(text)
    return parsed


@pytest.mark.parametrize("user", [False, True], ids=["system", "user"])
def test_the_unit_is_one_that_systemd_takes(user: bool, tmp_path: Path) -> None:
    done = subprocess.run(
        [*MESHNODE, "service", *(["--user"] if user else [])],
        capture_output=True,
        text=True,
        check=True,
    )
    service = directives(done.stdout)["Service"]
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    program, *arguments = service["ExecStart"].split()
    assert os.access(program, os.X_OK)
    home = "%h/.meshnode" if user else "%S/meshnode"
    assert arguments[-3:] == ["up", "--home", home]
    assert int(service["TimeoutStopSec"]) > 30, "a drain has its time"
    if not user:
        assert (service["User"], service["StateDirectory"]) == ("meshnode", "meshnode")
        assert service["CapabilityBoundingSet"] == ""
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:  # elsewhere what stands above has to do
        path = tmp_path / "meshnode.service"
        path.write_text(done.stdout)
        verified = subprocess.run(
            [analyze, "verify", *(["--user"] if user else []), path],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
            check=False,
        )
        assert (verified.returncode, verified.stderr) == (0, "")


def test_an_installation_in_a_home_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")
    monkeypatch.setattr("sys.prefix", "/usr")
    assert directives(unit(user=False))["Service"]["ProtectHome"] == "yes"
    home = Path("~root").expanduser()
    monkeypatch.setattr("sys.prefix", str(home / "venv"))
    assert directives(unit(user=False))["Service"]["ProtectHome"] == "read-only"


def test_a_supervisor_hears_that_it_is_ready_lives_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(50)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "500000")
        told: list[str] = []

        def hear(what: str) -> str:
            while not told or what not in told[-1]:
                told.append(heard.recv(1_000).decode())
            return told[-1]

        with running(tmp_path, "up") as node:
            assert node.peer in hear("READY=1")
            hear("WATCHDOG=1")
            node.process.terminate()
            hear("STOPPING=1")
            assert node.process.wait(30) == 0
    assert "WATCHDOG=1" in told
