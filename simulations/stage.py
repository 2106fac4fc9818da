"""A mesh to try things on: what scenarios and users' tests are written with.

::

    mesh.add(agents=[UPPER], n=10)
    mesh.later(1.0, mesh.crash, "n3")
    end = await mesh.submit("text.upper@1", {"text": "so it is"})
    assert end.result == {"text": "SO IT IS"}
    await mesh.settle()

The nodes are real ones (:mod:`simulations.mesh`); everything they do is watched from
outside (:mod:`simulations.checkers`), and :meth:`Stage.settle` raises what was found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Final, TypedDict, Unpack

import trio

from meshnode.config import NodeConfig
from meshnode.domain.graph_builder import TaskGraph as GraphBuilder
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.ports import Agent, JsonValue
from meshnode.services.crash_points import read_crash_point
from meshnode.services.job_terms import Terms
from protocol.graph import TaskGraph
from simulations import faults
from simulations.agents import Act, Backroom, CallBook, Hireable, Post, Skill
from simulations.alarms import sleep
from simulations.answers import Answers
from simulations.checkers import (
    Ending,
    Watch,
    check_ending,
    check_receipts,
    check_rest,
    come_to_rest,
)
from simulations.guests import Guests
from simulations.jobs import JobEnd, JobTerms, Owned, end_at, graph_of, refused
from simulations.mesh import CONFIG, Dht, Down, SimMesh
from simulations.money import check_money
from simulations.opinions import check_opinions
from simulations.rogues import Conduct
from simulations.weather import Weather
from simulations.wires import Wires
from simulations.world import World

__all__ = ["Broken", "JobEnd", "JobTerms", "Offer", "Place", "Stage"]

#: What a node can be given: a skill (of one who behaves well), what an agent is hired from
#: (an act: a skill and how it is done; or a disguise, :mod:`simulations.ruses`), an agent
#: of the user's own, which is shared by the nodes it is given to, or what makes one for
#: each life of each of them.
Offer = Skill | Hireable | Agent | Callable[[], Agent]

_POLL_S: Final = 0.5
#: After the last fault: leases lapse, hung agents time out, receipts arrive; seconds.
REST_S: Final = 60.0
#: From a job's deadline to its end: every cancel is acknowledged or given up; seconds.
SLACK_S: Final = 25.0


class Broken(AssertionError):
    """Something that must hold did not; names all of it."""


class Place(TypedDict, total=False):
    """What :meth:`Stage.add` may be told of nodes beside their agents.

    Attributes:
        config: What they are told.
        skew_ms: How far their clocks are ahead.
        listens: Whether they can be dialled; those behind a NAT can't.
        joins: Whether they dial the first node; else they know the DHT alone.
        conduct: What has been done to their code; nothing by default.
    """

    config: NodeConfig
    skew_ms: int
    listens: bool
    joins: bool
    conduct: Conduct


class Stage:
    """A mesh, who owns its jobs, and who watches it.

    Attributes:
        world: Time and chance.
        mesh: Its nodes.
        book: Which agent calls run where.
        backroom: What agents share behind its back.
        watch: What it saw that must not be.
        ends: Every job that was waited for, in the order in which they ended.
        network: The links between nodes: what makes them slow, lossy, cut.
        guests: Agents of the user's own.
    """

    def __init__(
        self,
        world: World,
        *,
        weather: Weather | None = None,
        directory: Dht | None = None,
        config: NodeConfig = CONFIG,
        answers: Answers | None = None,
    ) -> None:
        """Make a stage without nodes.

        Args:
            world: Time and chance.
            weather: All links when nothing is wrong; the default is mild.
            directory: The DHT, if it is to be another than the simple one.
            config: What nodes are told.
            answers: Where recorded agents have theirs from; by default, their files.
        """
        self.world = world
        self.mesh = SimMesh(world, weather=weather, directory=directory)
        self.book = CallBook()
        self.backroom = Backroom()
        self.watch = Watch(self.mesh, self.book)
        self.network = Wires(self.mesh, self._peer)
        self.guests = Guests(self.book, answers or Answers())
        self.ends: list[JobEnd] = []
        self._config = config
        self._starting: dict[str, trio.Event] = {}
        self._jobs = 0
        self._turn = 0

    # --- nodes ---

    def add(
        self,
        agents: Iterable[Offer] = (),
        *,
        n: int = 1,
        name: str = "n",
        **place: Unpack[Place],
    ) -> list[str]:
        """Start ``n`` nodes, each with ``agents``; return their names, ``n0``, ``n1``, ….

        They are up when :meth:`ready` returns; :meth:`submit` waits for that by itself.
        """
        offers = list(agents)
        names = fresh_names(name, n, (*self.mesh.members, *self._starting))
        for one in names:
            self.start(one, offers, place)
        return names

    def start(self, name: str, offers: Sequence[Offer], place: Place) -> None:
        """Start one node under a name that is free, as :meth:`add` does."""
        before = next(reversed(self._starting.values()), None)
        self._starting[name] = trio.Event()
        self.world.nursery.start_soon(self._start, name, offers, place, before)

    async def _start(
        self, name: str, offers: Sequence[Offer], place: Place, before: trio.Event | None
    ) -> None:
        # One after another, in the order in which they were added: the first is who the
        # others join.
        if before is not None:
            await before.wait()
        options = {"config": self._config, **place}
        if "conduct" in place:
            self.mesh.makers[name] = place["conduct"].make
            del options["conduct"]
        await self.mesh.start(name, agents=lambda: self._agents(name, offers), **options)  # type: ignore[arg-type] # checked by Place
        self._starting.pop(name).set()

    def _agents(self, name: str, offers: Sequence[Offer]) -> list[Agent]:
        lives = self.mesh.members[name].lives
        return [self._agent(f"{name}/{lives}/{i}", name, one) for i, one in enumerate(offers)]

    def _agent(self, part: str, node: str, offer: Offer) -> Agent:
        if isinstance(offer, Skill):
            offer = Act(offer)
        if isinstance(offer, Hireable):
            rng = self.world.random(part)
            return offer.hire(Post(node, rng, self.book, self.backroom))
        return self.guests.host(offer, node)

    async def ready(self) -> None:
        """Wait until every node that was added is up."""
        while self._starting:
            await next(iter(self._starting.values())).wait()

    def up(self) -> list[str]:
        """Return the names of the nodes that run, in the order in which they were added."""
        return [name for name, member in self.mesh.members.items() if member.life is not None]

    def working(self) -> list[str]:
        """Return the names of the nodes in which an agent runs, in the order of the calls."""
        return list(dict.fromkeys(name for name, _ in self.book.running))

    def node(self, name: str) -> Node:
        """Return the running node called ``name``.

        Raises:
            Down: It isn't running.
        """
        return self.mesh.node(name)

    def random(self, name: str) -> Random:
        """Return chance of its own for the part called ``name``."""
        return self.world.random(name)

    # --- what goes wrong ---

    def later(self, after_s: float, call: Callable[..., object], *args: object) -> None:
        """Call ``call(*args)`` in ``after_s`` seconds, whatever else happens meanwhile."""
        self.world.nursery.start_soon(self._call_later, after_s, call, args)

    async def _call_later(
        self, after_s: float, call: Callable[..., object], args: Sequence[object]
    ) -> None:
        await trio.sleep(after_s)
        call(*args)

    def _peer(self, name: str) -> str:
        """Return the PeerId of ``name``.

        Raises:
            Down: It isn't up yet, or there never was one.
        """
        if name not in self.mesh.members:
            hint = "isn't up yet: await mesh.ready()" if name in self._starting else "is nobody"
            raise Down(f"{name} {hint}")
        return self.mesh.peer(name)

    def crash(self, name: str, *, for_s: float | None = None, at: str = "") -> None:
        """Kill ``name``; it comes back from its disk after ``for_s``, if that is given.

        Args:
            name: Of the node.
            for_s: Seconds that it is down; for good, or until :meth:`heal`, if None.
            at: Not now, but when it reaches this crash point, such as
                ``after:award.taken`` (:mod:`meshnode.services.crash_points`).

        Raises:
            ConfigError: There is no such crash point; lists those there are.
            Down: There is no such node.
        """
        self._peer(name)

        def come_back() -> None:
            if for_s is not None:
                self.world.nursery.start_soon(self._come_back, name, for_s)

        if at:
            self.mesh.crash_at(name, read_crash_point(at), come_back)
        else:
            self.mesh.crash(name)
            come_back()

    async def _come_back(self, name: str, after_s: float) -> None:
        await trio.sleep(after_s)
        if not self.mesh.up(name):
            await self.mesh.restart(name)

    def freeze(self, name: str, *, for_s: float | None = None) -> None:
        """Stop ``name`` as SIGSTOP would, for ``for_s`` or until :meth:`heal`."""
        peer = self._peer(name)
        self.world.network.freeze(peer)
        if for_s is not None:
            due_s = trio.current_time() + for_s
            self.world.network.timetable.at(due_s, self.world.network.thaw, peer)

    def partition(self, *islands: Iterable[str], for_s: float | None = None) -> None:
        """Cut every path between ``islands`` (names), for ``for_s`` or until :meth:`heal`.

        Who is named nowhere reaches everyone; a single island is cut from all the others.
        """
        named = [[self._peer(name) for name in island] for island in islands]
        if len(named) == 1:
            here = set(named[0])
            named.append([m.peer for m in self.mesh.members.values() if m.peer not in here])
        self.world.network.partition(*named)
        if for_s is not None:
            due_s = trio.current_time() + for_s
            self.world.network.timetable.at(due_s, self.world.network.partition)

    async def heal(self) -> None:
        """Undo whatever is wrong with links and nodes, and start who is down."""
        self.network.mend()
        await faults.heal(self.mesh)

    # --- jobs ---

    async def submit(
        self,
        work: str | TaskGraph | GraphBuilder,
        inputs: Mapping[str, JsonValue] | None = None,
        **terms: Unpack[JobTerms],
    ) -> JobEnd:
        """Have ``work`` done, wait for its end, whatever happens meanwhile, and return it.

        A broker that is down is asked again when it is up; the job is one job.

        Args:
            work: A capability to call with ``inputs``, or a graph.
            inputs: By name.
            **terms: See :class:`JobTerms`.
        """
        await self.ready()
        graph = graph_of(work, inputs or {})
        self._jobs += 1
        owned = Owned(
            by=terms.get("by") or self._next_broker(),
            terms=Terms(
                budget_mc=terms.get("budget_mc", 100_000),
                deadline_s=terms.get("deadline_s", 60.0),
                idempotency_key=f"job-{self._jobs}",
                hedges_pct=terms.get("hedges_pct", Terms().hedges_pct),
                assurance=terms.get("assurance", ""),
            ),
            wanted=terms.get("wanted"),
            begun_s=trio.current_time(),
        )
        end = await self._await_end(owned, graph, dict(inputs or {}))
        self.ends.append(end)
        self.world.trace.note(f"job {end.job} of {end.by}: {end.state} {end.code}")
        return end

    def _next_broker(self) -> str:
        up = self.up()
        if not up:
            raise Down("every node is down: add one, or say by whom the job is brokered")
        self._turn += 1
        return up[self._turn % len(up)]

    async def _await_end(
        self, owned: Owned, graph: TaskGraph, inputs: dict[str, JsonValue]
    ) -> JobEnd:
        with trio.move_on_after(owned.terms.deadline_s + 2 * SLACK_S):
            while not owned.job:
                try:
                    owned.job = await self.mesh.ask(
                        owned.by, lambda node: node.submit(graph, inputs, owned.terms)
                    )
                except Down as exc:
                    owned.unheard = f"{exc} is down"
                    await sleep(_POLL_S)
                except MeshError as exc:
                    if trio.current_time() - owned.begun_s >= owned.terms.deadline_s:
                        return refused(owned, exc.code, str(exc))
                    owned.unheard = f"{exc.code}: {exc}"
                    await sleep(_POLL_S)
            while True:
                try:
                    return await self.mesh.ask(owned.by, lambda node: end_at(node, owned))
                except (Down, MeshError) as exc:
                    owned.unheard = f"{type(exc).__name__}: {exc}"
                await sleep(_POLL_S)
        if not owned.job:
            return refused(owned, "", owned.unheard)
        if self.mesh.up(owned.by):  # else it is asked when it is back, see troubles
            self.watch.troubles.append(
                f"job {owned.job} of {owned.by} has not ended {2 * SLACK_S:g} s after its"
                f" deadline ({owned.unheard or 'it says nothing'})"
            )
        return JobEnd(
            owned.job,
            owned.by,
            "lost",
            text=owned.unheard,
            begun_s=owned.begun_s,
            ended_s=trio.current_time(),
        )

    # --- the end ---

    async def settle(self, *, rest_s: float = REST_S) -> None:
        """Heal what is wrong, wait until all is at rest, and check everything.

        Raises:
            Broken: Something that must hold does not; names all of it.
        """
        await self.ready()
        await self.heal()
        await self.rest(rest_s)
        if troubles := await self.troubles():
            raise Broken("\n  ".join(["what must hold does not:", *troubles]))

    async def rest(self, rest_s: float = REST_S) -> None:
        """Wait until all has been quiet for a while, or for ``rest_s``."""
        await come_to_rest(self.mesh, self.book, limit_s=rest_s)

    async def troubles(self) -> list[str]:
        """Return all that must not be, one line each: of jobs, money, journals and nodes."""
        found = [*self.watch.troubles, *check_rest(self.mesh, self.book)]
        found += check_money(self.mesh)
        found += check_opinions(self.mesh)
        for end in self.ends:
            if end.job and self.mesh.up(end.by):
                check = self._check_late if end.state == "lost" else self._check_job
                told = await check(end)
                found += [f"job {end.job} of {end.by}: {trouble}" for trouble in told]
        return found

    async def _check_late(self, end: JobEnd) -> list[str]:
        """Its broker was away when it had to end: back again, it has to have ended it."""
        journal = await self.mesh.node(end.by).journal(end.job)
        return [] if journal.done is not None else ["it has no end, and its broker is back"]

    async def _check_job(self, end: JobEnd) -> list[str]:
        node = self.mesh.node(end.by)
        journal = await node.journal(end.job)
        state = journal.state
        ending = Ending(
            broker=end.by,
            job=end.job,
            state=state,
            outputs=end.outputs,
            export=await journal.export(),
            wanted=None,
            deadline_ms=state.required_plan.deadline_ms + int(SLACK_S * 1000),
        )
        return [*check_ending(ending), *check_receipts(self.mesh, ending)]


def fresh_names(name: str, n: int, taken: Iterable[str]) -> list[str]:
    """Return ``n`` names that begin with ``name`` and are not ``taken``."""
    here = {one: None for one in taken if one.startswith(name)}
    fresh = (f"{name}{i}" for i in range(len(here) + n))
    return list(islice((one for one in fresh if one not in here), n))
