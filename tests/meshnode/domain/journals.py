"""A broker's whole run in virtual time: ``next_steps``, random contractors, real signatures.

:class:`Run` carries steps out the way the broker service does, without I/O: facts are
encoded, chained and folded; whatever takes time stands in a queue.  It can be killed
after any event: then it goes on from the bytes of its journal and nothing else.
:func:`build_journal` returns a finished job's exported journal.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from meshnode.domain.bindings import (
    Holder,
    assemble,
    bind_output,
    slice_input,
)
from meshnode.domain.facts import (
    ArtifactRef,
    Called,
    Cancelled,
    Delivered,
    Done,
    Expanded,
    Fact,
    Failed,
    InputRef,
    Planned,
    Proposed,
    Refused,
    Replanned,
    Verified,
    to_event,
)
from meshnode.domain.graphs import check_inputs
from meshnode.domain.job import JobState, fold
from meshnode.domain.matching import matches
from meshnode.domain.step_kinds import (
    Attend,
    Call,
    Charge,
    End,
    Expand,
    Finish,
    GiveUp,
    Judge,
    MakeAward,
    Replan,
    Step,
    Stop,
    Verify,
    View,
    Wake,
)
from meshnode.domain.steps import next_steps
from meshnode.domain.units import CROWDED, SINGLE, Attempt
from meshnode.domain.values import canonical, parse
from meshnode.domain.verification import check_output, read_output
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import TaskGraph, encode_graph
from protocol.journal import (
    Event,
    decode_event,
    encode_event,
)
from protocol.keys import digest
from protocol.messages import Award, Result, read_message
from tests.meshnode.domain.benches import judge
from tests.meshnode.domain.contractors import NETWORK, Contractor, Pen, Traits
from tests.meshnode.domain.desk import SCHEMA, Desk, declared
from tests.meshnode.domain.exports import START_MS, signed_export
from tests.meshnode.domain.random_graphs import QUERIES, work

if TYPE_CHECKING:
    from meshnode.domain.trust.evidence import Standing

_TURNS_MAX = 200_000

Watch = Callable[["Run", Event, Fact], None]


class Killed(Exception):
    """The broker's process has ended; its journal is there."""


class Run:
    """One job at one broker.

    Attributes:
        now_ms: Virtual Unix time.
        events: The journal so far, encoded.
        state: Its fold.
        blobs: Every artifact of the mesh.
        stopped: Awards that were cancelled, by hash.
        slow_ms: After how long a call is slow, by capability query.
        standings: What the broker knows of agents, by id.
        chance: What its judgements draw from.
    """

    def __init__(
        self,
        graph: TaskGraph,
        inputs: Mapping[str, JsonValue],
        contractors: Sequence[Contractor],
        *,
        budget_mc: int = 1_000_000,
        limit_ms: int = 600_000,
        job: str = "job-1",
        hedges_pct: int = 0,
        replans_max: int = 0,
        theta_ppm: int = 0,
    ) -> None:
        self.standings: dict[str, Standing] = {}
        self.chance = Random(f"{job} {theta_ppm}")
        self.contractors = {contractor.peer: contractor for contractor in contractors}
        self.pen = Pen("broker")
        self.desk = Desk(self.pen)
        self.job = job
        self.now_ms = START_MS
        self.state = JobState(job)
        self.events: list[bytes] = []
        self.blobs: dict[bytes, bytes] = {}
        self.busy: set[tuple[str, str, int]] = set()
        self.stopped: set[bytes] = set()
        self.slow_ms: Mapping[str, float] = {}
        self.watch: Watch | None = None
        self.kill_after: Callable[[int], bool] = lambda _: False
        self.kills = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        lengths = check_inputs(graph, inputs)
        refs = {
            name: InputRef(
                artifact=(ref := self.put(value)).artifact, size=ref.size, lengths=lengths[name]
            )
            for name, value in inputs.items()
        }
        self.planned = Planned(
            owner=self.broker,
            graph=encode_graph(graph),
            inputs=refs,
            budget_mc=budget_mc,
            deadline_ms=START_MS + limit_ms,
            idempotency_key="key",
            epoch=0,
            hedges_pct=hedges_pct,
            replans_max=replans_max,
            theta_ppm=theta_ppm,
        )

    @property
    def broker(self) -> str:
        return self.pen.identity.peer

    # --- the loop ---

    def run(self) -> JobState:
        """Run to the end, through kills."""
        self._guarded(lambda: self.record(self.planned))
        for _ in range(_TURNS_MAX):
            if self.state.done is not None:
                return self.state
            self._guarded(self._turn)
        raise AssertionError("the job doesn't end")

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Killed:
            self.kills += 1
            before = self.state
            self.state = fold(self.job, [decode_event(body) for body in self.events])
            assert self.state == before, "the same events gave another state"
            self.busy.clear()
            self._queue.clear()

    def _turn(self) -> None:
        steps = next_steps(self.state, self.now_ms, self.view())
        assert steps == next_steps(self.state, self.now_ms, self.view()), "steps are edges"
        count = len(self.events)
        wake_ms: int | None = None
        for step in steps:
            if isinstance(step, Wake):
                wake_ms = step.at_ms
            else:
                self._carry(step)
        if len(self.events) == count and self.state.done is None:
            self._wait(wake_ms)

    def _wait(self, wake_ms: int | None) -> None:
        if self._queue and (wake_ms is None or self._queue[0][0] <= wake_ms):
            at_ms, _, act = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, at_ms)
            act()
            return
        assert wake_ms is not None, "nothing to wait for"
        assert wake_ms > self.now_ms, "woken for nothing"
        self.now_ms = wake_ms

    def later(self, ms: int, act: Callable[[], None]) -> None:
        """Do ``act`` in ``ms``, unless killed before."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + ms, self._count, act))

    def record(self, *facts: Fact) -> None:
        """Write facts down and fold them, each through its bytes."""
        for fact in facts:
            body = encode_event(to_event(fact, seq=len(self.events), at_ms=self.now_ms))
            event = decode_event(body)
            self.state.apply(event)
            self.events.append(body)
            if self.watch is not None:
                self.watch(self, event, fact)
            if self.kill_after(len(self.events)):
                raise Killed

    def view(self) -> View:
        """Who is there now."""
        alive = [c for c in self.contractors.values() if not self.gone(c)]
        load: dict[str, int] = {}
        for _, attempt in self.state.open_attempts():
            if attempt.award and attempt.delivered is None:
                agent_id = f"{attempt.peer}/{attempt.agent}"
                load[agent_id] = load.get(agent_id, 0) + 1
        tasks = self.state.tasks.values()
        queries = {*QUERIES, *(q for task in tasks for q in (task.capability, *task.instead))}
        offering = {q: [c for c in alive if matches(q, c.traits.capability)] for q in queries}
        return View(
            candidates={
                query: [c.candidate(self.broker, self.now_ms) for c in found]
                for query, found in offering.items()
            },
            load=load,
            slow_ms=self.slow_ms,
            declared={
                query: {f"{c.peer}/agent": declared(c.traits.capability) for c in found}
                for query, found in offering.items()
            },
        )

    def gone(self, contractor: Contractor) -> bool:
        """Whether it has died by now."""
        dies_ms = contractor.traits.dies_ms
        return bool(dies_ms) and self.now_ms >= START_MS + dies_ms

    # --- steps ---

    def _carry(self, step: Step) -> None:  # noqa: C901, PLR0912 - one arm for each step
        match step:
            case Expand():
                self._expand(step)
            case Replan():
                self.record(
                    Replanned(
                        subtask=step.subtask,
                        was=step.was,
                        capability=step.capability,
                        code=step.code,
                        considered=dict(step.considered),
                    )
                )
            case Call():
                self._call(step)
            case MakeAward():
                self.record(self.desk.award(self.state, step, self.now_ms))
            case Attend() | Verify() | Stop():
                key = (type(step).__name__, step.unit, step.attempt)
                if key not in self.busy:
                    self.busy.add(key)
                    self._begin(step)
            case Judge():
                key = ("Judge", step.unit, self.state.units[step.unit].judgements)
                if key not in self.busy:
                    self.busy.add(key)
                    self.later(2, partial(judge, self, step))
            case Charge():
                self.record(self.desk.charge(self.state, step, self.now_ms))
            case GiveUp():
                self.record(self.failed(step, step.code, blame="broker"))
            case End():
                self.record(Cancelled(reason=step.reason, text=step.text))
            case Finish():
                self.record(self.done(step))
            case _:
                raise AssertionError(step)

    def _expand(self, step: Expand) -> None:
        task = self.state.tasks[step.subtask]
        slices: dict[str, list[ArtifactRef]] = {}
        for name, source in task.inputs.items():
            mapped = name in task.each
            if source.kind == "input":
                ref = self.state.required_plan.inputs[source.name]
                value = parse(self.blobs[ref.artifact])
            elif source.kind == "value" and mapped and len(step.sizes) % 2:
                value = parse(source.value)  # cut here, or else bound as a window
            else:
                continue
            pieces = slice_input(value, source, step.sizes, mapped=mapped)
            slices[name] = [self.put(piece) for piece in pieces]
        self.record(Expanded(subtask=step.subtask, sizes=list(step.sizes), slices=slices))

    def _call(self, step: Call) -> None:
        cfps = self.desk.cfps(self.state, step, self.now_ms)
        self.record(Called(unit=step.unit, attempt=step.attempt, cfps=cfps))
        for peer, cfp_bytes in cfps.items():
            contractor = self.contractors[peer]
            ms = contractor.rng.randint(1, contractor.traits.bid_ms)
            self.later(ms, partial(self._hear, step, cfp_bytes, peer))

    def _hear(self, step: Call, cfp: bytes, peer: str) -> None:
        """A candidate answers, perhaps too late."""
        attempt = self.open(step.unit, step.attempt)
        contractor = self.contractors[peer]
        if attempt is None or attempt.award or self.gone(contractor):
            return
        word, envelope, proposal = contractor.bid(cfp, self.now_ms)
        if proposal is not None:
            self.record(
                Proposed(
                    unit=step.unit,
                    attempt=step.attempt,
                    peer=peer,
                    proposal=envelope,
                    agent=proposal.agent,
                    capability=proposal.capability,
                    price_mc=proposal.price_mc,
                    eta_ms=proposal.eta_ms,
                    expires_ms=proposal.h.expires_ms - contractor.traits.offset_ms,
                )
            )
        elif word:
            self.record(Refused(unit=step.unit, attempt=step.attempt, peer=peer, reason=word))

    def _begin(self, step: Attend | Verify | Stop) -> None:
        attempt = self.state.units[step.unit].attempts[step.attempt]
        assert attempt.open, "a step for what is closed"
        if isinstance(step, Attend):
            self._attend(step, attempt)
        elif isinstance(step, Verify):
            self.later(3, lambda: self._verify(step))
        else:
            if attempt.award:
                self.stopped.add(digest(attempt.award))
            self.later(7, lambda: self._close(step))

    def _attend(self, step: Attend, attempt: Attempt) -> None:
        contractor = self.contractors[attempt.peer]
        task = self.state.tasks[self.state.units[step.unit].subtask]
        # Where nothing would find a lie out, there is none, or all that follows would differ.
        found_out = bool(task.checks) or self.planned.theta_ppm > 0
        answer = contractor.do(attempt.award, self.blobs, self.now_ms, checked=found_out)
        self.blobs[digest(answer.output)] = answer.output

        def arrive() -> None:
            if self.open(step.unit, step.attempt) is not attempt or attempt.delivered:
                return
            if self.gone(contractor) or answer.code:
                code = answer.code or "peer.lost"
                blames = {
                    "node.busy": "broker",
                    CROWDED: "broker",
                    "artifact.unavailable": "artifact",
                }
                self.record(self.failed(step, code, blame=blames.get(code, "peer")))
                return
            result = read_message(answer.result, Result, network=NETWORK)
            self.record(
                Delivered(
                    unit=step.unit,
                    attempt=step.attempt,
                    result=answer.result,
                    receipt=answer.receipt,
                    output=result.output,
                    size=result.size,
                    lengths=result.lengths,
                    price_mc=result.price_mc,
                    run_ms=result.metering.run_ms,
                    tokens=result.metering.tokens_out,
                )
            )

        self.later(answer.ms, arrive)
        if answer.twice:
            self.later(answer.ms + 1, arrive)

    def _verify(self, step: Verify) -> None:
        attempt = self.open(step.unit, step.attempt)
        if attempt is None or attempt.delivered is None:
            return
        unit = self.state.units[step.unit]
        award = read_message(attempt.award, Award, network=NETWORK)
        given = assemble(award.inputs, award.each, award.items, self.blobs)
        try:
            outputs = read_output(
                self.blobs[attempt.delivered.output],
                calls=unit.calls,
                single=unit.items == SINGLE,
            )
        except InputInvalid:
            self.record(self.failed(step, "agent.output_invalid", blame="peer"))
            return
        finding = check_output(
            outputs,
            list(given),
            schema=SCHEMA,
            checks=self.state.tasks[unit.subtask].checks,
            recomputed=[work(value) for value in given],
        )
        self.record(
            Verified(
                unit=step.unit,
                attempt=step.attempt,
                verdict=finding.verdict,
                check=finding.check,
                detail=finding.detail,
            )
        )

    def _close(self, step: Stop) -> None:
        unit = self.state.units[step.unit]
        code = "job.cancelled" if unit.accepted is None else "award.superseded"
        if unit.attempts[step.attempt].open:
            self.record(self.failed(step, code, blame="broker"))

    def failed(self, step: Attend | GiveUp | Stop | Verify, code: str, *, blame: str) -> Failed:
        """The fact that the open attempt came to nothing."""
        attempt = self.state.units[step.unit].attempts[step.attempt]
        return Failed(
            unit=step.unit,
            attempt=attempt.number,
            peer=attempt.peer,
            code=code,
            text=f"it was {code}",
            blame=blame,  # type: ignore[arg-type]  # one of the four
        )

    def done(self, step: Finish) -> Done:
        """The fact of the end."""
        if step.state != "completed":
            return Done(state=step.state, code=step.code, text=step.text)
        return Done(
            state="completed",
            outputs={name: self.put(value) for name, value in self.outputs().items()},
        )

    # --- pieces ---

    def outputs(self) -> dict[str, JsonValue]:
        """What the job returns."""
        assert self.state.graph is not None
        made: dict[str, JsonValue] = {}
        for name, source in self.state.graph.outputs.items():
            binding = bind_output(self.state, source, Holder(self.broker))
            (fields,) = assemble({name: binding}, [], 1, self.blobs)
            made[name] = fields[name]
        return made

    def put(self, value: JsonValue) -> ArtifactRef:
        """Keep a value as an artifact."""
        data = canonical(value)
        self.blobs[digest(data)] = data
        return ArtifactRef(artifact=digest(data), size=len(data))

    def open(self, name: str, number: int) -> Attempt | None:
        """The attempt, if it is the open one."""
        return self.state.units[name].attempt(number)

    def export(self) -> bytes:
        """The finished journal."""
        assert self.state.done is not None
        return signed_export(self.pen, self.job, self.events, self.state.done.state)


def contractors_of(seed: int, *traits: Traits) -> list[Contractor]:
    """A contractor for each of ``traits``."""
    return [
        Contractor(f"contractor {n}", each, Random(f"{seed} {n}"))
        for n, each in enumerate(traits)
    ]


def build_journal(
    graph: TaskGraph, inputs: Mapping[str, JsonValue], seed: int, *traits: Traits
) -> bytes:
    """The exported journal of a job that ``contractors_of(seed, *traits)`` did."""
    run = Run(graph, inputs, contractors_of(seed, *traits))
    run.run()
    return run.export()
