"""The machine's clock and randomness."""

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from meshnode.adapters.system import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from meshnode.ports import Entropy, WallClock


def test_the_clock_tells_unix_time_in_milliseconds() -> None:
    clock: WallClock = SystemClock()
    before_ms = clock.now_ms()
    said_s = int(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout)
    after_ms = clock.now_ms()
    assert before_ms // 1000 <= said_s <= after_ms // 1000


def test_tokens_have_the_size_asked_for_and_differ() -> None:
    entropy: Entropy = SystemEntropy()
    assert [len(entropy.token(size)) for size in (0, 1, 32, 100)] == [0, 1, 32, 100]
    assert len({entropy.token(16) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("zone", "hours"), [("UTC", {0}), ("Asia/Tokyo", {9}), ("Europe/Madrid", {1, 2})]
)
def test_local_time_is_that_of_the_zone(zone: str, hours: set[int]) -> None:
    assert SystemClock().ahead_s(zone) / 3_600 in hours


def test_without_a_zone_local_time_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone in ("Asia/Tokyo", "UTC"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert SystemClock().ahead_s("") == SystemClock().ahead_s(zone)
    monkeypatch.undo()
    time.tzset()
