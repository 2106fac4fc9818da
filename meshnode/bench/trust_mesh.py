"""R6 in a mesh of nodes beside the market: real messages, the same share of cheats.

The mesh (:mod:`simulations.trust.in_mesh`) has a tenth of the market's buyers, each with fewer
tasks, so what its buyers know in the end is less: it is to show that a node does with messages
what the modules do in a loop, not to hold the goals by itself.
"""

from collections.abc import Iterator
from typing import Final

from meshnode.bench.figures import Figure, Told
from simulations.trust import market
from simulations.trust.attacks import COLLUSION
from simulations.trust.in_mesh import Terms, play_in_mesh
from simulations.trust.trials import POLICIES

FULL: Final = Terms(nodes=100, buyers=10, tasks=100, counted=50, golds=450)
QUICK: Final = Terms(nodes=20, buyers=2, tasks=20, counted=10, golds=60)
_SEED: Final = 200


def mesh_figures(told: Told, *, quick: bool) -> Iterator[Figure]:
    """Yield what 40 % of colluders do to the buyers of a mesh, and of a market of its size."""
    terms = QUICK if quick else FULL
    told("a mesh of nodes", 0.0)
    mesh = play_in_mesh(terms, seed=_SEED)
    beside = market.Terms(
        attack=COLLUSION,
        cheats=terms.cheats,
        honest=round(terms.nodes * (1 - terms.cheats)),
        rounds=terms.tasks,
        pool=terms.nodes,
        notice=0.0,
    )
    told("a market beside it", 0.8)
    loop = market.play(beside, POLICIES[terms.assurance], seed=_SEED).tally
    note = (
        f"{terms.nodes} nodes, {terms.cheats:.0%} colluding, {terms.buyers} buyers,"
        f" {terms.assurance}, the last {terms.counted} of {terms.tasks} tasks of each, seed"
        f" {_SEED}; in the market of {beside.honest} buyers"
    )
    rows = (
        ("R6.mesh.right", 100 * (1 - mesh.error), 100 * (1 - loop.error), "%", 95.0, True),
        ("R6.mesh.open", 100 * mesh.open_share, 100 * loop.open_share, "%", 3.0, False),
        (
            "R6.mesh.executions",
            mesh.executions_per_task,
            loop.executions_per_task,
            "per task",
            1.8,
            False,
        ),
    )
    for name, value, other, unit, goal, at_least in rows:
        yield Figure(
            id=name,
            value=value,
            unit=unit,
            goal=goal,
            at_least=at_least,
            n=mesh.tasks,
            note=f"{note} {other:.2f}",
        )
