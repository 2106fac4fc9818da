"""The Python API: a node in your own program.

::

    async with Node.open(NodeConfig(home="desk", join=("/ip4/…/p2p/…",))) as node:
        node.host(word_count)                     # a function made with @agent
        job = await node.submit(graph, {"files": files})
        async for event in job.events():
            print(event.kind)
        result = await job.result()

It runs on Trio; :mod:`meshnode.aio` is the same for asyncio programs.

What ``meshnode.__all__`` names is kept: it changes only with a major version, and what
will go is announced one minor version before.  Until 1.0 a minor version may change it,
with the migration in the changelog.  Everything else of the package may change at any
time; so may the fields of an event's ``data`` beyond those that docs/python.md lists.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from os import PathLike, environ
from pathlib import Path
from typing import Any, Final, TypedDict

import trio
from typing_extensions import Unpack

from meshnode import app
from meshnode.adapters.agents.function import FunctionAgent, agent
from meshnode.adapters.agents.function import Terms as AgentTerms
from meshnode.config import NodeConfig, parse_config
from meshnode.domain.graph_builder import Place, TaskGraph
from meshnode.domain.plan_graphs import FILES
from meshnode.errors import CannotPlan, ConfigError, InputInvalid, JobFailed, MeshError
from meshnode.gateway.api_views import (
    event_view,
    explanation_view,
    job_view,
    known_agents,
    plan_view,
)
from meshnode.node import JobJournal, Plan, Terms
from meshnode.node import Node as CoreNode
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output
from protocol.records import CapabilityName

__all__ = [
    "Agent",
    "AgentCall",
    "AgentSpec",
    "Chunk",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobResult",
    "MeshError",
    "Node",
    "NodeConfig",
    "Output",
    "Place",
    "TaskGraph",
    "agent",
]

#: Between two looks for agents, seconds.
_LOOK_S: Final = 0.25


class SubmitTerms(TypedDict, total=False):
    """What :meth:`Node.submit` may be told beside the work.

    Attributes:
        budget_mc: Most to spend, millicredits; 0 lets only free work be done.
        deadline_s: From now.
        idempotency_key: The same key gives the same job, however often it is asked.
        hedges_pct: Of a hundred units so many, and one at least, may be given to a second
            node too when the first is slow; 0 for none.
        standbys: PeerIds of nodes that go on with the job when this one is gone, or how
            many are to be chosen among those that offer it: two to six, or none.
        replans_max: So often, and three times at most, may a sub-task that can't be done go
            on with what its graph names instead, or another version; 0 for never.
        subtasks_max: So many sub-tasks may those who work for it hand on, all together and
            all levels; 0, unless said otherwise, for none.
        fan_out_max: Of these, so many may one award have others do.
        depth_max: Brokers below each other, this node among them.
        tokens_max: Model tokens that may be used for it, further down too; any number,
            unless said otherwise.
        patience_s: So long is a node waited for when all that could do a sub-task are away;
            20 unless said otherwise.
        by_letter_s: What nobody is there for within that goes by letter to a node that takes
            orders so, and has so long for it; 0, unless said otherwise, for never.
        assurance: How sure answers are to be that no check proves: ``economy`` (0.90),
            ``assured`` (0.98), or a probability; others are asked until one is so probable.
            Takes what comes, unless said otherwise.
        lends_golds: What a check proves of it may be asked of other agents later, to see
            whether they know it; they see its inputs then. Not unless said.
        files: Text files that a goal is about; a graph finds them in its input ``files``,
            each as ``{"path", "text"}``.
    """

    budget_mc: int
    deadline_s: float
    idempotency_key: str
    hedges_pct: int
    standbys: int | Sequence[str]
    replans_max: int
    subtasks_max: int
    fan_out_max: int
    depth_max: int
    tokens_max: int
    patience_s: float
    by_letter_s: float
    assurance: str | float
    lends_golds: bool
    files: Sequence[str | PathLike[str]]


#: Those that are told to the broker as they are.
_TERMS: Final = frozenset(SubmitTerms.__annotations__) - {"files"}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job; durable, so it is told once and stays true.

    Attributes:
        seq: Its number in the job's journal, from 0 and without gaps.
        at_ms: When, Unix milliseconds, by the broker's clock.
        kind: ``planned``, ``expanded``, ``called``, ``proposed``, ``refused``, ``awarded``,
            ``progressed``, ``delivered``, ``verified``, ``charged``, ``failed``,
            ``cancelled`` or ``done``.
        data: What is shown of it, such as ``unit``, ``peer``, ``paid_mc``.
    """

    seq: int
    at_ms: int
    kind: str
    data: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came of a completed job.

    Attributes:
        outputs: By the names that the graph gives them.
        cost_mc: What was paid for it, millicredits.
        elapsed_s: From submit to done.
        verdicts: Unit of work -> ``verified``, ``unverified``, …: what its checks say.
        provenance: The signed journal; ``meshnode verify`` checks it offline.
    """

    outputs: Mapping[str, JsonValue]
    cost_mc: int
    elapsed_s: float
    verdicts: Mapping[str, str]
    provenance: bytes


class Job:
    """A job of this node; it goes on whether anybody holds this object or not."""

    def __init__(self, node: CoreNode, journal: JobJournal) -> None:
        """Made by :meth:`Node.submit` and :meth:`Node.job`."""
        self._node = node
        self._journal = journal

    @property
    def id(self) -> str:
        """Its name; :meth:`Node.job` finds it again, after a restart too."""
        return self._journal.job

    @property
    def state(self) -> str:
        """``running``, ``completed``, ``failed`` or ``cancelled``."""
        done = self._journal.done
        return done.state if done else "running"

    def status(self) -> dict[str, JsonValue]:
        """Return how each unit of work stands, as ``GET /api/jobs/{job}`` shows it."""
        state = self._journal.state
        durable = state.done is None or self._journal.done is not None
        return job_view(state, self._node.clock.now_ms(), durable=durable)

    async def events(
        self, since: int = 0, *, after: int | None = None
    ) -> AsyncGenerator[JobEvent, None]:
        """Yield every event from number ``since`` on, in order, until the job has ended.

        Whoever was cut off, by a restart of the node too, misses nothing and sees nothing
        twice with ``after``.

        Args:
            since: Number of the first event.
            after: Number of the last event that was seen, in place of ``since``.

        Raises:
            BeyondEnd: No event has that number: it was seen in another journal.
            InputInvalid: No event has such a number, or both are given.
        """
        if since and after is not None:
            raise InputInvalid("since and after say the same", hint="give one of them")
        since = since if after is None else after + 1
        if since < 0:
            given = f"since={since}" if after is None else f"after={after}"
            raise InputInvalid(
                f"events are numbered from 0: {given}", hint="leave it out for all"
            )
        self._journal.check_start(since)
        while True:
            events = self._journal.events(since)
            for event in events:
                since = event.seq + 1
                view = event_view(event)
                data = {key: view[key] for key in view if key not in _OF_EVERY_EVENT}
                yield JobEvent(event.seq, event.at_ms, event.kind, data)
            if self._journal.done is not None and not self._journal.events(since):
                return
            await self._journal.follow(since)

    async def result(self) -> JobResult:
        """Wait until the job has ended, and return what came of it.

        Raises:
            JobFailed: It failed or was cancelled; says why.
            ArtifactError: An output can't be fetched any more.
        """
        state = await self._node.wait(self.id)
        done = state.done
        if done is None or done.state != "completed":
            how, code = (done.state, done.code) if done else ("failed", "")
            why = (done.text if done else "") or code
            raise JobFailed(
                f"job {self.id} {how}: {why}",
                job=self.id,
                state=how,
                reason=code,
                hint="job.partial_outputs() has what was accepted" if state.kept() else "",
            )
        view = self.status()
        rows = view["subtasks"]
        assert isinstance(rows, list)
        verdicts = {
            str(row["id"]): str(row["verdict"]) for row in rows if isinstance(row, dict)
        }
        return JobResult(
            outputs=await self._node.outputs(self.id),
            cost_mc=state.spent_mc,
            elapsed_s=(state.ended_ms - state.planned_ms) / 1000,
            verdicts=verdicts,
            provenance=await self._journal.export(),
        )

    async def partial_outputs(self) -> dict[str, JsonValue]:
        """Return what was accepted of it, as ``GET /api/jobs/{job}/outputs?partial=1`` does.

        Of a job that was cancelled or failed it is what there is: by sub-task, the outputs
        of the units that were accepted before.

        Raises:
            NotFound: It has not ended.
        """
        return await self._node.broker.partial_outputs(self.id)

    def explain(self) -> dict[str, JsonValue]:
        """Return why it went as it did, as ``GET /api/jobs/{job}/explain`` shows it.

        ``words`` among it are sections, each of a title and lines to be read by people.
        """
        journal = self._journal
        return explanation_view(self.id, journal.events(), self._node.clock.now_ms())

    async def cancel(self) -> None:
        """End it early; returns when that is written down, the work stops soon after."""
        await self._node.cancel(self.id)

    async def resume(
        self, *, budget_mc: int | None = None, deadline_s: float | None = None
    ) -> "Job":
        """Go on with what it left, if it failed or was cancelled, as a new job.

        Finished sub-tasks aren't run again; a job that hasn't ended is returned itself.

        Args:
            budget_mc: Of the new job; as much as this one had unless said otherwise.
            deadline_s: Of the new job, from now.

        Raises:
            JobEnded: It is completed, or nothing of it is left to be run.
            ArtifactError: An input of it is no longer kept.
            KeyReused: It was resumed with another budget.
        """
        job = await self._node.broker.resume(
            self.id, budget_mc=budget_mc, deadline_s=deadline_s
        )
        return Job(self._node, await self._node.journal(job))


_OF_EVERY_EVENT: Final = frozenset({"seq", "at_ms", "kind"})


class Node:
    """A node of the mesh, in this program."""

    def __init__(self, core: CoreNode) -> None:
        """Made by :meth:`open`."""
        self._core = core

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: NodeConfig | str | PathLike[str] | None = None,
        *,
        agents: Sequence[Agent] = (),
    ) -> AsyncIterator["Node"]:
        """Run a node for as long as the context lasts; leaving it says goodbye to the mesh.

        Args:
            config: What it is told, or the TOML file that says it; by default nothing but
                the environment (``MESHNODE_…``), as ``meshnode up`` reads it.
            agents: To host from the start.

        Raises:
            ConfigError: A setting or an agent can't be used; names it.
            StoreError: Another node uses this home, or its store can't be used.
        """
        told = config if isinstance(config, NodeConfig) else await _read(config)
        async with app.open_node(told, agents=agents) as core:
            yield cls(core)

    @property
    def peer(self) -> str:
        """Its PeerId."""
        return self._core.peer

    @property
    def addresses(self) -> Sequence[str]:
        """Where others can dial it, with its PeerId: what they are told to join."""
        return self._core.addresses

    def host(
        self,
        what: Agent | Callable[..., object],
        capability: str = "",
        **terms: Unpack[AgentTerms],
    ) -> Agent:
        """Host one more agent; others find it within seconds.

        Args:
            what: An agent, such as a function made with ``@agent``; or a plain function.
            capability: What a plain function can do, ``text.reversal@1``.
            **terms: Price, limits, examples of a plain function.

        Raises:
            ConfigError: It is no agent, and can't be made one.
            InputInvalid: An agent of that name is hosted already, or a schema is unusable.
        """
        if isinstance(what, Agent) and not isinstance(what, type):
            if capability or terms:
                raise ConfigError(
                    f"{what.spec.name} is an agent and has its terms", hint="set them there"
                )
            hosted = what
        elif capability:
            hosted = FunctionAgent(what, capability, **terms)
        else:
            raise ConfigError(
                f"{what!r:.80} is no agent", hint='give its capability: host(f, "text.f@1")'
            )
        self._core.add_agent(hosted)
        return hosted

    async def plan(
        self,
        goal: str,
        inputs: Mapping[str, JsonValue] | None = None,
        *,
        files: Sequence[str | PathLike[str]] = (),
    ) -> dict[str, JsonValue]:
        """Return what was made of a goal in plain words, as ``POST /api/plan`` shows it.

        Spends nothing; ``graph``, ``cost_mc``, ``time_ms`` and ``missing`` are among it.

        Raises:
            NoProvider: Nothing that is known here serves it; names the nearest.
            CannotPlan: A part of it can't be placed.
            ConfigError: A file can't be read.
        """
        return plan_view(await self._plan(goal, inputs, files))

    async def _plan(
        self,
        goal: str,
        inputs: Mapping[str, JsonValue] | None,
        files: Sequence[str | PathLike[str]],
    ) -> Plan:
        read: list[dict[str, JsonValue]] = [
            {"path": str(Path(file)), "text": await _text(file)} for file in files
        ]
        return await self._core.planner.plan(goal, files=read, inputs=inputs)

    async def submit(
        self,
        work: TaskGraph | str,
        inputs: Mapping[str, JsonValue] | None = None,
        **said: Unpack[SubmitTerms],
    ) -> Job:
        """Take a job; returns when it is written down and will be done.

        Args:
            work: What to do: a graph, or a goal in plain words.
            inputs: The graph's inputs by name; of a goal, what it leaves open.
            **said: See :class:`SubmitTerms`.

        Raises:
            GraphError: The graph can't run; says which sub-task.
            InputInvalid: An input is missing or is not what an agent takes.
            NoProvider: Nobody offers a capability that it needs.
            CannotPlan: A part of a goal can't be placed, or it leaves something out.
            KeyReused: The key is that of a job with other work, inputs or budget.
            ConfigError: A file can't be read.
        """
        files, standbys = said.get("files", ()), said.get("standbys", 0)
        told: dict[str, Any] = {n: value for n, value in said.items() if n in _TERMS}
        if not isinstance(standbys, int):
            told["standbys"] = tuple(standbys)
        terms = Terms(**told)
        if isinstance(work, str):
            plan = await self._plan(work, inputs, files)
            made, terms = plan.assembled, replace(terms, asked=plan.asked)
            if made.missing:
                wants = ", ".join(f"{want.field} of {want.step}" for want in made.missing)
                raise CannotPlan(f"the goal doesn't say: {wants}", hint="give it in inputs")
            return await self.job(await self._core.submit(made.graph, made.inputs, terms))
        given = dict(inputs or {})
        if files:
            given[FILES] = [{"path": str(Path(f)), "text": await _text(f)} for f in files]
        return await self.job(await self._core.submit(work.build(), given, terms))

    async def job(self, id: str) -> Job:  # noqa: A002 - what a job calls it
        """Return a job of this node.

        Raises:
            NotFound: There is none of that id.
        """
        return Job(self._core, await self._core.journal(id))

    async def agents(
        self, capability: str = "", *, count: int = 0, wait_s: float = 0.0
    ) -> list[dict[str, JsonValue]]:
        """Return the agents that this node knows of, its own among them.

        Each is what ``GET /api/agents`` shows: ``agent``, ``capability``, ``price_mc``, ….

        Args:
            capability: Only those that offer it, or something under it.
            count: Wait until there are so many, and look for them in the DHT too …
            wait_s: … but no longer than this.

        Raises:
            Malformed: ``capability`` can't be one.
        """
        wanted = CapabilityName.parse(capability) if capability else CapabilityName("")
        found = self._known(wanted)
        with trio.move_on_after(wait_s):
            while len(found) < count:
                await self._core.directory.search(capability, timeout_s=wait_s)
                found = self._known(wanted)
                if len(found) < count:
                    await trio.sleep(_LOOK_S)
                    found = self._known(wanted)
        return found

    def _known(self, wanted: CapabilityName) -> list[dict[str, JsonValue]]:
        return known_agents(self._core, wanted)


async def _read(path: str | PathLike[str] | None) -> NodeConfig:
    if path is None:
        return parse_config("", env=environ, where="the environment")
    return parse_config(await _text(path), env=environ, where=str(Path(path)))


async def _text(path: str | PathLike[str]) -> str:
    file = trio.Path(path)
    try:
        return await file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} can't be read: {error}", hint="check its name") from error
