"""What one turn of a job is decided by: who offers what its sub-tasks need.

Looked up once for a turn, in which several facts may follow from each other.  While a
sub-task is in trouble it is looked up too who could do it instead, and what they declare.

Of a job that names agents (``Planned.only``) no others are seen: so whatever decides chooses
among them, and nothing that is sent says so.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from meshnode.domain.job import JobState
from meshnode.domain.replanning import looked_for
from meshnode.domain.step_kinds import View
from meshnode.services.market import Market


class Outlook:
    """The market as one turn sees it."""

    def __init__(self, market: Market) -> None:
        self._market = market
        self._seen: View | None = None
        self._units: dict[str, int] = {}

    def view(self, state: JobState) -> View:
        """Return the view of ``state``, with the load of now."""
        queries = {task.capability for task in state.tasks.values()}
        units = _at_hand(state)
        more = any(count > self._units.get(query, 0) for query, count in units.items())
        if self._seen is None or more or not queries <= set(self._seen.candidates):
            self._units = units
            self._seen = self._market.view(queries, units)
            if state.required_plan.by_letter_ms:
                away = {query: self._market.away(query) for query in sorted(queries)}
                self._seen = replace(self._seen, by_letter=away)
            if state.required_plan.only:
                self._seen = pinned(self._seen, frozenset(state.required_plan.only))
        else:  # who offers what is not looked up again for what follows in one turn
            self._seen = replace(self._seen, load=self._market.load())
        others = looked_for(state, self._seen)
        if not set(others) <= set(self._seen.declared):
            self._seen = self._widened(self._seen, queries, others)
            if state.required_plan.only:
                self._seen = pinned(self._seen, frozenset(state.required_plan.only))
        return self._seen

    def _widened(self, seen: View, queries: set[str], others: list[str]) -> View:
        more = self._market.view(others)
        return replace(
            seen,
            candidates={**more.candidates, **seen.candidates},
            declared={
                query: self._market.declared(query) for query in sorted({*queries, *others})
            },
        )


def _at_hand(state: JobState) -> dict[str, int]:
    """Return how many units there are to do, by capability query.

    Nothing for a job that compares answers: many others are asked beside the first.
    """
    if state.required_plan.theta_ppm:
        return {}
    units: Counter[str] = Counter()
    for task in state.tasks.values():
        names = state.expanded.get(task.id, ())
        units[task.capability] += sum(state.units[name].accepted is None for name in names)
    return units


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
