"""Whatever becomes of a process, each take has its outcome, and none is left behind."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from simulations.mesh import SimMesh
from simulations.outcome import Outcome
from simulations.runs.takes import Take, play_take
from simulations.runs.workers import Told, play_here, play_takes
from simulations.world import World
from tests.simulations.runs.tiny import BREAKS, FAILS, LONG, TINY, nobody, takes

ROOT = Path(__file__).parents[3]


def workers_of_mine() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "simulations.runs.worker" in child.cmdline()
    ]


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert workers_of_mine() == []


def played(
    given: list[Take], *, workers: int = 2, told: Told = nobody, limit_s: float = 60
) -> dict[int, Outcome]:
    return {
        one.seed: one for one in play_takes(given, workers=workers, told=told, limit_s=limit_s)
    }


def at_its_first_word(act: Callable[[int], None], seed: int) -> Told:
    """Do something to the process that plays ``seed`` when it is first heard of."""
    done: list[int] = []

    def told(one: int, done_s: float, all_s: float) -> None:
        if one == seed and not done:
            done.append(one)
            (process,) = workers_of_mine()
            act(process.pid)

    return told


def test_processes_come_to_what_one_process_comes_to() -> None:
    given = takes(TINY, 0, 1, 2, 3)
    here = {one.seed: one for one in play_here(given, told=nobody)}
    assert played(given) == here
    assert len({one.digest for one in here.values()}) == len(given)
    assert all(one.passed for one in here.values()), here
    assert [one.replay for one in here.values()] == [f"again {seed}" for seed in range(4)]


def test_a_take_that_fails_says_of_what() -> None:
    (outcome,) = played(takes(FAILS, 5)).values()
    assert not outcome.passed
    assert outcome.digest
    assert any("of the jobs completed, expected 100" in one for one in outcome.troubles)


def test_a_take_that_breaks_is_an_outcome_and_the_next_is_played() -> None:
    outcomes = played([*takes(BREAKS, 1), *takes(TINY, 2)], workers=1)
    assert "it broke off: KeyError" in outcomes[1].troubles[0]
    assert ".py:" in outcomes[1].troubles[0], "the place"
    assert outcomes[1].digest == ""
    assert outcomes[2].passed


def test_a_process_that_is_killed_costs_its_take_only() -> None:
    told = at_its_first_word(lambda pid: os.kill(pid, signal.SIGKILL), seed=1)
    outcomes = played([*takes(LONG, 1), *takes(TINY, 2, 3)], workers=1, told=told)
    assert sorted(outcomes) == [1, 2, 3]
    (trouble,) = outcomes[1].troubles
    assert "SIGKILL" in trouble
    assert "memory" in trouble
    assert outcomes[1].replay == "again 1"
    assert outcomes[2].passed
    assert outcomes[3].passed


def test_another_death_is_told_by_its_name() -> None:
    told = at_its_first_word(lambda pid: os.kill(pid, signal.SIGSEGV), seed=1)
    outcomes = played(takes(LONG, 1), told=told)
    assert "SIGSEGV" in outcomes[1].troubles[0]


def test_a_take_that_lasts_too_long_is_ended() -> None:
    outcomes = played(takes(LONG, 1, 2), workers=1, limit_s=1)
    limit = "it was ended after 1 s of real time, which is its limit (--limit)"
    assert [one.troubles for one in outcomes.values()] == [(limit,), (limit,)]


def test_a_process_that_hangs_is_ended_too() -> None:
    told = at_its_first_word(lambda pid: os.kill(pid, signal.SIGSTOP), seed=1)
    outcomes = played(takes(LONG, 1), told=told, limit_s=2)
    assert "its limit" in outcomes[1].troubles[0]


def test_here_a_take_that_lasts_too_long_ends_itself() -> None:
    (outcome,) = play_here(takes(LONG, 1), told=nobody, limit_s=0.5)
    assert "its limit" in outcome.troubles[0]


def test_leaving_early_ends_the_processes() -> None:
    outcomes = play_takes([*takes(TINY, 1), *takes(LONG, 2, 3)], workers=2, told=nobody)
    assert next(outcomes).seed == 1
    assert workers_of_mine()
    outcomes.close()


def test_how_far_a_take_is_is_told() -> None:
    far: list[tuple[int, float, float]] = []
    played(takes(TINY, 7), told=lambda *one: far.append(one))
    assert {seed for seed, _, _ in far} == {7}
    done = [done_s for _, done_s, _ in far]
    assert done == sorted(done)
    assert far[-1][2] == pytest.approx(12)
    assert max(done) > 11


def test_nothing_of_a_world_is_left_behind() -> None:
    for take in takes(TINY, 1, 2):
        play_take(take)
    assert [one for one in gc.get_objects() if isinstance(one, World | SimMesh)] == []


def test_an_interrupt_is_not_an_outcome() -> None:
    def interrupt(done_s: float, all_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_take(takes(TINY, 1)[0], interrupt)


PARENT = """
import sys
from simulations.runs.workers import play_takes
from tests.simulations.runs.tiny import LONG, takes
def told(*far):
    print(*far, flush=True)
for outcome in play_takes(takes(LONG, 1, 2), workers=2, told=told):
    raise AssertionError(outcome)
"""


def test_when_the_parent_is_killed_its_workers_end() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            children = psutil.Process(parent.pid).children()
        finally:
            parent.kill()
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=10)[1] == []
