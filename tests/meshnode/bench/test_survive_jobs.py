"""What ``meshnode bench survive`` tells of a completed job whose outputs aren't there."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from meshnode.bench.survive import _figures
from meshnode.bench.survive_jobs import Survived, outputs_trouble

RIGHT = {"texts": ["ONE"]}
GONE = {"error": {"code": "job.state", "message": "job 17 has not ended"}}


class Desk:
    """Answers what it is given, in that order."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        await trio.lowlevel.checkpoint()
        assert (method, path) == ("GET", "/api/jobs/17/outputs")
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([(200, RIGHT)], []),
        ([(409, GONE), (200, RIGHT)], ["got HTTP 409", "has not ended", "later: right"]),
        ([(404, GONE), (404, GONE)], ["got HTTP 404", "later: HTTP 404"]),
        ([(200, {"texts": ["TWO"]}), (200, RIGHT)], ['HTTP 200 {"texts": ["TWO"]}']),
        ([(500, RIGHT), (200, RIGHT)], ["got HTTP 500"]),
    ],
)
def test_what_came_in_the_place_of_outputs_is_told(
    answers: list[tuple[int, Any]], told: list[str]
) -> None:
    desk = Desk(*answers)

    async def ask() -> str:
        return await outputs_trouble(desk, "17", RIGHT)

    trouble = trio.run(ask, clock=MockClock(autojump_threshold=0))
    assert desk.answers == []
    assert bool(trouble) == bool(told)
    assert all(one in trouble for one in told), trouble


def test_what_was_lost_and_what_was_wrong_both_count_and_are_told() -> None:
    found = Survived(jobs=9, lost=["job-1: not ended"], wrong=["job-2: got HTTP 409"])
    figure, _ = _figures("R1", found, "9 jobs")
    assert figure.value == 2
    assert figure.note == "9 jobs; job-1: not ended; job-2: got HTTP 409"
