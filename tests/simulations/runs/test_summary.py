"""Figures over seeds, and what of many outcomes is kept."""

from simulations.outcome import Dot, Outcome
from simulations.runs.summary import WHOLE_MAX, Summary


def outcome(seed: int, *troubles: str, jobs: float = 1.0, digest: str = "d") -> Outcome:
    return Outcome(
        scenario="s",
        seed=seed,
        nodes=1,
        digest=digest,
        virtual_s=2.0,
        replay="",
        troubles=troubles,
        figures={"jobs": jobs} if digest else {},
        dots=(Dot(name="n0"),),
    )


def test_figures_are_told_over_the_seeds_that_were_played() -> None:
    summary = Summary()
    for seed in range(1, 101):
        summary.add(outcome(seed, jobs=seed))
    summary.add(outcome(0, "its process was killed", digest=""))
    (spread,) = summary.spreads()
    assert (spread.least, spread.p50, spread.p95, spread.most) == (1, 51, 96, 100)
    assert summary.virtual_s == 202
    assert [one.seed for one in summary.failed()] == [0]
    assert [one.seed for one in summary.in_order()] == list(range(101))


def test_nothing_played_has_no_figures() -> None:
    summary = Summary()
    assert list(summary.spreads()) == []
    summary.add(outcome(0, "killed", digest=""))
    assert list(summary.spreads()) == []


def test_the_first_few_stay_whole_in_whatever_order_they_end() -> None:
    for seeds in (range(40), reversed(range(40))):
        summary = Summary()
        for seed in seeds:
            summary.add(outcome(seed, *(["bad"] if seed % 2 else [])))
        whole = [one.seed for one in summary.in_order() if one.dots]
        assert whole == [0, *range(1, 2 * WHOLE_MAX, 2)]


def test_all_stay_whole_where_that_is_asked_for() -> None:
    summary = Summary(all_whole=True)
    for seed in range(20):
        summary.add(outcome(seed, "bad"))
    assert all(one.dots for one in summary.in_order())
