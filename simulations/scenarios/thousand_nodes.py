"""A thousand nodes work for an hour, and one in ten goes.

Given a thousand nodes that know each other by the DHT alone, a fifth of which can do
something,
when ten thousand sub-tasks are asked for within an hour, and every tenth node leaves or
crashes meanwhile,
then the jobs complete, and all that must hold holds.
"""

from typing import Final

from simulations.scenario import Churn, Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="thousand-nodes",
    story=__doc__,
    nodes=1_000,
    minutes=60.0,
    directory="kademlia",
    catalogue=False,
    agents=(Group(skill="upper", share=0.1), Group(skill="echo", share=0.1)),
    load=(
        Load(skill="upper", kind="map", items=10, per_minute=10.0, jobs_max=500, brokers=100),
        Load(skill="echo", kind="map", items=10, per_minute=10.0, jobs_max=500, brokers=100),
    ),
    churn=Churn(share=0.1, crash_share=0.5, back_s=300.0),
    expect=Expect(completed_min=0.995, jobs_min=990),
)
