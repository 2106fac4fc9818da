"""Some of the DHT's nodes lie, and who looks for somebody still finds them.

Given forty nodes that exchange catalogues and use the DHT, a quarter of which answer its
lookups with each other's names only, and some of which serve records of the past,
when nodes come and go, and jobs are asked for,
then all but a few of the jobs complete: what neighbours tell doesn't pass through the DHT.
"""

from typing import Final

from simulations.scenario import Churn, Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="poisoned-directory",
    story=__doc__,
    nodes=40,
    minutes=5.0,
    directory="kademlia",
    agents=(
        Group(role="eclipser", share=0.25),
        Group(role="stale_replayer", share=0.1),
        Group(skill="upper", share=0.25),
    ),
    load=(Load(skill="upper", kind="map", items=4, per_minute=8.0, brokers=8),),
    churn=Churn(share=0.3, back_s=60.0),
    expect=Expect(completed_min=0.98, jobs_min=25),
)
