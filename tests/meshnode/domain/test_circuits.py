"""When a peer that failed gets work again."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain import circuits
from meshnode.domain.circuits import (
    FAILURES_MAX,
    OPEN_S,
    OPEN_S_MAX,
    Circuits,
    CircuitState,
)
from meshnode.domain.facts import Called, Expanded, Fact
from meshnode.domain.job import JobState
from meshnode.domain.step_kinds import MakeAward, View
from meshnode.domain.steps import next_steps
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.test_fold import PROPOSED, other, state_after
from tests.meshnode.domain.test_steps import LATER_MS, candidate, candidates, mapped

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


def failed(seen: Circuits, now_s: float, *, grave: bool = True, share: float = 0.0) -> bool:
    return seen.failed("p", grave=grave, now_s=now_s, share=share)


def test_who_is_gone_is_left_alone_then_tried_once_and_taken_back() -> None:
    seen = Circuits()
    assert seen.state("p", now_s=0.0) is CLOSED
    assert failed(seen, 1.0), "that opens it"
    assert seen.state("p", now_s=1.0) is OPEN
    assert seen.state("q", now_s=1.0) is CLOSED, "it is of no other"
    assert seen.state("p", now_s=0.9 + OPEN_S) is OPEN
    assert seen.state("p", now_s=1.0 + OPEN_S) is HALF_OPEN
    assert seen.worked("p"), "that closes it"
    assert seen.state("p", now_s=1.0 + OPEN_S) is CLOSED
    assert not seen.worked("p"), "it was closed"
    assert len(seen) == 0, "what is as good as new isn't kept"


def test_agents_that_fail_now_and_then_open_nothing() -> None:
    seen = Circuits()
    for _ in range(5):
        opened = [failed(seen, 0.0, grave=False) for _ in range(FAILURES_MAX - 1)]
        assert not any(opened)
        seen.worked("p")
    opened = [failed(seen, 0.0, grave=False) for _ in range(FAILURES_MAX)]
    assert opened == [False] * (FAILURES_MAX - 1) + [True]


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    seen, now_s, spans = Circuits(), 0.0, []
    for number in range(14):
        # Whatever the probe failed for: it was to show that the peer does well again.
        assert failed(seen, now_s, grave=number == 0)
        span_s = next(s for s in range(1_000) if seen.state("p", now_s=now_s + s) is HALF_OPEN)
        spans.append(span_s)
        now_s += span_s
    assert spans[:3] == [OPEN_S, 2 * OPEN_S, 4 * OPEN_S]
    assert set(spans[4:]) == {OPEN_S_MAX}


def test_what_fails_together_is_one_opening() -> None:
    seen = Circuits()
    assert [failed(seen, 0.1 * n) for n in range(8)] == [True] + [False] * 7
    assert seen.state("p", now_s=0.6 + OPEN_S) is OPEN, "from the last of them"
    assert seen.state("p", now_s=0.8 + OPEN_S) is HALF_OPEN


def test_brokers_try_a_peer_again_at_different_times() -> None:
    ends = []
    for share in (0.0, 0.5, 1.0):
        seen = Circuits()
        failed(seen, 0.0, share=share)
        ends.append(
            next(s for s in range(1_000) if seen.state("p", now_s=float(s)) is HALF_OPEN)
        )
    assert ends == [30, 33, 36]


def test_only_so_many_peers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuits, "_PEERS_MAX", 3)
    seen = Circuits()
    for peer in ("a", "b", "c", "a", "d"):
        seen.failed(peer, grave=True, now_s=0.0, share=0.0)
    known = [peer for peer in "abcd" if seen.state(peer, now_s=0.0) is OPEN]
    assert known == ["a", "c", "d"], "the longest untouched is forgotten"


@given(
    st.lists(
        st.tuples(st.sampled_from(["grave", "light", "worked"]), st.floats(0.0, 400.0)),
        max_size=40,
    )
)
def test_a_circuit_goes_only_where_the_table_says(events: Sequence[tuple[str, float]]) -> None:
    seen, now_s = Circuits(), 0.0
    for word, pause_s in events:
        now_s += pause_s
        before = seen.state("p", now_s=now_s)
        if word == "worked":
            assert seen.worked("p") == (before is not CLOSED)
            assert seen.state("p", now_s=now_s) is CLOSED
            continue
        opened = failed(seen, now_s, grave=word == "grave")
        after = seen.state("p", now_s=now_s)
        assert opened == (before is not OPEN and after is OPEN)
        assert after is OPEN or (before is CLOSED and word == "light")


def proposals(*peers: str) -> JobState:
    """A unit for which these were called and proposed, each slower than the one before."""
    graph, inputs = mapped(1)
    cfps = dict.fromkeys(peers, b"cfp")
    facts: list[Fact] = [
        Run(graph, inputs, []).planned,
        Expanded(subtask="each", sizes=[1]),
        Called(unit="each/0", attempt=0, cfps=cfps),
    ]
    facts += [
        other(PROPOSED, unit="each/0", peer=peer, agent="a", eta_ms=10**n, expires_ms=LATER_MS)
        for n, peer in enumerate(peers, 1)
    ]
    return state_after(*facts)


def awarded(state: JobState, view: View) -> MakeAward:
    (award, *_) = next_steps(state, START_MS + 100, view)
    assert isinstance(award, MakeAward)
    return award


def test_who_failed_lately_is_the_last_choice_though_it_proposes_to_be_the_first() -> None:
    view = candidates(candidate("p", troubled=True), candidate("q"))
    award = awarded(proposals("p", "q"), view)
    assert award.candidate.peer == "q"
    assert [row.troubled for row in award.ranked] == [False, True], "and the journal shows it"
    assert awarded(proposals("p"), view).candidate.peer == "p", "there is nobody else"


def test_who_has_its_one_unit_to_show_that_it_does_well_gets_no_other_by_proposing() -> None:
    view = candidates(candidate("p", probe=True), candidate("q"))
    assert awarded(proposals("p", "q"), view).candidate.peer == "p", "that is the one"
    busy = replace(view, load={"p/a": 1})
    assert awarded(proposals("p", "q"), busy).candidate.peer == "q"
    assert awarded(proposals("p"), busy).candidate.peer == "p", "there is nobody else"
