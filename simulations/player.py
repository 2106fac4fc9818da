"""Play a scenario: start its nodes, ask, let things go wrong, and see what came of it."""

import math
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from random import Random
from typing import Final

import msgspec
import trio

from meshnode.config import DirectoryConfig, NodeConfig
from meshnode.ports import JsonValue
from meshnode.services.directory import validate_record
from protocol.graph import TaskGraph
from simulations import faults
from simulations.casting import cast, enter
from simulations.dht import KademliaDht
from simulations.directory import LIKE_KADEMLIA, SimDirectory
from simulations.faults import Fault, Schedule
from simulations.graphs import call_graph, map_graph, pipeline_graph
from simulations.growth import Sizes, grown, look
from simulations.mesh import CONFIG, NETWORK, Dht
from simulations.outcome import Outcome
from simulations.recorder import Recorder
from simulations.scenario import SKILLS, Churn, Load, Scenario, Trouble
from simulations.stage import Stage
from simulations.world import World, run

#: From the start of the nodes to that of the load: records have to get round, seconds.
WARM_S: Final = 5.0
#: Up to so many nodes compare catalogues as often as a small mesh does.
_FEW_NODES: Final = 50
#: How long records hold where there are many nodes, seconds.
_LASTING_S: Final = 7200.0
#: Virtual time that a scenario may take beyond its load, seconds.
_OVERTIME_S: Final = 600.0

#: What a node may hold for each other one, and for all of them, that it hadn't halfway.
_KEPT_PER_PEER: Final = 2
_KEPT_MAX: Final = 256

#: ``progress(done_s, all_s)``: virtual time of the load, seconds; may raise to stop.
Progress = Callable[[float, float], None]


def play(
    scenario: Scenario,
    *,
    seed: int,
    progress: Progress | None = None,
    replay: str = "",
    lines: deque[str] | None = None,
    shown: Callable[[Stage], None] | None = None,
) -> Outcome:
    """Play ``scenario`` with ``seed`` and return what came of it.

    What must hold and does not is among the outcome's troubles; an exception is a bug of
    the simulation, or of a node that took it along.

    Args:
        scenario: See :func:`simulations.scenario.checked`.
        seed: Fixes everything.
        progress: Told now and then how far it is.
        replay: The command that plays it again, where the scenario's name is not enough.
        lines: Gets the last lines of the trace, as many as it can hold.
        shown: Is shown the stage before anything begins, to look at it meanwhile.
    """
    outcomes: list[Outcome] = []
    again = f"meshnode simulate {scenario.name!r} --seed {seed} --nodes {scenario.nodes}"

    async def main(world: World) -> None:
        one = _Play(scenario, world, progress)
        if shown is not None:
            shown(one.stage)
        outcomes.append(await one.run())

    limit_s = scenario.minutes * 60 + _OVERTIME_S
    result = run(
        main,
        seed=seed,
        weather=scenario.weather,
        limit_s=limit_s,
        lines_max=0 if lines is None else lines.maxlen or sys.maxsize,
        replay=replay or again,
    )
    if lines is not None:
        lines.extend(result.lines)
    return msgspec.structs.replace(
        outcomes[0],
        digest=result.digest,
        virtual_s=round(result.elapsed_s, 3),
        replay=replay or again,
    )


class _Play:
    """One scenario at work."""

    def __init__(self, scenario: Scenario, world: World, progress: Progress | None) -> None:
        self._scenario = scenario
        self._world = world
        self._progress = progress
        self._length_s = scenario.minutes * 60
        self.stage = self._stage = Stage(
            world,
            weather=scenario.weather,
            directory=_directory(scenario, world),
            config=_config(scenario),
        )
        self._recorder = Recorder(self._stage, minutes=scenario.minutes)
        self._halfway: Sizes | None = None
        self._people = cast(scenario, world.random("population"))

    async def run(self) -> Outcome:
        """Play it."""
        stage, scenario = self._stage, self._scenario
        enter(stage, list(self._people.values()))
        await stage.ready()
        await trio.sleep(WARM_S)
        async with self._going_wrong(), trio.open_nursery() as asking:
            asking.start_soon(self._look_halfway)
            asking.start_soon(trio.sleep, self._length_s)  # what goes wrong goes on
            for i, load in enumerate(scenario.load):
                asking.start_soon(self._ask, load, f"load/{i}")
        await stage.heal()
        await stage.rest()
        troubles = [*await stage.troubles(), *self._leaks(), *self._unmet()]
        return Outcome(
            scenario=scenario.name,
            seed=self._world.seed,
            nodes=scenario.nodes,
            digest="",
            virtual_s=0.0,
            replay="",
            troubles=tuple(troubles),
            figures=self._recorder.figures(),
            windows=self._recorder.windows(),
            dots=self._recorder.dots(self._people),
            lines=self._recorder.lines(),
            stories=await self._recorder.stories(),
        )

    async def _look_halfway(self) -> None:
        await trio.sleep(self._length_s / 2)
        self._halfway = look(self._stage.mesh)

    def _leaks(self) -> Iterator[str]:
        """Yield what is more at rest than it was halfway, a line each.

        Who has come to know others since then may have a few things more for each of them.
        """
        assert self._halfway is not None
        slack = min(_KEPT_PER_PEER * self._scenario.nodes, _KEPT_MAX)
        yield from grown(self._halfway, look(self._stage.mesh), slack=slack)

    # --- what is asked ---

    async def _ask(self, load: Load, part: str) -> None:
        chance = self._world.random(part)
        brokers = self._brokers(load, chance)
        begun_s = trio.current_time()
        await trio.sleep(load.from_s)
        length_s = min(load.until_s or self._length_s, self._length_s)
        async with trio.open_nursery() as jobs:
            for number in count() if not load.jobs_max else range(load.jobs_max):
                gap_s = chance.expovariate(load.per_minute / 60)
                if trio.current_time() + gap_s >= begun_s + length_s:
                    break
                await trio.sleep(gap_s)
                up = [name for name in brokers if self._stage.mesh.up(name)] or brokers
                by = up[number % len(up)]
                jobs.start_soon(self._one, load, by, f"{part}/{number}")

    def _brokers(self, load: Load, chance: Random) -> list[str]:
        if load.by:
            return list(load.by)
        honest = [one.name for one in self._people.values() if one.role == "honest"]
        chance.shuffle(honest)
        honest.sort(key=lambda name: len(self._people[name].skills))
        return honest[: load.brokers] if load.brokers else honest

    async def _one(self, load: Load, by: str, part: str) -> None:
        graph, inputs, wanted = work(load, self._world.random(part))
        await self._stage.submit(
            graph,
            inputs,
            by=by,
            deadline_s=load.deadline_s,
            budget_mc=load.budget_mc,
            wanted=wanted,
        )

    # --- what goes wrong ---

    @asynccontextmanager
    async def _going_wrong(self) -> AsyncIterator[None]:
        """Let it happen inside, and end with the block."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._recorder.run)
            nursery.start_soon(self._tell)
            nursery.start_soon(faults.carry_out, self._stage.mesh, self._schedule())
            yield
            nursery.cancel_scope.cancel()

    async def _tell(self) -> None:
        begun_s = trio.current_time()
        while True:  # with nobody to tell it too: one task more is another order of tasks
            passed_s = min(trio.current_time() - begun_s, self._length_s)
            if self._progress is not None:
                self._progress(passed_s, self._length_s)
            await trio.sleep(self._length_s / 200)

    def _schedule(self) -> Schedule:
        """Return all that the scenario has in store, by time."""
        scenario, chance = self._scenario, self._world.random("troubles")
        names = list(self._stage.mesh.members)
        found: list[Fault] = []
        for trouble in scenario.faults:
            who = trouble.who or tuple(
                chance.sample(names, max(1, round(trouble.share * len(names))))
            )
            if trouble.kind == "crash_at":
                found += _crashes_at(trouble, who, chance)
            else:
                found += _faults(trouble.kind, trouble.at_s, who, trouble.for_s)
        found += self._comings_and_goings(names, chance)
        if scenario.mishaps is not None:
            drawn = round(scenario.mishaps.per_minute * scenario.minutes)
            shares = dict.fromkeys(scenario.mishaps.kinds, 1) or faults.SHARES
            found += faults.draw_faults(
                chance, names, count=drawn, within_s=self._length_s, shares=shares
            )
        return Schedule(tuple(sorted(found, key=lambda fault: (fault.at_s, fault.kind))))

    def _comings_and_goings(self, names: Sequence[str], chance: Random) -> Iterator[Fault]:
        churn = self._scenario.churn
        if churn is None:
            return
        rest = names[churn.spared :]
        going = min(round(churn.share * len(names)), len(rest))
        for name in chance.sample(rest, going):
            yield from _absences(churn, name, chance, length_s=self._length_s)

    # --- what must hold ---

    def _unmet(self) -> Iterator[str]:
        expect, figures = self._scenario.expect, self._recorder.figures()
        if figures["jobs"] < expect.jobs_min:
            yield f"{figures['jobs']:g} jobs were asked for, expected {expect.jobs_min}"
        if figures["completed_share"] < expect.completed_min:
            share = figures["completed_share"]
            yield f"{share:.2%} of the jobs completed, expected {expect.completed_min:.2%}"
        if figures["took_p95_s"] > expect.took_p95_s_max:
            took_s = figures["took_p95_s"]
            yield f"p95 of the jobs took {took_s:g} s, expected {expect.took_p95_s_max:g} s"
        if figures["wrong_share"] > expect.wrong_max:
            share = figures["wrong_share"]
            yield f"{share:.2%} of the outputs are wrong, expected {expect.wrong_max:.2%}"
        if figures["cost_mean_mc"] > expect.cost_mc_max:
            cost_mc = figures["cost_mean_mc"]
            yield f"a job cost {cost_mc:g} mc, expected {expect.cost_mc_max:g}"
        if figures["busiest_share"] > expect.busiest_max:
            share = figures["busiest_share"]
            most = expect.busiest_max
            yield f"the busiest tenth had {share:.2%} of the calls, expected {most:.2%}"


def _absences(churn: Churn, name: str, chance: Random, *, length_s: float) -> Iterator[Fault]:
    """Yield when one node goes: once, or whenever its session is over."""
    again_s = churn.session_s
    at_s = chance.expovariate(1 / again_s) if again_s else chance.uniform(0, length_s)
    while at_s < length_s:
        kind: faults.Kind = "crash" if chance.random() < churn.crash_share else "leave"
        for_s = chance.expovariate(1 / churn.back_s) if churn.back_s else math.inf
        yield Fault(round(at_s, 3), kind, (name,), round(for_s, 2))
        if not again_s:
            return
        at_s += for_s + chance.expovariate(1 / again_s)


def _directory(scenario: Scenario, world: World) -> Dht:
    validate = validate_record(NETWORK, world.clock())
    if scenario.directory == "kademlia":
        return KademliaDht(world, validate)
    lossiness = LIKE_KADEMLIA if scenario.directory == "lossy" else None
    return SimDirectory(
        world.random("directory"), validate, lossiness=lossiness, trace=world.trace
    )


def _config(scenario: Scenario) -> NodeConfig:
    """Return what the nodes are told: the more there are, the more rarely they compare."""
    if not scenario.catalogue:
        directory = DirectoryConfig(
            catalogue=False,
            record_lifetime_s=_LASTING_S,
            provide_interval_s=_LASTING_S / 4,
        )
    elif scenario.nodes > _FEW_NODES:
        directory = DirectoryConfig(
            record_lifetime_s=_LASTING_S, digest_interval_s=60.0, provide_interval_s=300.0
        )
    else:
        directory = msgspec.structs.replace(
            CONFIG.directory, digest_interval_s=20.0, provide_interval_s=120.0
        )
    return msgspec.structs.replace(CONFIG, directory=directory)


def _faults(
    kind: faults.Kind, at_s: float, who: tuple[str, ...], for_s: float
) -> Iterator[Fault]:
    """Return a trouble as faults: one for all who are named, or one for each."""
    match kind:
        case "split" | "burst":
            yield Fault(at_s, kind, who, for_s)
        case "break" | "half_open" | "one_way":
            for one, other in zip(who, (*who[1:], who[0]), strict=True):
                yield Fault(at_s, kind, (one, other), for_s)
        case _:
            for name in who:
                yield Fault(at_s, kind, (name,), for_s or math.inf)


def _crashes_at(trouble: Trouble, who: Sequence[str], chance: Random) -> Iterator[Fault]:
    for name in who:
        point = trouble.point or faults.draw_point(chance)
        yield Fault(trouble.at_s, trouble.kind, (name,), trouble.for_s or math.inf, point)


def work(
    load: Load, rng: Random
) -> tuple[TaskGraph, dict[str, JsonValue], dict[str, JsonValue]]:
    """Return a job of ``load``: its graph, its inputs and, computed here, its right outputs."""
    words = [f"word{rng.randrange(10**6)}" for _ in range(load.items)]
    numbers = [rng.randrange(1000) for _ in range(load.items)]
    skill = SKILLS[load.skill]
    given: dict[str, JsonValue] = {
        "text": words[0],
        "texts": list(words),
        "numbers": list(numbers),
    }
    field = skill.input_field
    if load.kind == "pipeline":
        return pipeline_graph(), {"words": list(words)}, {"text": "-".join(words).upper()}
    if load.kind == "call" or field != "text":
        inputs = {field: given[field]}
        return call_graph(skill.capability, inputs), inputs, {"result": skill.apply(inputs)}
    wanted: list[JsonValue] = [skill.compute(word) for word in words]
    return map_graph(skill), {"words": list(words)}, {"texts": wanted}
