"""The jobs of a stage: what their owner asked for, and how they went."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import trio

from meshnode.domain.graph_builder import TaskGraph as GraphBuilder
from meshnode.node import Node
from meshnode.ports import JsonValue
from meshnode.services.job_terms import Terms
from protocol.graph import TaskGraph
from simulations.graphs import call_graph


class JobTerms(TypedDict, total=False):
    """What :meth:`simulations.stage.Stage.submit` may be told beside the work.

    Attributes:
        by: The node that brokers it; by default one that is up, in turns.
        budget_mc: Most to spend, millicredits.
        deadline_s: When it must have ended, from now.
        wanted: The right outputs, where the caller knows them.
        hedges_pct: Of a hundred units so many may be hedged.
        assurance: How sure answers are to be that no check proves, as nodes are told it.
    """

    by: str
    budget_mc: int
    deadline_s: float
    wanted: Mapping[str, JsonValue]
    hedges_pct: int
    assurance: str | float


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job went, as its owner sees it.

    Attributes:
        job: Its id; empty if nobody took it.
        by: Name of the broker.
        state: ``completed``, ``failed``, ``cancelled``; ``refused`` if nobody took it;
            ``lost`` if its broker tells no more of it long after its deadline.
        code: Why, in a word, where it did not complete.
        text: The same for people.
        outputs: Of a completed job, by name.
        cost_mc: What was paid, millicredits.
        begun_s: When it was submitted, seconds of virtual time.
        ended_s: When it ended.
        right: Whether the outputs are the wanted ones; None if nobody said, or it has none.
    """

    job: str
    by: str
    state: str
    code: str = ""
    text: str = ""
    outputs: Mapping[str, JsonValue] | None = None
    cost_mc: int = 0
    begun_s: float = 0.0
    ended_s: float = 0.0
    right: bool | None = None

    @property
    def result(self) -> JsonValue:
        """What the call returned, of a job that is one call."""
        return (self.outputs or {}).get("result")

    @property
    def took_s(self) -> float:
        """From submit to end, seconds."""
        return self.ended_s - self.begun_s


@dataclass(slots=True)
class Owned:
    """A job that somebody waits for."""

    by: str
    terms: Terms
    wanted: Mapping[str, JsonValue] | None
    begun_s: float
    job: str = ""
    unheard: str = ""  # why nobody has taken it yet


async def end_at(node: Node, owned: Owned) -> JobEnd:
    """Wait at ``node``, its broker, for the end of a job."""
    state = await node.wait(owned.job)
    assert state.done is not None
    outputs = await node.outputs(owned.job) if state.done.state == "completed" else None
    right = None if owned.wanted is None or outputs is None else outputs == owned.wanted
    return JobEnd(
        owned.job,
        owned.by,
        state.done.state,
        code=state.done.code,
        text=state.done.text,
        outputs=outputs,
        cost_mc=state.spent_mc,
        begun_s=owned.begun_s,
        ended_s=trio.current_time(),
        right=right,
    )


def refused(owned: Owned, code: str, text: str) -> JobEnd:
    """Return the end of a job that nobody took."""
    return JobEnd(
        "",
        owned.by,
        "refused",
        code=code,
        text=text,
        begun_s=owned.begun_s,
        ended_s=trio.current_time(),
    )


def graph_of(
    work: str | TaskGraph | GraphBuilder, inputs: Mapping[str, JsonValue]
) -> TaskGraph:
    """Return the graph of ``work``: itself, or one call whose outputs are the job's."""
    if isinstance(work, GraphBuilder):
        return work.build()
    if isinstance(work, TaskGraph):
        return work
    return call_graph(work, inputs)
