"""For how many agents a job has work, as its broker's view of the market is told."""

from collections.abc import Iterable, Mapping

from meshnode.domain.crowding import Need
from meshnode.domain.facts import Expanded
from meshnode.domain.job import JobState
from meshnode.domain.plan_parts import GoldPlan
from meshnode.domain.step_kinds import View
from meshnode.services.outlook import Outlook
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.test_crowding import one_unit, refused
from tests.meshnode.domain.test_fold import other, state_after
from tests.meshnode.domain.test_steps import QUERY, candidate, mapped


class Asked:
    """Stands for a market, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.needs: list[Mapping[str, Need]] = []

    def view(self, queries: Iterable[str], needs: Mapping[str, Need] | None = None) -> View:
        assert needs is not None
        self.needs.append(needs)
        return View(candidates={query: [candidate("p"), candidate("q")] for query in queries})


def need(state: JobState, *, sees_all: bool = False) -> Need:
    market = Asked()
    Outlook(market, sees_all=sees_all).view(state)  # type: ignore[arg-type]  # all that is used
    (told,) = market.needs
    return told[QUERY]


def test_a_job_tells_how_much_there_is_to_do_and_what_it_may_cost() -> None:
    assert need(one_unit(budget_mc=60)) == Need(1, 1, 60, whole=False)
    graph, inputs = mapped(7, gathered=False)
    planned = other(Run(graph, inputs, []).planned, budget_mc=61)
    state = state_after(planned, Expanded(subtask="each", sizes=[2, 2, 2, 1]))
    assert need(state) == Need(4, 2, 30, whole=False)


def test_what_is_promised_is_no_longer_there_to_be_spent() -> None:
    out = refused(0, wait_max_ms=9)[:1]
    assert need(one_unit(*out, budget_mc=60)).price_max_mc == 59


def test_all_matter_to_a_map_that_is_not_cut_yet() -> None:
    graph, inputs = mapped(7)
    state = state_after(Run(graph, inputs, []).planned)
    assert (need(state).units, need(state).whole) == (0, True)


def test_all_matter_where_answers_are_compared_agents_named_or_owing_is_limited() -> None:
    compared = need(one_unit(theta_ppm=900_000))
    assert (compared.units, compared.whole) == (None, True)
    assert need(one_unit(only=["p/a"])).whole
    assert need(one_unit(), sees_all=True).whole


def test_all_matter_once_somebody_failed_and_not_because_one_was_busy() -> None:
    assert not need(one_unit(*refused(0, wait_max_ms=9))).whole
    assert need(one_unit(*refused(0, wait_max_ms=0))).whole


def test_a_gold_is_for_one_and_knows_whom_a_usual_task_would_be_for() -> None:
    market = Asked()
    outlook = Outlook(market)  # type: ignore[arg-type]  # all that is used
    gold = GoldPlan(expected=[])
    seen = outlook.view(one_unit(only=["p/a"], gold=gold))
    assert [one.peer for one in seen.candidates[QUERY]] == ["p"]
    assert [one.peer for one in seen.beside[QUERY]] == ["p", "q"]
    assert [told[QUERY].whole for told in market.needs] == [True, False]
