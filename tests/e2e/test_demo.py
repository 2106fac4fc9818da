"""The main job, end to end: real processes, real files, a killed contractor, a forged proof."""

import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from meshnode.cli.demo_liar import RULE
from meshnode.domain.provenance import verify_provenance
from protocol.errors import RemoteProtocolError
from tests.e2e.processes import MESHNODE, ROOT

SEED = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files of this repository: its protocol, specification and all."""
    folder = tmp_path_factory.mktemp("reviewed")
    shutil.copytree(ROOT / "protocol", folder / "protocol")
    return folder


class Demo:
    """A running ``meshnode demo --json``."""

    def __init__(self, folder: Path, out: Path, *more: str) -> None:
        command = [*MESHNODE, "demo", "--json", "--path", str(folder), "--out", str(out), *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.nodes: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """Read lines up to an event; ``result`` is the last line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said.get("event") == "node":
                self.nodes.append(said)
            if said.get("event", "result") == event:
                return said
        raise AssertionError(f"the demo ended before {event}")

    def end(self) -> int:
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    demo = Demo(folder, tmp_path_factory.mktemp("out"))
    result = demo.until("result")
    assert demo.end() == 0
    return result


def test_the_demo_ends_with_a_report_that_five_processes_made(
    finished: dict[str, Any], folder: Path
) -> None:
    assert finished["state"] == "completed"
    assert finished["processes"] >= 5
    assert len({row["node"] for row in finished["subtasks"]}) >= 4, "the seed hosts nothing"
    report = Path(finished["report"]).read_text()
    for file in sorted(folder.rglob("*.py")):
        if file.read_text().strip():
            assert file.name in report.replace("\\", ""), f"{file.name} is not in the report"
    assert {row["state"] for row in finished["subtasks"]} == {"completed"}
    by_capability = {row["capability"] for row in finished["subtasks"]}
    assert len(by_capability) == 7


def test_code_is_audited_by_several_nodes(finished: dict[str, Any]) -> None:
    auditors = {
        row["node"]
        for row in finished["subtasks"]
        if row["capability"] == "code.security_audit@1"
    }
    assert len(auditors) >= 2


def test_only_a_passed_check_is_called_verified(finished: dict[str, Any]) -> None:
    for row in finished["subtasks"]:
        assert (row["verdict"] == "verified") == bool(row["check"]), row
    assert {row["verdict"] for row in finished["subtasks"]} == {"verified", "unverified"}


def test_the_provenance_verifies_and_no_changed_byte_does(finished: dict[str, Any]) -> None:
    data = Path(finished["provenance"]).read_bytes()
    proved = verify_provenance(data)
    assert proved.cost_mc == finished["cost_mc"]
    rng = random.Random(SEED)
    for _ in range(40):
        at = rng.randrange(len(data))
        flipped = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        missing = data[:at] + data[at + 1 :]
        added = data[:at] + bytes([rng.randrange(256)]) + data[at:]
        for broken in (flipped, missing, added):
            if broken == data:
                continue
            with pytest.raises(RemoteProtocolError):
                verify_provenance(broken)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_demo(
    folder: Path, tmp_path: Path, how: signal.Signals
) -> None:
    demo = Demo(folder, tmp_path)
    demo.until("job")
    nodes = [psutil.Process(node["pid"]) for node in demo.nodes]
    assert len(nodes) == 7
    demo.process.send_signal(how)
    assert demo.end() != 0
    _, alive = psutil.wait_procs(nodes, timeout=30)
    assert not alive


def test_killing_a_contractor_mid_run_still_ends_complete(folder: Path, tmp_path: Path) -> None:
    demo = Demo(folder, tmp_path)
    demo.until("first_result")
    (victim, *_) = [node for node in demo.nodes if "security_audit" in node["specialists"]]
    os.kill(victim["pid"], signal.SIGKILL)
    result = demo.until("result")
    assert demo.end() == 0
    assert result["state"] == "completed"
    assert {row["state"] for row in result["subtasks"]} == {"completed"}
    proved = verify_provenance(Path(result["provenance"]).read_bytes())
    assert any(row.attempts > 1 for row in proved.rows), "the kill came too late to matter"


def test_the_demo_goes_on_when_its_broker_is_killed(folder: Path, tmp_path: Path) -> None:
    demo = Demo(folder, tmp_path / "out", "--kill-broker")
    killed = demo.until("killed")
    heir = demo.until("taken_over")
    result = demo.until("result")
    assert demo.end() == 0
    assert (result["state"], killed["name"]) == ("completed", "desk")
    assert result["brokers"] == ["desk", heir["name"]]
    assert {row["state"] for row in result["subtasks"]} == {"completed"}
    proved = verify_provenance(Path(result["provenance"]).read_bytes())
    assert len(proved.brokers) == 2


def test_the_liar_is_caught_unpaid_and_asked_less(folder: Path, tmp_path: Path) -> None:
    demo = Demo(folder, tmp_path / "out", "--liar")
    result = demo.until("result")
    assert demo.end() == 0
    assert result["state"] == "completed"
    first, second = result["liar"]["jobs"]
    assert first["awarded"] >= 1, "nobody was cheaper"
    assert first["refused"] + first["outvoted"] >= 1
    assert (first["taken"], first["paid_mc"]) == (0, 0)
    assert second["awarded"] < first["awarded"]
    assert RULE not in Path(result["report"]).read_text("utf-8")
    proved = verify_provenance(Path(result["provenance"]).read_bytes())
    assert "agreed" in {row.verdict for row in proved.rows}
