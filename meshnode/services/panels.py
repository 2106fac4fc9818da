"""A broker's panels: it asks judges which of two answers is better, and hears them.

Each question is a job of the broker's own that one judge may do (``Terms.only``), as a gold is,
under a key that follows from whose panel it is: so a broker that dies among them asks again for
the same jobs, and pays nobody twice.  Its cost is the job's whose answers are judged: it was
promised when the panel was called, and is spent when it was heard.

A judge gets the task, the question, and two answers as ``a`` and ``b``: nothing of who made
them, how far anybody is believed, or which is the likelier one.  The second time they are
swapped, in another job, and by chance that one is sent first.

Another broker that goes on with the job doesn't ask again: what it can't know was paid counts
as paid.  Nor does it call a panel of its own: whom it pays for answers it pays for the owner,
who can hold that against what contractors signed; what judges are paid is in jobs of the
heir's own, which prove nothing to the owner.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from msgspec.structs import replace

from meshnode.domain.asking import kept_mc, margin_ms
from meshnode.domain.facts import Judged, Vote
from meshnode.domain.families import UNKNOWN
from meshnode.domain.job import JobState
from meshnode.domain.matching import Candidate
from meshnode.domain.panels import (
    ORDERS,
    PANEL_MS,
    PANEL_MS_MIN,
    SHOWN_BYTES_MAX,
    Judge,
    called,
    heard,
    may_read,
    rivals,
    seated,
)
from meshnode.domain.sittings import WORDS, Seat, Sitting
from meshnode.domain.step_kinds import View
from meshnode.domain.units import SINGLE, Unit
from meshnode.domain.values import canonical
from meshnode.domain.verification import read_output
from meshnode.errors import ArtifactError, MeshError, StoreError
from meshnode.ports import JsonValue
from meshnode.services.broker import Broker
from meshnode.services.checking import Checking
from meshnode.services.context import Context
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.job_terms import Terms
from meshnode.services.market import Market
from meshnode.services.reputation import Reputation
from protocol.graph import Panel, Source, SubTask, TaskGraph

#: Whose idempotency keys the questions have.
_CALLER: Final = "panel"
#: Judges that aren't known are looked for so long, seconds.
_SEARCH_S: Final = 5.0
#: A question that was called back has so long to end, seconds.
_END_S: Final = 3.0
_FIELDS: Final = ("question", "task", "a", "b")


class Panels:
    """See the module."""

    def __init__(
        self,
        context: Context,
        *,
        broker: Broker,
        market: Market,
        checking: Checking,
        reputation: Reputation,
    ) -> None:
        self._context = context
        self._broker = broker
        self._market = market
        self._checking = checking
        self._reputation = reputation

    # --- calling ---

    async def call(self, state: JobState, unit: Unit, judged: Judged) -> Judged | None:
        """Return ``judged``, which nothing decides, as one that waits for a panel.

        None where the graph names none, the job is another's, there is no time, money, or
        judge for one, or what they would be shown is too much or gone.

        Args:
            state: Of its job.
            unit: Whose answers they are.
            judged: Contested.
        """
        panel, plan = state.tasks[unit.subtask].panel, state.required_plan
        waits = len(unit.answers()) == len(unit.tried()) == len(judged.votes)
        limited = plan.under or plan.tokens  # what judges use would have to count there, too
        if panel is None or unit.summons is not None or limited or not waits:
            return None
        if plan.owner != self._context.peer:
            return None
        if margin_ms(state) - self._context.clock.now_ms() < PANEL_MS_MIN:
            return None
        await self._market.search(panel.capability, timeout_s=_SEARCH_S)
        groups, chances_ppm = rivals(judged)
        try:
            shown = await self._shown(state, unit, panel, groups, judged.votes)
        except ArtifactError as exc:
            self._context.emit("panel.not_called", job=state.job, why=str(exc))
            return None
        if len(canonical(shown)) > SHOWN_BYTES_MAX:
            self._context.emit("panel.not_called", job=state.job, why="too much to be shown")
            return None
        left_ms = margin_ms(state) - self._context.clock.now_ms()
        found = self._judges(state, panel, left_ms)
        # One capability in full for all of them, so that they are asked for the same.
        names = sorted({one.capability for one in found})
        for name in names:
            seats = seated(
                [self._judge(one) for one in found if one.capability == name],
                self._makers(judged.votes, state, unit),
                free_mc=self._free_mc(state),
                rng=self._context.rng,
                rules=self._reputation.rules,
            )
            if seats:
                sitting = Sitting(
                    broker=self._context.peer,
                    capability=name,
                    groups=groups,
                    chances_ppm=chances_ppm,
                    seats=seats,
                )
                return called(judged, sitting)
        self._context.emit("panel.not_called", job=state.job, why="too few judges")
        return None

    def _judges(self, state: JobState, panel: Panel, left_ms: int) -> list[Candidate]:
        """Return who is there, may read what it is about, and has time for it."""
        graph = state.graph
        assert graph is not None, "it is planned"
        only = state.required_plan.only
        return sorted(
            (
                one
                for one in self._market.candidates(panel.capability)
                if not one.failing
                and (one.latency_ms + one.queue_ms) * ORDERS <= min(left_ms, PANEL_MS)
                and may_read(graph, one.peer)
                and (not only or one.agent_id in only)
            ),
            key=lambda one: one.agent_id,
        )

    def _judge(self, one: Candidate) -> Judge:
        return Judge(
            agent=one.agent_id,
            credibility=self._reputation.credibility(one.capability, one.agent_id),
            price_mc=one.price_mc,
            families=self._families(one.capability, one.agent_id),
            last=one.troubled,
        )

    def _families(self, capability: str, agent: str) -> frozenset[str]:
        """Return the families that an agent may be of: as probed, or else as declared.

        Each as one word: a journal has them with spaces between.  What isn't recognised is no
        family here, whoever says so: all of that kind would count as one.
        """
        voice = self._broker.judging.family(capability, agent)
        offer = self._market.declared(capability).get(agent)
        declared = offer.model_family if offer is not None else ""
        names = {"_".join(name.split()) for name in (declared, voice)}
        return frozenset(names - {"", UNKNOWN})

    def _makers(
        self, votes: Sequence[Vote], state: JobState, unit: Unit
    ) -> dict[str, frozenset[str]]:
        query = state.tasks[unit.subtask].capability
        return {
            vote.agent.partition("/")[0]: self._families(query, vote.agent)
            | ({vote.family} - {"", UNKNOWN})
            for vote in votes
        }

    def _free_mc(self, state: JobState) -> int:
        """Return what a panel may cost: what the rest of the job doesn't need."""
        queries = {task.capability for task in state.tasks.values()}
        view = View(
            candidates={name: self._market.candidates(name) for name in sorted(queries)}
        )
        free_mc = state.required_plan.budget_mc - state.spent_mc - state.reserved_mc()
        return free_mc - kept_mc(state, view)

    # --- what they are shown ---

    async def _shown(
        self,
        state: JobState,
        unit: Unit,
        panel: Panel,
        groups: Sequence[int],
        votes: Sequence[Vote],
    ) -> dict[str, JsonValue]:
        """Return what a judge is shown, the answer of the first of ``groups`` as ``a``."""
        task = state.tasks[unit.subtask]
        question = panel.question or f"Which is the better answer of {task.capability}?"
        answers: list[JsonValue] = []
        for group in groups:
            attempt = unit.attempts[min(v.attempt for v in votes if v.group == group)]
            data = await self._checking.output(state, attempt)
            made = read_output(data, calls=unit.calls, single=unit.items == SINGLE)
            answers.append(made[0] if unit.items == SINGLE else made)
        asked: list[JsonValue] = list(await self._checking.asked(state, unit.answers()[0]))
        about = asked[0] if unit.items == SINGLE else asked
        return dict(zip(_FIELDS, (question, about, *answers), strict=True))

    # --- hearing ---

    async def hear(self, state: JobState, unit: Unit) -> Judged:
        """Ask a panel that was called, and return what it makes of the judgement.

        Raises:
            ArtifactError: What judges are to be shown can't be had any more.
            StoreError: The disk refused; asked again, it asks for the same jobs.
        """
        judged = unit.summons
        assert judged is not None, "one that was called"
        sitting, theta_ppm = judged.sitting, state.required_plan.theta_ppm
        assert sitting is not None, "called"
        if sitting.broker != self._context.peer:  # nobody here knows what it was told
            return heard(judged, sitting.lost, theta_ppm)
        panel = state.tasks[unit.subtask].panel
        assert panel is not None, "its graph names one"
        end_ms = min(margin_ms(state), unit.judged_ms + PANEL_MS)
        orders = (sitting.groups, sitting.groups[::-1])
        said: dict[tuple[int, int], _Said] = {}

        async def ask(place: int, order: int) -> None:
            one = _Question(
                key=f"{state.job}/{unit.name}/{place}/{order}",
                agent=sitting.seats[place].agent,
                capability=sitting.capability,
                price_mc=sitting.seats[place].cap_mc // ORDERS,
                end_ms=end_ms,
            )

            async def shown() -> dict[str, JsonValue]:
                return await self._shown(state, unit, panel, orders[order], judged.votes)

            said[place, order] = await self._ask(state, one, shown)

        questions = [(p, o) for p in range(len(sitting.seats)) for o in range(ORDERS)]
        self._context.rng.shuffle(questions)
        async with trio.open_nursery() as nursery:
            for place, order in questions:
                nursery.start_soon(ask, place, order)
        seats = [
            _told(seat, [said[place, order] for order in range(ORDERS)])
            for place, seat in enumerate(sitting.seats)
        ]
        found = heard(judged, replace(sitting, seats=seats), theta_ppm, self._reputation.rules)
        self._context.emit("panel.heard", job=state.job, unit=unit.name, outcome=found.outcome)
        return found

    async def _ask(
        self,
        state: JobState,
        one: "_Question",
        shown: Callable[[], Awaitable[dict[str, JsonValue]]],
    ) -> "_Said":
        """Ask a question once, now or before this broker was last started; wait for an answer.

        One that isn't out when the panel must end isn't asked any more.
        """
        job = await self._job(one.key)
        if not job:
            job = await self._put(one, shown)
        if not job:
            return _Said()
        try:
            return await self._answer(job, one, state.required_plan.deadline_ms)
        finally:
            if state.cancelled is not None:
                self._broker.abandon(job)

    async def _put(
        self, one: "_Question", shown: Callable[[], Awaitable[dict[str, JsonValue]]]
    ) -> str:
        """Ask what wasn't asked yet; return the id of its job, empty if it can't be."""
        inputs: dict[str, JsonValue] | None = None
        # What may take long is done before the job is taken: that can't be cut short.
        with trio.move_on_after(self._left_s(one.end_ms)):
            if await self._market.search(one.capability, timeout_s=_SEARCH_S):
                inputs = await shown()
        left_s = self._left_s(one.end_ms)
        if inputs is None or not left_s:
            self._context.emit("panel.not_asked", agent=one.agent, why="nobody there, or late")
            return ""
        terms = Terms(
            budget_mc=one.price_mc,
            deadline_s=left_s,
            idempotency_key=one.key,
            hedges_pct=0,
            replans_max=0,
            depth_max=1,
            only=(one.agent,),
        )
        try:
            return await self._broker.submit(
                _graph(one.capability), inputs, terms, caller=_CALLER
            )
        except StoreError:
            raise  # it is looked up again whether it is there
        except MeshError as exc:
            self._context.emit("panel.not_asked", agent=one.agent, why=str(exc))
            return ""

    def _left_s(self, until_ms: int) -> float:
        return max(0.0, (until_ms - self._context.clock.now_ms()) / 1000)

    async def _job(self, key: str) -> str:
        raw = await self._context.store.read(KEYS, f"{_CALLER}/{key}")
        return read_key(raw)[0] if raw is not None else ""

    async def _answer(self, job: str, one: "_Question", deadline_ms: int) -> "_Said":
        """Return what came of a question; what nobody knows counts as paid.

        Half of what is left until the deadline of the job that it is about is kept for that.
        """
        ended: JobState | None = None
        with trio.move_on_after(self._left_s(one.end_ms)):
            ended = await self._broker.wait(job)
        if ended is None:
            self._broker.abandon(job)
            with trio.move_on_after(min(_END_S, self._left_s(deadline_ms) / 2)):
                ended = await self._broker.wait(job)
        if ended is None or ended.done is None:
            return _Said(job, "", one.price_mc)
        word: JsonValue = ""
        if ended.done.state == "completed":
            try:
                word = (await self._broker.outputs(job)).get("better")
            except ArtifactError as exc:
                self._context.emit("panel.answer_gone", job=job, why=str(exc))
        known = isinstance(word, str) and word in WORDS
        return _Said(job, str(word) if known else "", ended.spent_mc)


@dataclass(frozen=True, slots=True)
class _Question:
    """What one judge is asked in one of the two orders; ``end_ms`` is Unix time."""

    key: str
    agent: str
    capability: str
    price_mc: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class _Said:
    """In which job a judge was asked, what it said, and what that cost."""

    job: str = ""
    word: str = ""
    paid_mc: int = 0


def _told(seat: Seat, answers: Sequence[_Said]) -> Seat:
    words = [one.word for one in answers]
    return replace(
        seat,
        said=words if any(words) else [],
        jobs=[one.job for one in answers if one.job],
        paid_mc=min(seat.cap_mc, sum(one.paid_mc for one in answers)),
    )


def _graph(capability: str) -> TaskGraph:
    """Return the plan of one question."""
    task = SubTask(
        id="judge",
        capability=capability,
        inputs={name: Source(kind="input", name=name) for name in _FIELDS},
    )
    outputs = {"better": Source(kind="task", name="judge", pointer="/better")}
    return TaskGraph(name="judging", subtasks=[task], outputs=outputs)
