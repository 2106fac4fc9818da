"""Planted faults are found, within few seeds; without them the same seeds are quiet.

The five nodes find most (:data:`tests.simulations.mutants.FIVE_NODES`).  Three need a
neighbour who does just the wrong thing, and have a story of their own.  More of the kind
are in ``test_world_checkers.py`` and ``test_mesh_checkers.py``.
"""

from collections.abc import Awaitable, Callable

import pytest
import trio

from protocol.graph import Source, SubTask, TaskGraph
from simulations.adversaries import Slow
from simulations.agents import ECHO, UPPER, Act, Temper
from simulations.rogues import Dropper, Forger
from simulations.scenarios import five_nodes
from simulations.stage import Broken, JobEnd, Stage
from tests.simulations.mischief import CHEAP, DEAR, ask, known, play
from tests.simulations.mutants import FIVE_NODES, Mutant, Plant, endless, unhashed, unleased


@pytest.mark.parametrize("mutant", FIVE_NODES, ids=lambda mutant: mutant.name)
def test_the_five_nodes_find(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.plant(monkeypatch)
    for seed in mutant.seeds:
        with pytest.raises(Broken) as caught:
            five_nodes.play(seed)
        assert mutant.told in str(caught.value)


def test_the_same_seeds_are_quiet_without_them() -> None:
    seeds = {seed for mutant in FIVE_NODES for seed in mutant.seeds}
    assert len(seeds) <= 4
    for seed in sorted(seeds):
        five_nodes.play(seed)


# --- stories -----------------------------------------------------------------------------


def is_found(
    story: Callable[[Stage], Awaitable[None]], plant: Plant, patch: pytest.MonkeyPatch
) -> str:
    """Tell the story, which holds; return what breaks it with the fault planted."""
    play(story)
    plant(patch)
    with pytest.raises((Broken, AssertionError)) as caught:
        play(story)
    return str(caught.value)


def test_a_deadline_that_is_not_the_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two contractors drop what they take, each for longer than the job may last."""

    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([UPPER], n=2, name="bad", conduct=Dropper())
        await known(stage)
        end = await ask(stage, deadline_s=20.0)
        assert (end.state, end.code) in {("failed", "deadline"), ("lost", "")}
        await stage.settle()

    assert "has not ended 50 s after its deadline" in is_found(story, endless, monkeypatch)


def test_bytes_that_nobody_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made an intermediate result gives its broker the right one, and others another."""
    text = Source(kind="input", name="text")
    made = Source(kind="task", name="first", pointer="/text")
    graph = TaskGraph(
        name="twice",
        subtasks=[
            SubTask(id="first", capability="text.upper@1", inputs={"text": text}),
            SubTask(id="second", capability="text.echo@1", inputs={"text": made}),
        ],
        outputs={"text": Source(kind="task", name="second", pointer="/text")},
    )
    large = "so it is " * 4_000

    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([Act(UPPER, CHEAP)], name="bad", conduct=Forger(spares_brokers=True))
        stage.add([Act(ECHO, DEAR)], name="good")
        await known(stage)
        inputs = {"text": large}
        wanted = {"text": large.upper()}
        end = await stage.submit(graph, inputs, by="broker0", wanted=wanted)
        assert end.right, f"{end.state} {end.text}: another text than was wanted"
        await stage.settle()

    assert "another text than was wanted" in is_found(story, unhashed, monkeypatch)


def test_work_for_a_broker_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker crashes for good while a contractor has a long call of it."""
    slow = Slow(more_s=50.0).of(Act(UPPER, Temper(timeout_s=60.0)))

    async def story(stage: Stage) -> None:
        stage.add(name="other")
        stage.add(name="broker")
        (worker,) = stage.add([slow], name="n")
        await known(stage)

        async def forsaken() -> JobEnd:
            return await ask(stage, by="broker0", deadline_s=200.0)

        stage.world.nursery.start_soon(forsaken)
        await trio.sleep(5.0)
        assert stage.node(worker).contractor.active
        stage.crash("broker0")
        await trio.sleep(20.0)  # the lease is 10 s
        assert not stage.book.running, "it works for nobody"

    assert "it works for nobody" in is_found(story, unleased, monkeypatch)
