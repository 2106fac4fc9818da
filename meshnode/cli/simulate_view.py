"""What ``meshnode simulate`` shows: a bar while it plays, a line for each seed, figures."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from meshnode.cli.printing import console, plain, say_json, table
from simulations.outcome import Outcome
from simulations.runs.summary import Spread, Summary
from simulations.scenario import Scenario

#: With more seeds than these only the failed ones have a line.
LINES_MAX: Final = 200
_TROUBLES_SHOWN: Final = 10
_FAILED_SHOWN: Final = 20
_DIGEST_SHOWN: Final = 12
_LINE_SIZE_MAX: Final = 1000
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


class View:
    """What is seen of a run."""

    def __init__(self, scenario: Scenario, count: int, *, as_json: bool) -> None:
        self._scenario = scenario
        self._count = count
        self._as_json = as_json
        self._out = console()
        # Where both are the same terminal, lines and bar must know of each other.
        is_same = self._out.is_terminal and not as_json
        shown_on = self._out if is_same else console(errors=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=shown_on,
            disable=not shown_on.is_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(plain(scenario.name), total=count)
        self._running: dict[int, tuple[float, float]] = {}
        self._ended: dict[int, Outcome] = {}
        self._failed = 0
        self._virtual_s = 0.0
        self._from_file = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def told(self, seed: int, done_s: float, all_s: float) -> None:
        """Show how far a seed is."""
        self._running[seed] = (done_s, all_s)
        self._draw()

    def ended(self, outcome: Outcome, *, again: bool = False) -> None:
        """Show what came of a seed; ``again`` if it was played before."""
        self._running.pop(outcome.seed, None)
        self._virtual_s += 0.0 if again else outcome.virtual_s
        self._failed += not outcome.passed
        self._from_file += again
        self._ended[outcome.seed] = outcome
        self._draw()
        if not self._as_json and (not outcome.passed or self._count <= LINES_MAX):
            self._out.print(plain(_line(outcome)), markup=False, soft_wrap=True)

    def _draw(self) -> None:
        done = len(self._ended)
        partly = sum(done_s / all_s for done_s, all_s in self._running.values() if all_s)
        virtual_s = self._virtual_s + sum(done_s for done_s, _ in self._running.values())
        name = plain(self._scenario.name).replace("[", "(")
        self._bar.update(
            self._task,
            completed=done + partly,
            description=f"{name}: {done}/{self._count} seeds, {self._failed} failed,"
            f" {_span(virtual_s)} of virtual time",
        )

    # --- the end ---

    def conclude(
        self, summary: Summary, *, html: Path | None, lines: Iterable[str], trace: Path | None
    ) -> None:
        """Print figures, and whoever failed with the command that plays it again."""
        if self._as_json:
            sys.stdout.buffer.write(
                msgspec.json.encode(document(self._scenario, summary, lines))
            )
            sys.stdout.write("\n")
            sys.stdout.flush()
            return
        print_ = self._out.print
        for line in lines:
            print_(plain(line, size_max=_LINE_SIZE_MAX), markup=False, soft_wrap=True)
        print_()
        print_(_figures(list(summary.spreads()), seeds=len(summary.outcomes)))
        for outcome in summary.failed()[:_FAILED_SHOWN]:
            self._tell_failed(outcome)
        print_()
        print_(plain(self._verdict(summary)), markup=False, soft_wrap=True)
        for what, path in (("report", html), ("trace", trace)):
            if path is not None:
                print_(f"{what}: {path}", markup=False, soft_wrap=True)

    def _tell_failed(self, outcome: Outcome) -> None:
        print_ = self._out.print
        print_(f"\nseed {outcome.seed} failed:", style="bold", markup=False)
        for trouble in outcome.troubles[:_TROUBLES_SHOWN]:
            text = plain(trouble, size_max=_LINE_SIZE_MAX)
            print_(f"  {text}", markup=False, soft_wrap=True)
        if (more := len(outcome.troubles) - _TROUBLES_SHOWN) > 0:
            print_(f"  … and {more} more", markup=False)
        print_(f"  replay: {plain(outcome.replay)}", markup=False, soft_wrap=True)

    def _verdict(self, summary: Summary) -> str:
        count, failed = len(summary.outcomes), len(summary.failed())
        again = f" ({self._from_file} played before)" if self._from_file else ""
        seeds = f"{count} seed{'' if count == 1 else 's'}{again}"
        verdict = f"{failed} of them failed" if failed else "all that must hold holds"
        if failed == count == 1:
            verdict = "it failed"
        if failed > _FAILED_SHOWN:
            verdict += f" (the first {_FAILED_SHOWN} are told)"
        return f"{seeds}, {_span(summary.virtual_s)} of virtual time: {verdict}"


def _line(outcome: Outcome) -> str:
    """Return a seed on one line."""
    begin = f"seed {outcome.seed:<5} {'ok    ' if outcome.passed else 'FAILED'}"
    if not outcome.digest:
        return f"{begin}  {outcome.troubles[0]}"
    figures = outcome.figures
    line = (
        f"{begin}  {figures['jobs']:g} jobs, {figures['completed_share']:.1%} completed,"
        f" p95 {figures['took_p95_s']:.2f} s, {figures['cost_mean_mc']:.1f} mc a job,"
        f" {_span(outcome.virtual_s)}, trace {outcome.digest[:_DIGEST_SHOWN]}"
    )
    return line if outcome.passed else f"{line}: {outcome.troubles[0]}"


def _figures(spreads: Sequence[Spread], *, seeds: int) -> Table:
    if seeds == 1:
        rows = [(one.name, _number(one.p50)) for one in spreads]
        return table(("figure", "value"), rows, right="value")
    rows_ = [
        (one.name, *(_number(v) for v in (one.least, one.p50, one.p95, one.most)))
        for one in spreads
    ]
    titles = ("figure over the seeds", "least", "p50", "p95", "most")
    return table(titles, rows_, right="least p50 p95 most")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"


def _span(time_s: float) -> str:
    """Return a span as people say it."""
    if time_s >= _HOUR_S:
        return f"{time_s / _HOUR_S:.1f} h"
    return f"{time_s / _MINUTE_S:.1f} min" if time_s >= _MINUTE_S else f"{time_s:.0f} s"


def document(scenario: Scenario, summary: Summary, lines: Iterable[str]) -> Mapping[str, Any]:
    """Return what ``--json`` prints; a limit that isn't there is null."""
    failed = summary.failed()
    return {
        "scenario": msgspec.to_builtins(scenario),
        "passed": not failed,
        "failed": [outcome.seed for outcome in failed],
        "figures": {one.name: _spread(one) for one in summary.spreads()},
        "outcomes": [msgspec.to_builtins(outcome) for outcome in summary.in_order()],
        **({"trace": found} if (found := list(lines)) else {}),
    }


def _spread(one: Spread) -> Mapping[str, float]:
    return {"least": one.least, "p50": one.p50, "p95": one.p95, "most": one.most}


def show_list(*, as_json: bool) -> None:
    """Say what scenarios there are, and how to go on."""
    from simulations.scenarios import first_sentence, named, names

    found = {name: named(name) for name in names()}
    if as_json:
        say_json(
            {
                "scenarios": [
                    {
                        "name": name,
                        "title": one.name,
                        "story": one.story.strip(),
                        "nodes": one.nodes,
                        "minutes": one.minutes,
                    }
                    for name, one in found.items()
                ]
            }
        )
        return
    out = console()
    rows = [
        (name, one.nodes, f"{one.minutes:g}", first_sentence(one.story))
        for name, one in found.items()
    ]
    out.print(table(("scenario", "nodes", "minutes", "story"), rows, right="nodes minutes"))
    first = next(iter(found), "FILE.toml")
    out.print(f"\nplay one:   meshnode simulate {first}", markup=False)
    out.print(f"see it:     meshnode simulate {first} --html report.html", markup=False)
    out.print("your own:   meshnode simulate mine.toml (docs/simulation.md)", markup=False)
