"""Nodes die in the middle of what they write down, again and again, and no job is lost.

Given twenty nodes, all of which broker jobs,
when six times a minute one of them is to die just before or just after it commits something
of a certain kind (an award, a result, a charge), and comes back from its disk,
then every job completes with the right outputs, and nothing is charged twice.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Mishaps, Scenario

SCENARIO: Final = Scenario(
    name="crash-points",
    story=__doc__,
    nodes=20,
    minutes=5.0,
    agents=(
        Group(skill="upper", share=0.4),
        Group(skill="echo", share=0.4),
        Group(skill="join", share=0.2),
    ),
    load=(Load(kind="pipeline", items=8, per_minute=4.0, deadline_s=150.0),),
    mishaps=Mishaps(per_minute=6.0, kinds=("crash_at",)),
    expect=Expect(completed_min=1.0),
)
