"""What a broker makes of how long its awards waited."""

import pytest

from meshnode.domain import queues
from meshnode.domain.queues import HALF_LIFE_S, Queues


def test_a_wait_behind_others_is_remembered_and_fades() -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=5_100, run_ms=1_000, ahead_ms=0, now_s=7.0)
    assert seen.wait_ms("p/a", now_s=7.0) == 2_000, "half of it: one wait is not yet a queue"
    assert seen.wait_ms("p/b", now_s=7.0) == 0
    assert seen.wait_ms("p/a", now_s=7.0 + HALF_LIFE_S) == 1_000
    assert seen.wait_ms("p/a", now_s=7.0 + 20 * HALF_LIFE_S) == 0


@pytest.mark.parametrize(
    ("took_ms", "ahead_ms"), [(1_050, 0), (3_050, 2_000), (900, 5_000)], ids=str
)
def test_the_way_and_own_work_are_no_queue(took_ms: int, ahead_ms: int) -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=took_ms, run_ms=1_000, ahead_ms=ahead_ms, now_s=0.0)
    assert seen.wait_ms("p/a", now_s=0.0) == 0


def test_an_award_that_did_not_wait_takes_the_queue_down() -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=9_100, run_ms=1_000, ahead_ms=0, now_s=0.0)
    before_ms = seen.wait_ms("p/a", now_s=0.0)
    seen.saw("p/a", took_ms=1_100, run_ms=1_000, ahead_ms=0, now_s=0.0)
    assert 0 < seen.wait_ms("p/a", now_s=0.0) <= before_ms // 2 + 1


def test_only_so_many_agents_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_AGENTS_MAX", 3)
    seen = Queues()
    for number in range(4):
        seen.saw(f"p/{number}", took_ms=9_000, run_ms=1_000, ahead_ms=0, now_s=0.0)
    known = [bool(seen.wait_ms(f"p/{number}", now_s=0.0)) for number in range(4)]
    assert known == [False, True, True, True]
