"""The only broker is killed again and again, and its jobs end as they should.

Given ten nodes, one of which brokers all jobs,
when that one is killed four times in the middle of its work and started again from its disk,
then every job completes, nothing is charged twice, and no work was done twice for money.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Scenario, Trouble

SCENARIO: Final = Scenario(
    name="broker-dies",
    story=__doc__,
    nodes=10,
    minutes=4.0,
    agents=(
        Group(skill="upper", share=0.5),
        Group(skill="echo", share=0.5),
        Group(skill="join"),
    ),
    load=(Load(kind="pipeline", items=8, per_minute=6.0, by=("n0",), deadline_s=120.0),),
    faults=tuple(
        Trouble(at_s=at_s, kind="crash", who=("n0",), for_s=8.0)
        for at_s in (31.0, 75.5, 120.2, 171.7)
    ),
    expect=Expect(completed_min=1.0, jobs_min=15),
)
