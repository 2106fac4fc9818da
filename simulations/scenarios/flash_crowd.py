"""A crowd comes at once, and the mesh takes it in without giving it all to a few.

Given twenty nodes of which six write in capitals, two calls at a time each,
when jobs that came one in ten seconds come two a second for a minute,
then nearly all of them complete in time, and the queue has gone when the crowd has.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="flash crowd",
    story=__doc__,
    nodes=20,
    minutes=4,
    agents=(Group(skill="upper", share=0.3),),
    load=(
        Load(skill="upper", per_minute=6),
        Load(skill="upper", per_minute=120, from_s=60, until_s=120),
    ),
    expect=Expect(completed_min=0.95, took_p95_s_max=30, jobs_min=50),
)
