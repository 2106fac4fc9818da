"""Jobs with fewer agents than tasks that could run at once, beside HEFT's schedule.

Real nodes on simulated ports, in virtual time: a broker, and a node for each agent, which
does one task at a time.  There are one to three kinds of tasks; each agent does one kind,
and says how long that takes it.  How long a task really takes is that times a factor of
its own, lognormal with :data:`NOISE` for its sigma and 1 for its median, the same for
whoever does the planning.  HEFT (:mod:`.heft`) is given what the agents say; its plan is
then carried out with what the tasks really take, on processors that are never late.
"""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Final

import trio

from meshnode.bench.dags import Dag, layered
from meshnode.bench.heft import Problem, carried_out, heft, makespan
from meshnode.domain.graph_builder import Place, TaskGraph
from meshnode.errors import MeshError
from meshnode.node import Terms
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Measures, Output
from simulations.mesh import SimMesh
from simulations.weather import Weather
from simulations.world import World, run

#: Sigma of the logarithm of what a task takes by what was thought.
NOISE: Final = 0.3
#: What an agent needs for a task of its kind, as it says, milliseconds.
_TAKES_MS: Final = (1_000, 10_000)
#: How much agents of one kind differ.
_PACES: Final = (0.5, 2.0)
_KINDS: Final = (1, 3)
_AGENTS: Final = (3, 5)
_LAYERS: Final = (4, 6)
_LAYER: Final = (4, 8)
#: A calm network: 5 ms each way.
_STILL: Final = Weather(latency_s=0.005, jitter_s=0.0, split_chance=0.0)
_READY_S: Final = 60.0
_OFFERS_S: Final = 10.0
_JOB_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Shop:
    """A job, who could do it, and how long that takes.

    Attributes:
        dag: Tasks.
        kinds: Of the tasks.
        skills: Of the agents: the kind that each does.
        takes_ms: What each agent says of a task of its kind.
        factors: By task and agent: what it really takes by what was said.
    """

    dag: Dag
    kinds: Sequence[int]
    skills: Sequence[int]
    takes_ms: Sequence[int]
    factors: Sequence[Sequence[float]]

    def true_ms(self, task: int, agent: int) -> float:
        """Return what ``task`` really takes ``agent``."""
        return self.takes_ms[agent] * self.factors[task][agent]

    def problem(self, *, known: bool) -> Problem:
        """Return what a scheduler is to solve: with what is said, or what is so."""
        links = {
            (parent, task): 0.0
            for task, above in enumerate(self.dag.parents)
            for parent in above
        }
        return Problem(
            [
                [
                    (self.true_ms(task, agent) if known else self.takes_ms[agent])
                    if skill == kind
                    else math.inf
                    for agent, skill in enumerate(self.skills)
                ]
                for task, kind in enumerate(self.kinds)
            ],
            links,
        )

    def heft_ms(self) -> float:
        """Return how long HEFT's plan takes when it is carried out."""
        plan = heft(self.problem(known=False))
        return makespan(carried_out(self.problem(known=True), plan))


def draw_shop(seed: int, *, noise: float = NOISE) -> Shop:
    """Return the job of that seed; the same for every ``noise`` but for its factors."""
    rng = Random(f"scarce/{seed}")  # noqa: S311 - it is to be drawn again
    dag = Dag("layers", layered(rng, layers=_LAYERS, width=_LAYER))
    kinds_max, agents = rng.randint(*_KINDS), rng.randint(*_AGENTS)
    skills = [*range(kinds_max), *(rng.randrange(kinds_max) for _ in range(agents - kinds_max))]
    # Even on a scale of ratios: one kind may well take five times as long as another.
    low, high = map(math.log, _TAKES_MS)
    usual_ms = [math.exp(rng.uniform(low, high)) for _ in range(kinds_max)]
    return Shop(
        dag=dag,
        kinds=[rng.randrange(kinds_max) for _ in dag.parents],
        skills=skills,
        takes_ms=[round(usual_ms[skill] * rng.uniform(*_PACES)) for skill in skills],
        factors=[[rng.lognormvariate(0.0, noise) for _ in skills] for _ in dag.parents],
    )


class _Worker:
    """An agent that takes the time that the shop says."""

    def __init__(self, shop: Shop, number: int) -> None:
        self._shop = shop
        self._number = number
        integer: dict[str, JsonValue] = {"type": "integer"}
        fields: dict[str, JsonValue] = {f"after{at}": integer for at in range(_LAYER[1])}
        self._spec = AgentSpec(
            name="work",
            capability=capability(shop.skills[number]),
            description="works",
            input_schema={
                "type": "object",
                "properties": {"task": integer, **fields},
                "required": ["task"],
            },
            output_schema={"type": "object", "properties": {"done": integer}},
            price_mc=0,
            concurrency_max=1,
            timeout_s=_JOB_S,
            measures=Measures(samples=1_000, latency_ms=shop.takes_ms[number]),
        )

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    async def open(self) -> None:
        """Nothing is needed."""
        await trio.lowlevel.checkpoint()

    async def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """Take the task's time."""
        del call
        assert isinstance(value, dict)
        task = value["task"]
        assert isinstance(task, int)
        await trio.sleep(self._shop.true_ms(task, self._number) / 1000)
        yield Output({"done": task})

    async def aclose(self) -> None:
        """Nothing was opened."""
        await trio.lowlevel.checkpoint()


def capability(kind: int) -> str:
    """Return what tasks of ``kind`` need."""
    return f"work.kind{kind}@1"


def graph_of(shop: Shop) -> TaskGraph:
    """Return the job as a task graph."""
    graph = TaskGraph("scarce")
    places: list[Place] = []
    for task, above in enumerate(shop.dag.parents):
        after = {f"after{at}": places[parent]["done"] for at, parent in enumerate(above)}
        places.append(graph.task(capability(shop.kinds[task]), after, task=task))
    for task, below in enumerate(shop.dag.children):
        if not below:
            graph.output(f"end{task}", places[task]["done"])
    return graph


def ours_ms(shop: Shop, *, seed: int) -> float:
    """Return how long the job takes a broker and nodes in virtual time, submit to done.

    Raises:
        MeshError: The job failed; says why.
    """
    took_s: list[float] = []

    async def scenario(world: World) -> None:
        mesh = SimMesh(world, weather=_STILL)
        broker = await mesh.start("broker")
        for number in range(len(shop.skills)):
            hired: list[Agent] = [_Worker(shop, number)]
            await mesh.start(f"node{number}", agents=partial(tuple, hired))
        queries = [capability(kind) for kind in sorted(set(shop.skills))]
        with trio.fail_after(_READY_S):
            while len(broker.known()) <= len(shop.skills):  # noqa: ASYNC110 - no event for it
                await trio.sleep(0.1)
        broker.market.view(queries)  # looked at once, it has sessions and offers
        await trio.sleep(_OFFERS_S)
        begun_s = trio.current_time()
        job = await broker.submit(graph_of(shop).build(), {}, Terms(deadline_s=_JOB_S))
        done = (await broker.wait(job)).done
        if done is None or done.state != "completed" or mesh.failures:
            raise MeshError(f"job {seed} failed: {done.text if done else mesh.failures}")
        took_s.append(trio.current_time() - begun_s)

    run(scenario, seed=seed, limit_s=2 * _JOB_S)
    return took_s[0] * 1000
