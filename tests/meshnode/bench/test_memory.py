"""P10: peers stay connected while they are weighed, and only the node is."""

import pytest

from meshnode.bench.memory import grown_bytes


@pytest.mark.parametrize(("part", "sessions"), [("session", 4), ("connection", 0)])
async def test_those_who_came_are_there_when_memory_is_read(part: str, sessions: int) -> None:
    grown, found = await grown_bytes(part, 1, 4, settle_s=0)
    assert found == sessions
    assert abs(grown) < 50_000_000, "four peers, not the process"
