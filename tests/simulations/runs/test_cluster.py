"""Seeds on a Dask cluster of this machine; Dask's loops stay in processes of their own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from meshnode.errors import ConfigError
from simulations.outcome import Outcome
from simulations.runs import cluster
from simulations.runs.takes import code_hash, play_take
from simulations.scenario import parse_scenario
from tests.simulations.runs.tiny import takes

TINY = """
name = "tiny"
story = "Two nodes. One asks."
nodes = 2
minutes = 0.2
agents = [{ skill = "upper", count = 1 }]
load = [{ per_minute = 30 }]
"""
#: A scheduler and two workers, until their standard input ends.
CLUSTER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as here:
        print(here.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = tmp_path_factory.mktemp("cluster") / "cluster.py"
    program.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.communicate("")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "long.toml").write_text(TINY.replace("0.2", "1440"))
    return tmp_path


def simulate(folder: Path, *arguments: str) -> tuple[int, Any]:
    """Run the command in a process of its own; return its status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "meshnode", "simulate", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_a_cluster_comes_to_what_this_machine_comes_to(address: str, folder: Path) -> None:
    status, told = simulate(folder, "tiny.toml", "--seeds", "3", "--cluster", address)
    assert status == 0
    scenario = parse_scenario(TINY, where="here")
    here = [play_take(take) for take in takes(scenario, 0, 1, 2)]
    there = msgspec.convert(told["outcomes"], list[Outcome])
    assert [one.digest for one in there] == [one.digest for one in here]
    assert [one.figures for one in there] == [one.figures for one in here]


def test_a_take_that_lasts_too_long_is_ended_there(address: str, folder: Path) -> None:
    limited = ("--cluster", address, "--limit", "1")
    status, told = simulate(folder, "long.toml", "--seeds", "2", *limited)
    assert status == 1
    assert told["failed"] == [0, 1]
    assert all("which is its limit" in one["troubles"][0] for one in told["outcomes"])


def test_who_stops_waiting_ends_what_runs_there(address: str, folder: Path) -> None:
    before = {process.pid for process in psutil.process_iter()}
    with subprocess.Popen(
        [sys.executable, "-m", "meshnode", "simulate", "long.toml", "--cluster", address],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            (worker,) = first_workers(before, process)
            process.terminate()
            _, said = process.communicate()
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.startswith("error: interrupted after 0 of 1 seeds")
    assert psutil.wait_procs([worker], timeout=20)[1] == []


def first_workers(before: set[int], process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait for a process that plays and was not there ``before``."""
    while True:
        assert process.poll() is None
        found = [
            one
            for one in psutil.process_iter(["cmdline"])
            if one.pid not in before
            and "simulations.runs.worker" in (one.info["cmdline"] or ())
        ]
        if found:
            return found


@pytest.mark.parametrize("address", ["not an address", "tcp://host", "", "http://h:1/path"])
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        next(cluster.play_on_cluster([], address, limit_s=1))


def test_a_cluster_that_is_not_there_is_told() -> None:
    program = (
        "from simulations.runs import cluster; cluster._CONNECT_S = 0.5;"
        'next(cluster.play_on_cluster([], "tcp://127.0.0.1:1", limit_s=1))'
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("ConfigError: no Dask scheduler answers at tcp://127.0.0.1:1")


def test_without_dask_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match="needs Dask") as caught:
        next(cluster.play_on_cluster([], "tcp://127.0.0.1:1", limit_s=1))
    assert caught.value.hint == "pip install 'meshnode[cluster]'"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({}, "has no workers"),
        ({"a": code_hash(), "b": "another"}, "worker b can't play: it runs other code"),
        ({"a": ImportError("no simulations")}, "worker a can't play: no simulations"),
    ],
    ids=["nobody", "other code", "none"],
)
def test_workers_that_can_not_play_are_told(found: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        cluster._check(found, "tcp://there")
    cluster._check({"a": code_hash()}, "tcp://there")
