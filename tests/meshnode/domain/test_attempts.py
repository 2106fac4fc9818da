"""What a broker makes of owners who refuse: whom it waits for or leaves out, what it tells."""

import pytest

from meshnode.domain.admission import CLOSED, ITEMS, NOT_ALLOWED, PAUSED, QUOTA
from meshnode.domain.attempts import (
    BARRED_GRACE_MS,
    BUSY_PAUSE_MS,
    CODES,
    IDLE_MAX,
    INPUTS_GONE,
    UNCHECKED_MAX,
    UNFETCHED_MAX,
    Barred,
    Failures,
    is_try,
    pause_ms,
    refused_by_all,
    share_of,
)
from meshnode.domain.facts import Called, Expanded, Fact, Failed, Refused
from meshnode.domain.job import JobState
from meshnode.domain.step_kinds import Call, End, GiveUp, View, Wake
from meshnode.domain.steps import next_steps
from meshnode.domain.units import Attempt, Unit
from protocol.graph import Source, SubTask
from tests.meshnode.domain.exports import START_MS
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.test_fold import AWARDED, FAILED, other, state_after
from tests.meshnode.domain.test_steps import (
    LATER_MS,
    QUERY,
    candidate,
    candidates,
    expanded,
    failed_once,
    mapped,
)

TASK = SubTask(
    id="say", capability="text.shout@1", inputs={"text": Source(kind="input", name="words")}
)


def called(**reasons: str) -> list[Fact]:
    """One unit, for which these peers were called, and refused."""
    graph, inputs = mapped(1)
    run = Run(graph, inputs, [])
    cfps = Called(unit="each/0", attempt=0, cfps=dict.fromkeys(reasons, b"cfp"))
    refusals: list[Fact] = [
        Refused(unit="each/0", attempt=0, peer=peer, reason=reason, text=f"{peer} says no")
        for peer, reason in reasons.items()
    ]
    return [run.planned, Expanded(subtask="each", sizes=[1]), cfps, *refusals]


@pytest.mark.parametrize(
    ("reasons", "code"),
    [
        (("busy",), "node.busy"),
        (("node.busy",), "node.busy"),
        ((NOT_ALLOWED, NOT_ALLOWED), "access.not_allowed"),
        ((PAUSED,), "access.paused"),
        ((CLOSED,), "access.closed"),
        ((QUOTA,), "access.quota"),
        ((ITEMS,), "refused.items"),
        ((PAUSED, "busy"), "cfp.unanswered"),
    ],
)
def test_a_call_that_all_refuse_is_given_up_and_says_why(
    reasons: tuple[str, ...], code: str
) -> None:
    state = state_after(*called(**dict(zip("pq", reasons, strict=False))))
    (give_up, _) = next_steps(state, START_MS + 100, candidates())
    assert isinstance(give_up, GiveUp)
    assert give_up.code == code
    assert "p says no" in give_up.text


@pytest.mark.parametrize("code", ["node.busy", *CODES.values()])
def test_what_an_owner_refused_is_no_try(code: str) -> None:
    state = failed_once(code)
    assert not any(is_try(attempt) for attempt in state.units["each/0"].attempts)


def unfetched(
    times: int, *, blame: str = "artifact", code: str = "artifact.unavailable"
) -> JobState:
    """A unit that was awarded so often, and whose inputs could not be had."""

    def once(attempt: int) -> list[Fact]:
        award = other(AWARDED, unit="each/0", price_cap_mc=1, attempt=attempt)
        failed = other(FAILED, unit="each/0", code=code, blame=blame, attempt=attempt)
        return [award, failed]

    graph, inputs = mapped(1)
    run = Run(graph, inputs, [])
    facts = [fact for attempt in range(times) for fact in once(attempt)]
    return state_after(run.planned, Expanded(subtask="each", sizes=[1]), *facts)


def test_inputs_that_are_not_had_use_up_no_tries_and_are_not_asked_for_for_ever() -> None:
    pauses = []
    for times in range(1, UNFETCHED_MAX + 1):
        state = unfetched(times)
        ended_ms = state.units["each/0"].ended_ms
        (wake,) = next_steps(state, ended_ms, candidates(candidate("q")))
        assert isinstance(wake, Wake)
        pauses.append(wake.at_ms - ended_ms)
        (call, _) = next_steps(state, wake.at_ms, candidates(candidate("q")))
        assert isinstance(call, Call)
    assert pauses[-1] > pauses[0]
    assert 20_000 < sum(pauses) < 60_000
    (end, *_) = next_steps(unfetched(UNFETCHED_MAX + 1), LATER_MS, candidates(candidate("q")))
    assert isinstance(end, End)
    assert end.reason == "artifact.unavailable"


def test_an_output_that_is_not_had_is_its_makers_try() -> None:
    state = unfetched(4, blame="peer")
    (end, *_) = next_steps(state, LATER_MS, candidates(candidate("q")))
    assert isinstance(end, End)


def test_what_the_broker_can_not_check_is_nobodys_try_and_ends_soon() -> None:
    for times in range(1, UNCHECKED_MAX + 1):
        state = unfetched(times, blame="broker", code=INPUTS_GONE)
        unit = state.units["each/0"]
        assert Failures.of(unit) == Failures(tries=0, unfetched=0, unchecked=times, idle=0)
        (call, _) = next_steps(state, LATER_MS, candidates(candidate("q")))
        assert isinstance(call, Call)
    state = unfetched(UNCHECKED_MAX + 1, blame="broker", code=INPUTS_GONE)
    (end, *_) = next_steps(state, LATER_MS, candidates(candidate("q")))
    assert isinstance(end, End)
    assert end.reason == INPUTS_GONE


def barred(back_ms: int, *some: str) -> View:
    """Nobody but ``p``, who refuses until ``back_ms``, and the peers ``some``."""
    return View(
        candidates={QUERY: [candidate(peer) for peer in some], "work.b": []},
        since_ms=START_MS,
        barred={QUERY: [Barred("p", CLOSED, "until later", back_ms)]},
    )


def test_who_is_back_before_the_deadline_is_waited_for() -> None:
    state = expanded(1)
    deadline_ms = state.required_plan.deadline_ms
    for now_ms in (START_MS, START_MS + BARRED_GRACE_MS * 2):
        (wake,) = next_steps(state, now_ms, barred(deadline_ms - 1))
        assert wake == Wake(deadline_ms - 1)


@pytest.mark.parametrize("late", [True, False])
def test_who_is_not_back_in_time_ends_the_job_after_a_moment(late: bool) -> None:
    state = expanded(1)
    view = barred(state.required_plan.deadline_ms if late else 0)
    (wake,) = next_steps(state, START_MS, view)
    assert isinstance(wake, Wake)
    (end,) = next_steps(state, wake.at_ms, view)
    assert isinstance(end, End)
    assert end.reason == "access.closed"
    assert "until later" in end.text


def test_when_all_others_failed_who_is_back_in_time_is_waited_for() -> None:
    state = failed_once("agent.failed")
    others = barred(LATER_MS + 5_000, "p")
    (wake,) = next_steps(state, LATER_MS, others)
    assert wake == Wake(LATER_MS + 5_000)


def test_whom_a_unit_is_too_large_for_is_not_asked_for_it_again() -> None:
    facts = called(p=ITEMS, q="busy")
    (give_up, _) = next_steps(state_after(*facts), START_MS + 100, candidates())
    assert isinstance(give_up, GiveUp)
    failed = Failed(
        unit="each/0", attempt=0, peer="", code=give_up.code, text=give_up.text, blame="broker"
    )
    state = state_after(*facts, failed)
    (call, _) = next_steps(state, LATER_MS, candidates(candidate("p"), candidate("q")))
    assert isinstance(call, Call)
    assert [c.peer for c in call.candidates] == ["q"]
    (end,) = next_steps(state, LATER_MS, candidates(candidate("p")))
    assert isinstance(end, End)
    assert "p says no" in end.text


def test_strangers_are_told_to_get_an_invite_and_others_what_each_owner_says() -> None:
    stranger = Barred("12D3KooWstranger", NOT_ALLOWED, "members only")
    code, text = refused_by_all(TASK, [stranger])
    assert code == "access.not_allowed"
    assert "ask the owner of 12D3KooWstranger for an invite" in text
    many = [Barred(f"peer{n:04}", PAUSED, f"paused {n}") for n in range(9)]
    code, text = refused_by_all(
        TASK, [stranger, *many, Barred("soonest!", QUOTA, "used up", back_ms=5)]
    )
    assert code == "access.quota", "who is back first matters most"
    assert "soonest!: used up" in text
    assert "and 8 more" in text


def test_each_try_rests_longer_than_the_last_and_the_busy_are_left_alone() -> None:
    pauses = [pause_ms(tries, tried=True) for tries in range(7)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 0
    assert pauses[4] == pauses[6] == 5_000
    assert [pause_ms(tries, tried=False) for tries in (0, 4)] == [BUSY_PAUSE_MS, 5_000]


def test_a_busy_mesh_is_asked_ever_more_rarely() -> None:
    pauses = [pause_ms(0, tried=False, idle=idle) for idle in range(1, IDLE_MAX + 1)]
    assert pauses == sorted(pauses)
    assert pauses[:9] == [*8 * [BUSY_PAUSE_MS], 2 * BUSY_PAUSE_MS]
    assert pauses[-1] == 8_000
    assert sum(pauses) > 4 * 60_000, "so few last for minutes"
    counts = Failures(tries=0, unfetched=0, unchecked=0, idle=IDLE_MAX)
    assert counts.rest_ms(Attempt(0, START_MS), 0.0) == 8_000


def test_who_is_gone_is_waited_for_no_longer_than_before() -> None:
    counts = Failures(tries=0, unfetched=0, unchecked=0, idle=IDLE_MAX)
    for code in ("transport.unreachable", "cfp.unanswered"):
        error = Failed(unit="t/0", attempt=0, peer="", code=code, text="", blame="peer")
        assert counts.rest_ms(Attempt(0, START_MS, error=error), 0.0) == BUSY_PAUSE_MS


def test_units_that_failed_together_come_back_one_by_one() -> None:
    units = [Unit(f"t/{n}", "t", n, 1, attempts=[Attempt(0, 0)]) for n in range(200)]
    shares = [share_of("job", unit) for unit in units]
    assert len(set(shares)) == len(shares)
    assert all(0 <= share < 1 for share in shares)
    assert 0.4 < sum(shares) / len(shares) < 0.6
    assert shares == [share_of("job", unit) for unit in units], "asked again it is the same"
    assert share_of("other job", units[0]) != shares[0]
    pauses = [pause_ms(4, tried=True, share=share) for share in shares]
    assert 5_000 <= min(pauses) < 5_200
    assert 7_300 < max(pauses) <= 7_500
