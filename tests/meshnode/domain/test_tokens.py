"""A job uses no more model tokens than its owner lets, whatever becomes of its awards."""

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain import attempts
from meshnode.domain.bounds import spent
from meshnode.domain.explaining import explain
from meshnode.domain.explaining_words import in_words
from meshnode.domain.facts import Awarded, Charged, Delivered, Fact, Failed
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.tokens import left
from protocol.errors import RemoteProtocolError
from protocol.journal import Event, decode_event, encode_event
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.random_runs import random_run


class Meter:
    """What awards were given and have used, counted from the facts alone."""

    def __init__(self) -> None:
        self.out: dict[tuple[str, int], int] = {}
        self.used = 0
        self.most = 0
        self.awards = 0

    def __call__(self, run: Run, _: Event, fact: Fact) -> None:
        limit = run.state.required_plan.tokens
        key = (getattr(fact, "unit", ""), getattr(fact, "attempt", -1))
        match fact:
            case Awarded():
                assert fact.tokens > 0, "an award without a share"
                self.out[key] = fact.tokens
                self.awards += 1
            case Delivered():
                assert fact.tokens <= self.out[key]
                self.out[key] = fact.tokens
            case Charged():
                self.used += self.out.pop(key)
            case Failed() if key in self.out:
                count = self.out.pop(key)
                begun = fact.code not in attempts.UNTRIED
                self.used += count if begun and not fact.code.startswith("refused.") else 0
            case _:
                pass
        total = self.used + sum(self.out.values())
        self.most = max(self.most, total)
        assert total <= limit, "more tokens are used or promised than there are"
        assert left(run.state) == limit - total
        assert run.state.tokens_used == self.used


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 400), st.booleans())
def test_what_is_used_and_promised_is_never_more_than_the_limit(
    seed: int,
    tokens: int,
    compared: bool,
) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed, theta_ppm=950_000 if compared else 0)
    run.planned = msgspec.structs.replace(run.planned, tokens=tokens)
    meter = Meter()
    run.watch = meter
    state = run.run()
    assert state.done is not None
    assert not meter.out, "nothing is promised any more"
    assert sum(row.tokens for row in spent(state)) == state.tokens_used
    assert verify_provenance(run.export()).state == state.done.state


def test_runs_use_all_that_they_may_and_end_for_it_too() -> None:
    """The runs above would prove nothing if none of them came to its limit."""
    codes, full = [], 0
    for seed in range(30):
        run, _, _ = random_run(seed)
        run.planned = msgspec.structs.replace(run.planned, tokens=20)
        run.watch = meter = Meter()
        state = run.run()
        assert state.done is not None
        codes.append(state.done.code)
        full += meter.most == 20
        if state.done.code == "bounds.tokens":
            assert "20 model tokens" in state.done.text
            assert "tokens_max" in state.done.text
            events = [decode_event(event) for event in run.events]
            told = in_words(explain(run.job, events, now_ms=run.now_ms))
            words = [line for section in told for line in section.lines]
            assert any("of 20 model tokens were used" in line for line in words)
    assert codes.count("bounds.tokens") > 2
    assert codes.count("") > 2, "jobs within their limit complete"
    assert full > 5


def test_no_unit_of_a_map_is_given_what_all_its_siblings_need() -> None:
    shares: list[tuple[int, int]] = []

    def watch(run: Run, _: Event, fact: Fact) -> None:
        if isinstance(fact, Awarded) and not run.state.tokens_used:
            unit = run.state.units[fact.unit]
            siblings = run.state.fresh[unit.subtask].values()
            waiting = sum(each.calls for each in siblings)
            free = left(run.state)
            if waiting:
                shares.append((fact.tokens // unit.calls, free // waiting))

    for seed in range(40):
        run, _, _ = random_run(seed)
        run.planned = msgspec.structs.replace(run.planned, tokens=100_000)
        run.watch = watch
        run.run()
    assert len(shares) > 5
    assert all(mine <= theirs + 1 for mine, theirs in shares)


@pytest.mark.parametrize(
    ("tokens", "why"), [(4, "more tokens are used and promised"), (0, "may use 0")]
)
def test_a_journal_that_promises_more_than_its_plan_is_refused(tokens: int, why: str) -> None:
    run, _, _ = random_run(3)
    run.planned = msgspec.structs.replace(run.planned, tokens=100)
    run.run()
    verify_provenance(run.export())
    first = decode_event(run.events[0])
    data = {**first.data, "tokens": tokens}
    run.events[0] = encode_event(msgspec.structs.replace(first, data=data))
    with pytest.raises(RemoteProtocolError, match=why):
        verify_provenance(run.export())
