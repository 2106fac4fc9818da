"""Strangers find each other from one address: through the catalogue, and the DHT alone."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import MESHNODE, NodeProcess, mesh

CAPABILITY = "text.language_identification"
SIX = [("--with", "language_identification")] * 6


def found_by(node: NodeProcess, *, count: int) -> set[str]:
    """Return who answers as a provider, once ``count`` do."""
    command = [*MESHNODE, "agents", "--home", str(node.home / "home"), "--json", "--probe"]
    command += ["--capability", CAPABILITY, "--count", str(count), "--wait", "90"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {agent["peer"] for agent in json.loads(done.stdout)["agents"]}


@pytest.mark.parametrize("only", [(), ("--no-catalogue",)], ids=["both-ways", "dht-alone"])
def test_six_providers_are_found_and_five_after_one_dies(
    tmp_path: Path, only: tuple[str, ...]
) -> None:
    with mesh(tmp_path, [*SIX, ()], *only) as (_, *providers, asker):
        peers = {node.peer for node in providers}
        assert found_by(asker, count=6) == peers
        dead = providers[0]
        dead.kill()
        assert found_by(asker, count=5) == peers - {dead.peer}
