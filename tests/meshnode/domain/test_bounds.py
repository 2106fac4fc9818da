"""What is handed on stays within what was given, whatever becomes of the awards."""

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain import attempts
from meshnode.domain.bounds import left, rolled_up, spent, was_begun
from meshnode.domain.facts import Awarded, Charged, Delivered, Fact, Failed
from meshnode.domain.job import Attempt, JobState
from meshnode.domain.provenance import verify_provenance
from protocol.journal import Event
from protocol.limits import SPENT_ROWS_MAX
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.random_runs import random_run


class Purse:
    """What awards were promised and have used, counted from the facts alone."""

    def __init__(self, *, own: int) -> None:
        self.own = own
        self.promised: dict[tuple[str, int], int] = {}
        self.delivered: set[tuple[str, int]] = set()
        self.used = 0
        self.most = 0

    def __call__(self, run: Run, _: Event, fact: Fact) -> None:
        plan = run.state.required_plan
        key = (getattr(fact, "unit", ""), getattr(fact, "attempt", -1))
        match fact:
            case Awarded():
                assert 0 <= fact.subtasks <= plan.fan_out
                self.promised[key] = self.own + fact.subtasks
            case Delivered():
                self.delivered.add(key)
            case Charged() | Failed() if key in self.promised:
                promised = self.promised.pop(key)
                if key in self.delivered:  # these contractors hand nothing on
                    self.used += self.own
                elif isinstance(fact, Failed) and fact.code not in attempts.UNTRIED:
                    self.used += 0 if fact.code.startswith("refused.") else promised
            case _:
                pass
        total = self.used + sum(self.promised.values())
        self.most = max(self.most, total)
        assert total <= plan.subtasks, "more is handed on than there is"
        assert left(run.state) == plan.subtasks - total
        assert run.state.subtasks_used == self.used


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(0, 9), st.booleans())
def test_no_job_promises_more_than_it_has_and_what_comes_back_is_promised_again(
    seed: int,
    subtasks: int,
    fan_out: int,
    under: bool,
) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed)
    bounds = {"subtasks": subtasks, "fan_out": fan_out, "under": bytes(32 * under)}
    run.planned = msgspec.structs.replace(run.planned, **bounds)
    purse = Purse(own=int(under))
    run.watch = purse
    state = run.run()
    assert state.done is not None
    assert not purse.promised, "nothing is promised any more"
    told = sum(row.awards for row in spent(state))
    assert told == state.subtasks_used + (0 if under else _own(state))
    assert verify_provenance(run.export()).state == state.done.state


def _own(state: JobState) -> int:
    """Awards that the job made itself, as far as they may have been begun."""
    tried = [a for unit in state.units.values() for a in unit.attempts if a.award]
    return sum(was_begun(attempt) for attempt in tried)


def test_an_award_that_was_refused_or_never_came_was_not_begun() -> None:
    for code in (*attempts.UNTRIED, "refused.items"):
        assert not was_begun(_failed(code)), code
    for code in ("agent.failed", "peer.lost", "award.superseded", "job.cancelled"):
        assert was_begun(_failed(code)), code


def _failed(code: str) -> Attempt:
    error = Failed(unit="a/0", attempt=0, peer="p", code=code, text="", blame="broker")
    return Attempt(0, 0, award=b"award", error=error)


@pytest.mark.parametrize("count", [1, SPENT_ROWS_MAX, SPENT_ROWS_MAX + 1, 3 * SPENT_ROWS_MAX])
def test_a_receipt_tells_all_awards_however_many_nodes_had_them(count: int) -> None:
    run, _, _ = random_run(7)
    run.run()
    state = run.state
    (unit,) = [next(iter(state.units.values()))]
    unit.attempts = [
        Attempt(
            number,
            0,
            peer=f"peer {number:03}",
            award=b"award",
            subtasks=number % 3,
            error=_failed("peer.lost").error,
        )
        for number in range(count)
    ]
    for other in state.units.values():
        other.attempts = unit.attempts if other is unit else []
    rows = rolled_up([state])
    assert len(rows) <= SPENT_ROWS_MAX
    assert sum(row.awards for row in rows) == count + sum(n % 3 for n in range(count))
