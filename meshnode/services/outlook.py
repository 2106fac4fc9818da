"""What one turn of a job is decided by: who offers what its sub-tasks need.

Looked up once for a turn, in which several facts may follow from each other.  While a
sub-task is in trouble it is looked up too who could do it instead, and what they declare.

Of a job that names agents (``Planned.only``) no others are seen: so whatever decides chooses
among them, and nothing that is sent says so.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import islice

from meshnode.domain.crowding import Need
from meshnode.domain.job import JobState
from meshnode.domain.replanning import looked_for
from meshnode.domain.step_kinds import View
from meshnode.services.market import Market


class Outlook:
    """The market as one turn sees it.

    Args:
        market: Who offers what.
        sees_all: All who offer something matter, however many they are.
    """

    def __init__(self, market: Market, *, sees_all: bool = False) -> None:
        self._market = market
        self._sees_all = sees_all
        self._seen: View | None = None
        self._needs: dict[str, Need] = {}

    def view(self, state: JobState) -> View:
        """Return the view of ``state``, with the load of now."""
        queries = {task.capability for task in state.tasks.values()}
        needs = _needs(state, sees_all=self._sees_all)
        more = any(_is_more(need, self._needs.get(query)) for query, need in needs.items())
        if self._seen is None or more or not queries <= set(self._seen.candidates):
            self._needs = needs
            self._seen = self._looked(state, queries, needs)
        else:  # who offers what is not looked up again for what follows in one turn
            self._seen = replace(self._seen, load=self._market.load())
        others = looked_for(state, self._seen)
        if not set(others) <= set(self._seen.declared):
            self._seen = self._widened(self._seen, queries, others)
            if state.required_plan.only:
                self._seen = pinned(self._seen, frozenset(state.required_plan.only))
        return self._seen

    def _looked(self, state: JobState, queries: set[str], needs: dict[str, Need]) -> View:
        plan = state.required_plan
        seen = self._market.view(queries, needs)
        if plan.by_letter_ms:
            away = {query: self._market.away(query) for query in sorted(queries)}
            seen = replace(seen, by_letter=away)
        if plan.only:
            seen = pinned(seen, frozenset(plan.only))
        if plan.gold is not None:
            usual = {query: replace(need, whole=False) for query, need in needs.items()}
            seen = replace(seen, beside=self._market.view(queries, usual).candidates)
        return seen

    def _widened(self, seen: View, queries: set[str], others: list[str]) -> View:
        more = self._market.view(others)
        return replace(
            seen,
            candidates={**more.candidates, **seen.candidates},
            declared={
                query: self._market.declared(query) for query in sorted({*queries, *others})
            },
        )


def _needs(state: JobState, *, sees_all: bool) -> dict[str, Need]:
    """Return what there is to do, by capability query.

    All who offer it matter where answers are compared or agents are named, where somebody
    failed, and to a map that is to be cut into as many batches as there are agents.  For a job
    that compares answers many are asked for offers: others are asked beside the first.
    """
    plan = state.required_plan
    left_mc = max(0, plan.budget_mc - state.spent_mc - state.reserved_mc())
    units: Counter[str] = Counter()
    calls: dict[str, int] = {}
    whole: set[str] = set()
    for task in state.tasks.values():
        query = task.capability
        begun = state.begun.get(task.id, {}).values()
        fresh = state.fresh.get(task.id, {}).values()
        units[query] += len(begun) + len(fresh)
        some = [*begun, *islice(fresh, 1)]  # batches are alike, but for a smaller last one
        calls[query] = max([calls.get(query, 1), *(unit.calls for unit in some)])
        uncut = task.each and task.id not in state.expanded
        if uncut or any(len(unit.failures()) > unit.turned for unit in begun):
            whole.add(query)
    return {
        query: Need(
            units=None if plan.theta_ppm else count,
            calls=calls[query],
            price_max_mc=left_mc // calls[query],
            whole=sees_all or bool(plan.theta_ppm or plan.only) or query in whole,
        )
        for query, count in units.items()
    }


def _is_more(need: Need, before: Need | None) -> bool:
    """Tell whether who was looked at for ``before`` may be too few for ``need``."""
    if before is None or (need.whole and not before.whole):
        return True
    return need.units is not None and need.units > (before.units or 0)


def pinned(view: View, only: Collection[str]) -> View:
    """Return what is left of ``view`` if ``only`` these agents, ``peer/name``, may work."""
    peers = {agent.partition("/")[0] for agent in only}
    return replace(
        view,
        candidates={
            query: [one for one in found if one.agent_id in only]
            for query, found in view.candidates.items()
        },
        by_letter={
            query: [one for one in found if one.agent_id in only]
            for query, found in view.by_letter.items()
        },
        barred={
            query: found
            for query, bars in view.barred.items()
            if (found := [bar for bar in bars if bar.peer in peers])
        },
    )
