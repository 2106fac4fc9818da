"""Contestants take turns, and whoever fails is named with what it said last."""

import sys
from pathlib import Path

import pytest

from meshnode.bench.contest import ONE, TWO, Contestant, Score, entered
from meshnode.bench.extra import Extra
from meshnode.errors import MeshError

TCP = Contestant("tcp", "meshnode.bench.beside.tcp_hop")
STOCK = Contestant("libp2p", "meshnode.bench.beside.libp2p_hop")
OURS = Contestant("", "meshnode.bench.session_hop")


@pytest.mark.parametrize("way", [ONE, TWO])
@pytest.mark.parametrize("contestant", [TCP, STOCK, OURS])
async def test_every_call_of_every_turn_is_counted(contestant: Contestant, way: str) -> None:
    async with entered(contestant, way, None) as entrant:
        await entrant.warm_up(3)
        await entrant.turn(5)
        await entrant.turn(5)
    score = entrant.score
    assert [len(calls) for calls in score.rounds_us] == [5, 5]
    assert score.calls == 10
    assert 0 < score.p50_us <= score.p95_us
    assert score.cpu_per_call_us > 0


async def test_a_contestant_that_ends_is_named_with_its_last_words() -> None:
    with pytest.raises(MeshError, match=r"absent \(both\) failed: .*No module named nowhere"):
        async with entered(Contestant("absent", "nowhere"), ONE, None):
            pass


async def test_a_contestant_that_fails_at_its_turn_is_named(tmp_path: Path) -> None:
    (tmp_path / "sulky.py").write_text(
        "from meshnode.bench.beside.turns import say\n"
        "say(ready=True)\ninput()\nraise SystemExit('not in the mood')\n"
    )
    extra = Extra(sys.executable, {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"})
    async with entered(Contestant("sulky", "sulky", extra=True), ONE, extra) as entrant:
        with pytest.raises(MeshError, match="not in the mood"):
            await entrant.turn(1)


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that became ten times as slow after the first round makes no difference."""
    ours = Score([[1, 1, 9], [10, 10, 90], [10, 10, 90]])
    theirs = Score([[2, 2, 2], [20, 20, 20], [20, 20, 20]])
    assert ours.ratio(theirs) == 0.5
    uneven = Score([[1], [2], [3]]), Score([[3], [10], [4]])
    assert uneven[0].ratio(uneven[1]) == 1 / 3, "not 2/4, the medians of all rounds together"
    assert ours.p50_us == 10
    assert ours.p95_us == 90
