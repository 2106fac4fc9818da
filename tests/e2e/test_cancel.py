"""A cancel reaches the leaf: what is looked at is the child process, by its number.

The agent is a command that starts a process of its own, and neither ever ends.  Both
must be gone once the cancel is acknowledged, which is when its owner is told that the job
has ended; and by themselves when nobody is left to cancel them.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from meshnode.adapters.agents.agent_files import AgentFile, write_agent_file
from tests.e2e.processes import NodeProcess, await_ready, running, start

pytestmark = pytest.mark.timeout(180)

#: Tells its own number and its child's, and never ends; or answers at once.
COMMAND = """
import json, os, subprocess, sys, time
text = json.load(sys.stdin)["text"]
if text.startswith("quick"):
    print(json.dumps(text.upper()))
    sys.exit()
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
with open(sys.argv[1], "w") as pipe:
    pipe.write(f"{os.getpid()} {child.pid}\\n")
while True:
    time.sleep(0.01)
"""
TEXT = {"type": "string"}
GRAPH = {
    "name": "toil",
    "subtasks": {
        "toil": {
            "capability": "bench.toil@1",
            "each": ["text"],
            "inputs": {"text": "@words"},
            "batch_items_max": 1,
        }
    },
    "outputs": {"texts": "toil"},
}
WORDS = ["quick one", "endless", "quick two", "without end"]
#: A process that was killed is gone within this; a lease of a minute is not yet out then.
DEATH_S = 10
#: Until a lease of seconds must have run out, with a busy machine in mind.
LAPSE_S = 60


@dataclass
class Toil:
    """A broker, a contractor with the command, and the processes that toil there."""

    desk: NodeProcess
    worker: NodeProcess
    seed: NodeProcess
    pipe: int
    stack: ExitStack
    watched: list[int] = field(default_factory=list)
    job: str = ""

    def begin(self) -> None:
        """Have two words done at once and two for ever; return when all of that is so."""
        self.desk.api("GET", "/api/agents", params={"capability": "bench.toil"})
        body = {"graph": GRAPH, "inputs": {"words": WORDS}, "deadline_s": 150}
        self.job = str(self.desk.api("POST", "/api/jobs", json=body).json()["job"])
        told = b""
        while told.count(b"\n") < 2:
            assert select.select([self.pipe], [], [], LAPSE_S)[0], "the command did not start"
            told += os.read(self.pipe, 100)
        for pid in told.split():
            watched = os.pidfd_open(int(pid))
            self.stack.callback(end, watched)
            self.watched.append(watched)
        follow(self.desk, self.job, ["charged", "charged"])
        assert self.gone(0) == 0, "they toil"

    def gone(self, within_s: float) -> int:
        """Return how many of the processes have ended, once all have or it is too late."""
        ended = [fd for fd in self.watched if select.select([fd], [], [], within_s)[0]]
        return len(ended)


def end(watched: int) -> None:
    """Leave no process behind that toils on because the test failed."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(watched, signal.SIGKILL)
    os.close(watched)


def follow(desk: NodeProcess, job: str, kinds: Sequence[str]) -> None:
    """Read the job's events from the first on until all of ``kinds`` were among them."""
    token = Path(desk.ready["token_file"]).read_text("ascii").strip()
    left = list(kinds)
    with httpx.stream(
        "GET",
        f"{desk.ready['http']}/api/jobs/{job}/events?follow=1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=90,
    ) as response:
        for line in response.iter_lines():
            if (kind := json.loads(line or "{}").get("kind")) in left:
                left.remove(kind)
            if not left:
                return
    raise AssertionError(f"the events ended before {left}")


@contextmanager
def toiling(folder: Path, *, lease_s: int) -> Iterator[Toil]:
    """Run the mesh in which somebody toils."""
    pipe, worker = folder / "pipe", folder / "worker"
    os.mkfifo(pipe)
    home = worker / "home"
    agent = AgentFile(
        kind="command",
        name="toil",
        capability="bench.toil@1",
        price_mc=3,
        concurrency_max=4,
        command=[sys.executable, "-c", COMMAND, str(pipe)],
        input_schema={
            "type": "object",
            "properties": {"text": TEXT},
            "required": ["text"],
            "additionalProperties": False,
        },
        output_schema=TEXT,
    )
    write_agent_file(home, agent)
    (home / "node.toml").write_text(f"[host]\nlease_s = {lease_s}\n", "utf-8")
    with ExitStack() as stack:
        seed = stack.enter_context(running(folder / "seed", "bootstrap"))
        working = stack.enter_context(start(worker, "up", "--join", seed.invite))
        desk = stack.enter_context(running(folder / "desk", "up", "--join", seed.invite))
        # Open for both: a reader alone sees an end whenever a writer has closed it.
        opened = os.open(pipe, os.O_RDWR)
        stack.callback(os.close, opened)
        yield Toil(desk, await_ready(working, worker), seed, opened, stack)


def test_an_acknowledged_cancel_has_ended_the_child_process_and_its_child(
    tmp_path: Path,
) -> None:
    with toiling(tmp_path, lease_s=120) as toil:
        toil.begin()
        toil.desk.api("POST", f"/api/jobs/{toil.job}/cancel")
        follow(toil.desk, toil.job, ["done"])
        assert toil.gone(DEATH_S) == len(toil.watched) == 4
        status = toil.desk.api("GET", f"/api/jobs/{toil.job}").json()
        assert status["state"] == "cancelled"
        assert status["cost_mc"] == 6, "what was accepted stays paid, and nothing else is"


def test_child_processes_of_a_broker_that_was_killed_end_with_the_lease(
    tmp_path: Path,
) -> None:
    with toiling(tmp_path, lease_s=3) as toil:
        toil.begin()
        toil.desk.kill()
        assert toil.gone(LAPSE_S) == len(toil.watched) == 4
