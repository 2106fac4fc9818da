"""The fold: a journal's events make one state, in one way, and nothing else has a say."""

import datetime as dt
import os
import random
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from meshnode.domain.facts import (
    Awarded,
    Called,
    Cancelled,
    Charged,
    Delivered,
    Done,
    Expanded,
    Fact,
    Failed,
    Planned,
    Progressed,
    Proposed,
    Refused,
    Verified,
    from_event,
    to_event,
)
from meshnode.domain.job import JobState, fold
from protocol.errors import Malformed, OutOfTurn
from protocol.graph import Source, SubTask, TaskGraph, encode_graph
from protocol.journal import Event, decode_event
from tests.meshnode.domain.contractors import Traits
from tests.meshnode.domain.journals import Run, contractors_of
from tests.meshnode.domain.purity import outside_calls
from tests.meshnode.domain.random_graphs import CAPABILITIES, random_graph, random_inputs

GRAPH = TaskGraph(
    name="two",
    subtasks=[
        SubTask(id="a", capability="work.a", inputs={}),
        SubTask(id="b", capability="work.a", inputs={"x": Source(kind="task", name="a")}),
    ],
    outputs={"b": Source(kind="task", name="b")},
)
PLANNED = Planned(
    owner="me",
    graph=encode_graph(GRAPH),
    inputs={},
    budget_mc=100,
    deadline_ms=10_000,
    idempotency_key="k",
    epoch=0,
)
EXPANDED = Expanded(subtask="a", sizes=[-1])
CALLED = Called(unit="a/0", attempt=0, cfps={"p": b"cfp", "q": b"cfp"})
PROPOSED = Proposed(
    unit="a/0",
    attempt=0,
    peer="p",
    proposal=b"proposal",
    agent="agent",
    capability="work.a@1",
    price_mc=5,
    eta_ms=10,
    expires_ms=5_000,
)
REFUSED = Refused(unit="a/0", attempt=0, peer="q", reason="busy")
AWARDED = Awarded(
    unit="a/0",
    attempt=0,
    peer="p",
    agent="agent",
    award=b"award",
    proposal=b"proposal",
    schema=b"schema",
    price_cap_mc=5,
    lease_ms=10,
    ranked=[],
)
DELIVERED = Delivered(
    unit="a/0",
    attempt=0,
    result=b"result",
    receipt=b"receipt",
    output=b"hash",
    size=4,
    lengths={},
    price_mc=5,
    run_ms=7,
)
VERIFIED = Verified(unit="a/0", attempt=0, verdict="unverified", check="")
REJECTED = Verified(unit="a/0", attempt=0, verdict="rejected", check="schema", detail="no")
CHARGED = Charged(key="j/a/0/0", unit="a/0", attempt=0, paid_mc=5, acceptance=b"acceptance")
FAILED = Failed(unit="a/0", attempt=0, peer="p", code="agent.failed", text="", blame="peer")
PROGRESSED = Progressed(unit="a/0", attempt=0, items_done=1)
DONE = Done(state="completed")

CALLED_ON = [PLANNED, EXPANDED, CALLED]
PROPOSED_ON = [*CALLED_ON, PROPOSED]
AWARDED_ON = [*PROPOSED_ON, AWARDED]
DELIVERED_ON = [*AWARDED_ON, DELIVERED]
VERIFIED_ON = [*DELIVERED_ON, VERIFIED]
CHARGED_ON = [*VERIFIED_ON, CHARGED]


def again(fact: Fact, attempt: int) -> Fact:
    """The same in another attempt."""
    return type(fact)(
        **{**{f: getattr(fact, f) for f in fact.__struct_fields__}, "attempt": attempt}
    )


def other(fact: Fact, **fields: object) -> Fact:
    """The same with other fields."""
    return type(fact)(**{**{f: getattr(fact, f) for f in fact.__struct_fields__}, **fields})


def state_after(*facts: Fact) -> JobState:
    """Fold events, and see that facts added one by one make the same."""
    events = [to_event(fact, seq=n, at_ms=1_000 + n) for n, fact in enumerate(facts)]
    state, added = fold("j", events), JobState("j")
    for n, fact in enumerate(facts):
        added.add(fact, at_ms=1_000 + n)
    assert added == state
    return state


ILLEGAL: dict[str, list[Fact]] = {
    "anything before the plan": [EXPANDED],
    "a second plan": [PLANNED, PLANNED],
    "batches of a sub-task that doesn't exist": [PLANNED, other(EXPANDED, subtask="z")],
    "batches twice": [PLANNED, EXPANDED, EXPANDED],
    "a call for a unit that doesn't exist": [PLANNED, CALLED],
    "a first attempt that isn't number 0": [PLANNED, EXPANDED, again(CALLED, 1)],
    "a call while an attempt is open": [*CALLED_ON, CALLED],
    "a proposal without a call": [PLANNED, EXPANDED, PROPOSED],
    "a proposal from a peer that wasn't asked": [*CALLED_ON, other(PROPOSED, peer="z")],
    "a refusal from a peer that wasn't asked": [*CALLED_ON, other(REFUSED, peer="z")],
    "a proposal to another attempt": [*CALLED_ON, again(PROPOSED, 1)],
    "an award before a proposal": [*CALLED_ON, AWARDED],
    "an award to a peer that didn't propose": [*PROPOSED_ON, other(AWARDED, peer="q")],
    "an award of another attempt": [*PROPOSED_ON, again(AWARDED, 1)],
    "a second award of an attempt": [*AWARDED_ON, other(AWARDED, award=b"another")],
    "a proposal to an offer's award": [
        PLANNED, EXPANDED, AWARDED, PROPOSED,
    ],
    "progress without an award": [*PROPOSED_ON, PROGRESSED],
    "a result without an award": [*PROPOSED_ON, DELIVERED],
    "a second result": [*DELIVERED_ON, other(DELIVERED, output=b"another")],
    "progress after the result": [*DELIVERED_ON, PROGRESSED],
    "an award of what is delivered": [*DELIVERED_ON, AWARDED],
    "a verdict on nothing": [*AWARDED_ON, VERIFIED],
    "a second verdict": [*VERIFIED_ON, REJECTED],
    "a charge without a verdict": [*DELIVERED_ON, CHARGED],
    "a charge of another attempt": [*VERIFIED_ON, again(CHARGED, 1)],
    "a second charge": [*CHARGED_ON, CHARGED],
    "a failure of what is accepted": [*CHARGED_ON, FAILED],
    "an attempt at what is accepted": [*CHARGED_ON, again(CALLED, 1)],
    "a failure of a closed attempt": [*AWARDED_ON, FAILED, FAILED],
    "a skipped attempt number": [*AWARDED_ON, FAILED, again(CALLED, 2)],
    "a charge key that was used": [
        *CHARGED_ON, Expanded(subtask="b", sizes=[-1]),
        *(other(f, unit="b/0") for f in (AWARDED, DELIVERED, VERIFIED, CHARGED)),
    ],
    "anything after the end": [PLANNED, DONE, EXPANDED],
}  # fmt: skip


@pytest.mark.parametrize("facts", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_what_cannot_follow_is_refused(facts: list[Fact]) -> None:
    state_after(*facts[:-1])  # what goes before is in order
    with pytest.raises(OutOfTurn):
        state_after(*facts)


def test_events_are_numbered_without_gaps() -> None:
    with pytest.raises(OutOfTurn):
        fold("j", [to_event(PLANNED, seq=1, at_ms=0)])
    with pytest.raises(OutOfTurn):
        fold("j", [to_event(f, seq=0, at_ms=0) for f in (PLANNED, EXPANDED)])


def test_an_unknown_kind_and_a_wrong_shape_name_the_event() -> None:
    with pytest.raises(Malformed, match=r"event 0 .*'guessed'"):
        from_event(Event(seq=0, at_ms=0, kind="guessed", data={}))
    with pytest.raises(Malformed, match=r"event 3 \(expanded\)"):
        from_event(Event(seq=3, at_ms=0, kind="expanded", data={"subtask": 1, "sizes": []}))


def test_an_accepted_unit_is_charged_once_and_counts() -> None:
    state = state_after(*CHARGED_ON)
    assert state.spent_mc == 5
    assert state.charges == {"j/a/0/0": 5}
    assert state.finished("a")
    assert state.reserved_mc() == 0
    assert [delivered.output for _, delivered in state.outputs("a")] == [b"hash"]


def test_a_rejected_output_is_a_failure_and_may_be_charged_after_all_later() -> None:
    unpaid = other(CHARGED, paid_mc=0)
    retry = [again(f, 1) for f in (CALLED, PROPOSED, AWARDED, DELIVERED, VERIFIED, CHARGED)]
    state = state_after(*DELIVERED_ON, REJECTED, unpaid, *retry)
    assert [failure.code for failure in state.units["a/0"].failures()] == ["output.rejected"]
    assert state.spent_mc == 5
    assert state.units["a/0"].accepted is state.units["a/0"].attempts[1]


def test_an_open_award_is_reserved_until_it_ends() -> None:
    assert state_after(*PROPOSED_ON).reserved_mc() == 0
    assert state_after(*AWARDED_ON).reserved_mc() == 5
    assert state_after(*VERIFIED_ON).reserved_mc() == 5
    assert state_after(*AWARDED_ON, FAILED).reserved_mc() == 0


def test_only_the_first_reason_to_end_counts() -> None:
    state = state_after(
        PLANNED, Cancelled(reason="owner"), Cancelled(reason="deadline", text="late")
    )
    assert state.cancelled == Cancelled(reason="owner")


def busy_run(seed: int) -> Run:
    rng = Random(seed)
    traits = [
        Traits(
            capability=name,
            offers=bool(n),
            price_mc=2,
            fails=0.2,
            busy=0.2,
            lies=0.2,
            repeats=0.5,
        )
        for name in CAPABILITIES
        for n in range(2)
    ]
    run = Run(random_graph(rng), random_inputs(rng), contractors_of(seed, *traits))
    run.run()
    return run


@pytest.mark.parametrize("seed", range(5))
def test_the_same_events_make_the_same_state(seed: int) -> None:
    run = busy_run(seed)
    first, second = (fold("job-1", [decode_event(e) for e in run.events]) for _ in range(2))
    assert first == second == run.state


@pytest.mark.parametrize("seed", range(5))
def test_the_fold_reads_the_journal_and_nothing_else(seed: int) -> None:
    events = [decode_event(body) for body in busy_run(seed).events]
    assert outside_calls(lambda: fold("job-1", events)) == []


PEEKS: dict[str, Callable[[], object]] = {
    "clock": lambda: time.time(),  # noqa: PLW0108, TID251 - the mutant reads the clock
    "monotonic clock": lambda: time.monotonic(),  # noqa: PLW0108, TID251 - the same
    "date": lambda: dt.datetime.now(dt.UTC),  # noqa: TID251 - the same
    "chance": lambda: random.random(),  # noqa: PLW0108, TID251 - the mutant draws
    "own chance": lambda: Random(1).random(),
    "random bytes": lambda: os.urandom(1),  # noqa: TID251 - the same
    "uuid": lambda: uuid.uuid4(),  # noqa: PLW0108, TID251 - the same
    "environment": lambda: os.environ.get("HOME"),
    "file": lambda: Path(os.devnull).open().close(),
    "folder": lambda: os.listdir("/"),  # noqa: PTH208 - the mutant looks around
    "socket": lambda: socket.socket().close(),
    "host name": lambda: socket.gethostname(),  # noqa: PLW0108 - a bare function is called by C
    "process": lambda: os.getpid(),  # noqa: PLW0108 - a bare function is called by C
    "address of an object": lambda: id(object()),
}


@pytest.mark.parametrize("peek", PEEKS.values(), ids=PEEKS.keys())
def test_a_fold_that_reads_the_world_is_caught(
    peek: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = JobState.apply

    def curious(state: JobState, event: Event) -> None:
        peek()
        apply(state, event)

    monkeypatch.setattr(JobState, "apply", curious)
    events = [to_event(PLANNED, seq=0, at_ms=0)]
    assert outside_calls(lambda: fold("j", events))
