"""A specialist is contributed: wrapped, measured, offered, asked from elsewhere, verified."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import MESHNODE, running

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def model_server() -> Iterator[str]:
    """The embedded model behind an OpenAI-compatible address, in a process of its own."""
    with subprocess.Popen(
        [*MESHNODE, "models", "serve", "--json"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["base_url"]
        finally:
            process.send_signal(signal.SIGTERM)


def meshnode(*args: str, status: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [*MESHNODE, *args, "--json"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_model_is_wrapped_asked_and_verified(model_server: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = stack.enter_context(running(tmp_path / "one", "up"))
        invite = meshnode("invite", "--home", str(tmp_path / "one" / "home"))["token"]
        two = stack.enter_context(running(tmp_path / "two", "up", "--join", invite))
        home, desk = str(tmp_path / "one" / "home"), str(tmp_path / "two" / "home")
        model = ("--base-url", model_server, "--model", "smollm2-135m-instruct")
        what = ("--capability", "text.generation@1", "--price", "2")
        told = meshnode("wrap", "openai", *model, *what, "--home", home)
        assert told["hosted"] == ["generation"]
        assert told["measured"]["latency_ms"] > 0
        assert told["measured"]["tokens_per_s"] > 0
        found = meshnode(
            "agents", "--home", desk, "--capability", "text.generation", "--count", "1",
            "--wait", "30",
        )  # fmt: skip
        assert found["agents"][0]["peer"] == one.peer
        # What was measured is in the signed record, before anybody has called.
        claimed = found["agents"][0]
        for name in ("latency_ms", "tokens_per_s", "context_tokens"):
            assert claimed[name] == told["measured"][name], name
        assert claimed["samples"] == told["measured"]["calls"]
        graph = {
            "subtasks": {
                "colours": {
                    "capability": "text.generation@1",
                    "inputs": {
                        "prompt": {"value": "Name three colours."},
                        "max_tokens": {"value": 30},
                    },
                }
            },
            "outputs": {"colours": "colours/text"},
        }
        (tmp_path / "graph.json").write_text(json.dumps(graph))
        out = tmp_path / "out"
        job = meshnode(
            "ask", "--home", desk, "--graph", str(tmp_path / "graph.json"), "--out", str(out)
        )
        assert job["outputs"]["colours"].strip()
        assert job["cost_mc"] == 2
        proved = meshnode("verify", str(out / "provenance.journal"))
        assert proved["job"] == job["job"]
        gone = meshnode("unwrap", "generation", "--home", home)
        assert gone["hosted"] == []
        assert two.process.poll() is None


def test_mistakes_of_wrapping_are_told_and_nothing_is_written(
    model_server: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    rest = ("--capability", "text.generation@1", "--home", str(home))
    wrong = meshnode(
        "wrap", "openai", "--base-url", model_server, "--model", "smollm", *rest, status=1
    )
    assert "smollm2-135m-instruct" in wrong["error"]["hint"]
    nowhere = meshnode(
        "wrap", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "x", *rest, status=1
    )
    assert "nothing answers" in nowhere["error"]["message"]
    missing = meshnode("wrap", "function", "no_module_here:f", "--home", str(home), status=1)
    assert "no_module_here" in missing["error"]["message"]
    assert not home.exists() or not os.listdir(home)  # noqa: PTH208 - names are enough
