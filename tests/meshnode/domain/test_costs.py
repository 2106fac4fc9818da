"""What a job has cost, from its journal."""

from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.costs import Cost, costs_of
from meshnode.domain.facts import Awarded, Charged, Fact
from protocol.journal import Event
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.random_runs import Invariants, random_run
from tests.meshnode.domain.test_fold import AWARDED_ON, CHARGED_ON, state_after
from tests.meshnode.domain.test_hedges import HEDGED_ON, SUPERSEDED, WON


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_the_sums_are_those_of_the_charges_after_any_event(seed: int) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed)
    told = Invariants()
    paid_mc: dict[str, int] = {}
    awards: dict[str, int] = {}

    def watch(run: Run, event: Event, fact: Fact) -> None:
        told(run, event, fact)
        if isinstance(fact, Awarded):
            awards[fact.peer] = awards.get(fact.peer, 0) + 1
        if isinstance(fact, Charged):
            peer = run.state.units[fact.unit].attempts[fact.attempt].peer
            paid_mc[peer] = paid_mc.get(peer, 0) + fact.paid_mc
        costs = costs_of(run.state)
        assert costs.total.paid_mc == told.spent_mc
        assert costs.total.reserved_mc == sum(told.caps_mc.values())
        assert {peer: node.awards for peer, node in costs.nodes.items()} == awards
        for peer, node in costs.nodes.items():
            assert node.paid_mc == paid_mc.get(peer, 0)
        for kind in (costs.subtasks, costs.nodes):
            parts = kind.values()
            assert costs.total == Cost(
                paid_mc=sum(part.paid_mc for part in parts),
                reserved_mc=sum(part.reserved_mc for part in parts),
                units=sum(part.units for part in parts),
                awards=sum(part.awards for part in parts),
                run_ms=sum(part.run_ms for part in parts),
            )

    run.watch = watch
    run.run()


def test_what_is_out_is_reserved_and_what_was_accepted_is_paid() -> None:
    out = costs_of(state_after(*AWARDED_ON))
    assert out.nodes == {"p": Cost(reserved_mc=5, awards=1)}
    done = costs_of(state_after(*CHARGED_ON))
    assert done.subtasks == {"a": Cost(paid_mc=5, units=1, awards=1, run_ms=7), "b": Cost()}


def test_whoever_was_outrun_costs_nothing() -> None:
    costs = costs_of(state_after(*HEDGED_ON, *WON, SUPERSEDED))
    assert costs.nodes == {
        "p": Cost(awards=1),
        "q": Cost(paid_mc=5, units=1, awards=1, run_ms=7),
    }
