"""What is said of a job is what its journal says: sums add up, and nothing is left out."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.explaining import chosen, explain
from meshnode.domain.explaining_words import PARTS_TOLD_MAX, WIDTH, in_words
from meshnode.domain.explanations import Explanation
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
    Proposed,
    Ranked,
    Refused,
    Verified,
    to_event,
)
from meshnode.domain.hedges import SUPERSEDED
from meshnode.domain.units import CROWDED
from protocol.errors import OutOfTurn
from protocol.graph import Source, SubTask, TaskGraph, encode_graph
from protocol.journal import Event, decode_event
from protocol.keys import digest
from protocol.messages import Metering, Result
from tests.meshnode.domain.contractors import Pen
from tests.meshnode.domain.purity import outside_calls
from tests.meshnode.domain.random_runs import random_run

PEN = Pen("contractor")


def text_of(told: Explanation) -> str:
    return "\n".join(line for section in in_words(told) for line in section.lines)


# --- any journal ----------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.data())
def test_time_money_and_failures_add_up_at_every_point_of_any_job(
    seed: int, data: st.DataObject
) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed)
    run.run()
    events = [decode_event(body) for body in run.events]
    count = data.draw(st.integers(1, len(events)), label="events")
    for seen in (events, events[:count]):
        now_ms = seen[-1].at_ms + 1_234
        told = explain("job-1", seen, now_ms=now_ms)
        kinds = Counter(event.kind for event in seen)
        end_ms = seen[-1].at_ms if kinds["done"] else now_ms
        assert told.elapsed_ms == end_ms - seen[0].at_ms
        assert sum(told.time_ms.values()) == told.elapsed_ms
        assert min(told.time_ms.values()) >= 0
        assert (told.state == "running") == (not kinds["done"])
        paid_mc = sum(event.data["paid_mc"] for event in seen if event.kind == "charged")
        assert sum(told.paid_mc.values()) == told.spent_mc == paid_mc
        assert sum(task.paid_mc for task in told.tasks) == paid_mc
        tries = [each for part in told.parts for each in part.tries]
        failed = sum(each.failure is not None for each in tries)
        refused = sum(
            event.kind == "verified" and event.data["verdict"] == "rejected" for event in seen
        )
        assert kinds["failed"] <= failed <= kinds["failed"] + refused
        assert sum(bool(each.awarded_ms) for each in tries) == kinds["awarded"]
        lines = text_of(told).splitlines()
        assert max(map(len, lines)) <= WIDTH
        if kinds["done"] and told.state == "completed":
            assert [part.state for part in told.parts] == ["completed"] * len(told.parts)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(-5_000, 5_000), min_size=300, max_size=300))
def test_a_clock_that_jumps_takes_no_time_away(seed: int, jumps_ms: list[int]) -> None:
    run, _, _ = random_run(seed)
    run.run()
    events = [decode_event(body) for body in run.events]
    jumping = [
        msgspec.structs.replace(event, at_ms=event.at_ms + jumps_ms[n % 300])
        for n, event in enumerate(events)
    ]
    told = explain("job-1", jumping, now_ms=0)
    assert sum(told.time_ms.values()) == told.elapsed_ms
    assert min(told.time_ms.values()) >= 0


def test_it_reads_nothing_but_the_journal() -> None:
    run, _, _ = random_run(7)
    run.run()
    events = [decode_event(body) for body in run.events]
    assert outside_calls(lambda: explain("job-1", events, now_ms=0)) == []


def test_what_is_no_journal_is_refused() -> None:
    (planned, *_), _ = journal(0, PLANNED)
    with pytest.raises(OutOfTurn):
        explain("j", [planned, planned], now_ms=0)


# --- why somebody was chosen ----------------------------------------------------------


def ranked(peer: str, price_mc: int, finish_ms: int, **more: int | bool) -> Ranked:
    return Ranked(peer=peer, price_mc=price_mc, finish_ms=finish_ms, **more)  # type: ignore[arg-type]  # numbers


@pytest.mark.parametrize(
    ("price_mc", "finish_ms", "troubled", "why", "said"),
    [
        (13, 200, False, "price", "it was 3 mc cheaper than the next"),
        (14, 190, False, "price", "4 mc cheaper than the next, though 10 ms later"),
        (10, 260, False, "time", "it would be finished 60 ms before the next"),
        (9, 260, False, "time", "60 ms before the next, though 1 mc dearer"),
        (10, 200, False, "tie", "as good as the next, and a draw decided"),
        (11, 195, False, "tie", "as good as the next, and a draw decided"),
        (
            1,
            1,
            True,
            "troubled",
            "the others had failed lately, or hadn't paid for their names",
        ),
        (1, 1, False, "unknown", "the journal doesn't say why"),
    ],
)
def test_the_reason_is_what_the_order_was_made_by(
    price_mc: int,
    finish_ms: int,
    troubled: bool,
    why: str,
    said: str,
) -> None:
    rows = [ranked("winner", 10, 200), ranked("loser", price_mc, finish_ms, troubled=troubled)]
    assert chosen(rows, 2).why == why
    awarded = msgspec.structs.replace(award("winner"), ranked=rows, considered=2)
    assert said in " ".join(text_of(told_of(0, PLANNED, EXPANDED, awarded)).split())


def test_alone_it_was_the_only_one_unless_the_journal_is_silent() -> None:
    assert chosen([ranked("a", 1, 1)], 1).why == "only"
    assert chosen([ranked("a", 1, 1)], 3).why == "unknown"
    assert chosen([], 0).why == "unknown"


# --- in words -------------------------------------------------------------------------

GRAPH = TaskGraph(
    name="two",
    subtasks=[
        SubTask(id="a", capability="work.a@1", inputs={}),
        SubTask(id="b", capability="work.b@1", inputs={"x": Source(kind="task", name="a")}),
    ],
    outputs={"b": Source(kind="task", name="b")},
)
PLANNED = Planned(
    owner="me",
    graph=encode_graph(GRAPH),
    inputs={},
    budget_mc=100,
    deadline_ms=61_000,
    idempotency_key="",
    epoch=0,
)
EXPANDED = Expanded(subtask="a", sizes=[-1])


def result_of(queue_ms: int, run_ms: int) -> bytes:
    return PEN.sign(
        Result(
            h=PEN.header("broker", 0),
            award=digest(b""),
            state="completed",
            output=digest(b"{}"),
            size=2,
            metering=Metering(queue_ms=queue_ms, run_ms=run_ms),
        )
    )


RESULT = result_of(100, 700)


def award(peer: str, unit: str = "a/0", attempt: int = 0) -> Awarded:
    return Awarded(
        unit=unit,
        attempt=attempt,
        peer=peer,
        agent="worker",
        award=b"award",
        proposal=b"",
        schema=b"",
        price_cap_mc=5,
        lease_ms=1,
        ranked=[],
    )


def delivered(unit: str, attempt: int, result: bytes = RESULT) -> Delivered:
    return Delivered(
        unit=unit, attempt=attempt, result=result, receipt=b"", output=b"", size=2,
        lengths={}, price_mc=5, run_ms=700,
    )  # fmt: skip


def accepted(unit: str, attempt: int) -> list[Fact]:
    return [
        Verified(unit=unit, attempt=attempt, verdict="verified", check="quoted"),
        Charged(key=unit, unit=unit, attempt=attempt, paid_mc=5, acceptance=b""),
    ]


def journal(step_ms: int, *facts: Fact | list[Fact]) -> tuple[list[Event], int]:
    """Events ``step_ms`` apart, those of a list at once; and when the last one was."""
    events: list[Event] = []
    at_ms = 1_000
    for group in facts:
        for fact in group if isinstance(group, list) else [group]:
            events.append(to_event(fact, seq=len(events), at_ms=at_ms))
        at_ms += step_ms
    return events, at_ms - step_ms


def told_of(step_ms: int, *facts: Fact | list[Fact]) -> Explanation:
    events, at_ms = journal(step_ms, *facts)
    return explain("j", events, now_ms=at_ms)


TROUBLE: list[Fact | list[Fact]] = [
    PLANNED,
    EXPANDED,
    award("one"),
    Failed(
        unit="a/0", attempt=0, peer="one", code="agent.failed", text="no luck.", blame="peer"
    ),
    Called(unit="a/0", attempt=1, cfps={"two": b"", "three": b"", "four": b""}),
    [
        Proposed(
            unit="a/0", attempt=1, peer="two", proposal=b"", agent="worker",
            capability="work.a@1", price_mc=5, eta_ms=900, expires_ms=99_000,
        ),
        Refused(unit="a/0", attempt=1, peer="three", reason="paused", text="back at\nnoon"),
    ],
    award("two", attempt=1),
    delivered("a/0", 1),
    accepted("a/0", 1),
    Expanded(subtask="b", sizes=[-1]),
    award("two", "b/0"),
    delivered("b/0", 0),
    accepted("b/0", 0),
    Done(state="completed"),
]  # fmt: skip


def test_a_job_with_trouble_is_told_from_plan_to_cost() -> None:
    told = told_of(1_000, *TROUBLE)
    text = text_of(told)
    for line in (
        "Job j (two) completed after 13.0 s and cost 10 of 100 mc.",
        "1 attempt came to nothing on the way.",
        "a: work.a@1, one call, from the job's inputs alone.",
        "b: work.b@1, one call, after a.",
        "a/0 (1 call): done by two's worker for 5 mc.",
        "one failed after 1.0 s: no luck [agent.failed].",
        "Attempt 2 began 1.0 s later.",
        "two offered 5 mc a call, in 900 ms",
        "three would not: paused (back at noon)",
        "1 node had not answered.",
        "The result came after 1.0 s; the agent ran 700 ms after waiting 100 ms for its turn.",
        "It was found verified by the check quoted.",
        "The end waited for these, one after the other: a/0, b/0.",
        "5 mc  for b",
        "10 mc  to two",
    ):
        assert line in " ".join(text.split()) or line in text, line
    assert told.time_ms == {
        "candidates": 4_000,  # planned to the first award, and again before b
        "failed": 2_000,  # the attempt, and the pause after it
        "proposals": 2_000,
        "running": 1_400,
        "queue": 200,
        "hand_over": 400,
        "checking": 2_000,
        "finishing": 1_000,
    }
    assert "What is left" not in [section.title for section in in_words(told)]


def test_a_job_that_goes_on_says_what_is_left() -> None:
    told = told_of(1_000, *TROUBLE[:7])
    text = text_of(told)
    assert "Job j (two) goes on: 6.0 s so far, 0 mc spent." in text
    assert "a/0 (1 call): running at two." in text
    assert "two's worker has it and has not answered yet." in text
    assert "Not begun, since their inputs are not there yet: b." in text
    assert "95 mc are free, 5 mc are promised to work that is out; 54.0 s are left" in text
    assert "Nothing was paid." in text


def test_a_job_that_failed_says_why_and_one_that_is_ending_that_it_is() -> None:
    ending = [*TROUBLE[:4], Cancelled(reason="agent.failed", text="it failed 1 time: no luck")]
    assert "is being ended early" in text_of(told_of(1_000, *ending))
    failed = Done(state="failed", code="agent.failed", text="it failed 1 time: no luck")
    text = text_of(told_of(1_000, *ending, failed))
    assert "Job j (two) failed after 5.0 s and cost 0 of 100 mc." in text
    assert "Why: it failed 1 time: no luck [agent.failed]." in text


@pytest.mark.parametrize(
    ("queue_ms", "run_ms", "counted"),
    [
        (99_000, 0, (1_000, 0, 0)),
        (99_000, 400, (600, 400, 0)),
        (0, 99_000, (0, 1_000, 0)),
        (0, 0, (0, 0, 1_000)),
    ],
)
def test_what_a_node_says_of_itself_counts_within_what_was_seen(
    queue_ms: int, run_ms: int, counted: tuple[int, int, int]
) -> None:
    result = delivered("a/0", 0, result_of(queue_ms, run_ms))
    told = told_of(1_000, PLANNED, EXPANDED, award("one"), result, accepted("a/0", 0))
    spent = told.time_ms
    assert (spent["queue"], spent["running"], spent["hand_over"]) == counted
    assert sum(spent.values()) == told.elapsed_ms


def test_what_was_never_begun_is_said_to_be_so() -> None:
    failed = Done(state="failed", code="budget.exceeded", text="a/0 costs 5 mc or more")
    text = text_of(told_of(1_000, PLANNED, EXPANDED, Cancelled(reason="x"), failed))
    assert "a/0 (1 call): not begun when the job ended." in text
    assert "a/0 (1 call): waiting for a node" in text_of(told_of(1_000, PLANNED, EXPANDED))


def test_of_many_units_those_are_told_that_failed() -> None:
    graph = TaskGraph(
        name="many",
        subtasks=[
            SubTask(
                id="m", capability="work.a@1", each=["x"],
                inputs={"x": Source(kind="value", value=b"[]")},
            )
        ],
        outputs={"m": Source(kind="task", name="m")},
    )  # fmt: skip
    count = 40
    planned = msgspec.structs.replace(PLANNED, graph=encode_graph(graph))
    alas = Failed(unit="m/33", attempt=0, peer="one", code="c", text="alas", blame="broker")
    awards = [award("one", f"m/{number}") for number in range(count)]
    told = told_of(1, planned, Expanded(subtask="m", sizes=[1] * count), *awards, alas)
    assert len(told.parts) == count
    text = text_of(told)
    assert (
        "m: work.a@1, once for each item, from the job's inputs alone; 40 calls in 40" in text
    )
    assert "m/33 (1 call): the last attempt failed, and another follows." in text
    assert "alas [c]. Nobody is blamed for that." in text
    assert f"And {count - PARTS_TOLD_MAX} units more" in text


def test_whoever_was_faster_did_it_and_the_other_is_no_failure() -> None:
    hedge = msgspec.structs.replace(award("slow", attempt=1), hedge=True)
    outrun = Failed(
        unit="a/0", attempt=1, peer="slow", code=SUPERSEDED, text="outrun", blame="broker"
    )
    won: list[Fact | list[Fact]] = [delivered("a/0", 0), accepted("a/0", 0)]
    hedged: list[Fact | list[Fact]] = [PLANNED, EXPANDED, award("quick"), hedge]
    text = text_of(told_of(1_000, *hedged))
    assert "a/0 (1 call): running at quick and slow." in text
    text = text_of(told_of(1_000, *hedged, *won, outrun))
    assert "done by quick's worker for 5 mc" in text
    assert "It was slow: after 1.0 s another was given the same work too." in text
    assert "slow was stopped after" in text
    assert "came to nothing" not in text


def test_who_had_no_time_for_it_is_no_failure_and_says_how_long_it_would_have_waited() -> None:
    text = "it would wait for about 979 ms"
    busy = Failed(unit="a/0", attempt=0, peer="p1", code=CROWDED, text=text, blame="broker")
    told = told_of(
        1_000,
        PLANNED,
        EXPANDED,
        award("p1"),
        busy,
        award("p2", attempt=1),
        delivered("a/0", 1),
        accepted("a/0", 1),
    )
    said = text_of(told)
    assert f"p1 had no time for it: {text} [node.crowded]. All were weighed again." in said
    assert "came to nothing" not in said
