"""The market's question, asked of nodes: real messages, real jobs, virtual time.

A market (:mod:`simulations.trust.market`) can be played a thousand times; a mesh is what is
run.  Here some nodes buy one task after another of all there are, a share of which lie as one
cartel, and what comes of it is counted as the market counts it.  The buyers are what any node
is: golds of their owner's, jobs with an assurance, and what they learn on the way.
"""

from random import Random
from typing import Final

import msgspec
import trio

from meshnode.node import Terms as JobTerms
from protocol.graph import Source, SubTask, TaskGraph
from simulations.adversaries import Colluder, Erring
from simulations.agents import UPPER, Act, Temper
from simulations.stage import Stage
from simulations.trust.market import Tally
from simulations.world import World, run

_CAPABILITY: Final = "text.upper@1"
_PRICE_MC: Final = 10
_TEMPER: Final = Temper(latency_s=(0.05, 0.2), price_mc=_PRICE_MC, concurrency_max=4)
_LIMIT_S: Final = 48 * 3_600.0
#: Until all buyers know everybody, seconds.
_LOOKS_MAX: Final = 600


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is played.

    Attributes:
        nodes: That work, honest ones and cheats.
        cheats: Share of these that lie, all in the same way.
        buyers: Of the honest ones so many have work done, and hear what others say.
        tasks: Of each buyer, one after another.
        counted: Of these the last ones, which are counted.
        golds: Of each buyer's owner.
        errors: Share of honest answers that are wrong.
        rho: Chance that two honest errors coincide.
        assurance: As jobs say it.
    """

    nodes: int = 100
    cheats: float = 0.4
    buyers: int = 3
    tasks: int = 80
    counted: int = 40
    golds: int = 300
    errors: float = 0.04
    rho: float = 0.6
    assurance: str = "economy"


class _Count:
    """Calls of agents, from when all buyers are at the tasks that are counted.

    Attributes:
        calls: So many.
        at_it: Buyers that are; each waits for the others.
    """

    def __init__(self, buyers: int) -> None:
        self.calls = 0
        self.at_it = 0
        self._buyers = buyers
        self._all = trio.Event()

    def begin(self, _node: str, _key: str) -> None:
        self.calls += self._all.is_set()

    async def wait_for_all(self) -> None:
        self.at_it += 1
        if self.at_it == self._buyers:
            self._all.set()
        await self._all.wait()


def play_in_mesh(terms: Terms, *, seed: int) -> Tally:
    """Play it and return what came of the tasks that are counted."""
    tally = Tally()

    async def story(world: World) -> None:
        stage = Stage(world)
        cheats = round(terms.nodes * terms.cheats)
        skill = Act(UPPER, _TEMPER)
        erring = Erring(chance=terms.errors, alike=terms.rho).of(skill)
        stage.add([erring], n=terms.nodes - cheats, name="honest")
        stage.add([Colluder().of(skill)], n=cheats, name="cheat")
        await stage.ready()
        buyers = [f"honest{number}" for number in range(terms.buyers)]
        await _known(stage, buyers, terms.nodes)
        for buyer in buyers:
            for number in range(terms.golds):
                text = f"word {number * 7919 % 10_007} of {buyer}"
                golds = stage.node(buyer).golds.kept
                await golds.add(_CAPABILITY, {"text": text}, {"text": text.upper()})
        count = _Count(terms.buyers)
        stage.book.on_begin.append(count.begin)
        async with trio.open_nursery() as nursery:
            for buyer in buyers:
                rng = world.random(f"tasks of {buyer}")
                nursery.start_soon(_buy, stage, buyer, terms, tally, count, rng)
        tally.executions = count.calls

    run(story, seed=seed, limit_s=_LIMIT_S)
    return tally


async def _known(stage: Stage, buyers: list[str], nodes: int) -> None:
    for _ in range(_LOOKS_MAX):
        if all(len(stage.node(buyer).known()) >= nodes for buyer in buyers):
            return
        await trio.sleep(1.0)
    raise AssertionError(f"after {_LOOKS_MAX} s a buyer doesn't know all {nodes} nodes")


async def _buy(
    stage: Stage, buyer: str, terms: Terms, tally: Tally, count: _Count, rng: Random
) -> None:
    """Have one task done after another, and look at what came of the last ones."""
    node = stage.node(buyer)
    graph = TaskGraph(
        name="words",
        subtasks=[
            SubTask(
                id="say",
                capability=_CAPABILITY,
                inputs={"text": Source(kind="input", name="text")},
                each=[],
            )
        ],
        outputs={"said": Source(kind="task", name="say", pointer="/text")},
    )
    for number in range(terms.tasks):
        if number == terms.tasks - terms.counted:
            await count.wait_for_all()
        text = f"word {rng.randrange(10**9)}"
        job = await node.submit(
            graph, {"text": text}, JobTerms(assurance=terms.assurance, deadline_s=120.0)
        )
        state = await node.wait(job)
        if number < terms.tasks - terms.counted:
            continue
        tally.tasks += 1
        unit = next(iter(state.units.values()), None)
        outcome = unit.judged.outcome if unit is not None and unit.judged is not None else ""
        if state.done is None or state.done.state != "completed" or outcome != "agreed":
            tally.contested += outcome == "contested"
            tally.unverified += outcome != "contested"
            continue
        tally.accepted += 1
        tally.wrong += (await node.outputs(job))["said"] != text.upper()
