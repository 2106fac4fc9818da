"""What the owner of a machine said, as a decision: hours, pauses and quotas."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import HOURS, QuotaConfig
from meshnode.domain.admission import (
    CLOSED,
    DAY_HOURS,
    HOUR_MS,
    ITEMS,
    PAUSED,
    QUOTA,
    Now,
    Rules,
    Use,
    closed,
    over_quota,
)
from meshnode.domain.hours import Hours, local_time

MINUTE_MS = 60_000
#: A Wednesday at noon.
WEDNESDAY = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


NOON = ms(WEDNESDAY)
HOUR = NOON // HOUR_MS


# --- hours ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "opens"),
    [
        ((), "now"),
        (("wed",), "now"),
        (("wed 12:00-12:01",), "now"),
        (("wed 11:00-12:00",), "7 days less an hour"),
        (("12:01-13:00",), "a minute"),
        (("mon-fri 20:00-08:00",), "eight hours"),
        (("sat-sun",), "two and a half days"),
        (("sat-sun", "mon-fri 20:00-08:00"), "eight hours"),
        (("tue 20:00-13:00",), "now"),
        (("fri-mon 09:00-17:00",), "1 day 21 hours"),
    ],
)
def test_a_week_opens_when_it_says(entries: tuple[str, ...], opens: str) -> None:
    hours = {
        "now": 0.0,
        "a minute": 1 / 60,
        "eight hours": 8.0,
        "two and a half days": 60.0,
        "7 days less an hour": 7 * 24 - 1.0,
        "1 day 21 hours": 45.0,
    }[opens]
    assert Hours.parse(entries).closed_ms(NOON, 0) == round(hours * HOUR_MS)


def test_a_span_over_the_end_of_the_week_holds_on_monday() -> None:
    monday = ms(datetime(2026, 7, 6, 3, 0, tzinfo=UTC))
    hours = Hours.parse(["sun 22:00-04:00"])
    assert hours.closed_ms(monday, 0) == 0
    assert hours.closed_ms(monday + HOUR_MS, 0) == (6 * 24 + 18) * HOUR_MS


def test_hours_go_by_the_owners_time() -> None:
    hours = Hours.parse(["14:00-15:00"])
    assert hours.closed_ms(NOON, 2 * 3_600) == 0
    assert hours.closed_ms(NOON, 3_600) == HOUR_MS
    assert hours.closed_ms(NOON, -10 * 3_600) == 12 * HOUR_MS


days = st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
clocks = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda t: f"{t[0]:02}:{t[1]:02}")
entries = st.builds(
    lambda first, last, opens, closes: f"{first}-{last} {opens}-{closes}",
    days,
    days,
    clocks,
    clocks,
).filter(lambda text: text[8:13] != text[14:])


@given(st.lists(entries, min_size=1, max_size=3), st.integers(0, 10**13))
def test_it_is_open_when_it_said_it_would_be_and_not_before(said: list[str], at: int) -> None:
    assert all(HOURS.fullmatch(entry) for entry in said)
    hours = Hours.parse(said)
    wait = hours.closed_ms(at, 0)
    assert hours.closed_ms(at + wait, 0) == 0
    if wait:
        assert hours.closed_ms(at + wait - 1, 0) == 1


def test_a_time_is_said_as_people_say_it() -> None:
    def said(later: timedelta) -> str:
        return local_time(ms(WEDNESDAY + later), now_ms=NOON, ahead_s=0)

    assert said(timedelta(hours=8)) == "20:00"
    assert said(timedelta(hours=20)) == "Thu 08:00"
    assert said(timedelta(days=5)) == "Mon 12:00"
    assert said(timedelta(days=9)) == "in 9 days"


# --- closed --------------------------------------------------------------------------


def test_a_pause_ends_at_its_time_and_not_a_millisecond_before() -> None:
    rules = Rules(paused=True, paused_until_ms=NOON + 5)
    no = closed(rules, Now(NOON + 4))
    assert no is not None
    assert (no.reason, no.retry_ms) == (PAUSED, 1)
    assert closed(rules, Now(NOON + 5)) is None


def test_a_pause_without_an_end_says_that_nobody_knows_when() -> None:
    no = closed(Rules(paused=True), Now(NOON))
    assert no is not None
    assert (no.reason, no.retry_ms) == (PAUSED, 0)


def test_closed_says_when_it_opens() -> None:
    rules = Rules(hours=Hours.parse(["mon-fri 20:00-08:00"]))
    no = closed(rules, Now(NOON))
    assert no is not None
    assert (no.reason, no.retry_ms) == (CLOSED, 8 * HOUR_MS)
    assert "from 20:00 on" in no.text
    assert closed(rules, Now(NOON + 8 * HOUR_MS)) is None


# --- quotas --------------------------------------------------------------------------


def test_nothing_said_is_no_limit() -> None:
    use = Use({HOUR: 10**9}, {HOUR: 10**12})
    assert over_quota(Rules(), 10**6, caller=use, everyone=use, now=Now(NOON)) is None


@pytest.mark.parametrize(("used", "fits"), [(9, True), (10, False)])
def test_an_hours_calls_are_taken_to_the_last_and_no_further(used: int, fits: bool) -> None:
    rules = Rules(quota=QuotaConfig(caller_calls_per_hour=10))
    no = over_quota(rules, 1, caller=Use({HOUR: used}), everyone=Use(), now=Now(NOON))
    assert (no is None) == fits
    if no is not None:
        assert (no.reason, no.retry_ms) == (QUOTA, HOUR_MS)
        assert "10 calls an hour for one caller: used up until 13:00" in no.text


def test_a_days_calls_come_back_hour_by_hour() -> None:
    rules = Rules(quota=QuotaConfig(calls_per_day=10))
    everyone = Use({HOUR - 23: 3, HOUR - 20: 3, HOUR: 4})
    now = Now(NOON + 1)
    waits = {
        wanted: no.retry_ms
        for wanted in (1, 3, 4, 7, 10)
        if (no := over_quota(rules, wanted, caller=Use(), everyone=everyone, now=now))
    }
    assert waits == {
        1: HOUR_MS - 1,
        3: HOUR_MS - 1,
        4: 4 * HOUR_MS - 1,
        7: DAY_HOURS * HOUR_MS - 1,
        10: DAY_HOURS * HOUR_MS - 1,
    }


def test_what_is_older_than_a_day_counts_no_more() -> None:
    rules = Rules(quota=QuotaConfig(calls_per_day=1, run_s_per_day=1.0))
    old = Use({HOUR - DAY_HOURS: 5}, {HOUR - DAY_HOURS: 5_000})
    assert over_quota(rules, 1, caller=old, everyone=old, now=Now(NOON)) is None


def test_more_at_once_than_ever_fits_is_not_a_matter_of_waiting() -> None:
    rules = Rules(quota=QuotaConfig(caller_calls_per_day=10, calls_per_hour=100))
    no = over_quota(rules, 11, caller=Use(), everyone=Use({HOUR: 100}), now=Now(NOON))
    assert no is not None
    assert (no.reason, no.retry_ms) == (ITEMS, 0)
    assert "11 calls at once" in no.text


def test_run_time_that_is_used_up_refuses_the_next() -> None:
    rules = Rules(quota=QuotaConfig(run_s_per_day=2.0))
    just = Use(run_ms={HOUR - 1: 1_000, HOUR: 999})
    assert over_quota(rules, 1, caller=Use(), everyone=just, now=Now(NOON)) is None
    full = Use(run_ms={HOUR - 1: 1_000, HOUR: 1_000})
    no = over_quota(rules, 1, caller=Use(), everyone=full, now=Now(NOON))
    assert no is not None
    assert (no.reason, no.retry_ms) == (QUOTA, 23 * HOUR_MS)


def test_of_several_quotas_the_one_that_takes_longest_is_told() -> None:
    rules = Rules(quota=QuotaConfig(calls_per_hour=1, caller_calls_per_day=1))
    use = Use({HOUR: 1})
    no = over_quota(rules, 1, caller=use, everyone=use, now=Now(NOON))
    assert no is not None
    assert no.retry_ms == DAY_HOURS * HOUR_MS


@given(
    st.dictionaries(st.integers(HOUR - 30, HOUR), st.integers(0, 20)),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(0, 30),
)
def test_who_waits_as_told_finds_room(
    used: dict[int, int], wanted: int, hour_limit: int, day_limit: int
) -> None:
    rules = Rules(quota=QuotaConfig(calls_per_hour=hour_limit, calls_per_day=day_limit))
    no = over_quota(rules, wanted, caller=Use(), everyone=Use(used), now=Now(NOON + 7))
    if no is None:
        assert not hour_limit or used.get(HOUR, 0) + wanted <= hour_limit
    elif no.reason == ITEMS:
        assert wanted > min(limit for limit in (hour_limit, day_limit) if limit)
    else:
        later = Now(NOON + 7 + no.retry_ms)
        assert over_quota(rules, wanted, caller=Use(), everyone=Use(used), now=later) is None
