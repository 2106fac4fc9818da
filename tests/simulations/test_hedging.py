"""One call in fifty takes twenty seconds more: what that costs a job, with hedges and without.

Given eight agents that answer within a second and now and then take twenty more,
when a broker that has seen some of their work does job after job of twelve calls each,
then a straggler holds up more than one job in ten, unless a hedge outruns it; a hedge is
paid only where it wins, instead of the slow one, and all the money is accounted for.
"""

from dataclasses import dataclass
from typing import Final

import trio

from meshnode.ports import JsonValue
from simulations.agents import UPPER, Act, Temper
from simulations.graphs import map_graph
from simulations.stage import Stage
from simulations.world import World, run

JOBS: Final = 40
TEXTS: Final[list[JsonValue]] = [f"text {n}" for n in range(12)]
SLOW: Final = Temper(latency_s=(0.4, 0.9), slow_chance=0.02, slow_s=20.0, timeout_s=40.0)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all jobs: how long they took, what they cost, and how much was done twice."""

    took_s: list[float]
    cost_mc: int
    hedges: int
    units: int
    calls: int

    def quantile_s(self, share: float) -> float:
        return self.took_s[min(len(self.took_s) - 1, int(share * len(self.took_s)))]


def measured(seed: int, hedges_pct: int) -> Figures:
    """Play the jobs one after the other."""
    found: list[Figures] = []

    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add([Act(UPPER, SLOW)], n=8, name="agent")
        mesh.add(n=1, name="broker")
        await mesh.ready()
        await trio.sleep(2)
        took_s: list[float] = []
        cost_mc = hedges = units = 0
        for _ in range(JOBS):
            end = await mesh.submit(
                map_graph(UPPER), {"words": TEXTS}, by="broker0", hedges_pct=hedges_pct
            )
            assert end.state == "completed", end
            assert not mesh.book.running, "whoever was outrun works on"
            journal = await mesh.node("broker0").journal(end.job)
            took_s.append(end.ended_s - end.begun_s)
            cost_mc += end.cost_mc
            hedges += journal.state.hedges
            units += len(journal.state.units)
        await mesh.settle()
        assert not await mesh.troubles(), "each journal proves itself, and money is conserved"
        calls = sum(mesh.book.begun.values())
        found.append(Figures(sorted(took_s), cost_mc, hedges, units, calls))

    run(story, seed=seed)
    return found[0]


def test_hedges_outrun_stragglers_and_are_paid_instead_of_them() -> None:
    without, hedged = measured(3, 0), measured(3, 10)
    assert without.hedges == 0
    assert without.quantile_s(0.9) > 20, "a straggler holds up more than one job in ten"
    assert hedged.quantile_s(0.9) < 3
    assert hedged.quantile_s(0.5) < 1.05 * without.quantile_s(0.5), "and nobody else"
    assert 0 < hedged.hedges <= JOBS, "one a job, with twelve units"
    assert hedged.calls == hedged.units + hedged.hedges, "nothing else is done twice"
    assert hedged.cost_mc == without.cost_mc
