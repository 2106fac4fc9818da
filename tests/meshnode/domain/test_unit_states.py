"""However it is told, a unit stands the same: API, explanation, and what `ask` shows."""

from pathlib import Path
from typing import Any, get_args

import pytest

from meshnode.cli.progress import Progress
from meshnode.domain.explaining import explain
from meshnode.domain.job import JobState
from meshnode.domain.unit_states import BY_EVENT, MOST_TELLING, UnitState
from meshnode.gateway.api_views import event_view, job_view
from protocol.journal import decode_event
from tests.meshnode.domain.random_runs import random_run

ROOT = Path(__file__).parents[3]


def test_the_words_are_those_of_the_guide() -> None:
    rows = (
        (ROOT / "docs/jobs.md").read_text().split("| state | what goes on")[1].split("\n\n")[0]
    )
    words = [row.split("`")[1] for row in rows.splitlines() if row.startswith("| `")]
    assert tuple(words) == get_args(UnitState)
    assert set(MOST_TELLING) == set(words)
    assert set(BY_EVENT.values()) <= set(words)


@pytest.mark.parametrize("seed", range(6))
def test_all_who_tell_how_units_stand_say_the_same(seed: int) -> None:
    run, _, _ = random_run(seed)
    run.run()
    events = [decode_event(body) for body in run.events]
    state, progress = JobState("job-1"), Progress()
    for count, event in enumerate(events, 1):
        state.apply(event)
        progress.take(event_view(event))
        rows: Any = job_view(state, event.at_ms)["subtasks"]
        told = {row["id"]: row["state"] for row in rows if row["batch"] is not None}
        parts = explain("job-1", events[:count], now_ms=event.at_ms).parts
        assert {part.unit: part.state for part in parts} == told
        if event.kind != "done":
            shown = {
                unit: batch.state
                for task in progress.tasks.values()
                for unit, batch in task.batches.items()
            }
            assert shown == told, event
