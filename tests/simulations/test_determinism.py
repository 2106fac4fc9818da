"""The same seed gives the same run, whatever else differs."""

import gc
import os
import shlex
import subprocess
import sys
from math import inf
from pathlib import Path
from weakref import ref

import pytest
import trio
from trio._core import _run as trio_run

from simulations import world
from simulations.world import World
from tests.simulations import determinism_scenarios
from tests.simulations.determinism_scenarios import (
    SOUND,
    kademlia_in_trouble,
    mesh_in_trouble,
    order_of_a_set,
)

ROOT = Path(__file__).parents[2]

#: Run every scenario with some memory in use that another process doesn't use.
CHILD = """
import sys
ballast = [[object()] for _ in range(int(sys.argv[1]))]
from simulations import world
from tests.simulations import determinism_scenarios as scenarios
for scenario in (*scenarios.SOUND, scenarios.order_of_a_set):
    print(scenario.__name__, world.run(scenario, seed=3).digest)
"""


def digests(hash_seed: int) -> dict[str, str]:
    """Return the trace hash of each scenario, as another process has it."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(hash_seed * 377)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def elsewhere() -> list[dict[str, str]]:
    """Trace hashes from three processes with different hash seeds and memory."""
    return [digests(hash_seed) for hash_seed in (1, 2, 3)]


# One scenario leaves async generators to the collector on purpose.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("scenario", SOUND, ids=lambda scenario: scenario.__name__)
def test_the_trace_hash_is_the_same_in_every_process(
    scenario: world.Scenario, elsewhere: list[dict[str, str]]
) -> None:
    here = world.run(scenario, seed=3).digest
    assert [child[scenario.__name__] for child in elsewhere] == [here] * 3


def test_a_scenario_that_hangs_on_the_hash_seed_is_told_apart(
    elsewhere: list[dict[str, str]],
) -> None:
    assert len({child[order_of_a_set.__name__] for child in elsewhere}) == 3


@pytest.mark.parametrize(
    "scenario",
    [determinism_scenarios.cancelled_together, mesh_in_trouble, kademlia_in_trouble],
    ids=lambda scenario: scenario.__name__,
)
def test_another_seed_gives_another_run(scenario: world.Scenario) -> None:
    assert len({world.run(scenario, seed=seed).digest for seed in range(4)}) == 4


def test_a_second_run_in_one_process_is_the_same_run() -> None:
    first = world.run(mesh_in_trouble, seed=8, lines_max=100_000)
    second = world.run(mesh_in_trouble, seed=8, lines_max=100_000)
    assert first == second
    assert first.lines, "there is something to compare"


def test_keeping_fewer_lines_does_not_change_the_hash() -> None:
    full = world.run(mesh_in_trouble, seed=9, lines_max=100_000)
    some = world.run(mesh_in_trouble, seed=9, lines_max=10)
    assert some.digest == full.digest
    assert some.lines == full.lines[-10:]


def test_parts_of_a_world_draw_from_different_chance() -> None:
    async def scenario(here: World) -> None:
        assert here.random("a").random() == here.random("a").random()
        assert here.random("a").random() != here.random("b").random()
        assert here.entropy("a").token(32) == here.entropy("a").token(32)
        assert here.entropy("a").token(32) != here.entropy("b").token(32)

    world.run(scenario, seed=1)


def test_a_wall_clock_is_as_wrong_as_it_was_asked_to_be() -> None:
    async def scenario(here: World) -> None:
        right, ahead = here.clock(), here.clock(skew_ms=-250)
        fast = here.clock(drift_ppm=100)
        start_ms = right.now_ms()
        await trio.sleep(1000)
        assert right.now_ms() == start_ms + 1_000_000
        assert ahead.now_ms() == right.now_ms() - 250
        assert fast.now_ms() == right.now_ms() + 100

    world.run(scenario, seed=1)


# --- failures ---------------------------------------------------------------------


class Planted(Exception):
    """A failure that a test put there."""


async def fails_after_a_while(here: World) -> None:
    await trio.sleep(12.5)
    here.trace.note("about to fail")
    raise Planted


def test_a_failure_says_how_to_see_it_again_and_that_is_true(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    with pytest.raises(Planted) as caught:
        world.run(fails_after_a_while, seed=41)
    digest, replay = caught.value.__notes__
    assert "seed 41" in digest
    python, *arguments = shlex.split(replay.removeprefix("replay: "))
    assert python == "python"
    again = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert again.returncode != 0
    assert digest in again.stderr, "the same trace up to the failure"


def test_a_failure_inside_a_test_names_the_test() -> None:
    with pytest.raises(Planted) as caught:
        world.run(fails_after_a_while, seed=41)
    assert "::test_a_failure_inside_a_test_names_the_test'" in caught.value.__notes__[-1]
    assert "seed 41" in caught.value.__notes__[-1]


def test_a_failure_of_a_background_task_ends_the_run() -> None:
    async def scenario(here: World) -> None:
        here.nursery.start_soon(fails_after_a_while, here)
        await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        world.run(scenario, seed=2)
    assert caught.value.split(Planted)[1] is None
    assert "seed 2" in caught.value.__notes__[0]


def test_a_scenario_that_waits_for_ever_is_stopped() -> None:
    async def scenario(_: World) -> None:
        await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError):
        world.run(scenario, seed=1, limit_s=100)


def test_the_nursery_ends_with_the_scenario() -> None:
    ended: list[float] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async def scenario(here: World) -> None:
        here.nursery.start_soon(background)
        await trio.sleep(3)

    assert world.run(scenario, seed=1).elapsed_s == 3
    assert ended == [3]


def test_a_world_hears_of_other_threads_though_it_looks_rarely() -> None:
    answers: list[int] = []

    async def scenario(_: World) -> None:
        with world.standing_still():
            answers.append(await trio.to_thread.run_sync(lambda: 7))

    world.run(scenario, seed=1, limit_s=inf)  # or the clock would jump to its end meanwhile
    assert answers == [7]


def test_nothing_runs_when_trio_has_lost_a_private_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(trio_run, "_r")
    with pytest.raises(AssertionError, match="Trio changed"):
        world.run(mesh_in_trouble, seed=1)


def test_what_was_pinned_is_as_before_after_a_run() -> None:
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, gc.isenabled()
    with pytest.raises(Planted):
        world.run(fails_after_a_while, seed=1)
    after = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r, gc.isenabled()
    assert after == before


class Ring:
    """Garbage that only the collector sees."""

    def __init__(self) -> None:
        self.itself = self


async def jumps_a_while(_here: World) -> None:
    for _ in range(30):
        await trio.sleep(1)


def test_what_a_world_leaves_is_collected_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world, "_MUCH_JUMPS", 20)
    left: list[ref[Ring]] = []
    found: list[Ring | None] = []

    async def leaves(here: World) -> None:
        await jumps_a_while(here)
        left.append(ref(Ring()))

    async def looks(_: World) -> None:
        await trio.lowlevel.checkpoint()
        found.append(left[0]())

    gc.disable()  # or it might be collected in between
    world.run(leaves, seed=1)
    world.run(looks, seed=1)
    gc.enable()
    assert found == [None]
