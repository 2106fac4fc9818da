"""``meshnode simulate``: the arguments; :mod:`meshnode.cli.simulate_view` is what is seen."""

import shlex
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from meshnode.cli.options import Json

if TYPE_CHECKING:
    from meshnode.cli.simulate_view import View
    from simulations.outcome import Outcome
    from simulations.runs.results import Results
    from simulations.runs.summary import Summary
    from simulations.runs.takes import Take
    from simulations.scenario import Scenario

_Which = Annotated[
    str, typer.Argument(metavar="[SCENARIO|FILE.toml]", help="A name of --list, or a file.")
]
_Nodes = Annotated[int, typer.Option(metavar="N", help="So many instead of the scenario's.")]
_Minutes = Annotated[
    float, typer.Option(metavar="M", help="Virtual time, instead of the scenario's.")
]
_Seed = Annotated[int, typer.Option(metavar="S", min=0, help="The first seed.")]
_Seeds = Annotated[int, typer.Option(metavar="N", min=1, help="Play so many, from --seed on.")]
_Workers = Annotated[
    int, typer.Option(metavar="W", min=0, help="Processes; 0: all cores, 1: this process.")
]
_Limit = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, help="Real time a seed may take.")
]
_Html = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report: one page.")]
_Resume = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep outcomes there, and play only what is missing."),
]
_Cluster = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Play on a Dask cluster: tcp://HOST:PORT.")
]
_Trace = Annotated[
    Path | None, typer.Option(metavar="FILE", help="One seed: write its trace there.")
]
_Lines = Annotated[
    int, typer.Option(metavar="N", min=0, help="One seed: the last N lines of its trace only.")
]
_List = Annotated[bool, typer.Option("--list", help="Say what scenarios there are.")]

_LIMIT_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be played, and how."""

    which: str
    scenario: "Scenario"
    seeds: range
    changed: Sequence[str]
    workers: int
    limit_s: float
    cluster: str

    def takes(self, missing: Sequence[int]) -> Iterator["Take"]:
        """Yield what is played of ``missing``."""
        from simulations.runs.takes import Take

        for seed in missing:
            yield Take(scenario=self.scenario, seed=seed, replay=self.command("--seed", seed))

    def command(self, *more: object) -> str:
        """Return the command that plays the scenario as it is here."""
        return shlex.join(
            ["meshnode", "simulate", self.which, *map(str, more), *map(str, self.changed)]
        )


def simulate(
    scenario: _Which = "",
    *,
    nodes: _Nodes = 0,
    minutes: _Minutes = 0.0,
    seed: _Seed = 0,
    seeds: _Seeds = 1,
    workers: _Workers = 0,
    limit: _Limit = _LIMIT_S,
    html: _Html = None,
    resume: _Resume = None,
    cluster: _Cluster = "",
    trace: _Trace = None,
    lines: _Lines = 0,
    list_: _List = False,
    as_json: Json = False,
) -> None:
    """Play a scenario on simulated nodes, in virtual time: real code, no network.

    A scenario says who is there, what they are asked, what goes wrong and what must hold.
    A seed fixes everything: the same seed on the same code is the same run, event for
    event, on any machine.  What fails is told with the command that plays it again.

    Examples:
      meshnode simulate
      meshnode simulate flash-crowd
      meshnode simulate flash-crowd --nodes 100 --minutes 10 --html report.html
      meshnode simulate flash-crowd --seeds 200 --resume night.jsonl
      meshnode simulate flash-crowd --seed 17 --lines 40
      meshnode simulate mine.toml --seeds 8 --json
      meshnode simulate mine.toml --seeds 5000 --cluster tcp://10.0.0.1:8786

    The exit status is 0 if all that must hold holds for every seed, 1 if not.
    docs/simulation.md says what a FILE.toml may hold.
    """
    if list_ or not scenario:
        from meshnode.cli.simulate_view import show_list

        show_list(as_json=as_json)
        return
    wish = _Wish(
        which=scenario,
        scenario=_scenario(scenario, nodes, minutes),
        seeds=range(seed, seed + seeds),
        changed=[*(("--nodes", nodes) if nodes else ()), *_minutes(minutes)],
        workers=workers,
        limit_s=limit,
        cluster=cluster,
    )
    _refuse_contradictions(wish, traced=bool(trace or lines), resumed=resume is not None)
    kept = deque[str](maxlen=lines or None) if trace or lines else None
    _play(wish, html=html, resume=resume, as_json=as_json, lines=kept, trace=trace)


def _minutes(minutes: float) -> tuple[str, ...]:
    return ("--minutes", f"{minutes:g}") if minutes else ()


def _scenario(which: str, nodes: int, minutes: float) -> "Scenario":
    import msgspec

    from simulations.scenario import checked
    from simulations.scenarios import named, scenario_at

    is_file = which.endswith(".toml") or "/" in which
    found = scenario_at(Path(which)) if is_file else named(which)
    changes = {"nodes": nodes or found.nodes, "minutes": minutes or found.minutes}
    return checked(msgspec.structs.replace(found, **changes), where=which)


def _refuse_contradictions(wish: _Wish, *, traced: bool, resumed: bool) -> None:
    from meshnode.cli.failure import CommandFailed

    if traced and (len(wish.seeds) > 1 or wish.cluster or resumed):
        raise CommandFailed(
            "--trace and --lines are for one seed, played here and now",
            hint="give --seed S, without --seeds, --resume and --cluster",
        )


def _play(
    wish: _Wish,
    *,
    html: Path | None,
    resume: Path | None,
    as_json: bool,
    lines: deque[str] | None,
    trace: Path | None,
) -> None:
    from meshnode.cli.simulate_view import View
    from simulations.runs.summary import Summary

    summary = Summary(all_whole=as_json)
    view = View(wish.scenario, len(wish.seeds), as_json=as_json)
    with _ended_by_sigterm(), ExitStack() as stack:
        results = _results(wish, resume, stack)
        for outcome in results.outcomes() if results else ():
            if outcome.seed in wish.seeds:
                summary.add(outcome)
                view.ended(outcome, again=True)
        try:
            with view, closing(_outcomes(wish, summary, view, lines)) as outcomes:
                for outcome in outcomes:
                    if results:
                        results.add(outcome)
                    summary.add(outcome)
                    view.ended(outcome)
        except KeyboardInterrupt:
            _interrupted(wish, summary, resume)
    if html is not None:
        _write_report(html, wish, summary)
    if trace is not None:
        _write(trace, "".join(f"{line}\n" for line in lines or ()))
    view.conclude(summary, html=html, lines=() if trace else lines or (), trace=trace)
    if summary.failed():
        raise typer.Exit(1)


def _results(wish: _Wish, resume: Path | None, stack: ExitStack) -> "Results | None":
    from meshnode.bench.figures import commit
    from meshnode.cli.version import own_version
    from simulations.runs.results import Results

    if resume is None:
        return None
    made = f"{own_version()} at {commit()}"
    return stack.enter_context(Results(resume, wish.scenario, version=made))


def _outcomes(
    wish: _Wish, summary: "Summary", view: "View", lines: deque[str] | None
) -> Generator["Outcome"]:
    """Play what is missing, where it was asked for."""
    from simulations.runs.takes import play_take
    from simulations.runs.workers import play_here, play_takes

    takes = wish.takes([seed for seed in wish.seeds if seed not in summary.outcomes])
    if lines is not None:
        (take,) = takes
        yield play_take(take, partial(view.told, take.seed), lines=lines)
    elif wish.cluster:
        from simulations.runs.cluster import play_on_cluster

        yield from play_on_cluster(takes, wish.cluster, limit_s=wish.limit_s)
    elif wish.workers == 1:
        yield from play_here(takes, told=view.told, limit_s=wish.limit_s)
    else:
        yield from play_takes(takes, workers=wish.workers, told=view.told, limit_s=wish.limit_s)


def _interrupted(wish: _Wish, summary: "Summary", resume: Path | None) -> NoReturn:
    """Say what was played and how to go on."""
    from meshnode.cli.failure import INTERRUPTED, CommandFailed

    first, count = wish.seeds.start, len(wish.seeds)
    again = ["--seed", first, "--seeds", count]
    if resume is not None:
        hint = f"go on: {wish.command(*again, '--resume', resume)}"
    else:
        hint = "with --resume FILE the next run would go on from here"
    raise CommandFailed(
        f"interrupted after {len(summary.outcomes)} of {count} seeds",
        hint=hint,
        told="cli.interrupted",
        status=INTERRUPTED,
    )


def _write_report(path: Path, wish: _Wish, summary: "Summary") -> None:
    from meshnode.cli.version import own_version
    from simulations.report import page

    _write(path, page(wish.scenario, summary.in_order(), made_by=f"meshnode {own_version()}"))


def _write(path: Path, text: str) -> None:
    from meshnode.cli.failure import CommandFailed

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise CommandFailed(f"{path} can't be written: {exc.strerror}") from exc


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: the workers are ended, and what was played is kept."""

    def end(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
