"""A mesh that was cut in two finishes what both halves had begun.

Given twenty nodes of which most can do something,
when the mesh is split in halves for a minute, and again one way after it,
then no job is lost, what both halves could do went on, and half a minute after the last
split every job completes again.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Scenario, Trouble

SCENARIO: Final = Scenario(
    name="partition-heals",
    story=__doc__,
    nodes=20,
    minutes=6.0,
    agents=(
        Group(skill="upper", share=0.4),
        Group(skill="echo", share=0.4),
        Group(skill="join"),
    ),
    load=(Load(kind="pipeline", items=6, per_minute=4.0, deadline_s=150.0),),
    faults=(
        Trouble(at_s=60.0, kind="split", share=0.5, for_s=60.0),
        Trouble(at_s=180.0, kind="one_way", share=0.5, for_s=30.0),
    ),
    expect=Expect(completed_min=1.0, jobs_min=15),
)
