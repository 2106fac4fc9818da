"""Who can do something is found although half of the nodes come and go.

Given thirty nodes that know each other by the DHT alone, a third of which can do something,
when half of them leave or crash and come back at random times,
then all but a few of the jobs complete: whoever offers is found hop by hop, and whoever
has gone costs a dial and not the job.
"""

from typing import Final

from simulations.scenario import Churn, Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="discovery-under-churn",
    story=__doc__,
    nodes=30,
    minutes=10.0,
    directory="kademlia",
    catalogue=False,
    agents=(Group(skill="upper", share=0.3),),
    load=(Load(skill="upper", per_minute=12.0, brokers=8),),
    churn=Churn(share=0.5, back_s=60.0),
    expect=Expect(completed_min=0.98, jobs_min=80),
)
