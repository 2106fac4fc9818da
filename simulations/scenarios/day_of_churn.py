"""A thousand nodes for a day, and hardly one of them stays longer than an hour.

Given a thousand nodes that know each other by the DHT alone, a fifth of which can do
something,
when every node but the first goes again and again, after an hour on average, half the times
without a word, and comes back from its disk half an hour later,
and jobs of four sub-tasks are asked for all day, at whoever is there,
then at least 995 of 1,000 complete, whatever happens to their brokers and contractors, and
no node holds more in the evening than at noon.
"""

from typing import Final

from simulations.scenario import Churn, Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="day-of-churn",
    story=__doc__,
    nodes=1_000,
    minutes=24 * 60.0,
    directory="kademlia",
    catalogue=False,
    agents=(Group(skill="upper", share=0.1), Group(skill="echo", share=0.1)),
    load=(
        Load(skill="upper", kind="map", items=4, per_minute=1.0, brokers=100),
        Load(skill="echo", kind="map", items=4, per_minute=1.0, brokers=100),
    ),
    churn=Churn(share=1.0, session_s=3_600.0, back_s=1_800.0),
    expect=Expect(completed_min=0.995, jobs_min=2_700),
)
