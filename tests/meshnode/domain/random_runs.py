"""Whole jobs among random contractors, and what must hold after each of their events."""

from collections.abc import Mapping
from random import Random

import msgspec

from meshnode.domain.attempts import IDLE_MAX, UNFETCHED_MAX
from meshnode.domain.facts import (
    Awarded,
    Called,
    Cancelled,
    Charged,
    Expanded,
    Fact,
    Failed,
    Planned,
    Replanned,
    Verified,
)
from meshnode.domain.matching import matches
from meshnode.domain.replicas import ANSWERS_MAX
from meshnode.domain.steps import CALLED_MAX
from meshnode.domain.trust.evidence import Standing
from meshnode.domain.trust.rules import UNIT_MU
from meshnode.domain.units import CROWDED
from meshnode.ports import JsonValue
from protocol.graph import TaskGraph, decode_graph
from protocol.journal import Event
from protocol.limits import FAN_OUT_MAX
from tests.meshnode.domain.contractors import Traits
from tests.meshnode.domain.journals import Run, contractors_of
from tests.meshnode.domain.random_graphs import (
    CAPABILITIES,
    OTHERS,
    QUERIES,
    random_graph,
    random_inputs,
)


class Invariants:
    """What holds after every event, told from the facts alone and not from the fold."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, int], str] = {}
        self.caps_mc: dict[tuple[str, int], int] = {}
        self.peers: dict[tuple[str, int], str] = {}
        self.answered: set[tuple[str, int]] = set()
        self.hedges = 0
        self.hedges_pct = 0
        self.theta_ppm = 0
        self.spent_mc = 0
        self.keys: set[str] = set()
        self.accepted: set[str] = set()
        self.units: dict[str, list[str]] = {}
        self.tries: dict[str, int] = {}
        self.verdicts: dict[str, str] = {}
        self.budget_mc = 0
        self.deadline_ms = 0
        self.ending = False
        self.replans_max = 0
        self.replans: list[Replanned] = []
        self.needs: dict[str, str] = {}

    def __call__(self, run: Run, event: Event, fact: Fact) -> None:
        match fact:
            case Planned():
                self.budget_mc, self.deadline_ms = fact.budget_mc, fact.deadline_ms
                self.hedges_pct = fact.hedges_pct
                self.theta_ppm = fact.theta_ppm
                self.replans_max = fact.replans_max
                graph = decode_graph(fact.graph)
                self.needs = {task.id: task.capability for task in graph.subtasks}
            case Replanned():
                self._replanned(run, fact)
            case Expanded():
                self.units[fact.subtask] = [
                    f"{fact.subtask}/{n}" for n in range(len(fact.sizes))
                ]
            case Called() | Awarded():
                self._begins(run, event, fact)
            case Failed():
                was_given = self.open.pop((fact.unit, fact.attempt)) == "awarded"
                self.caps_mc.pop((fact.unit, fact.attempt), None)
                self.tries[fact.unit] = self.tries.get(fact.unit, 0) + (
                    was_given
                    and fact.blame != "artifact"
                    and fact.code not in {"node.busy", CROWDED}
                )
            case Verified():
                self.answered.add((fact.unit, fact.attempt))
            case Charged():
                self._charged(run, fact)
            case Cancelled():
                self.ending = True
            case _:
                pass
        assert self.spent_mc + sum(self.caps_mc.values()) <= self.budget_mc, "over the budget"
        assert run.state.spent_mc == self.spent_mc
        assert run.state.reserved_mc() == sum(self.caps_mc.values())

    def _replanned(self, run: Run, fact: Replanned) -> None:
        """A patch changes what one sub-task needs, and nothing else of the plan."""
        self.replans.append(fact)
        assert len(self.replans) <= self.replans_max, "more patches than were allowed"
        assert not self.ending, "a patch of a job that ends"
        units = self.units.get(fact.subtask)
        assert units is None or set(units) - self.accepted, "a patch of what is finished"
        for unit in units or ():
            at_work = any(name == unit for name, _ in self.open) and unit not in self.accepted
            assert not at_work, "a patch of what is at work"
            self.tries.pop(unit, None)
        assert fact.was == self.needs[fact.subtask]
        self.needs[fact.subtask] = fact.capability
        planned = run.state.required_plan
        assert planned == run.planned
        owners = {task.id: task for task in decode_graph(planned.graph).subtasks}
        asked, _, major = owners[fact.subtask].capability.partition("@")
        named = owners[fact.subtask].instead
        another = bool(major) and matches(asked, fact.capability)
        assert another or any(matches(name, fact.capability) for name in named)
        for name, task in run.state.tasks.items():
            patched = msgspec.structs.replace(owners[name], capability=self.needs[name])
            assert task == patched, "more of the plan was changed"

    def _begins(self, run: Run, event: Event, fact: Called | Awarded) -> None:
        assert not self.ending, "new work in a job that ends"
        assert event.at_ms < self.deadline_ms, "new work past the deadline"
        subtask = fact.unit.split("/")[0]
        task = run.state.tasks[subtask]
        for source in task.inputs.values():
            if source.kind == "task":
                made = self.units[source.name]
                assert set(made) <= self.accepted, f"{fact.unit} before {source.name}"
        key = fact.unit, fact.attempt
        beside = [each for each in self.open if each[0] == fact.unit and each != key]
        if isinstance(fact, Called):
            assert not beside, "two attempts at once"
            assert 1 <= len(fact.cfps) <= CALLED_MAX
            self.open[key] = "called"
        else:
            if fact.hedge:
                self._hedged(fact, beside)
            elif self.theta_ppm:
                self._compared(fact, beside)
            else:
                assert not beside, "awarded twice at once"
            self.open[key] = "awarded"
            self.caps_mc[key] = fact.price_cap_mc
            self.peers[key] = fact.peer
        assert fact.unit not in self.accepted
        alone = not (self.theta_ppm and beside)
        if alone:
            assert self.tries.get(fact.unit, 0) < task.attempts_max, "too many attempts"
        most = task.attempts_max + UNFETCHED_MAX + IDLE_MAX
        assert fact.attempt <= most * (1 + len(self.replans))
        running = [
            unit
            for unit, _ in self.open.keys() - self.answered
            if unit.split("/")[0] == subtask
        ]
        assert len(running) <= FAN_OUT_MAX, "fan-out"

    def _compared(self, fact: Awarded, beside: list[tuple[str, int]]) -> None:
        assert len(beside) < ANSWERS_MAX, "too many answers"
        assert {self.open[each] for each in beside} <= {"awarded"}, "asked while called for"
        assert fact.peer not in {self.peers[each] for each in beside}, "two of one agent"

    def _hedged(self, fact: Awarded, beside: list[tuple[str, int]]) -> None:
        (other,) = beside
        assert self.open[other] == "awarded", "a hedge beside nothing"
        assert self.peers[other] != fact.peer, "a hedge with the same contractor"
        self.hedges += 1
        units = sum(map(len, self.units.values()))
        assert self.hedges_pct, "a hedge in a job that has none"
        assert self.hedges <= max(1, units * self.hedges_pct // 100), "too many hedges"

    def _charged(self, run: Run, fact: Charged) -> None:
        self.caps_mc.pop((fact.unit, fact.attempt))
        self.open.pop((fact.unit, fact.attempt))
        verdict = run.state.units[fact.unit].attempts[fact.attempt].verdict
        assert verdict is not None
        if verdict.verdict == "rejected":
            assert fact.paid_mc == 0
            self.tries[fact.unit] = self.tries.get(fact.unit, 0) + 1
            return
        assert fact.key not in self.keys, "charged twice"
        self.keys.add(fact.key)
        self.spent_mc += fact.paid_mc
        if run.state.units[fact.unit].accepted is not None:
            self.accepted.add(fact.unit)


def with_others(rng: Random, graph: TaskGraph) -> TaskGraph:
    """The graph, with capabilities named that may do some of its sub-tasks instead."""
    tasks = [
        msgspec.structs.replace(task, instead=rng.sample(OTHERS, rng.choice((0, 0, 1, 2))))
        for task in graph.subtasks
    ]
    return msgspec.structs.replace(graph, subtasks=tasks)


def random_traits(rng: Random, capability: str) -> Traits:
    def chance() -> float:
        return rng.choice((0.0, 0.0, 0.1, 0.3))

    return Traits(
        capability=capability,
        price_mc=rng.randrange(6),
        latency_ms=rng.choice((5, 50, 500, 5_000)),
        concurrency=rng.randint(1, 4),
        offers=rng.random() < 0.5,
        busy=chance(),
        refuses=chance(),
        fails=chance(),
        lies=chance(),
        silent=rng.choice((0.0, 0.0, 0.1)),
        repeats=chance(),
        dies_ms=rng.choice((0, 0, 0, 1, 2_000)),
        offset_ms=rng.choice((0, 0, 600_000, -600_000)),
        starved=chance(),
    )


def random_run(
    seed: int, *, theta_ppm: int = 0
) -> tuple[Run, TaskGraph, Mapping[str, JsonValue]]:
    rng = Random(seed)
    graph = with_others(rng, random_graph(rng, unequal=rng.random() < 0.2))
    inputs = random_inputs(rng)
    likely = rng.choice((0.97, 0.97, 0.5))
    capabilities = [c for c in CAPABILITIES if rng.random() < likely]
    capabilities += [c for c in OTHERS if rng.random() < 0.5]
    traits = [random_traits(rng, c) for c in capabilities for _ in range(rng.randint(1, 4))]
    run = Run(
        graph,
        inputs,
        contractors_of(seed, *traits),
        budget_mc=rng.choice((0, 20, 200, 100_000)),
        limit_ms=rng.choice((3_000, 60_000, 600_000)),
        hedges_pct=rng.choice((0, 10, 100)),
        replans_max=rng.choice((0, 1, 3)),
        theta_ppm=theta_ppm,
    )
    if theta_ppm:  # some are well known, and not all of them for good
        for peer in run.contractors:
            known = rng.choice((0, 2, 8, 30)) * UNIT_MU
            bad = rng.choice((0, 0, 0, 1)) * UNIT_MU
            run.standings[f"{peer}/agent"] = Standing(good_mu=known, bad_mu=bad, events=1)
    run.slow_ms = {query: rng.choice((1.0, 20.0, 300.0)) for query in QUERIES}
    run.watch = Invariants()
    kill = rng.choice((0, 0, 5, 13))
    if kill:
        run.kill_after = lambda count: count % kill == 0
    return run, graph, inputs
