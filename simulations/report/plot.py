"""One curve over time, drawn as SVG: thin, with a quiet grid, and its values on hover."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from simulations.report.curves import Point
from simulations.report.markup import Markup, joined, tag
from simulations.report.numbers import moment, ticks, time_ticks

_WIDTH: Final = 360.0
_HEIGHT: Final = 150.0
_LEFT: Final = 40.0
_RIGHT: Final = 10.0
_TOP: Final = 8.0
_BOTTOM: Final = 20.0
#: A label nearer to the right edge than this ends where it stands.
_EDGE: Final = 12.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A time in which something goes wrong.

    Attributes:
        from_s: When it begins, seconds.
        until_s: When it ends; the same for what has no end or is over at once.
        text: What it is.
    """

    from_s: float
    until_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Axes:
    """Where values are drawn.

    Attributes:
        length_s: Of the time axis, seconds.
        top: Of the value axis, which begins at 0.
    """

    length_s: float
    top: float

    def x(self, at_s: float) -> float:
        """Return where a time is."""
        share = min(1.0, max(0.0, at_s / self.length_s))
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return where a value is."""
        return _HEIGHT - _BOTTOM - min(1.0, value / self.top) * (_HEIGHT - _TOP - _BOTTOM)


def plot(
    points: Sequence[Point],
    *,
    length_s: float,
    top: float | None,
    marks: Sequence[Mark],
    says: Callable[[float], str],
) -> Markup:
    """Return the drawing.

    Args:
        points: The curve, in order.
        length_s: Of the time axis, seconds.
        top: Of the value axis; None for what the curve needs.
        marks: When something goes wrong.
        says: Writes a value.
    """
    levels = ticks(top or max((one.high for one in points if one.mid is not None), default=0))
    axes = Axes(length_s, levels[-1])
    return tag(
        "svg",
        _grid(axes, levels, says),
        [_mark(axes, mark) for mark in marks],
        [_stretch(axes, part) for part in _stretches(points)],
        _hover(axes, points, says),
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        class_="plot",
        role="img",
    )


def _grid(axes: Axes, levels: Sequence[float], says: Callable[[float], str]) -> Markup:
    right, bottom = _WIDTH - _RIGHT, axes.y(0)
    lines = [
        joined(
            tag("line", x1=_LEFT, x2=right, y1=axes.y(one), y2=axes.y(one), class_="grid"),
            tag("text", says(one), x=_LEFT - 5, y=axes.y(one) + 3, class_="tick end"),
        )
        for one in levels
    ]
    times = [
        tag(
            "text",
            name,
            x=axes.x(at_s),
            y=bottom + 14,
            class_="tick end" if axes.x(at_s) > right - _EDGE else "tick mid",
        )
        for at_s, name in time_ticks(axes.length_s)
    ]
    return joined(lines, times)


def _mark(axes: Axes, mark: Mark) -> Markup:
    x = axes.x(mark.from_s)
    width = max(1.5, axes.x(mark.until_s) - x)
    height = axes.y(0) - _TOP
    told = tag("title", mark.text)
    return tag("rect", told, x=x, y=_TOP, width=width, height=height, class_="mark")


def _stretches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the parts of the curve between which nothing is known."""
    for is_known, part in groupby(points, key=lambda point: point.mid is not None):
        if is_known:
            yield list(part)


def _stretch(axes: Axes, part: Sequence[Point]) -> Markup:
    line = [(axes.x(one.at_s), axes.y(one.mid or 0.0)) for one in part]
    if len(line) == 1:
        return tag("circle", cx=line[0][0], cy=line[0][1], r=1.8, class_="dot")
    band = None
    if any(one.high > one.low for one in part):
        above = [(axes.x(one.at_s), axes.y(one.high)) for one in part]
        below = [(axes.x(one.at_s), axes.y(one.low)) for one in reversed(part)]
        band = tag("polygon", points=_points([*above, *below]), class_="band")
    return joined(band, tag("polyline", points=_points(line), class_="line"))


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _hover(axes: Axes, points: Sequence[Point], says: Callable[[float], str]) -> Markup:
    """Return what shows a value when it is pointed at."""
    parts = []
    for point in points:
        x, right = axes.x(point.from_s), axes.x(point.until_s)
        text = f"{moment(point.from_s)} to {moment(point.until_s)}: {_value(point, says)}"
        place = {"x": x, "width": right - x, "y": _TOP, "height": axes.y(0) - _TOP}
        parts.append(tag("rect", tag("title", text), class_="hover", **place))
    return joined(parts)


def _value(point: Point, says: Callable[[float], str]) -> str:
    if point.mid is None:
        return "nothing ended"
    if point.high == point.low:
        return says(point.mid)
    return f"{says(point.mid)} ({says(point.low)} to {says(point.high)})"
