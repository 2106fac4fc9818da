"""What `meshnode ask` says of a plan before anything is spent."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from meshnode.cli.ask_plan import Wanted, planned, show_plan
from meshnode.cli.failure import CommandFailed

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient

PLAN: dict[str, Any] = {
    "by_meaning": True,
    "clauses": [],
    "steps": [{"id": "shout", "capability": "text.shout@1", "after": []}],
    "missing": [],
    "optional": [
        {"step": "shout", "field": "times", "description": "How often."},
        {"step": "shout", "field": "pitch", "description": ""},
    ],
    "cost_mc": 5,
    "time_ms": 0,
    "graph": {"subtasks": {}},
    "inputs": {},
}


class PlanningClient:
    """A node that makes one plan of everything."""

    def __init__(self, **changes: Any) -> None:
        self.plan = {**PLAN, **changes}

    async def call(self, _method: str, _path: str, **_: Any) -> dict[str, Any]:
        return self.plan


async def ask(budget_mc: int | None, **changes: Any) -> dict[str, Any] | None:
    client = cast("NodeClient", PlanningClient(**changes))
    wanted = Wanted("shout", None, {}, budget_mc=budget_mc)
    return await planned(client, wanted, show=False, as_json=True)


@pytest.mark.parametrize("budget_mc", [None, 5, 6])
async def test_what_the_budget_pays_is_done(budget_mc: int | None) -> None:
    assert await ask(budget_mc) == {"graph": PLAN["graph"], "inputs": {}}


async def test_what_the_budget_cant_pay_is_refused_before_it_begins() -> None:
    with pytest.raises(CommandFailed, match=r"5 mc or more.* budget is 4 mc") as caught:
        await ask(4)
    assert caught.value.told == "budget.exceeded"


@pytest.mark.parametrize(
    ("kind", "written"),
    [("string", "'x=\"…\"'"), ("array", "'x=[…]'"), ("integer", "'x=…'"), ("", "'x=…'")],
)
async def test_what_is_missing_is_asked_for_as_it_is_written(kind: str, written: str) -> None:
    want = {"step": "shout", "field": "x", "description": "", "type": kind}
    with pytest.raises(CommandFailed, match="doesn't say: x of shout") as caught:
        await ask(None, missing=[want])
    assert written in caught.value.hint


def test_a_plan_tells_what_it_leaves_open_and_what_is_too_dear(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_plan(PLAN, budget_mc=4)
    told = capsys.readouterr().out
    assert "shout also takes, by --input NAME=…: times (How often.), pitch" in told
    assert "cost about 5 mc, more than the budget of 4 mc" in told
    show_plan({**PLAN, "time_ms": 40}, budget_mc=5)
    told = capsys.readouterr().out
    assert "more than the budget" not in told
    assert "time under 0.1 s" in told
