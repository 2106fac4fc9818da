"""Opening hours: the minutes of a week in which a machine works for others.

Local time is a number of seconds that whoever asks is told with the time.  When the
clocks change before the machine opens, what is told of that is an hour off; whether it
is open is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshnode.config import HOURS

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN: Final = 24 * 60
_WEEK_MIN: Final = 7 * _DAY_MIN
_MINUTE_MS: Final = 60_000
#: Unix time began on a Thursday.
_FIRST_DAY: Final = 3


@dataclass(frozen=True, slots=True)
class Hours:
    """When a machine is open.

    Attributes:
        spans: Minutes of the week, from and up to; one that goes on into the next week
            ends beyond the week.  None at all is always.
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def parse(cls, entries: Sequence[str]) -> "Hours":
        """Return the hours that ``access.hours`` names, each entry checked already."""
        return cls(tuple(span for entry in entries for span in _spans(entry)))

    def closed_ms(self, now_ms: int, ahead_s: int) -> int:
        """Return how long it stays closed, milliseconds; 0 when it is open.

        Args:
            now_ms: Unix time.
            ahead_s: How far local time is ahead of UTC.
        """
        if not self.spans:
            return 0
        local_ms = now_ms + ahead_s * 1000
        minute = _minute(local_ms)
        for start, end in self.spans:
            if start <= minute < end or start <= minute + _WEEK_MIN < end:
                return 0
        wait_min = min((start - minute) % _WEEK_MIN for start, _ in self.spans)
        return wait_min * _MINUTE_MS - local_ms % _MINUTE_MS


def local_time(at_ms: int, *, now_ms: int, ahead_s: int) -> str:
    """Return ``at_ms`` as people say it: ``20:00``, ``Mon 08:00`` or ``in 9 days``."""
    minute = _minute(at_ms + ahead_s * 1000)
    days = (at_ms - now_ms) / (_DAY_MIN * _MINUTE_MS)
    if days >= len(_DAYS) - 1:
        return f"in {round(days)} days"
    clock = f"{minute % _DAY_MIN // 60:02}:{minute % 60:02}"
    day = minute // _DAY_MIN
    today = _minute(now_ms + ahead_s * 1000) // _DAY_MIN
    return clock if day == today else f"{_DAYS[day].capitalize()} {clock}"


def _minute(local_ms: int) -> int:
    return (local_ms // _MINUTE_MS + _FIRST_DAY * _DAY_MIN) % _WEEK_MIN


def _spans(entry: str) -> list[tuple[int, int]]:
    said = HOURS.fullmatch(entry)
    if said is None:
        raise ValueError(f"{entry!r} is no span of a week")
    first = _DAYS.index(said["first"]) if said["first"] else 0
    last = _DAYS.index(said["last"] or said["first"]) if said["first"] else len(_DAYS) - 1
    opens = _time(said["opens"]) if said["opens"] else 0
    closes = _time(said["closes"]) if said["closes"] else _DAY_MIN
    if closes <= opens:
        closes += _DAY_MIN  # over midnight
    days = range(first, first + (last - first) % len(_DAYS) + 1)
    return [
        (day % len(_DAYS) * _DAY_MIN + opens, day % len(_DAYS) * _DAY_MIN + closes)
        for day in days
    ]


def _time(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)
