"""Numbers as people read them."""

from collections.abc import Iterator
from math import floor, log10
from typing import Final

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_LONG_S: Final = 4 * _HOUR_S
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)
_TIME_STEPS_S: Final = (
    *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0),
    *(7200.0, 10800.0, 21600.0, 43200.0, 86400.0, 172800.0, 432000.0),
)
_TICKS: Final = 4
#: From here on nothing behind the point is read.
_WHOLE: Final = 100
_TIME_TICKS: Final = 6


def exact(value: float) -> str:
    """Return all digits of a figure, which are no more than six behind the point."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".")
    return text if text != "-0" else "0"


def percent(share: float) -> str:
    """Return a share of 1; only all is 100 %, and only nothing is 0 %."""
    text = f"{share * 100:.1f}"
    if text == "100.0" and share < 1:
        return "> 99.9 %"
    if text == "0.0" and share > 0:
        return "< 0.1 %"
    return f"{text.removesuffix('.0')} %"


def short(value: float) -> str:
    """Return a number in three digits or so."""
    if value == int(value) or abs(value) >= _WHOLE:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def span(time_s: float) -> str:
    """Return how long something took."""
    if time_s < _MINUTE_S:
        return f"{short(round(time_s, 2))} s"
    if time_s < _HOUR_S:
        return f"{short(round(time_s / _MINUTE_S, 1))} min"
    return f"{short(round(time_s / _HOUR_S, 1))} h"


def moment(time_s: float) -> str:
    """Return a time from the start, ``m:ss`` or ``h:mm:ss``."""
    hours, rest = divmod(round(time_s), _HOUR_S)
    minutes, seconds = divmod(rest, _MINUTE_S)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def ticks(top: float) -> list[float]:
    """Return round values from 0 to at least ``top``."""
    if top <= 0:
        return [0.0, 1.0]
    size = 10.0 ** floor(log10(top / _TICKS))
    step = next(size * one for one in _STEPS if size * one * _TICKS >= top * (1 - 1e-9))
    count = next(n for n in range(1, _TICKS + 1) if n * step >= top * (1 - 1e-9))
    return [round(i * step, 10) for i in range(count + 1)]


def time_ticks(length_s: float) -> Iterator[tuple[float, str]]:
    """Yield round times from 0 to ``length_s``, each with what it is called."""
    step_s = next(
        (one for one in _TIME_STEPS_S if length_s / one <= _TIME_TICKS), _TIME_STEPS_S[-1]
    )
    for i in range(int(length_s / step_s * (1 + 1e-9)) + 1):
        at_s = i * step_s
        if length_s > _LONG_S and step_s >= _HOUR_S:
            yield at_s, f"{at_s / _HOUR_S:g} h"
        else:
            yield at_s, moment(at_s) if step_s < _MINUTE_S else f"{at_s / _MINUTE_S:g}"
