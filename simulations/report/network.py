"""The nodes and who worked for whom, drawn the same way every time.

Up to some forty nodes stand on a circle and have their names.  More of them lie like the
seeds of a sunflower, the busiest in the middle: even, without overlap, quick for thousands,
and herding shows as a few large dots in the middle with all lines going there.  Where
everybody may work for everybody a layout by forces would be a ball, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import cos, pi, sin, sqrt
from typing import Final

from simulations.outcome import Dot, Line, Outcome
from simulations.report.markup import Markup, joined, tag

_SIZE: Final = 640.0
_MIDDLE: Final = _SIZE / 2
#: Up to so many have their names.
NAMED_MAX: Final = 40
#: Lines that are drawn, the busiest; more are a grey area.
LINES_MAX: Final = 800
_TOLD_MAX: Final = 400
#: Where even the busiest line has fewer awards than these, no line is a thick one.
_FEW_AWARDS: Final = 6
_CIRCLE: Final = 232.0
_SUNFLOWER: Final = 300.0
_GOLDEN: Final = pi * (3 - sqrt(5))
_COLOURS: Final = 6

Place = tuple[float, float]


def drawing(outcome: Outcome) -> Markup:
    """Return the nodes of ``outcome`` as SVG."""
    places = dict(_places(outcome.dots))
    skills = _skills(outcome.dots)
    lines = [
        line for line in outcome.lines if line.broker in places and line.contractor in places
    ]
    drawn = lines[:LINES_MAX]
    most = max((line.awards for line in drawn), default=1)
    served = max((dot.served for dot in outcome.dots), default=0)
    is_named = len(outcome.dots) <= NAMED_MAX
    least, more = (4.5, 12.0) if is_named else _sizes(len(outcome.dots))
    return tag(
        "svg",
        [
            _line(line, places, most, told=len(drawn) <= _TOLD_MAX)
            for line in reversed(drawn)  # the busiest on top
            if line.broker != line.contractor
        ],
        [
            _dot(
                dot, places[dot.name], skills, least + more * sqrt(dot.served / max(1, served))
            )
            for dot in outcome.dots
        ],
        [_name(dot, places[dot.name]) for dot in outcome.dots] if is_named else None,
        viewBox=f"0 0 {_SIZE:g} {_SIZE:g}",
        class_="network",
        role="img",
    )


def legend(outcome: Outcome) -> Markup:
    """Return what the dots' looks mean."""
    skills = _skills(outcome.dots)
    entries = [_entry(f"skill{i}", name) for name, i in skills.items()]
    if any(not dot.skills for dot in outcome.dots):
        entries.append(_entry("none", "no skill: asks only"))
    if any(_is_bad(dot) for dot in outcome.dots):
        entries.append(_entry("bad none", "not honest", _diamond(6, 6, 4)))
    if any(not dot.up for dot in outcome.dots):
        entries.append(_entry("none down", "down in the end"))
    return tag("ul", entries, class_="legend")


def caption(outcome: Outcome) -> str:
    """Return how to read it, and what is left out."""
    between = [line for line in outcome.lines if line.broker != line.contractor]
    text = "A dot is a node: the larger, the more it served.  A line is work for another."
    if len(outcome.dots) > NAMED_MAX:
        text += "  The busiest are in the middle."
    if len(outcome.lines) > LINES_MAX:
        text += f"  Of {len(between):,} lines the busiest {LINES_MAX:,} are drawn."
    return text


def _entry(class_: str, text: str, points: str = "") -> Markup:
    swatch = tag("circle", cx=6, cy=6, r=4.5, class_=f"node {class_}")
    if points:
        swatch = tag("polygon", points=points, class_=f"node {class_}")
    return tag("li", tag("svg", swatch, viewBox="0 0 12 12", class_="swatch"), text)


def _skills(dots: Sequence[Dot]) -> Mapping[str, int]:
    """Return each skill's colour; a node has that of its first."""
    names = sorted({dot.skills[0] for dot in dots if dot.skills})
    return {name: i % _COLOURS for i, name in enumerate(names)}


def _places(dots: Sequence[Dot]) -> Iterator[tuple[str, Place]]:
    if len(dots) <= NAMED_MAX:
        for i, dot in enumerate(dots):
            angle = 2 * pi * i / len(dots) - pi / 2
            yield dot.name, (_MIDDLE + _CIRCLE * cos(angle), _MIDDLE + _CIRCLE * sin(angle))
        return
    busy = sorted(dots, key=lambda dot: -(dot.served + dot.brokered))
    for i, dot in enumerate(busy):
        far = _SUNFLOWER * sqrt((i + 0.5) / len(busy))
        angle = i * _GOLDEN
        yield dot.name, (_MIDDLE + far * cos(angle), _MIDDLE + far * sin(angle))


def _sizes(count: int) -> tuple[float, float]:
    """Return the radius of who served nobody, and what is added for who served most."""
    apart = _SUNFLOWER * sqrt(pi / count)  # from a seed of the sunflower to the next
    return 0.25 * apart, 0.3 * apart


def _line(line: Line, places: Mapping[str, Place], most: int, *, told: bool) -> Markup:
    (x1, y1), (x2, y2) = places[line.broker], places[line.contractor]
    share = line.awards / max(most, _FEW_AWARDS)
    text = f"{line.contractor} served {line.broker} {line.awards:,} times" if told else None
    return tag(
        "line",
        tag("title", text) if text else None,
        x1=x1,
        y1=y1,
        x2=x2,
        y2=y2,
        stroke_width=0.6 + 2.4 * share,
        stroke_opacity=0.12 + 0.5 * share,
        class_="edge",
    )


def _dot(dot: Dot, place: Place, skills: Mapping[str, int], size: float) -> Markup:
    skill = f"skill{skills[dot.skills[0]]}" if dot.skills else "none"
    looks = f"node {skill}{' bad' if _is_bad(dot) else ''}{'' if dot.up else ' down'}"
    state = "up" if dot.up else "down"
    can = ", ".join(dict.fromkeys(dot.skills)) or "no skill"
    text = f"{dot.name}: {can}; {dot.role}; {state}; asked {dot.brokered}, served {dot.served}"
    x, y = place
    if _is_bad(dot):
        return tag("polygon", tag("title", text), points=_diamond(x, y, size), class_=looks)
    return tag("circle", tag("title", text), cx=x, cy=y, r=size, class_=looks)


def _is_bad(dot: Dot) -> bool:
    return dot.role not in {"honest", ""}


def _diamond(x: float, y: float, size: float) -> str:
    far = 1.45 * size
    corners = ((x, y - far), (x + far, y), (x, y + far), (x - far, y))
    return " ".join(f"{left:.1f},{down:.1f}" for left, down in corners)


def _name(dot: Dot, place: Place) -> Markup:
    x, y = (_MIDDLE + (one - _MIDDLE) * 1.14 for one in place)
    turn = "mid"
    if abs(x - _MIDDLE) > _MIDDLE / 3:
        turn = "start" if x > _MIDDLE else "end"
    return joined(tag("text", dot.name, x=x, y=y + 4, class_=f"name {turn}"))
