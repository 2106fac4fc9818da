"""One job at work: asks what to do next, does it, writes down what came of it, asks again.

Steps are levels (:mod:`meshnode.domain.steps`), so the runner keeps a set of what it
is doing and skips those.  A runner that was killed is begun again on the same
journal and picks up: awards that are out are sent again and attach to what runs.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from meshnode.domain.facts import (
    Awarded,
    Called,
    Cancelled,
    Charged,
    Delivered,
    Done,
    Expanded,
    Fact,
    Failed,
    Verified,
)
from meshnode.domain.job import JobState
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
    Wake,
)
from meshnode.domain.steps import next_steps
from meshnode.domain.units import Attempt, Unit
from meshnode.errors import (
    ArtifactError,
    ArtifactTooLarge,
    MeshError,
    NoProvider,
    OutputInvalid,
    StoreError,
    reasons,
)
from meshnode.ports import Write
from meshnode.services.acceptances import Acceptances
from meshnode.services.awards import Awards
from meshnode.services.calling import collect
from meshnode.services.charges import Charges
from meshnode.services.checking import Checking, InputsGone
from meshnode.services.context import Context
from meshnode.services.contracts import Contracts
from meshnode.services.experience import Experience, Learned
from meshnode.services.journals import JobJournal
from meshnode.services.judging import Basis, Judging
from meshnode.services.market import Market
from meshnode.services.outlook import Outlook
from meshnode.services.receipts import Receipts
from meshnode.services.rights import Right
from meshnode.services.seen import Seen
from meshnode.services.step_facts import failed, replanned
from meshnode.services.stopping import stop
from meshnode.services.successions import Successions
from protocol.errors import ProtocolError

#: Pause after a step that failed for a reason of this node's own, seconds.
_MISHAP_S: Final = 1.0

_Key = tuple[str, str, int]
_Task = Callable[[], Awaitable[None]]

#: Steps that become facts at once; the others are work that takes time.
Work = Attend | Verify | Judge | Stop
Decision = Expand | Replan | Call | MakeAward | Charge | GiveUp | End | Finish


@dataclass(frozen=True, slots=True)
class Tools:
    """What every runner of a broker works with."""

    market: Market
    awards: Awards
    contracts: Contracts
    checking: Checking
    receipts: Receipts
    charges: Charges
    successions: Successions
    experience: Experience
    judging: Judging


@dataclass(eq=False, slots=True)
class _Settlement:
    """What was delivered, checked and charged, until the next commit takes it in."""

    facts: list[Fact]
    writes: list[Write]
    still: Callable[[], bool]
    added: bool = False


class JobRunner:
    """Carries one job from its journal's last fact to its end."""

    def __init__(
        self,
        context: Context,
        journal: JobJournal,
        *,
        tools: Tools,
        right: Right | None = None,
    ) -> None:
        """Carry on what ``journal`` says, while ``right`` holds if the job needs one."""
        self._context = context
        self._right = right
        self._journal = journal
        self._market = tools.market
        self._awards = tools.awards
        self._contracts = tools.contracts
        self._checking = tools.checking
        self._experience = tools.experience
        self._judging = tools.judging
        self._acceptances = Acceptances(journal, tools.receipts, tools.charges, right)
        self._busy: set[_Key] = set()
        self._wanted: set[_Key] = set()  # by the last turn
        self._seen = Seen(journal, context)
        self._settlements: list[_Settlement] = []
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Run until the job is done.

        Raises:
            StoreError: The journal can't be written; the job goes on in another run.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._listen)
                nursery.start_soon(self._acceptances.deliver_again)
                while self._journal.done is None:
                    self._seen.look()
                    await self._turn()
                    await self._seen.until_news()
                await self._acceptances.settled()
                nursery.cancel_scope.cancel()
        finally:
            self._market.publish_load(self._journal.job, {})

    async def _listen(self) -> None:
        while True:
            await self._market.news()
            self._journal.poke()

    async def _turn(self, settling: _Settlement | None = None) -> None:
        """Carry out one round of steps; none if another turn took in what is ``settling``."""
        work: list[Work] = []
        taken: list[_Settlement] = []
        outlook: Outlook | None = None

        async def decide(state: JobState) -> tuple[Sequence[Fact], Sequence[Write]]:
            nonlocal outlook
            if not self._may_decide(settling, taken):
                return [], []
            if settlement := self._due():
                taken.append(settlement)
                return settlement.facts, settlement.writes
            if outlook is None:  # which serves the whole turn
                self._seen.look()
                outlook = Outlook(self._market, sees_all=self._contracts.limits_owing)
            work.clear()
            return await self._follow(self._steps(state, outlook), work)

        # Work is begun when what it follows from is durable: nothing is sent because of a
        # fact that a crash undoes.
        facts = await self._journal.extend(decide)
        for settlement in taken:
            settlement.added = True
        if outlook is not None:
            self._seen.committed(len(facts))
            self._wanted.clear()
        self._after(facts)
        for step in work:
            self._start(step)

    def _due(self) -> _Settlement | None:
        """Return what waits to be taken in, one at a time: each may be what ends another."""
        while self._settlements:
            settlement = self._settlements.pop(0)
            if settlement.still():
                return settlement
        return None

    async def _follow(
        self, steps: Sequence[Step], work: list[Work]
    ) -> tuple[list[Fact], list[Write]]:
        """Return what decisions add to the journal, and add the others to ``work``."""
        facts: list[Fact] = []
        writes: list[Write] = []
        for step in steps:
            if isinstance(step, Wake):
                self._seen.wake(step.at_ms)
            elif isinstance(step, Work):
                work.append(step)
            else:
                await self._decide(step, facts, writes)
        return facts, writes

    def _may_decide(self, settling: _Settlement | None, taken: Sequence[_Settlement]) -> bool:
        if self._right is not None and not self._right.holds:
            return False
        return settling is None or settling in (*self._settlements, *taken)

    def _steps(self, state: JobState, outlook: Outlook) -> Sequence[Step]:
        self._publish_load()
        # Between the look at what others promised and the promise nobody may come.
        view = self._contracts.view(outlook.view(state))
        steps = next_steps(state, self._context.clock.now_ms(), view)
        self._contracts.promise(state, steps)
        return steps

    def _publish_load(self) -> None:
        load = Counter(
            f"{attempt.peer}/{attempt.agent}"
            for _, attempt in self._journal.state.open_attempts()
            if attempt.award and attempt.delivered is None
        )
        self._market.publish_load(self._journal.job, load)

    # --- decisions: steps that become facts at once ---

    async def _decide(self, step: Decision, facts: list[Fact], writes: list[Write]) -> None:
        """Turn a decision into its facts; one that can't be carried out ends the job."""
        try:
            made, more = await self._facts(step)
        except StoreError:
            raise  # this node's own trouble, which passes
        except MeshError as exc:
            made, more = [Cancelled(reason=exc.code, text=str(exc))], []
        except ProtocolError as exc:  # such as an award that no frame holds
            made, more = [Cancelled(reason="protocol.local", text=str(exc))], []
        facts += made
        writes += more

    async def _facts(self, step: Decision) -> tuple[list[Fact], list[Write]]:
        state = self._journal.state
        match step:
            case Expand():
                slices, rows = await self._contracts.slices(state, step.subtask, step.sizes)
                sizes = list(step.sizes)
                return [Expanded(subtask=step.subtask, sizes=sizes, slices=slices)], rows
            case Replan():
                return [replanned(step)], []
            case Call():
                return [self._contracts.call(state, step)], []
            case MakeAward():
                return self._award(step)
            case Charge():
                return self._charge(step)
            case GiveUp():
                return [failed(step, code=step.code, text=step.text)], []
            case End():
                return [Cancelled(reason=step.reason, text=step.text)], []
            case Finish():
                return await self._done(step)

    def _charge(self, step: Charge) -> tuple[list[Fact], list[Write]]:
        attempt = self._open_attempt(step.unit, step.attempt)
        if attempt is None or attempt.delivered is None or attempt.verdict is None:
            return [], []
        state, delivered = self._journal.state, attempt.delivered
        charged, rows = self._contracts.charge(state, attempt, delivered, attempt.verdict)
        return [charged], rows

    def _award(self, step: MakeAward) -> tuple[list[Fact], list[Write]]:
        try:
            awarded, schema = self._contracts.award(self._journal.state, step)
        except NoProvider as exc:
            # Its record has gone since it proposed: the attempt is over, another follows.
            if self._open_attempt(step.unit, step.attempt) is None:
                return [], []
            return [failed(step, code=exc.code, text=str(exc))], []
        return [awarded], [schema]

    async def _done(self, step: Finish) -> tuple[list[Fact], list[Write]]:
        if step.state != "completed":
            return [Done(state=step.state, code=step.code, text=step.text)], []
        outputs, rows = await self._checking.outputs(self._journal.state)
        return [Done(state="completed", outputs=outputs)], rows

    def _after(self, facts: list[Fact]) -> None:
        """Start the work that recorded decisions call for."""
        for fact in facts:
            if isinstance(fact, Called):
                key = ("call", fact.unit, fact.attempt)
                self._spawn(key, partial(collect, self._journal, self._awards, fact))
            elif isinstance(fact, Awarded):
                attempt = self._journal.state.units[fact.unit].attempts[fact.attempt]
                if len(attempt.proposals) > 1:
                    key = ("decline", fact.unit, fact.attempt)
                    self._spawn(key, partial(self._decline, fact))
            elif isinstance(fact, Charged):
                attempt = self._journal.state.units[fact.unit].attempts[fact.attempt]
                self._contracts.charged(self._journal.state, attempt, fact)
                deliver = self._acceptances.deliver
                if self._nursery is not None:
                    self._nursery.start_soon(deliver, attempt, fact)
                if attempt.error is None:
                    self._market.worked(attempt.peer)
                else:
                    self._market.failed(attempt.peer, unreachable=False, grave=False)

    # --- work: steps that take time ---

    def _start(self, step: Work) -> None:
        match step:
            case Attend():
                self._spawn(("attend", step.unit, step.attempt), lambda: self._attend(step))
            case Verify():
                self._spawn(("verify", step.unit, step.attempt), lambda: self._verify(step))
            case Judge():
                judged = self._journal.state.units[step.unit].judgements
                self._spawn(("judge", step.unit, judged), lambda: self._judge(step))
            case Stop():
                self._spawn(
                    ("stop", step.unit, step.attempt),
                    partial(stop, self._journal, self._awards, step),
                )

    def _spawn(self, key: _Key, work: _Task) -> None:
        self._wanted.add(key)
        if key in self._busy or self._nursery is None:
            return
        self._busy.add(key)
        self._nursery.start_soon(self._carry, key, work)

    async def _carry(self, key: _Key, work: _Task) -> None:
        """Do ``work``; a mishap of this node's own is told and tried again, not lost."""
        try:
            await work()
        except* (MeshError, ProtocolError) as group:
            why = reasons(group)
            self._context.emit(
                "job.mishap", job=self._journal.job, step=key[0], unit=key[1], why=why
            )
            await trio.sleep(_MISHAP_S)
        finally:
            self._busy.discard(key)
            if key in self._wanted:  # nothing came of it, or no turn has seen that yet
                self._journal.poke()

    async def _decline(self, fact: Awarded) -> None:
        await self._awards.decline(self._journal.state, fact)

    async def _attend(self, step: Attend) -> None:
        unit = self._journal.state.units[step.unit]
        attempt = self._open_attempt(step.unit, step.attempt)
        if attempt is None:
            return
        await self._until_safe()
        begun_s = trio.current_time()
        fact = await self._awards.attend(self._journal, unit, attempt)
        timed = not attempt.by_letter and self._market.was_up_at(attempt.at_ms)
        if isinstance(fact, Delivered) and timed:
            query = self._journal.state.tasks[unit.subtask].capability
            took_ms = round((trio.current_time() - begun_s) * 1000)
            self._market.took(query, took_ms=took_ms, calls=unit.calls)
        if fact is None or (
            isinstance(fact, Delivered) and await self._settle(step, unit, attempt, fact)
        ):
            return
        learned = Learned()
        if isinstance(fact, Failed):
            learned = self._experience.of_failure(attempt, fact)
        await self._record(
            fact, learned, lambda: self._is_open(step, attempt) and not attempt.delivered
        )

    async def _until_safe(self) -> None:
        """Wait until heirs know what is about to be begun: they would do it again."""
        if self._right is not None:
            await self._right.until_safe(self._journal.state.seq)

    async def _record(self, fact: Fact, learned: Learned, still: Callable[[], bool]) -> None:
        """Write down a fact and what it teaches, if it still holds then."""
        added = await self._journal.record(fact, writes=learned.writes, still=still)
        (self._experience.took if added else self._experience.dropped)(learned)

    async def _judge(self, step: Judge) -> None:
        unit = self._journal.state.units[step.unit]
        if unit.summons is not None:
            await self._until_safe()  # judges are paid as contractors are
        basis = Basis.of(unit)
        fact, learned = await self._judging.judge(self._journal.state, unit, last=step.last)
        await self._record(fact, learned, lambda: basis.holds(self._journal.state, unit, fact))

    async def _settle(
        self, step: Attend, unit: Unit, attempt: Attempt, delivered: Delivered
    ) -> bool:
        """Check and charge what was delivered in one commit, if that takes no time.

        Whatever stands in the way, the ordinary steps find and say.
        """
        state = self._journal.state
        if not self._checking.is_at_hand(state, unit, delivered):
            return False
        try:
            verified, keeps = await self._check(unit, attempt, delivered)
        except (ArtifactError, OutputInvalid):
            return False
        facts: list[Fact] = [delivered, verified]
        if not (state.required_plan.theta_ppm and verified.verdict == "unverified"):
            charged, rows = self._contracts.charge(state, attempt, delivered, verified)
            facts.append(charged)
            keeps = [*keeps, *rows]
        settlement = _Settlement(
            facts,
            keeps,
            lambda: (
                self._is_open(step, attempt)
                and not attempt.delivered
                and state.cancelled is None
            ),
        )
        self._settlements.append(settlement)
        try:
            # What follows from it, such as the award of a consumer, is in the same commit.
            await self._turn(settlement)
        finally:
            if settlement in self._settlements:
                self._settlements.remove(settlement)
        return settlement.added

    async def _check(
        self, unit: Unit, attempt: Attempt, delivered: Delivered
    ) -> tuple[Verified, list[Write]]:
        state = self._journal.state
        finding, keeps = await self._checking.check(state, unit, attempt, delivered)
        verified = Verified(
            unit=unit.name,
            attempt=attempt.number,
            verdict=finding.verdict,
            check=finding.check,
            detail=finding.detail[:500],
        )
        return verified, keeps

    async def _verify(self, step: Verify) -> None:
        unit = self._journal.state.units[step.unit]
        attempt = self._open_attempt(step.unit, step.attempt)
        if attempt is None or attempt.delivered is None:
            return
        try:
            verified, keeps = await self._check(unit, attempt, attempt.delivered)
        except (ArtifactError, OutputInvalid) as exc:
            await self._fail(step, attempt, exc)
            return
        await self._journal.record(
            verified,
            writes=keeps,
            still=lambda: self._is_open(step, attempt) and not attempt.verdict,
        )

    async def _fail(self, step: Verify, attempt: Attempt, exc: MeshError) -> None:
        """The output can't be had or read: its maker's fault, another may do better.

        Unless it can't be checked or kept for want of what this node has: that is nobody's.
        """
        own = isinstance(exc, InputsGone | ArtifactTooLarge)
        peer = "" if own else attempt.peer
        if not own:
            self._market.failed(peer, unreachable=False)
        await self._journal.record(
            failed(step, code=exc.code, text=str(exc), peer=peer, blame_peer=not own),
            still=lambda: self._is_open(step, attempt),
        )

    def _is_open(self, step: Attend | Verify | Stop, attempt: Attempt) -> bool:
        """Tell whether ``attempt`` is still the open one that ``step`` was about."""
        return self._open_attempt(step.unit, step.attempt) is attempt

    def _open_attempt(self, unit: str, number: int) -> Attempt | None:
        found: Unit | None = self._journal.state.units.get(unit)
        return found.attempt(number) if found else None
