"""The machine's clock and randomness."""

import subprocess
from typing import TYPE_CHECKING

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
