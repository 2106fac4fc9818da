"""Two nodes flood the others, and those who work for each other hardly notice.

Given fifteen nodes, two of which do nothing but ask all others for proposals and offers as
fast as they are let,
when the rest have jobs done by each other,
then every job completes, and no slower than a limit: who asks too much is put off by
each node for itself.
"""

from typing import Final

from simulations.scenario import Expect, Group, Load, Scenario

SCENARIO: Final = Scenario(
    name="flood",
    story=__doc__,
    nodes=15,
    minutes=1.5,
    agents=(
        Group(role="flooder", count=2, knobs={"per_s": 100}),
        Group(skill="upper", share=0.4),
    ),
    load=(Load(skill="upper", kind="map", items=4, per_minute=10.0, brokers=6),),
    expect=Expect(completed_min=1.0, took_p95_s_max=8.0, jobs_min=8),
)
