"""Scenarios that are played in a fraction of a second, or never to their end."""

from typing import Final

from simulations.runs.takes import Take
from simulations.scenario import Expect, Group, Load, Scenario, Trouble

TINY: Final = Scenario(
    name="tiny",
    story="Two nodes. One asks.",
    nodes=2,
    minutes=0.2,
    agents=(Group(skill="upper", count=1),),
    load=(Load(per_minute=30),),
    expect=Expect(jobs_min=1),
)
#: Nobody has what is asked for.
FAILS: Final = Scenario(
    name="fails",
    story="Nobody can.",
    nodes=2,
    minutes=0.2,
    agents=(Group(skill="echo", count=1),),
    load=(Load(skill="upper", per_minute=30, deadline_s=2),),
    expect=Expect(completed_min=1.0),
)
#: Somebody who isn't there is to crash.
BREAKS: Final = Scenario(
    name="breaks",
    story="It can't be played.",
    nodes=2,
    minutes=0.2,
    faults=(Trouble(at_s=1, kind="crash", who=("nobody",)),),
)
#: A day of two nodes.
LONG: Final = Scenario(
    name="long", story="It goes on and on.", nodes=2, minutes=1440, load=(Load(),)
)


def takes(scenario: Scenario, *seeds: int) -> list[Take]:
    return [Take(scenario=scenario, seed=seed, replay=f"again {seed}") for seed in seeds]


def nobody(seed: int, done_s: float, all_s: float) -> None:
    """Hear how far a take is, and do nothing."""
