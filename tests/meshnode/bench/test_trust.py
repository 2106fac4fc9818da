"""What ``meshnode bench trust`` makes of the markets that are played."""

import re
from pathlib import Path

import pytest

from meshnode.bench import trust
from meshnode.domain.matching import MS_PER_MC
from simulations.trust import cells
from simulations.trust.market import Course, Tally
from tests.meshnode.bench.figures import by_id

TINY = cells.Size(
    seeds=1, honest=4, pool=4, rounds=16, shares=(0, 60, 70), fresh=1, newcomers=1
)


def unheard(*_: object) -> None:
    """Hear of progress."""


def course(*, wrong: int = 0, still_open: int = 0, worst: float = 0.0) -> Course:
    tally = Tally(
        tasks=1000,
        accepted=1000 - still_open,
        wrong=wrong,
        contested=still_open,
        executions=1700,
    )
    return Course(tally=tally, worst=worst)


@pytest.fixture(scope="module")
def played() -> trust.Played:
    return trust.play_all(unheard, TINY, workers=1)


def test_every_cell_is_played_by_its_policies_with_every_seed(played: trust.Played) -> None:
    for cell in cells.cells(TINY):
        assert set(played[cell.name]) == set(cell.policies)
        assert {len(courses) for courses in played[cell.name].values()} == {1}


def test_every_target_has_figures_and_a_page_shows_them(
    played: trust.Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trust, "play_all", lambda *_: played)
    monkeypatch.setattr(cells, "QUICK", TINY)
    file = tmp_path / "trust.html"
    figures = by_id(trust.run(unheard, quick=True, html=str(file)))
    assert {name.partition(".")[0] for name in figures} == {"R6", "R7", "R8", "T1", "T2"}
    text = file.read_text("utf-8")
    assert all(f"<td>{name}</td>" in text for name in figures)
    assert "<script" not in text
    assert not re.search(r'(src|href)="', text)


def test_the_worst_point_of_the_curve_is_held_against_the_goal() -> None:
    curve = {
        f"R6.collusion{share}": {
            "economy": [course(wrong=wrong)] * 2,
            "assured": [course()] * 2,
            "random": [course(wrong=500)] * 2,
        }
        for share, wrong in ((0, 20), (60, 60), (70, 300))
    }
    figures = by_id(trust._collusion(curve, TINY))
    assert figures["R6.economy.correct"].holds is False  # at 60 %; 70 % is beyond the goal
    assert figures["R6.economy.correct"].value == pytest.approx(94.0)
    assert figures["R6.assured.correct"].holds is True
    assert figures["R6.economy.executions"].holds is True
    assert figures["R6.economy.over_random"].value == pytest.approx(-20.0)


@pytest.mark.parametrize(
    ("attack", "worst", "holds"),
    [("spies", 0.11, True), ("spies", 0.13, False), ("onoff_in_step", 0.24, True)],
)
def test_a_bad_window_misses_the_goal(attack: str, worst: float, *, holds: bool) -> None:
    figures = by_id(trust._attacked("R8.x", [course(worst=worst)] * 2, attack, "economy"))
    assert figures["R8.x.window"].holds is holds


def test_a_newcomer_that_never_gets_there_counts() -> None:
    never = Course(waits=[(-1, -1), (-1, -1), (12, 11)])
    modes = {mode: [never] for mode in cells.DESIGN}
    figures = by_id(trust._newcomers({"T2": modes}))
    assert figures["T2.economy.median"].holds is False


def test_ten_names_are_held_against_one() -> None:
    played = {
        f"R7.{kind}.{count}": {"economy": [Course(loot=loot)] * 2}
        for kind in ("naive", "patient")
        for count, loot in ((1, 10.0), (cells.IDENTITIES, 30.0))
    }
    figures = by_id(trust._sybils(played, 0.0))
    assert figures["R7.patient.economy"].value == pytest.approx(3.0)
    assert figures["R7.patient.economy"].holds is False
    figures = by_id(trust._sybils(played, 2.0))
    assert figures["R7.patient.economy"].value == pytest.approx((30 - 2 * 10) / (10 - 2))
    assert figures["R7.patient.economy"].holds is True


def test_a_name_costs_by_the_work_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    times_s = (0.0, 0.3, 1.0, 1.1, 2.0, 2.4, 3.0, 3.9, 4.0, 4.2)  # the quickest takes 0.1 s
    clock = iter(times_s)
    monkeypatch.setattr(trust, "perf_counter", lambda: next(clock))
    tries_ms = 100 * 256  # of 8 bits
    assert trust.name_cost() == pytest.approx(tries_ms / MS_PER_MC / trust.TASK_MC)
