"""Whatever befalls links, disks and nodes, every job ends and nobody is charged twice.

Given twenty nodes whose clocks are wrong by up to two minutes, each second of them with
something to offer, some of which fail now and then,
when jobs of all kinds come and faults drawn from the seed begin twice a minute,
then nearly all jobs complete, with the right outputs.
"""

from typing import Final

from simulations.agents import Temper
from simulations.scenario import Expect, Group, Load, Mishaps, Scenario

SCENARIO: Final = Scenario(
    name="mishaps",
    story=__doc__,
    nodes=20,
    minutes=10,
    agents=(
        Group(skill="upper", share=0.5, temper=Temper(error_chance=0.02, hang_chance=0.005)),
        Group(skill="echo", share=0.4),
        Group(skill="join", share=0.3),
    ),
    load=(
        Load(skill="upper", per_minute=4, deadline_s=90),
        Load(skill="upper", kind="pipeline", per_minute=1, deadline_s=120),
    ),
    mishaps=Mishaps(per_minute=2, skew_s=120),
    expect=Expect(completed_min=0.8, jobs_min=10),
)
