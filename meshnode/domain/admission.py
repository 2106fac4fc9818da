"""May this caller have this work now?  What the owner of a machine said, as a decision.

Told the time, what the owner said, and what was taken on before; it reads nothing
itself.  A *no* says why in words that help whoever hears them, and when asking again
may help, if that is known.

Quotas go by clock hours: an hour's ends with the hour, a day is the last 24 of them.  So
what counts is one number for each hour, which survives a restart, and when there is room
again can be said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from meshnode.config import QuotaConfig
from meshnode.domain.hours import Hours, local_time

HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24

#: Reasons that travel in a refusal (60-contracts.md).
NOT_ALLOWED: Final = "not_allowed"
PAUSED: Final = "paused"
CLOSED: Final = "closed"
QUOTA: Final = "quota"
ITEMS: Final = "items"


@dataclass(frozen=True, slots=True)
class Now:
    """The time, and how far local time is ahead of UTC, seconds."""

    ms: int
    ahead_s: int = 0

    @property
    def hour(self) -> int:
        """Clock hours since 1970."""
        return self.ms // HOUR_MS


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner says.

    Attributes:
        hours: When this machine works for others.
        quota: How much it does for them.
        paused: It takes nothing on.
        paused_until_ms: Until when it is paused; 0 when nobody knows.
    """

    hours: Hours = field(default_factory=Hours)
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    paused: bool = False
    paused_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """What was taken on: clock hour -> calls, and milliseconds that agents ran."""

    calls: dict[int, int] = field(default_factory=dict)
    run_ms: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class No:
    """A refusal.

    Attributes:
        reason: Stable code.
        text: For people.
        retry_ms: When asking again may help, from now; 0 when that isn't known.
    """

    reason: str
    text: str
    retry_ms: int = 0


def closed(rules: Rules, now: Now) -> No | None:
    """Return why nobody may have anything now, if that is so."""
    if rules.paused and not 0 < rules.paused_until_ms <= now.ms:
        if not rules.paused_until_ms:
            return No(PAUSED, "its owner has paused this node")
        until = local_time(rules.paused_until_ms, now_ms=now.ms, ahead_s=now.ahead_s)
        text = f"its owner has paused this node until {until}, its time"
        return No(PAUSED, text, rules.paused_until_ms - now.ms)
    if wait_ms := rules.hours.closed_ms(now.ms, now.ahead_s):
        until = local_time(now.ms + wait_ms, now_ms=now.ms, ahead_s=now.ahead_s)
        return No(CLOSED, f"this node works for others from {until} on, its time", wait_ms)
    return None


def over_quota(rules: Rules, calls: int, *, caller: Use, everyone: Use, now: Now) -> No | None:
    """Return what ``calls`` more would go beyond, if anything; the longest wait counts.

    Args:
        rules: What the owner says.
        calls: Wanted.
        caller: What was taken on for the caller.
        everyone: What was taken on for all of them, the caller included.
        now: The time.
    """
    quota = rules.quota
    found: list[No] = []
    for use, whose, hour_calls, day_calls, day_run_s in (
        (
            caller,
            " for one caller",
            quota.caller_calls_per_hour,
            quota.caller_calls_per_day,
            quota.caller_run_s_per_day,
        ),
        (everyone, "", quota.calls_per_hour, quota.calls_per_day, quota.run_s_per_day),
    ):
        for limit, length, unit in (
            (hour_calls, 1, "an hour"),
            (day_calls, DAY_HOURS, "a day"),
        ):
            no = _beyond(use.calls, calls, limit, length=length, now=now)
            if no is not None:
                found.append(_told(no, f"{limit} calls {unit}{whose}", calls, now))
        run_ms = int(day_run_s * 1000)
        no = _beyond(use.run_ms, 1, run_ms, length=DAY_HOURS, now=now)
        if no is not None:
            found.append(_told(no, f"{day_run_s:g} s of work a day{whose}", calls, now))
    never = [no for no in found if no.reason == ITEMS]
    return max(never or found, key=lambda no: no.retry_ms, default=None)


def _beyond(
    used: Mapping[int, int], wanted: int, limit: int, *, length: int, now: Now
) -> int | None:
    """Return when ``wanted`` more fit into ``limit``: milliseconds from now, 0 for never.

    None when they fit now.
    """
    if not limit:
        return None
    for later in range(length + 1):
        last = now.hour + later
        total = sum(n for hour, n in used.items() if last - length < hour <= last)
        if total + wanted <= limit:
            return last * HOUR_MS - now.ms if later else None
    return 0


def _told(wait_ms: int, what: str, calls: int, now: Now) -> No:
    if not wait_ms:
        return No(ITEMS, f"{calls} calls at once: this node does {what}")
    until = local_time(now.ms + wait_ms, now_ms=now.ms, ahead_s=now.ahead_s)
    return No(QUOTA, f"this node does {what}: used up until {until}, its time", wait_ms)
