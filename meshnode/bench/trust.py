"""R6, R7, R8, T1 and T2: who can be believed, in a market of cheats, beside the literature.

Every policy plays the same markets with the same seeds (``simulations.trust``): this design
with the modules that a node uses, EigenTrust, a plain Beta, votes of three and five,
Sarmenta's credibility, and chance.  A figure is a mean over seeds with its 95 % interval in
the note.  ``--quick`` plays smaller markets, and two seeds of each.

Which numbers were chosen on what: see :mod:`simulations.trust.cells`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

from meshnode.bench.figures import Figure, Told, commit
from meshnode.bench.trust_mesh import mesh_figures
from meshnode.config_tables import TrustConfig
from meshnode.domain.matching import MS_PER_MC
from meshnode.domain.trust.buyers import FIRST_MC
from protocol.keys import Identity
from protocol.limits import WORK_NONCE_SIZE
from protocol.work import work_bits
from simulations.trust import cells, spread
from simulations.trust.fraud import PRICE_MC, Refusal, play_refusal
from simulations.trust.market import Course
from simulations.trust.page import Line, page
from simulations.trust.trials import Trial, play_trials

GOAL_CORRECT_PCT: Final = {"economy": 95.0, "assured": 99.5}
GOAL_EXECUTIONS: Final = {"economy": 1.8, "assured": 3.3}
GOAL_OPEN_PCT: Final = 3.0
GOAL_WINDOW_PCT: Final = 12.0
GOAL_SUDDEN_WINDOW_PCT: Final = 25.0
GOAL_SYBILS: Final = 1.5
GOAL_FRESH_EXECUTIONS: Final = {"economy": 2.6, "assured": 3.5}
GOAL_FRESH_CONTESTED_PCT: Final = {"economy": 3.0, "assured": 8.0}
GOAL_NEWCOMER_TASKS: Final = 50.0
#: Results of one agent that a buyer may lose, its last one with them.
GOAL_LOSS: Final = 4.0
#: Up to so many cheats the goals of R6 are for; beyond, only no worse than chance.
_SHARE_MAX: Final = 60

#: What a task of the market is taken to cost where a name's cost is held against it: dearer
#: than any in the demo.
TASK_MC: Final = 100
#: Tries at a proof of work that are timed.
_TRIES: Final = 5

#: Deals that a patient buyer pays each contractor for before it refuses.
_PATIENCE: Final = 40
#: Stands for a newcomer that never got half its fair share while it was watched.
_NEVER: Final = 9_999

#: Cell -> policy -> courses by seed.
Played = Mapping[str, Mapping[str, Sequence[Course]]]


def run(told: Told, *, quick: bool, html: str = "") -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Smaller markets, two seeds.
        html: File for a page with the curves; empty for none.
    """
    size = cells.QUICK if quick else cells.FULL
    played = play_all(told, size)
    figures = [
        *_collusion(played, size),
        *_beside(played),
        *_published(played, size),
        *_sybils(played, name_cost()),
        *_attacks(played),
        *_refusals(size),
        *_fresh(played),
        *_newcomers(played),
        *mesh_figures(told, quick=quick),
    ]
    if html:
        lines = [_line(figure) for figure in figures]
        Path(html).write_text(page(played, size, lines, made_by=commit()), "utf-8")
    return figures


def _line(figure: Figure) -> Line:
    """Return a figure as the page tells it."""
    value = "–" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
    sign = "≥" if figure.at_least else "≤"
    goal = "" if figure.goal is None else f"{sign} {figure.goal:g}"
    verdict = {True: "yes", False: "no", None: ""}[figure.holds]
    return Line(figure.id, value, goal, verdict, f"n = {figure.n}; {figure.note}")


def play_all(told: Told, size: cells.Size, *, workers: int = 0) -> Played:
    """Play every cell with every seed; the courses of a cell are in the order of seeds."""
    trials = [
        Trial(cell=cell.name, policy=policy, terms=cell.terms, seed=cells.FIRST_SEED + number)
        for number in range(size.seeds)
        for cell in cells.cells(size)
        for policy in cell.policies
    ]
    found: dict[str, dict[str, dict[int, Course]]] = {}
    for done, (trial, course) in enumerate(play_trials(trials, workers=workers), 1):
        by_policy = found.setdefault(trial.cell, {})
        by_policy.setdefault(trial.policy, {})[trial.seed] = course
        told(f"{len(trials)} markets", done / len(trials))
    return {
        cell: {
            policy: [courses[seed] for seed in sorted(courses)]
            for policy, courses in by_policy.items()
        }
        for cell, by_policy in found.items()
    }


def _figure(
    name: str,
    courses: Sequence[Course],
    measure: Callable[[Course], float],
    *,
    unit: str,
    note: str = "",
) -> Figure:
    """Return a figure without a goal."""
    found = spread.over(courses, measure)
    text = f"± {found.half:.2g}{'; ' if note else ''}{note}"
    return Figure(id=name, value=found.mean, unit=unit, n=found.n, note=text)


# --- R6: collusion ---------------------------------------------------------------------------


def _collusion(played: Played, size: cells.Size) -> Iterator[Figure]:
    """The worst of the curve up to 60 % cheats, and whether chance would have been better."""
    within = [share for share in size.shares if share <= _SHARE_MAX]
    for mode in cells.DESIGN:
        yield _extreme(
            f"R6.{mode}.correct",
            {share: played[f"R6.collusion{share}"][mode] for share in within},
            spread.correct_pct,
            goal=GOAL_CORRECT_PCT[mode],
            at_least=True,
        )
        for what, measure, goal, unit in (
            ("executions", spread.executions, GOAL_EXECUTIONS[mode], "executions a task"),
            ("open", spread.open_pct, GOAL_OPEN_PCT, "% unverified or contested"),
        ):
            yield _extreme(
                f"R6.{mode}.{what}",
                {share: played[f"R6.collusion{share}"][mode] for share in within},
                measure,
                goal=goal,
                unit=unit,
            )
        yield _beyond_chance(mode, played, size)


def _extreme(
    name: str,
    curve: Mapping[int, Sequence[Course]],
    measure: Callable[[Course], float],
    *,
    goal: float,
    unit: str = "% of the accepted",
    at_least: bool = False,
) -> Figure:
    """Return the worst point of a curve; the note has all of it."""
    points = {share: spread.over(courses, measure) for share, courses in curve.items()}
    pick = min if at_least else max
    worst = pick(points, key=lambda share: points[share].mean)
    listed = ", ".join(f"{share} %: {point}" for share, point in points.items())
    return Figure(
        id=name,
        value=points[worst].mean,
        unit=unit,
        n=points[worst].n,
        goal=goal,
        at_least=at_least,
        note=f"the worst of the curve, at {worst} % cheats; {listed}",
    )


def _beyond_chance(mode: str, played: Played, size: cells.Size) -> Figure:
    gaps = {
        share: spread.over(played[f"R6.collusion{share}"][mode], spread.wrong_pct).mean
        - spread.over(played[f"R6.collusion{share}"]["random"], spread.wrong_pct).mean
        for share in size.shares
    }
    worst = max(gaps, key=gaps.__getitem__)
    return Figure(
        id=f"R6.{mode}.over_random",
        value=gaps[worst],
        unit="points more wrong than chance",
        n=size.seeds,
        goal=0.0,
        note=f"the worst of the curve, at {worst} % cheats of up to {max(size.shares)} %",
    )


def _beside(played: Played) -> Iterator[Figure]:
    """Every policy in every cell of collusion and of correlated errors."""
    for cell, by_policy in played.items():
        if cell.startswith("R6.") and not cell.startswith("R6.fig5"):
            yield from _row(cell, by_policy)


def _row(cell: str, by_policy: Mapping[str, Sequence[Course]]) -> Iterator[Figure]:
    for policy, courses in sorted(by_policy.items()):
        yield _figure(
            f"{cell}.{_word(policy)}",
            courses,
            spread.wrong_pct,
            unit="% wrong of the accepted",
            note=_costs(courses),
        )


def _costs(courses: Sequence[Course]) -> str:
    parts = (
        f"{spread.over(courses, spread.open_pct)} % not accepted",
        f"{spread.over(courses, spread.executions)} executions a task",
        f"{spread.over(courses, spread.paid)} paid a task",
        f"worst 5 rounds {spread.over(courses, spread.worst_pct)} %",
    )
    return ", ".join(parts)


def _word(policy: str) -> str:
    return policy.lower().replace(",", "").replace(" ", "_")


# --- EigenTrust as published -----------------------------------------------------------------


def _published(played: Played, size: cells.Size) -> Iterator[Figure]:
    for share in size.shares:
        for policy, courses in sorted(played[f"R6.fig5.{share}"].items()):
            yield _figure(
                f"R6.fig5.{share}.{_word(policy)}",
                courses,
                spread.wrong_pct,
                unit="% inauthentic",
                note="each bad result noticed at once, honest errors 5 %",
            )


# --- R7: sybils ------------------------------------------------------------------------------


def name_cost() -> float:
    """Return what a name costs by default, in prices of a task; time is money as everywhere.

    That is the work that its proof takes on average on this machine.
    """
    peer = Identity(bytes(range(32)), bytes(range(32))).peer
    tries_ms = []
    for number in range(_TRIES):
        begun_s = perf_counter()
        work_bits("bench", peer, number.to_bytes(WORK_NONCE_SIZE, "big"))
        tries_ms.append((perf_counter() - begun_s) * 1000)
    try_ms = min(tries_ms)  # a machine that is busy makes no name dearer for an attacker
    return try_ms * (1 << TrustConfig().work_bits) / MS_PER_MC / TASK_MC


def _sybils(played: Played, name: float) -> Iterator[Figure]:
    """What an attacker gets by many names and by one, less ``name`` for each."""
    many = cells.IDENTITIES
    for kind in ("naive", "patient"):
        for policy, alone in sorted(played[f"R7.{kind}.1"].items()):
            crowd = played[f"R7.{kind}.{many}"][policy]
            one, all_ = (spread.over(courses, _loot) for courses in (alone, crowd))
            # The least that an identity must cost for ten to be worth 1.5 of one, all net.
            deposit = max(0.0, (all_.mean - GOAL_SYBILS * one.mean) / (many - GOAL_SYBILS))
            net, gross = (
                max(0.0, all_.mean - many * each) / max(1.0, one.mean - each)
                for each in (name, 0.0)
            )
            yield Figure(
                id=f"R7.{kind}.{_word(policy)}",
                value=net,
                unit="× one identity, net",
                n=all_.n,
                goal=GOAL_SYBILS if policy in cells.DESIGN else None,
                note=f"paid for lies to {many} names of one attacker {all_}, to one {one}"
                f" prices of a task; gross {gross:.3g} times; a name costs {name:.3g} prices of"
                f" a task of {TASK_MC} mc by default; from {deposit:.2g} on it is"
                f" {GOAL_SYBILS:g} net",
            )


def _loot(course: Course) -> float:
    return course.loot


# --- R8: the other attacks ------------------------------------------------------------------


def _attacks(played: Played) -> Iterator[Figure]:
    exits = [f"exit{share}" for share in cells.EXITS]
    for name in (*cells.R8, *exits):
        by_policy = played[f"R8.{name}"]
        for mode in cells.DESIGN:
            yield from _attacked(f"R8.{name}.{mode}", by_policy[mode], name, mode)
        yield from _row(
            f"R8.{name}", {one: c for one, c in by_policy.items() if one not in cells.DESIGN}
        )
        if name in cells.R8:
            yield from _row(f"R8.noticed.{name}", played[f"R8.noticed.{name}"])


def _attacked(name: str, courses: Sequence[Course], attack: str, mode: str) -> Iterator[Figure]:
    is_sudden = attack in {"onoff_in_step", "exit20"}
    is_exit = attack.startswith("exit")
    is_told = attack == "exit40"  # of which no more is asked than to tell it
    correct = spread.over(courses, spread.correct_pct)
    yield Figure(
        id=f"{name}.correct",
        value=correct.mean,
        unit="% of the accepted",
        n=correct.n,
        goal=None if is_exit else GOAL_CORRECT_PCT["economy"],
        at_least=True,
        note=f"± {correct.half:.2g}; {_costs(courses)}",
    )
    window = spread.over(courses, spread.worst_pct)
    goal = GOAL_SUDDEN_WINDOW_PCT if is_sudden else GOAL_WINDOW_PCT
    yield Figure(
        id=f"{name}.window",
        value=window.mean,
        unit="% wrong in the worst 5 rounds",
        n=window.n,
        goal=None if is_told or (is_sudden and mode != "economy") else goal,
        note=f"± {window.half:.2g}",
    )
    if is_exit:
        yield Figure(
            id=f"{name}.loss",
            value=max(course.loss_max for course in courses),
            unit="lies of one agent that one buyer took",
            n=len(courses),
            goal=GOAL_LOSS,
            note="the largest of all buyers, agents and seeds",
        )
        yield _figure(
            f"{name}.cartel",
            courses,
            lambda course: course.loss_mean,
            unit="tasks that a buyer lost to all of them",
            note="in prices of a task; no cap bounds a cartel's loss, deposits of as much do",
        )


def _refusals(size: cells.Size) -> Iterator[Figure]:
    """Buyers that take the result and refuse the receipt."""
    for kind, patience in (("naive", 0), ("patient", _PATIENCE)):
        for who, guarded in (("guarded", True), ("unguarded", False)):
            refusal = Refusal(guarded=guarded, patience=patience)
            found = [
                play_refusal(refusal, seed=cells.FIRST_SEED + number)
                for number in range(size.seeds)
            ]
            paid_mc = spread.spread([one.paid_mc for one in found]).mean
            away = spread.spread([100 * one.turned_away for one in found])
            lost = spread.spread([one.lost_mc for one in found])
            yield Figure(
                id=f"R8.refuse.{kind}.{who}",
                value=max(one.lost_max_mc for one in found),
                unit="mc that one contractor lost to one buyer",
                n=len(found),
                goal=FIRST_MC + paid_mc / 4 + PRICE_MC if guarded else None,
                note=f"the largest of all; the buyer had paid it {paid_mc:.0f} mc before; a"
                f" contractor lost {lost} mc to {refusal.cheats} of them; {away} % of what"
                f" honest buyers asked for was turned away; a result is {PRICE_MC} mc",
            )


# --- T1, T2: newcomers ----------------------------------------------------------------------


def _fresh(played: Played) -> Iterator[Figure]:
    for mode in cells.DESIGN:
        courses = played["T1"][mode]
        for kind, is_held in (("invited", True), ("uninvited", False)):
            tallies = [getattr(course, kind) for course in courses]
            n = sum(tally.tasks for tally in tallies)
            for what, values, goal, unit in (
                (
                    "executions",
                    [one.executions_per_task for one in tallies],
                    GOAL_FRESH_EXECUTIONS[mode],
                    "executions a task",
                ),
                (
                    "contested",
                    [100 * one.contested / max(1, one.tasks) for one in tallies],
                    GOAL_FRESH_CONTESTED_PCT[mode],
                    "% of the first 20 jobs",
                ),
                ("open", [100 * one.open_share for one in tallies], None, "% not accepted"),
                ("wrong", [100 * one.error for one in tallies], None, "% of the accepted"),
            ):
                found = spread.spread(values)
                yield Figure(
                    id=f"T1.{mode}.{kind}.{what}",
                    value=found.mean,
                    unit=unit,
                    n=found.n,
                    goal=goal if is_held else None,
                    note=f"± {found.half:.2g}; {n} jobs, {cells.USUAL} % colluding",
                )


def _newcomers(played: Played) -> Iterator[Figure]:
    for mode in cells.DESIGN:
        waits = [wait for course in played["T2"][mode] for wait in course.waits]
        tasks = sorted(_NEVER if wait[0] < 0 else wait[0] for wait in waits)
        never = sum(wait[0] < 0 for wait in waits)
        rounds = sorted(wait[1] for wait in waits if wait[1] > 0)
        middle = rounds[len(rounds) // 2] if rounds else 0
        for what, share, goal in (("median", 0.5, GOAL_NEWCOMER_TASKS), ("p90", 0.9, None)):
            yield Figure(
                id=f"T2.{mode}.{what}",
                value=tasks[min(len(tasks) - 1, int(share * len(tasks)))],
                unit="tasks until half its fair share",
                n=len(tasks),
                goal=goal,
                note=f"{never} of {len(tasks)} never got there, told as {_NEVER:g};"
                f" those who did after {middle} rounds (median)",
            )
