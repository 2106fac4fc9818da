"""Contractors stop as if by SIGSTOP, still connected, and their work is done elsewhere.

Given twelve nodes that can all do the same,
when a third of them freezes for half a minute, twice,
then every job completes: silence is noticed, the work goes to others, and what the frozen
ones say when they thaw changes nothing.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Scenario, Trouble

SCENARIO: Final = Scenario(
    name="contractor-freezes",
    story=__doc__,
    nodes=12,
    minutes=4.0,
    agents=(Group(skill="upper"),),
    load=(Load(kind="map", items=6, per_minute=8.0, brokers=3),),
    faults=(
        Trouble(at_s=30.0, kind="freeze", share=0.33, for_s=30.0),
        Trouble(at_s=120.0, kind="freeze", share=0.33, for_s=30.0),
    ),
    expect=Expect(completed_min=1.0, took_p95_s_max=45.0, jobs_min=20),
)
