"""Judgements of a run: as the service makes them, without an embedder."""

from typing import TYPE_CHECKING

from meshnode.domain.facts import Judged
from meshnode.domain.judging import Bench, begin, go_on, stake
from meshnode.domain.step_kinds import Judge
from meshnode.domain.trust.allocation import Bidder, Job
from meshnode.domain.trust.evidence import Standing

if TYPE_CHECKING:
    from tests.meshnode.domain.journals import Run


def judge(run: "Run", step: Judge) -> None:
    """As the service does, without an embedder."""
    unit = run.state.units[step.unit]
    if unit.settled or unit.accepted is not None or run.state.cancelled is not None:
        return
    run.busy.discard(("Judge", step.unit, unit.judgements))
    capability = run.state.tasks[unit.subtask].capability
    known = run.view().candidates[capability]
    tried = {attempt.peer for attempt in unit.attempts}
    offered = [] if step.last else [one for one in known if one.peer not in tried]
    if unit.judged is not None:
        offered = [one for one in offered if one.offer]
    answers = unit.answers()
    if not offered and not answers:
        run.record(Judged(unit=unit.name, wanted=1))
        return
    theta_ppm = run.state.required_plan.theta_ppm
    job = Job(10, 10, theta_ppm / 1_000_000)
    if known:
        job = stake(known, calls=unit.calls, theta_ppm=theta_ppm, out=0)
    bidders = [_bidder(run, one.agent_id) for one in offered]
    bench = Bench(bidders, job, run.chance)
    if not answers:
        checked = bool(run.state.tasks[unit.subtask].checks)
        run.record(begin(unit.name, bench, checked=checked))
        return
    outputs = [attempt.delivered.output for attempt in answers if attempt.delivered]
    groups: dict[bytes, list[int]] = {}
    for place, output in enumerate(outputs):
        groups.setdefault(output, []).append(place)
    voters = [_bidder(run, f"{attempt.peer}/{attempt.agent}") for attempt in answers]
    run.record(go_on(unit, list(groups.values()), voters, bench)[0])


def _bidder(run: "Run", agent: str) -> Bidder:
    standing = run.standings.get(agent, Standing())
    return Bidder(agent, price_mc=1, latency_ms=10, standing=standing)
