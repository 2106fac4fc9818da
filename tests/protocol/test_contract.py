"""A contract follows its table, ends once, and stays ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.contract import FINAL, TRANSITIONS, ContractState, advance
from protocol.errors import OutOfTurn
from tests.protocol.samples import examples

MESSAGES = sorted({message for _, message in TRANSITIONS})


@examples(200)
@given(st.lists(st.sampled_from([*MESSAGES, "hello"]), max_size=30))
def test_any_order_of_messages_follows_the_table_or_is_out_of_turn(walk: list[str]) -> None:
    state = ContractState.IDLE
    for message in walk:
        before = state
        if (before, message) in TRANSITIONS:
            state = advance(state, message)
            assert before not in FINAL
            assert TRANSITIONS[before, message] is state
        else:
            with pytest.raises(OutOfTurn) as refused:
                advance(state, message)
            assert (refused.value.message, refused.value.state) == (message, before.value)


def test_nothing_leaves_a_final_state() -> None:
    assert not {state for state, _ in TRANSITIONS} & FINAL


def test_every_state_is_reached_and_leads_to_an_end() -> None:
    def reached(start: ContractState) -> set[ContractState]:
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            for (state, _), after in TRANSITIONS.items():
                if state is here and after not in seen:
                    seen.add(after)
                    todo.append(after)
        return seen

    assert reached(ContractState.IDLE) == set(ContractState)
    for state in ContractState:
        assert reached(state) & FINAL


def test_every_state_that_waits_can_lapse() -> None:
    waiting = set(ContractState) - FINAL - {ContractState.IDLE}
    assert all(advance(state, "lapse") is ContractState.LAPSED for state in waiting)


@pytest.mark.parametrize("state", [ContractState.AWARDED, ContractState.DELIVERED])
def test_a_repeated_award_changes_nothing(state: ContractState) -> None:
    assert advance(state, "award") is state


def test_a_proposal_that_was_declined_may_still_be_awarded_until_it_lapses() -> None:
    declined = advance(ContractState.PROPOSED, "decline")
    assert advance(declined, "award") is ContractState.AWARDED
    assert advance(declined, "lapse") is ContractState.LAPSED
    assert advance(declined, "decline") is declined, "nothing follows from another one either"


def test_acceptance_pays_nothing_that_was_not_delivered() -> None:
    for state in set(ContractState) - {ContractState.DELIVERED}:
        with pytest.raises(OutOfTurn):
            advance(state, "acceptance")
