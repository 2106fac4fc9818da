"""The page: what was played, what came of it, over time, by node, by job, by seed."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from simulations.outcome import Dot, Outcome, Story, Window, quantile
from simulations.report import curves, network
from simulations.report.document import document
from simulations.report.markup import Markup, joined, tag
from simulations.report.numbers import exact, moment, percent, short, span
from simulations.report.plot import Mark, plot
from simulations.runs.summary import Summary
from simulations.scenario import Scenario, Trouble

#: Failed seeds, and seeds in the table, that are shown; of more their number is told.
FAILED_MAX: Final = 50
SEEDS_MAX: Final = 500
_TROUBLES_MAX: Final = 50
_STORY_SEEDS_MAX: Final = 6
_BUSIEST: Final = 10
_DIGEST_SHOWN: Final = 12

_PLOTS: Final[tuple[tuple[str, curves.Measure, float | None, Callable[[float], str]], ...]] = (
    ("Jobs that completed", curves.completed_share, 1.0, percent),
    ("What a job took, seconds", curves.took_s, None, short),
    ("What a job cost, millicredits", curves.cost_mc, None, short),
    ("Completed with wrong outputs", curves.wrong_share, None, percent),
    ("Nodes up", curves.up, None, short),
    ("Running calls at the busiest tenth of the agents", curves.busiest, 1.0, percent),
)


def page(scenario: Scenario, outcomes: Sequence[Outcome], *, made_by: str) -> str:
    """Return the report.

    Args:
        scenario: What was played.
        outcomes: What came of it, by seed; those without nodes and stories have a line only.
        made_by: Program and version.
    """
    sections = (
        _head(scenario, outcomes, made_by),
        _tiles(outcomes),
        _failed(outcomes),
        _over_time(scenario, outcomes),
        _nodes(outcomes),
        _figures(outcomes),
        _jobs(outcomes),
        _seeds(outcomes),
    )
    return document(f"{scenario.name}: {_seed_count(outcomes)}", sections)


# --- what was played ---------------------------------------------------------------------


def _head(scenario: Scenario, outcomes: Sequence[Outcome], made_by: str) -> Markup:
    failed = sum(not one.passed for one in outcomes)
    verdict = "all that must hold holds"
    if failed:
        verdict = "failed" if len(outcomes) == 1 else f"{failed:,} of {len(outcomes):,} failed"
    virtual_s = sum(one.virtual_s for one in outcomes)
    facts = (
        f"{_seed_count(outcomes)}, {scenario.nodes:,} nodes, {span(scenario.minutes * 60)} of"
        f" load, {span(virtual_s)} of virtual time in all, {made_by}"
    )
    return joined(
        tag("h1", scenario.name),
        tag("p", tag("span", verdict, class_="badge bad" if failed else "badge")),
        tag("p", facts, class_="soft"),
        [tag("p", text, class_="story") for text in _paragraphs(scenario.story)],
    )


def _paragraphs(story: str) -> Iterator[str]:
    """Yield a story's paragraphs; given, when and then begin a line, the rest runs on."""
    for part in re.split(r"\n\s*\n", story.strip()):
        lines = [line.strip() for line in part.splitlines()]
        breaks = ["\n" if re.match(r"(?i)(given|when|then)\b", one) else " " for one in lines]
        yield "".join(f"{a}{b}" for a, b in zip(breaks, lines, strict=True)).strip()


def _seed_count(outcomes: Sequence[Outcome]) -> str:
    if len(outcomes) == 1:
        return f"seed {outcomes[0].seed}"
    seeds = [one.seed for one in outcomes]
    return f"{len(seeds):,} seeds, {min(seeds, default=0)} to {max(seeds, default=0)}"


def _tiles(outcomes: Sequence[Outcome]) -> Markup | None:
    played = [one for one in outcomes if one.figures]
    if not played:
        return None
    many = "median of the seeds" if len(played) > 1 else "of all jobs"

    def figure(name: str) -> float:
        return quantile([one.figures.get(name, 0.0) for one in played], 0.5)

    tiles = (
        ("Completed", percent(figure("completed_share")), many),
        ("Took, p95", span(figure("took_p95_s")), f"p50 {span(figure('took_p50_s'))}"),
        ("Cost of a job", f"{short(figure('cost_mean_mc'))} mc", "mean of the completed"),
        ("Jobs", short(figure("jobs")), f"awards for each: {short(figure('awards_per_job'))}"),
        ("Wrong outputs", percent(figure("wrong_share")), "of the completed"),
        ("Busiest tenth", percent(figure("busiest_share")), "of the running calls"),
    )
    return tag("div", [_tile(*one) for one in tiles], class_="tiles")


def _tile(name: str, value: str, note: str) -> Markup:
    return tag(
        "div",
        tag("h3", name, class_="soft"),
        tag("div", value, class_="value"),
        tag("div", note, class_="soft"),
        class_="card tile",
    )


# --- who failed --------------------------------------------------------------------------


def _failed(outcomes: Sequence[Outcome]) -> Markup | None:
    failed = [one for one in outcomes if not one.passed]
    if not failed:
        return None
    more = len(failed) - FAILED_MAX
    return joined(
        tag("h2", "What does not hold"),
        [_failure(one) for one in failed[:FAILED_MAX]],
        tag("p", f"… and {more:,} more seeds.", class_="soft") if more > 0 else None,
    )


def _failure(outcome: Outcome) -> Markup:
    more = len(outcome.troubles) - _TROUBLES_MAX
    troubles = [tag("li", one) for one in outcome.troubles[:_TROUBLES_MAX]]
    troubles += [tag("li", f"… and {more:,} more")] if more > 0 else []
    return tag(
        "div",
        tag("h3", f"Seed {outcome.seed}"),
        tag("ul", troubles, class_="troubles"),
        tag("div", "Play it again:", class_="soft"),
        tag("pre", outcome.replay, class_="command"),
        class_="card failed",
    )


# --- over time ---------------------------------------------------------------------------


def _over_time(scenario: Scenario, outcomes: Sequence[Outcome]) -> Markup | None:
    rows = curves.rows_of(outcomes)
    if not rows:
        return None
    length_s = max(row[-1].at_s for row in rows)
    marks = [_mark(one, length_s) for one in scenario.faults if one.at_s <= length_s]
    drawn = [
        _plot(title, curves.curve(rows, measure), length_s, (top, says, marks))
        for title, measure, top, says in _PLOTS
    ]
    return joined(
        tag("h2", "Over time"),
        tag("p", _how_to_read(rows, marks), class_="soft"),
        tag("div", drawn, class_="plots"),
    )


def _plot(
    title: str,
    points: Sequence[curves.Point],
    length_s: float,
    how: tuple[float | None, Callable[[float], str], Sequence[Mark]],
) -> Markup:
    top, says, marks = how
    drawn = plot(points, length_s=length_s, top=top, marks=marks, says=says)
    return tag("figure", tag("h3", title), drawn, class_="card")


def _how_to_read(rows: Sequence[Sequence[Window]], marks: Sequence[Mark]) -> str:
    part_s = rows[0][0].at_s
    text = f"Minutes from the start of the load; a point stands for {span(part_s)}."
    if len(rows) > 1:
        part = "90 % of them" if len(rows) >= curves.MANY_SEEDS else "all of them"
        text += f"  Line: median of {len(rows):,} seeds.  Band: {part}."
    if marks:
        told = ", ".join(f"{mark.text} at {moment(mark.from_s)}" for mark in marks)
        text += f"  Shaded: {told}."
    return text


def _mark(trouble: Trouble, length_s: float) -> Mark:
    whom = f" of {', '.join(trouble.who)}" if trouble.who else ""
    if not whom and trouble.share:
        whom = f" of {percent(trouble.share)} of the nodes"
    lasts = f" for {span(trouble.for_s)}" if trouble.for_s else ""
    until_s = min(length_s, trouble.at_s + trouble.for_s)
    return Mark(trouble.at_s, until_s, f"{trouble.kind}{whom}{lasts}")


# --- nodes -------------------------------------------------------------------------------


def _told(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the seed whose nodes are drawn: the first that failed, or else the first."""
    whole = [one for one in outcomes if one.dots]
    failed = [one for one in whole if not one.passed]
    return next(iter(failed or whole), None)


def _nodes(outcomes: Sequence[Outcome]) -> Markup | None:
    outcome = _told(outcomes)
    if outcome is None:
        return None
    drawn = tag(
        "figure",
        network.drawing(outcome),
        network.legend(outcome),
        tag("figcaption", network.caption(outcome)),
        class_="card",
    )
    busy = sorted(outcome.dots, key=lambda dot: (-dot.served, -dot.brokered))[:_BUSIEST]
    heads = ("node", "skills", "role", "", "asked", "served")
    rows = [_node_row(dot) for dot in busy]
    busiest = tag("div", tag("h3", "The busiest"), _table(heads, rows), class_="card")
    title = "The network" + (f", seed {outcome.seed}" if len(outcomes) > 1 else "")
    return joined(tag("h2", title), tag("div", drawn, busiest, class_="two"))


def _node_row(dot: Dot) -> Sequence[str | int]:
    state = "up" if dot.up else "down"
    return (
        dot.name,
        ", ".join(dict.fromkeys(dot.skills)),
        dot.role,
        state,
        dot.brokered,
        dot.served,
    )


# --- figures -----------------------------------------------------------------------------


def _figures(outcomes: Sequence[Outcome]) -> Markup | None:
    summary = Summary(all_whole=True)
    for outcome in outcomes:
        summary.add(outcome)
    spreads = list(summary.spreads())
    if not spreads:
        return None
    if len(outcomes) == 1:
        heads: tuple[str, ...] = ("figure", "value")
        rows = [(one.name, one.p50) for one in spreads]
        table = _table(heads, rows)
    else:
        heads = ("over the seeds", "least", "p50", "p95", "most")
        table = _table(
            heads, [(one.name, one.least, one.p50, one.p95, one.most) for one in spreads]
        )
    return joined(tag("h2", "Figures"), tag("div", table, class_="card figures"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | float | Markup]]) -> Markup:
    is_number = [
        all(isinstance(row[i], int | float) for row in rows) for i in range(len(heads))
    ]
    looks = ["number" if one else None for one in is_number]
    head = tag(
        "tr", [tag("th", name, class_=look) for name, look in zip(heads, looks, strict=True)]
    )
    body = [
        tag(
            "tr",
            [
                tag("td", _cell(cell), class_=look)
                for cell, look in zip(row, looks, strict=True)
            ],
        )
        for row in rows
    ]
    return tag("div", tag("table", head, body), class_="wide")


def _cell(cell: str | float) -> str:
    return cell if isinstance(cell, str) else exact(cell)


# --- jobs --------------------------------------------------------------------------------


def _jobs(outcomes: Sequence[Outcome]) -> Markup | None:
    whole = [one for one in outcomes if one.stories]
    whole.sort(key=lambda outcome: outcome.passed)
    if not whole:
        return None
    cards = []
    for outcome in whole[:_STORY_SEEDS_MAX]:
        title = tag("h3", f"Seed {outcome.seed}") if len(outcomes) > 1 else None
        cards.append(tag("div", title, list(_stories(outcome)), class_="card"))
    about = "Those that failed, then the slowest, each with its journal."
    return joined(
        tag("h2", "Jobs"), tag("p", about, class_="soft"), tag("div", cards, class_="jobs")
    )


def _stories(outcome: Outcome) -> Iterator[Markup]:
    for story in outcome.stories:
        yield _story(story)


def _story(story: Story) -> Markup:
    is_well = story.state == "completed" and not story.why
    facts = (
        f"{story.job or 'no job'} of {story.by}, at {moment(story.begun_s)},"
        f" took {span(story.took_s)}, {story.cost_mc} mc"
    )
    return tag(
        "details",
        tag(
            "summary",
            tag("span", story.state, class_="badge" if is_well else "badge bad"),
            tag("span", facts, class_="soft"),
            tag("div", story.why) if story.why else None,
        ),
        tag("pre", "\n".join(story.events) or "nothing is written of it"),
    )


# --- seeds -------------------------------------------------------------------------------


def _seeds(outcomes: Sequence[Outcome]) -> Markup:
    shown = outcomes[:SEEDS_MAX]
    heads = ("seed", "", "jobs", "completed", "p95, s", "mc", "busiest", "virtual, s", "trace")
    more = len(outcomes) - len(shown)
    return joined(
        tag("h2", "Seeds" if len(outcomes) > 1 else "Seed"),
        tag("div", _table(heads, [_seed_row(one) for one in shown]), class_="card"),
        tag("p", f"… and {more:,} more.", class_="soft") if more > 0 else None,
        tag("p", "The same seed on the same code is the same run: play one again with"),
        tag("pre", outcomes[0].replay, class_="command") if outcomes else None,
    )


def _seed_row(outcome: Outcome) -> Sequence[str | float | Markup]:
    figures = outcome.figures
    badge = tag(
        "span",
        "ok" if outcome.passed else "failed",
        class_="badge" if outcome.passed else "badge bad",
    )
    return (
        outcome.seed,
        badge,
        *(
            figures.get(name, 0.0)
            for name in (
                "jobs",
                "completed_share",
                "took_p95_s",
                "cost_mean_mc",
                "busiest_share",
            )
        ),
        outcome.virtual_s,
        tag("code", outcome.digest[:_DIGEST_SHOWN] or "not played to its end"),
    )
