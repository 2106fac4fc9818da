"""Twenty nodes, and everything that can go wrong between and in them goes wrong.

Given twenty nodes with clocks up to two minutes off, on links that break,
when faults of every kind befall them for ten minutes (a connection breaks or hangs half
open, the mesh splits, one way or both, nodes freeze, crash and come back, disks fill),
then every job ends by its deadline with the right outputs, nobody pays twice, and in the
end all is at rest.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Mishaps, Scenario
from simulations.weather import ROUGH

SCENARIO: Final = Scenario(
    name="rough-weather",
    story=__doc__,
    nodes=20,
    minutes=10.0,
    weather=ROUGH,
    agents=(
        Group(skill="upper", share=0.4),
        Group(skill="echo", share=0.4),
        Group(skill="join", share=0.2),
    ),
    load=(Load(kind="pipeline", items=8, per_minute=0.7, deadline_s=150.0),),
    mishaps=Mishaps(per_minute=2.0, skew_s=120.0),
    expect=Expect(completed_min=1.0),
)
