"""A job that was planned anew is told as it went: in lines, in a table, and in words."""

from typing import Any, cast

from meshnode.cli.job_lines import event_line
from meshnode.cli.progress import Progress
from meshnode.domain.explaining import explain
from meshnode.domain.explaining_words import in_words
from meshnode.gateway.api_views import event_view, job_view
from protocol.journal import Event, decode_event
from tests.meshnode.domain.patched import patched_run


def events() -> list[Event]:
    return [decode_event(body) for body in patched_run().events]


def test_an_event_says_what_goes_on_with_what_and_why() -> None:
    (line,) = [event_line(event_view(e)) for e in events() if e.kind == "replanned"]
    said = "goes on with work.a@2 instead of work.a@1: agent.output_invalid"
    assert line.split(maxsplit=2)[2].split(maxsplit=1) == ["a", said]


def test_a_code_that_a_contractor_made_up_obeys_nobody() -> None:
    (event,) = [e for e in events() if e.kind == "replanned"]
    event.data["code"] = "x\x1b[2Jy"
    assert "\x1b" not in event_line(event_view(event))


def test_who_follows_sees_what_is_done_now() -> None:
    progress = Progress()
    for event in events():
        progress.take(event_view(event))
    assert progress.tasks["a"].capability == "work.a@2"
    progress = Progress()
    for event in events():
        progress.take(event_view(event))
        if event.kind == "replanned":
            break
    assert progress.note == "a goes on with work.a@2: agent.output_invalid"


def test_a_job_is_shown_with_what_it_went_on_with() -> None:
    run = patched_run()
    view: dict[str, Any] = dict(job_view(run.state, run.now_ms))
    patch = cast("dict[str, Any]", view["replanned"][0])
    assert (patch["subtask"], patch["was"], patch["capability"]) == (
        "a",
        "work.a@1",
        "work.a@2",
    )
    done = {row["capability"] for row in view["subtasks"] if row["subtask"] == "a"}
    assert done == {"work.a@2"}


def test_an_explanation_says_what_was_planned_anew_and_why() -> None:
    told = explain("job-1", events(), now_ms=0)
    words = {section.title: " ".join(section.lines) for section in in_words(told)}
    assert "a went on with another capability" in words["In short"]
    anew = words["What was planned anew"]
    assert "every attempt at it had failed [agent.output_invalid]" in anew
    assert "so it went on with work.a@2 instead of work.a@1" in " ".join(anew.split())
    assert "1 node offered it, and its types fitted" in anew
