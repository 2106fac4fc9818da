"""Panels, as numbers and rules: who sits, what votes are worth, and what is refused."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshnode.domain.facts import Judged, Vote
from meshnode.domain.panels import (
    Judge,
    called,
    check_called,
    check_heard,
    heard,
    may_read,
    rivals,
    seated,
)
from meshnode.domain.sittings import WORDS, Seat, Sitting, panel_odds, weighed
from protocol.errors import Malformed
from protocol.graph import Source, SubTask, TaskGraph

FOR, AGAINST, SWAYED, EVEN = ["a", "b"], ["b", "a"], ["a", "a"], ["tie", "neither"]
MAKERS: dict[str, list[str]] = {"m0": ["smol"], "m1": []}


def judge(peer: str, credibility: float = 0.9, price_mc: int = 5, *families: str) -> Judge:
    return Judge(f"{peer}/judge", credibility, price_mc, frozenset(families))


def seats(judges: list[Judge], *, free_mc: int = 1_000, seed: int = 1) -> list[str]:
    found = seated(judges, MAKERS, free_mc=free_mc, rng=Random(seed))
    return [seat.agent.partition("/")[0] for seat in found]


def sitting(*said: list[str], chances: tuple[int, int] = (450_000, 450_000)) -> Sitting:
    return Sitting(
        broker="me",
        capability="text.judging@1",
        groups=[0, 1],
        chances_ppm=list(chances),
        seats=[
            Seat(agent=f"j{n}/judge", credibility_ppm=900_000, cap_mc=10, said=words)
            for n, words in enumerate(said)
        ],
    )


def contested(*groups: int) -> Judged:
    votes = [
        Vote(
            attempt=n,
            agent=f"m{n}/maker",
            credibility_ppm=890_000,
            group=group,
            verdict="contested",
        )
        for n, group in enumerate(groups)
    ]
    return Judged(
        unit="say/0", outcome="contested", posterior_ppm=470_000, chosen=0, votes=votes
    )


# --- who sits ---


def test_three_sit_who_are_believed_elsewhere_and_of_other_families() -> None:
    judges = [
        judge("m0"),  # a maker's own
        judge("a", 0.79),  # not believed
        judge("b", 0.98, 1, "smol"),  # of a maker's family
        *(judge(peer, 0.9) for peer in "cdef"),
    ]
    assert {"c", "d", "e", "f"} > set(seats(judges))
    assert len(seats(judges)) == 3
    chosen = {tuple(sorted(seats(judges, seed=seed))) for seed in range(30)}
    assert len(chosen) == 4, "chance decides between those that are as good"


def test_families_of_their_own_come_first_and_then_any() -> None:
    kin = [judge(peer, 0.95, 5, "grand") for peer in "ab"]
    assert seats([*kin, judge("c", 0.8, 5, "tall"), judge("d", 0.8)])[1:] in (
        ["c", "d"],
        ["d", "c"],
    )
    assert len(seats([*kin, judge("c", 0.8, 5, "tall")])) == 3


def test_two_are_enough_one_is_not_and_nobody_sits_twice() -> None:
    assert len(seats([judge("a"), judge("b")])) == 2
    assert seats([judge("a")]) == []
    assert seats([judge("a"), Judge("a/other", 0.9, 5)]) == []


@given(
    st.lists(st.tuples(st.floats(0.8, 0.98), st.integers(0, 50)), max_size=8),
    st.integers(0, 200),
)
def test_a_panel_costs_no_more_than_it_may(
    offers: list[tuple[float, int]], free_mc: int
) -> None:
    judges = [judge(f"p{n}", *offer) for n, offer in enumerate(offers)]
    found = seated(judges, MAKERS, free_mc=free_mc, rng=Random(1))
    assert sum(seat.cap_mc for seat in found) <= free_mc
    assert len(found) in {0, 2, 3}


# --- what it is worth ---


@pytest.mark.parametrize(
    ("said", "side"),
    [
        ([FOR, FOR, FOR], 0),
        ([FOR, FOR, SWAYED], 0),
        ([AGAINST, EVEN, AGAINST], 1),
        ([AGAINST, AGAINST], 1),
        ([FOR, FOR, AGAINST], -1),
        ([FOR, SWAYED, EVEN], -1),
        ([SWAYED, SWAYED, SWAYED], -1),
        ([[], [], []], -1),
        ([["a", ""], ["a", ""], ["a", ""]], -1),
    ],
)
def test_two_votes_decide_if_none_is_against(said: list[list[str]], side: int) -> None:
    assert sitting(*said).favours == side


WORD = st.sampled_from(["", *WORDS])
SAID = st.lists(st.tuples(WORD, WORD).map(list), min_size=2, max_size=3)
CHANCES = st.tuples(st.integers(0, 500_000), st.integers(0, 500_000))


@given(SAID, CHANCES)
def test_a_panel_moves_chance_between_the_two_only(
    said: list[list[str]], chances: tuple[int, int]
) -> None:
    held = sitting(*said, chances=chances)
    after = weighed(held)
    assert sum(after) == sum(chances)
    assert min(after) >= 0
    if held.favours < 0:
        assert after == chances
    else:
        assert after[held.favours] >= chances[held.favours]
        assert after[held.favours] <= max(980_000, chances[held.favours])


@given(SAID, CHANCES)
def test_names_of_the_answers_and_their_order_make_no_difference(
    said: list[list[str]], chances: tuple[int, int]
) -> None:
    swapped = sitting(*(words[::-1] for words in said), chances=chances[::-1])
    assert weighed(swapped) == weighed(sitting(*said, chances=chances))[::-1]


@given(st.lists(st.floats(0.5, 0.98), min_size=1, max_size=3), st.floats(0.5, 0.98))
def test_another_judge_of_the_same_mind_makes_it_no_less_likely(
    judges: list[float], another: float
) -> None:
    best = max(judges)
    assert panel_odds(judges) >= 1.0
    assert panel_odds([*judges, max(another, min(judges))]) >= panel_odds(judges)
    assert panel_odds(judges) <= (best / (1 - best)) ** len(judges) + 1e-9, "as if independent"


def test_judges_of_one_mind_are_worth_less_than_if_they_had_no_taste_in_common() -> None:
    assert panel_odds([0.8]) == pytest.approx(4.0)
    assert panel_odds([0.8] * 3) == pytest.approx(4.0 * 1.5 * 1.5)
    assert panel_odds([0.3, 0.3]) == 1.0, "who is believed less than a coin has no say"


# --- what follows ---


def test_what_nothing_decides_waits_for_the_two_likeliest() -> None:
    judged = contested(0, 1, 2, 2)
    groups, chances_ppm = rivals(judged)
    assert groups == [0, 2]
    assert chances_ppm[1] > chances_ppm[0], "two of them said it"
    waiting = called(judged, sitting([], [], []))
    assert waiting.outcome == ""
    assert waiting.chosen == -1
    assert {vote.verdict for vote in waiting.votes} == {""}


@pytest.mark.parametrize(
    ("said", "theta_ppm", "outcome", "chosen"),
    [
        ([FOR, FOR, FOR], 840_000, "agreed", 0),
        ([AGAINST, AGAINST, SWAYED], 840_000, "agreed", 1),
        ([AGAINST, AGAINST, SWAYED], 980_000, "contested", 1),
        ([FOR, AGAINST, AGAINST], 500_000, "contested", 0),
    ],
)
def test_a_panel_settles_it_if_that_is_likely_enough(
    said: list[list[str]], theta_ppm: int, outcome: str, chosen: int
) -> None:
    found = heard(called(contested(0, 1, 2), sitting([], [], [])), sitting(*said), theta_ppm)
    assert (found.outcome, found.chosen) == (outcome, chosen)
    verdicts = [vote.verdict for vote in found.votes]
    assert "rejected" not in verdicts, "opinion costs nobody its pay"
    assert verdicts.count("agreed") == (outcome == "agreed")
    assert found.posterior_ppm >= theta_ppm or outcome == "contested"


@given(SAID, st.integers(500_000, 999_999))
def test_what_a_panel_comes_to_passes_its_own_audit(
    said: list[list[str]], theta_ppm: int
) -> None:
    empty: list[list[str]] = [[] for _ in said]
    waiting = called(contested(0, 1, 0), sitting(*empty))
    check_called(waiting)
    found = heard(waiting, sitting(*said), theta_ppm)
    check_heard(waiting, found)
    assert found.outcome in {"agreed", "contested"}, "never verified"


WAITING = called(contested(0, 1), sitting([], []))


def with_seat(**fields: Any) -> Judged:
    assert WAITING.sitting is not None
    first, *others = WAITING.sitting.seats
    seats = [replace(first, **fields), *others]
    return replace(WAITING, sitting=replace(WAITING.sitting, seats=seats))


def with_sitting(judged: Judged, **fields: Any) -> Judged:
    assert judged.sitting is not None
    return replace(judged, sitting=replace(judged.sitting, **fields))


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (with_seat(agent="m1/judge"), "its own answer"),
        (with_seat(agent="j1/other"), "each of another peer"),
        (with_seat(said=["a", "b"]), "spoken before"),
        (with_seat(cap_mc=-1), "spoken before"),
        (with_sitting(WAITING, seats=[]), "2 to 3 judges"),
        (with_sitting(WAITING, groups=[0, 0]), "two of the answers"),
        (with_sitting(WAITING, groups=[0, 7]), "two of the answers"),
        (with_sitting(WAITING, chances_ppm=[600_000, 500_000]), "chances"),
        (
            replace(
                with_seat(family="tall smol"),
                votes=[replace(vote, family="smol") for vote in WAITING.votes],
            ),
            "model family",
        ),
    ],
)
def test_a_panel_that_may_not_be_called(fact: Judged, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        check_called(fact)


def test_models_that_are_not_recognised_are_no_family_of_a_judge() -> None:
    assert WAITING.sitting is not None
    votes = [replace(vote, family="?") for vote in WAITING.votes]
    seats = [replace(seat, family="? tall") for seat in WAITING.sitting.seats]
    check_called(replace(with_sitting(WAITING, seats=seats), votes=votes))


HEARD = heard(WAITING, sitting(FOR, FOR), 840_000)


def overpaid(judged: Judged) -> Judged:
    assert judged.sitting is not None
    return with_sitting(judged, seats=[replace(s, paid_mc=11) for s in judged.sitting.seats])


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (with_sitting(HEARD, seats=sitting(FOR, SWAYED).seats), "wasn't for it"),
        (with_sitting(HEARD, seats=sitting(FOR, ["a"]).seats), "what nobody asked"),
        (with_sitting(HEARD, seats=sitting(FOR, ["b", "x"]).seats), "what nobody asked"),
        (with_sitting(HEARD, seats=sitting(FOR, FOR, FOR).seats), "another panel"),
        (overpaid(HEARD), "more than was promised"),
        (replace(HEARD, chosen=1), "wasn't for it"),
        (replace(HEARD, posterior_ppm=990_000), "neither answer is wrong"),
        (replace(HEARD, sitting=None), "not heard"),
        (
            replace(HEARD, votes=[replace(vote, verdict="rejected") for vote in HEARD.votes]),
            "has answer 0 rejected",
        ),
    ],
)
def test_a_panel_that_says_something_else_than_it_was_asked(fact: Judged, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        check_heard(WAITING, fact)


@pytest.mark.parametrize(
    ("readers", "may"),
    [
        (["broker", "owner"], True),
        (["owner", "broker"], True),
        (["broker"], False),
        (["broker", "verifier"], True),
        (["j0"], True),
        (["j1"], False),
    ],
)
def test_judges_read_what_the_readers_of_every_source_allow(
    readers: list[str],
    may: bool,
) -> None:
    source = Source(kind="input", name="x", readers=readers)
    task = SubTask(id="a", capability="a.b@1", inputs={"x": source})
    graph = TaskGraph(name="g", subtasks=[task], outputs={"o": Source(kind="task", name="a")})
    assert may_read(graph, "j0") is may
