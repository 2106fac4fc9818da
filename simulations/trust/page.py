"""The curves of every policy side by side, as one page that opens from the disk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from simulations.report.chart import Series, chart, legend
from simulations.report.document import document
from simulations.report.markup import Markup, joined, tag
from simulations.report.numbers import short
from simulations.trust import cells, spread
from simulations.trust.market import NOTICE_ROUNDS, SETTLED_ROUND, WINDOW_ROUNDS, Course

_ALL_PCT: Final = 100.0
_CURVES: Final[tuple[tuple[str, spread.Measure], ...]] = (
    ("Wrong among the accepted, %", spread.wrong_pct),
    ("Contested or unverified, %", spread.open_pct),
    ("Executions for each task, gold with them", spread.executions),
    ("Paid for each task, prices of an honest agent", spread.paid),
    (f"Wrong in the worst {WINDOW_ROUNDS} rounds, %", spread.worst_pct),
    (f"Not accepted in the first {SETTLED_ROUND} rounds, %", spread.begin_open_pct),
)

Courses = Mapping[str, Mapping[str, Sequence[Course]]]


class Line(NamedTuple):
    """A figure, as it is told.

    Attributes:
        name: Its id.
        value: With its unit.
        goal: Empty for none.
        verdict: ``yes``, ``no``, or empty.
        note: How it was found.
    """

    name: str
    value: str
    goal: str
    verdict: str
    note: str


def page(played: Courses, size: cells.Size, lines: Sequence[Line], *, made_by: str) -> str:
    """Return the page.

    Args:
        played: Courses by cell and policy.
        size: How much was played.
        lines: The figures.
        made_by: Commit.
    """
    return document(
        "Trust in a market of cheats",
        _head(size, lines, made_by),
        _collusion(played, size),
        _published(played, size),
        _over_time(played),
        _beside(played),
        _lines(lines),
    )


def _head(size: cells.Size, lines: Sequence[Line], made_by: str) -> Markup:
    missed = sum(line.verdict == "no" for line in lines)
    held = sum(line.verdict == "yes" for line in lines)
    told = (
        f"{size.seeds} seeds from {cells.FIRST_SEED} on, {size.honest} buyers, who are honest"
        f" agents as well, {size.rounds} rounds of a task each; shares of the second half."
        "  Bars are 95 % intervals of the mean over seeds."
        "  Where nothing else is said, 30 % of the wrong accepted results are noticed, within"
        f" {NOTICE_ROUNDS} rounds, and honest agents err in 4 % of their answers."
        f"  Commit {made_by}."
    )
    verdict = f"{held} goals reached, {missed} missed"
    return joined(
        tag("h1", "Trust in a market of cheats"),
        tag("p", tag("span", verdict, class_="badge bad" if missed else "badge")),
        tag("p", told, class_="soft"),
    )


def _collusion(played: Courses, size: cells.Size) -> Markup:
    def series(measure: spread.Measure) -> list[Series]:
        return [
            _series(
                policy,
                {share: played[f"R6.collusion{share}"][policy] for share in size.shares},
                measure,
            )
            for policy in cells.EVERYBODY
        ]

    plots = [_plot(title, series(measure)) for title, measure in _CURVES]
    return joined(
        tag("h2", "Colluding agents, per cent of all"),
        tag("p", "They agree on one wrong answer and praise one another.", class_="soft"),
        legend(cells.EVERYBODY),
        tag("div", plots, class_="plots"),
    )


def _series(
    name: str, curve: Mapping[int, Sequence[Course]], measure: spread.Measure
) -> Series:
    found = {place: spread.over(courses, measure) for place, courses in curve.items()}
    return Series(name, [(place, one.mean, one.half) for place, one in found.items()])


def _plot(title: str, series: Sequence[Series]) -> Markup:
    """Shares are drawn up to all there is, or to what the curves need if that is less."""
    top = None
    if title.endswith("%"):
        top = min(
            _ALL_PCT, max(value + half for one in series for _, value, half in one.points)
        )
    drawn = chart(series, top=top, says=short, places=_place)
    return tag("div", tag("h3", title), drawn, class_="card")


def _place(place: float) -> str:
    return f"{place:g}"


def _published(played: Courses, size: cells.Size) -> Markup:
    names = sorted(played[f"R6.fig5.{size.shares[0]}"])
    series = [
        _series(
            name,
            {share: played[f"R6.fig5.{share}"][name] for share in size.shares},
            spread.wrong_pct,
        )
        for name in names
    ]
    return joined(
        tag("h2", "EigenTrust as it was published"),
        tag("p", PUBLISHED, class_="soft"),
        legend(names),
        tag("div", _plot("Inauthentic results, %", series), class_="plots one"),
    )


PUBLISHED: Final = (
    "Threat model A, each bad result noticed at once, honest peers wrong in 5 % of their"
    " answers, as in Fig. 5 of Kamvar, Schlosser and Garcia-Molina.  The published curve"
    " lies at about 10 % where 70 % are malicious; here that is between the two curves."
    "  By the published rule one answer in ten is drawn from those without any trust."
    "  Here every honest agent has worked soon, so that all of these are cheats, and the rule"
    " costs ten points wherever there is one; in a network of files many who have no trust"
    " are honest peers that nobody has asked for anything."
)


def _over_time(played: Courses) -> Markup:
    """The course of what comes suddenly."""
    plots = []
    for name, title in (
        ("R8.onoff_in_step", f"On-off in step, {cells.USUAL} of 100: wrong, %"),
        *(
            (f"R8.exit{share}", f"{share} of 100 turn in one round: wrong, %")
            for share in cells.EXITS
        ),
    ):
        series = [
            Series(policy, list(_windows(played[name][policy]))) for policy in cells.EVERYBODY
        ]
        plots.append(_plot(title, series))
    return joined(
        tag("h2", "What comes suddenly: wrong among the accepted, %, by round"),
        legend(cells.EVERYBODY),
        tag("div", plots, class_="plots"),
    )


def _windows(courses: Sequence[Course]) -> Iterator[tuple[float, float, float]]:
    length = 2 * WINDOW_ROUNDS
    for first in range(0, len(courses[0].counts) - length + 1, length):
        parts = [course.counts[first : first + length] for course in courses]
        shares = [
            100 * sum(wrong for _, wrong in part) / max(1, sum(taken for taken, _ in part))
            for part in parts
        ]
        found = spread.spread(shares)
        yield float(first), found.mean, found.half


def _beside(played: Courses) -> Markup:
    """Every cell and policy in a table."""
    heads = ("market", *cells.EVERYBODY)
    rows = [
        (cell, *(_cell(by_policy.get(policy)) for policy in cells.EVERYBODY))
        for cell, by_policy in played.items()
        if cell.startswith(("R6.", "R8.")) and not cell.startswith("R6.fig5")
    ]
    return joined(
        tag("h2", "Side by side: wrong among the accepted, % (executions for each task)"),
        tag("div", table(heads, rows), class_="card wide"),
    )


def _cell(courses: Sequence[Course] | None) -> str:
    if courses is None:
        return ""
    wrong = spread.over(courses, spread.wrong_pct)
    return f"{wrong.mean:.1f} ({spread.over(courses, spread.executions).mean:.2f})"


def _lines(lines: Sequence[Line]) -> Markup:
    heads = ("figure", "value", "goal", "holds", "how")
    return joined(tag("h2", "Figures"), tag("div", table(heads, lines), class_="card wide"))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """Return a table of text."""
    return tag(
        "table",
        tag("thead", tag("tr", [tag("th", head) for head in heads])),
        tag("tbody", [tag("tr", [tag("td", one) for one in row]) for row in rows]),
    )
