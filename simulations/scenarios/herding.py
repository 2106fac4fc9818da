"""Every broker prefers the same agent, and the mesh neither piles up nor swings.

Given ten brokers, and ten agents that can do the same, one of them faster than the rest,
when all brokers have jobs at once, at a rate that the ten can do together and the one can't,
then the fast one isn't buried: the work spreads, and no job waits long.
"""

from typing import Final

from simulations.agents import Temper
from simulations.scenario import Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="herding",
    story=__doc__,
    nodes=21,
    minutes=3.0,
    agents=(
        Group(skill="upper", count=1, temper=Temper(latency_s=(0.3, 0.4), concurrency_max=1)),
        Group(skill="upper", count=9, temper=Temper(latency_s=(0.8, 1.2), concurrency_max=1)),
    ),
    load=(Load(kind="map", items=4, per_minute=80.0, brokers=10, deadline_s=90.0),),
    expect=Expect(completed_min=1.0, took_p95_s_max=3.0, busiest_max=0.4, jobs_min=150),
)
