"""Strangers find each other from one address: through the catalogue, and the DHT alone."""

from pathlib import Path

import pytest

from tests.e2e.processes import NodeProcess, mesh

CAPABILITY = "text.language_identification"
SIX = [("--with", "language_identification")] * 6


def found_by(node: NodeProcess, *, count: int) -> set[str]:
    """Return who answers as a provider, once ``count`` do."""
    query = {"capability": CAPABILITY, "count": count, "wait_s": 60, "probe": 1}
    agents = node.api("GET", "/api/agents", params=query).json()["agents"]
    return {agent["peer"] for agent in agents if agent["alive"]}


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
