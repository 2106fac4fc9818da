"""What is handed on stays within what was given, whatever becomes of the awards."""

import msgspec
import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from meshnode.domain import attempts
from meshnode.domain.bounds import left, rolled_up, spent, was_begun
from meshnode.domain.costs import BELOW_BYTES_MAX, BELOW_ROWS_MAX, costs_of
from meshnode.domain.facts import Awarded, Charged, Delivered, Fact, Failed
from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.units import Attempt
from meshnode.services.bodies import TERMS_BYTES_MAX
from protocol.journal import Event
from protocol.keys import Identity
from protocol.limits import NUMBER_MAX, SPENT_ROWS_MAX
from protocol.receipts import Spent
from protocol.signing import seal
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.random_runs import random_run

WORKER = Identity(bytes(32), bytes(32))


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
@example(15170, 3, 1, True)  # a hedge, with one sub-task left
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


@pytest.mark.parametrize("subtasks", [4, 8, 12])
def test_no_unit_of_a_map_is_given_what_all_its_siblings_need(subtasks: int) -> None:
    shared = 0

    def watch(run: Run, _: Event, fact: Fact) -> None:
        nonlocal shared
        if isinstance(fact, Awarded):
            siblings = len(run.state.fresh[fact.unit.partition("/")[0]])
            free = left(run.state) + fact.subtasks
            if siblings and free > siblings:
                shared += 1
                assert free - fact.subtasks >= siblings, f"{fact.unit} took too many"

    for seed in range(40):
        run, _, _ = random_run(seed)
        run.planned = msgspec.structs.replace(run.planned, subtasks=subtasks, fan_out=8)
        run.watch = watch
        run.run()
    assert shared > 5


def _own(state: JobState) -> int:
    """Awards that the job made itself, as far as they may have been begun."""
    tried = [a for unit in state.units.values() for a in unit.attempts if a.award]
    return sum(was_begun(attempt) for attempt in tried)


def test_an_award_that_was_refused_or_never_came_was_not_begun() -> None:
    for code in (*attempts.UNTRIED, "refused.items"):
        assert not was_begun(_failed(code)), code
    for code in ("agent.failed", "peer.lost", "award.superseded", "job.cancelled"):
        assert was_begun(_failed(code)), code


def test_an_award_with_a_receipt_was_begun_whatever_its_failure_is_called() -> None:
    for code in (*attempts.UNTRIED, "refused.items"):
        assert was_begun(_failed(code, below=0)), code


def _failed(code: str, *, below: int = -1) -> Attempt:
    error = Failed(
        unit="a/0", attempt=0, peer="p", code=code, text="", blame="broker", below=below
    )
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


def test_rows_with_long_names_leave_room_for_the_rest_of_a_receipt() -> None:
    rows = _rolled_up([_failed("peer.lost") for _ in range(SPENT_ROWS_MAX)], name="p" * 52)
    assert sum(row.awards for row in rows) == SPENT_ROWS_MAX
    assert len(msgspec.msgpack.encode(rows)) < TERMS_BYTES_MAX - 2 * 1024


def test_a_sum_is_a_number_however_large_the_numbers_of_others_are() -> None:
    rows = _rolled_up([_failed("agent.failed", below=NUMBER_MAX) for _ in range(2)])
    assert max(row.awards for row in rows) == NUMBER_MAX


def test_tokens_that_nobody_can_have_read_are_a_number_too() -> None:
    metering = {"tokens_in": NUMBER_MAX, "tokens_out": NUMBER_MAX}
    made = [
        seal(WORKER, kind, "mesh", msgspec.msgpack.encode(body, order="sorted"))
        for kind, body in (("result", {"metering": metering}), ("receipt", {}))
    ]
    delivered = Delivered(
        unit="a/0", attempt=0, result=made[0], receipt=made[1], output=b"", size=2,
        lengths={}, price_mc=0, run_ms=1,
    )  # fmt: skip
    (row,) = _rolled_up([Attempt(0, 0, award=b"award", delivered=delivered)])
    assert row.tokens == NUMBER_MAX


@pytest.mark.parametrize("size", [3, 500])
def test_what_contractors_tell_of_those_below_is_shown_in_bounds(size: int) -> None:
    result = seal(WORKER, "result", "mesh", msgspec.msgpack.encode({}))
    tried = []
    for number in range(20):
        below = [
            Spent(level=1 + row % 2, subtask=f"{number}/{row}".ljust(size, "x"), peer="p",
                  awards=1)
            for row in range(SPENT_ROWS_MAX)
        ]  # fmt: skip
        receipt = seal(WORKER, "receipt", "mesh", msgspec.msgpack.encode({"below": below}))
        delivered = Delivered(
            unit="a/0", attempt=0, result=result, receipt=receipt, output=b"", size=2,
            lengths={}, price_mc=0, run_ms=1,
        )  # fmt: skip
        tried.append(Attempt(number, 0, award=b"award", delivered=delivered))
    state = _state_with(tried, "p")
    state.plan = msgspec.structs.replace(state.required_plan, subtasks=1)
    below = costs_of(state).below
    assert len(below) <= BELOW_ROWS_MAX
    assert len(msgspec.msgpack.encode(below)) <= BELOW_BYTES_MAX + 1024
    assert sum(row.awards for row in below) == 20 * SPENT_ROWS_MAX
    assert {row.level for row in below if not row.peer} == {1, 2}


def _rolled_up(tried: list[Attempt], name: str = "") -> list[Spent]:
    return rolled_up([_state_with(tried, name)])


def _state_with(tried: list[Attempt], name: str) -> JobState:
    run, _, _ = random_run(7)
    run.run()
    for unit in run.state.units.values():
        unit.attempts = []
    for number, attempt in enumerate(tried):
        attempt.number, attempt.peer = number, f"{name}{number:03}" if name else "p"
    next(iter(run.state.units.values())).attempts = tried
    return run.state
