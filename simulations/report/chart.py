"""Several curves in one drawing, each with its own colour: what is compared side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from simulations.report.markup import Markup, joined, tag
from simulations.report.numbers import ticks

_WIDTH: Final = 360.0
_HEIGHT: Final = 200.0
_LEFT: Final = 40.0
_RIGHT: Final = 10.0
_TOP: Final = 8.0
_BOTTOM: Final = 20.0
#: Colours that the page's style has.
COLOURS: Final = 8


@dataclass(frozen=True, slots=True)
class Series:
    """A curve.

    Attributes:
        name: For the legend.
        points: Place, value, and how far the value's interval reaches to either side.
    """

    name: str
    points: Sequence[tuple[float, float, float]]


def chart(
    series: Sequence[Series],
    *,
    top: float | None = None,
    says: Callable[[float], str],
    places: Callable[[float], str],
) -> Markup:
    """Return the drawing.

    Args:
        series: Curves; the places of the first are the ticks of the axis.
        top: Of the value axis, which begins at 0; None for what the curves need.
        says: Writes a value.
        places: Writes a place.
    """
    levels = ticks(top or max(value + half for one in series for _, value, half in one.points))
    along = sorted({place for one in series for place, _, _ in one.points})
    low, high = along[0], max(along[-1], along[0] + 1e-9)

    def x(place: float) -> float:
        return _LEFT + (place - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = min(1.0, max(0.0, value / levels[-1]))
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    grid = [
        joined(
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y(one), y2=y(one), class_="grid"),
            tag("text", says(one), x=_LEFT - 5, y=y(one) + 3, class_="tick end"),
        )
        for one in levels
    ]
    names = [
        tag("text", places(one), x=x(one), y=_HEIGHT - 6, class_="tick mid") for one in along
    ]
    curves = [
        _curve(one, f"series{number % COLOURS}", x=x, y=y, says=says)
        for number, one in enumerate(series)
    ]
    return tag("svg", grid, names, curves, viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}", class_="plot")


def legend(names: Sequence[str]) -> Markup:
    """Return which colour is what."""
    entries = [
        tag(
            "li",
            tag(
                "svg",
                tag("line", x1=0, x2=12, y1=6, y2=6, class_=f"curve series{number % COLOURS}"),
                viewBox="0 0 12 12",
                class_="swatch",
            ),
            name,
        )
        for number, name in enumerate(names)
    ]
    return tag("ul", entries, class_="legend")


def _curve(
    series: Series,
    class_: str,
    *,
    x: Callable[[float], float],
    y: Callable[[float], float],
    says: Callable[[float], str],
) -> Markup:
    line = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value, _ in series.points)
    marks = [
        joined(
            tag(
                "line",
                x1=x(place),
                x2=x(place),
                y1=y(value - half),
                y2=y(value + half),
                class_=f"curve {class_}",
            ),
            tag(
                "circle",
                tag("title", f"{series.name}: {says(value)} ± {says(half)}"),
                cx=x(place),
                cy=y(value),
                r=2.4,
                class_=f"spot {class_}",
            ),
        )
        for place, value, half in series.points
    ]
    return joined(tag("polyline", points=line, class_=f"curve {class_}"), marks)
