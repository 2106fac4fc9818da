"""The same small market twice: of real nodes in virtual time, and on the market's own heap.

Some brokers share a dozen agents of different speed, price, width and reliability; single
calls come to them at random times.  Everybody knows everybody before the first call.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import trio

from meshnode.node import Node
from meshnode.ports import Agent
from meshnode.services.job_terms import Terms
from protocol.graph import Source, SubTask, TaskGraph
from simulations import world
from simulations.agents import UPPER, CallBook, SimAgent, Temper
from simulations.market_agents import Behaviour, Conduct, Trader
from simulations.market_arrivals import Arrival, arrivals
from simulations.market_choice import ByFinish, PolicyMaker
from simulations.market_loop import Market, Rules
from simulations.mesh import SimMesh
from simulations.weather import Weather
from simulations.world import World

BROKERS = 3
AGENTS = 12
TASKS = 150
#: Of what the agents could do: enough that calls wait for each other.
LOAD = 0.6
ATTEMPTS_MAX = 2
DEADLINE_S = 60.0
#: As :class:`simulations.market_loop.Delays` has it.
WEATHER = Weather(latency_s=0.02, jitter_s=0.01)
RULES = Rules(attempts_max=ATTEMPTS_MAX, deadline_s=DEADLINE_S)


@dataclass(frozen=True, slots=True)
class Account:
    """What came of one play.

    Attributes:
        success_share: Tasks with a result.
        latency_s: Mean, from a task's arrival to its result.
        work: Share of the runs that each agent did, by index.
    """

    success_share: float
    latency_s: float
    work: tuple[float, ...]


def draw_traders(seed: int) -> list[Trader]:
    """Draw the agents: no two alike, so that nothing hangs on how a tie is broken."""
    rng = Random(f"{seed}/nodes/traders")
    traders = []
    for _ in range(AGENTS):
        shortest_s = rng.uniform(0.2, 0.8)
        traders.append(
            Trader(
                capability=0,
                behaviour=Behaviour("erring", Conduct(error_chance=rng.uniform(0.1, 0.4))),
                latency_s=(shortest_s, shortest_s * rng.uniform(1.2, 3)),
                price_mc=rng.randint(0, 40),
                concurrency=rng.randint(1, 2),
            )
        )
    return traders


def draw_arrivals(traders: Sequence[Trader], seed: int) -> list[Arrival]:
    """Draw when each task comes, and to which broker."""
    rate_per_s = LOAD * sum(trader.calls_per_s for trader in traders)
    coming = arrivals([rate_per_s], brokers=BROKERS, seed=f"{seed}/nodes")
    return [next(coming) for _ in range(TASKS)]


# --- on the heap ----------------------------------------------------------------------


def play_market(
    traders: Sequence[Trader],
    coming: Sequence[Arrival],
    seed: str,
    *,
    market: type[Market] = Market,
    policy: PolicyMaker = ByFinish,
) -> Account:
    """Play it on the market's heap."""
    chooser = policy(Random(seed))
    played = market(traders, brokers=BROKERS, rules=RULES, policy=chooser, seed=seed)
    for broker in played.brokers:
        for contractor in played.contractors:
            broker.connect(contractor.peer, sessions_max=AGENTS)
    played.run(coming)
    counter = played.counter
    return Account(
        counter.accepted / TASKS,
        sum(counter.latencies_s) / max(1, counter.accepted),
        _shares([contractor.executions for contractor in played.contractors]),
    )


# --- of real nodes --------------------------------------------------------------------


def play_nodes(traders: Sequence[Trader], coming: Sequence[Arrival], seed: int) -> Account:
    """Play it with real nodes in virtual time."""
    accounts: list[Account] = []

    async def scenario(here: World) -> None:
        mesh, book = SimMesh(here, weather=WEATHER), CallBook()
        await _populate(mesh, book, traders)
        accounts.append(await _trade(mesh, book, coming))

    world.run(scenario, seed=seed)
    return accounts[0]


def _graph() -> TaskGraph:
    return TaskGraph(
        name="one call",
        subtasks=[
            SubTask(
                id="upper",
                capability=UPPER.capability,
                inputs={"text": Source(kind="input", name="word")},
                attempts_max=ATTEMPTS_MAX,
            )
        ],
        outputs={"text": Source(kind="task", name="upper", pointer="/text")},
    )


async def _populate(mesh: SimMesh, book: CallBook, traders: Sequence[Trader]) -> None:
    """Start all nodes, and wait until every broker has everybody's offer."""
    for number in range(BROKERS):
        await mesh.start(f"broker-{number}")
    for number, trader in enumerate(traders):
        await mesh.start(f"agent-{number}", agents=partial(_agents, mesh, book, number, trader))
    for number in range(BROKERS):
        await _look_around(mesh.node(f"broker-{number}"))


def _agents(mesh: SimMesh, book: CallBook, number: int, trader: Trader) -> list[Agent]:
    temper = Temper(
        latency_s=trader.latency_s,
        error_chance=trader.behaviour.conduct.error_chance,
        timeout_s=trader.timeout_s,
        price_mc=trader.price_mc,
        concurrency_max=trader.concurrency,
        declared_ms=int(trader.mean_s * 1000),
    )
    name = f"agent-{number}"
    rng = mesh.world.random(f"{name}/runs")
    return [SimAgent(UPPER, temper, node=name, rng=rng, book=book)]


async def _look_around(node: Node) -> None:
    while True:
        found = node.market.candidates(UPPER.capability)
        if len(found) == AGENTS and all(each.offer and each.alive for each in found):
            return
        await trio.sleep(0.5)


async def _trade(mesh: SimMesh, book: CallBook, coming: Sequence[Arrival]) -> Account:
    latencies_s: list[float] = []
    begin_s = trio.current_time()

    async def one(arrival: Arrival) -> None:
        await trio.sleep_until(begin_s + arrival.at_s)
        node = mesh.node(f"broker-{arrival.broker}")
        terms = Terms(deadline_s=DEADLINE_S)
        since_s = trio.current_time()
        job = await node.submit(_graph(), {"word": "word"}, terms)
        state = await node.wait(job)
        if state.done is not None and state.done.state == "completed":
            latencies_s.append(trio.current_time() - since_s)

    async with trio.open_nursery() as nursery:
        for arrival in coming:
            nursery.start_soon(one, arrival)
    runs = Counter({f"agent-{number}": 0 for number in range(AGENTS)})
    for (name, _), times in book.begun.items():
        runs[name] += times
    return Account(
        len(latencies_s) / len(coming),
        sum(latencies_s) / max(1, len(latencies_s)),
        _shares([runs[f"agent-{number}"] for number in range(AGENTS)]),
    )


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    total = max(1, sum(counts))
    return tuple(count / total for count in counts)
