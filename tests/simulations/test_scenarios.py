"""Many seeds of the small world and of rough weather, the same in every process."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from simulations import faults
from simulations.player import play
from simulations.scenarios import five_nodes, named
from simulations.scenarios.five_nodes import POOR_MC, Story, draw_story
from simulations.stage import Broken
from simulations.world import World

ROOT = Path(__file__).parents[2]
SEEDS = 40
#: Of rough weather: what TARGETS asks for with every commit.
ROUGH_SEEDS = 100
#: Seeds in one test: small, so that all workers have something to do.
CHUNK = 5


def stories() -> Mapping[int, Story]:
    """Return what each seed has in store."""
    return {seed: draw_story(World.chance(seed, "story")) for seed in range(SEEDS)}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_five_nodes_end_a_job_right_whatever_happens_to_them(first: int) -> None:
    for seed in range(first, first + CHUNK):
        five_nodes.play(seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, ROUGH_SEEDS, CHUNK))
def test_rough_weather_loses_no_job_and_no_money(first: int) -> None:
    for seed in range(first, first + CHUNK):
        outcome = play(named("rough-weather"), seed=seed)
        assert outcome.passed, (outcome.replay, outcome.troubles)


def test_a_full_disk_loses_no_acceptance() -> None:
    five_nodes.play(171)  # beyond the suite's seeds, and once the only one to find it


def test_the_seeds_hold_every_kind_of_trouble() -> None:
    drawn = stories().values()
    kinds = {fault.kind for story in drawn for fault in story.schedule.faults}
    assert kinds == set(faults.SHARES)
    crashed = {f.who[0] for s in drawn for f in s.schedule.faults if f.kind == "crash"}
    assert crashed == set(five_nodes.OFFERS), "the broker too"
    assert any(story.cancel_s is not None for story in drawn)
    assert any(story.budget_mc <= POOR_MC for story in drawn)
    assert any(not story.schedule.faults for story in drawn), "and none at all"


def elsewhere(seed: int, hash_seed: int) -> str:
    """Return the trace's hash as the command that replays a seed prints it."""
    command = five_nodes.command(seed).removeprefix("python ").split(" --lines")[0]
    done = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()[0]


@pytest.mark.timeout(120)
def test_one_seed_gives_one_trace_in_every_process() -> None:
    seed = next(s for s, story in stories().items() if len(story.schedule.faults) >= 5)
    here = five_nodes.play(seed).digest
    assert [elsewhere(seed, hash_seed) for hash_seed in (1, 2)] == [here, here]
    assert five_nodes.play(seed + 1).digest != here


def test_a_failing_seed_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: object) -> object:
        yield "the sky is green"

    monkeypatch.setattr(five_nodes, "check_ending", wrong)
    with pytest.raises(Broken, match="the sky is green") as caught:
        five_nodes.play(7)
    assert f"replay: {five_nodes.command(7)}" in caught.value.__notes__


def test_a_schedule_prints_what_it_holds() -> None:
    schedule = faults.Schedule(
        (faults.Fault(1.5, "crash", ("a",), 2.0), faults.Fault(3.0, "break", ("a", "b")))
    )
    assert str(schedule) == "1.50 s crash a for 2.0 s; 3.00 s break a+b"
    assert str(faults.Schedule(())) == "nothing goes wrong"
    assert schedule.over_s == 3.5
