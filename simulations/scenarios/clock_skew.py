"""Clocks are wrong by up to two minutes either way, and nobody is refused for it.

Given twenty nodes whose wall clocks differ by up to four minutes,
when they have jobs done by each other,
then every job completes in time: each judges what another dates by the offset that it
learned when they met.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Mishaps, Scenario

SCENARIO: Final = Scenario(
    name="clock-skew",
    story=__doc__,
    nodes=20,
    minutes=5.0,
    agents=(Group(skill="upper", share=0.4),),
    load=(Load(kind="map", items=5, per_minute=10.0),),
    mishaps=Mishaps(per_minute=0.0, skew_s=120.0),
    expect=Expect(completed_min=1.0, jobs_min=30),
)
