"""What is printed for people."""

import time
from collections.abc import Iterator

import pytest

from meshnode.cli.printing import when


@pytest.fixture
def nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this machine's clock be 5:45 h ahead."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-5:45")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("nepal")
def test_a_moment_is_told_by_the_wall_s_clock_or_by_everybody_s() -> None:
    assert when(1_700_000_059_999) == "2023-11-15 03:59"
    assert when(1_700_000_059_999, utc=True) == "2023-11-14 22:14"
