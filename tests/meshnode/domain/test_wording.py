"""What is said in several places is said in the same words."""

from typing import get_args

import pytest

from meshnode.cli.job_lines import event_line
from meshnode.domain.facts import Failed
from meshnode.domain.wording import BLAMED, Blame, count_of, sentence
from tests.meshnode.domain.test_explaining import text_of, told_of
from tests.meshnode.domain.test_fold import AWARDED, EXPANDED, PLANNED


@pytest.mark.parametrize(
    ("count", "what", "told"),
    [
        (0, "call", "0 calls"),
        (1, "batch", "1 batch"),
        (2, "batch", "2 batches"),
        (3, "sub-task", "3 sub-tasks"),
    ],
)
def test_things_are_counted(count: int, what: str, told: str) -> None:
    assert count_of(count, what) == told


@pytest.mark.parametrize("blame", get_args(Blame))
def test_events_and_explanations_lay_the_same_blame(blame: Blame) -> None:
    failed = Failed(unit="a/0", attempt=0, peer="p", code="c", text="alas", blame=blame)
    line = event_line({"seq": 3, "at_ms": 0, "kind": "failed", "unit": "a/0", "attempt": 0,
                       "peer": "p", "code": "c", "text": "alas", "blame": blame})  # fmt: skip
    assert line.endswith(f"failed, c: alas; {BLAMED[blame]}")
    text = text_of(told_of(1, PLANNED, EXPANDED, AWARDED, failed))
    assert f"alas [c]. {sentence(BLAMED[blame])}" in " ".join(text.split())
