"""What is worth a new record."""

import msgspec
import pytest

from meshnode.domain.claims import says_news
from protocol.records import CallLimits, Capability, Measured

TOLD = Capability(
    agent="a",
    name="text.upper@1",
    description="Upper case.",
    examples=[],
    input_schema=b"{}",
    output_schema=b"{}",
    price_mc=2,
    limits=CallLimits(concurrency=1, timeout_ms=1000, input_bytes=1000, output_bytes=1000),
    measured=Measured(samples=10, latency_ms=300, tokens_per_s=50, context_tokens=4096),
)


def moved(**measured: int) -> Capability:
    """Return ``TOLD`` with other measurements."""
    return msgspec.structs.replace(
        TOLD, measured=msgspec.structs.replace(TOLD.measured, **measured)
    )


@pytest.mark.parametrize(
    "now",
    [TOLD, moved(samples=11), moved(latency_ms=450), moved(latency_ms=200), moved(at_ms=7)],
)
def test_a_small_movement_waits_for_the_next_record(now: Capability) -> None:
    assert not says_news([TOLD], [now])


@pytest.mark.parametrize(
    "now",
    [
        moved(latency_ms=451),
        moved(latency_ms=199),
        moved(tokens_per_s=51),
        moved(context_tokens=8192),
        moved(tried=1),
        moved(right=1),
        msgspec.structs.replace(TOLD, price_mc=3),
        msgspec.structs.replace(TOLD, description="Upper case!"),
    ],
)
def test_what_others_would_decide_by_is_told_at_once(now: Capability) -> None:
    assert says_news([TOLD], [now])


def test_the_first_measurement_is_news_and_so_is_an_agent_more_or_less() -> None:
    assert says_news([moved(samples=0, latency_ms=0)], [TOLD])
    assert says_news([TOLD], [TOLD, TOLD])
    assert says_news([TOLD], [])
    assert not says_news([], [])
