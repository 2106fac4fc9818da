"""The broker at the counter: sends calls and awards, waits for results, cancels.

Answers come back as facts for the job's runner to record; the only facts written
here are checkpoints of progress while an award is attended.
"""

from collections import Counter
from dataclasses import asdict
from typing import Final

import msgspec
import outcome
import trio

from meshnode.domain.attempts import CODES, UNTRIED
from meshnode.domain.elections import CHANGED
from meshnode.domain.facts import (
    Awarded,
    Called,
    Delivered,
    Failed,
    Progressed,
    Proposed,
    Refused,
)
from meshnode.domain.job import JobState
from meshnode.domain.matching import why_lost
from meshnode.domain.steps import CFP_WINDOW_MS
from meshnode.domain.tokens import result_trouble, told
from meshnode.domain.trust.buyers import UNPAID, UNSETTLED
from meshnode.domain.units import CROWDED, Attempt, Unit
from meshnode.domain.wording import Blame
from meshnode.errors import Busy, MeshError, StoreError, StreamLost, Unreachable
from meshnode.services.bodies import (
    AWARD,
    CANCEL,
    CFP,
    DECLINE,
    RESULT_BODY,
    RESULT_BYTES_MAX,
    TERMS_BYTES_MAX,
    AwardBody,
    ResultBody,
)
from meshnode.services.context import Context
from meshnode.services.contracts import topic
from meshnode.services.journals import JobJournal
from meshnode.services.market import Market
from meshnode.services.orders import Orders
from meshnode.services.sessions import RequestFailed, RequestTimeout, Sessions
from meshnode.services.token_streams import Piece, TokenStream
from protocol.codec import decode_as, encode
from protocol.declines import Decline
from protocol.errors import RemoteProtocolError, TooLarge
from protocol.keys import digest
from protocol.limits import EVENTS_MAX, ORDER_LIFETIME_MS_MAX
from protocol.messages import (
    Award,
    Cancel,
    Progress,
    Proposal,
    Refuse,
    Result,
    read_message,
)
from protocol.receipts import Receipt, beyond
from protocol.signing import peek

#: A contractor that can't be reached again within this is given up, seconds.
_RECONNECT_S: Final = 4.0
_RETRY_S: Final = 0.5
#: Progress is checkpointed in the journal at most this often, seconds.
_CHECKPOINT_S: Final = 1.0
#: A contractor answers by the end of the award's time; so much later it never will, seconds.
_ANSWER_S: Final = 15.0
#: The next attempt waits so long for a slow one to hear that it is over, seconds.
_WITHDRAW_S: Final = 2.0
_CANCEL_S: Final = 15.0
#: Telemetry: what an agent streams, with the fields of :class:`Piece`.
PROGRESS: Final = "award.progress"
_DECLINE_S: Final = 5.0


class Awards:
    """Contracts of every job of this broker, as conversations."""

    def __init__(
        self, context: Context, *, sessions: Sessions, market: Market, orders: Orders
    ) -> None:
        self._orders = orders
        self._context = context
        self._signer = context.signer
        self._sessions = sessions
        self._market = market
        self._out: Counter[str] = Counter()  # PeerId -> awards that it hasn't answered
        # By job, unit and attempt, while it runs.
        self._streams: dict[tuple[str, str, int], TokenStream] = {}

    async def ask(self, called: Called, peer: str) -> Proposed | Refused:
        """Send a CFP and return the answer as a fact."""
        envelope = called.cfps[peer]
        try:
            raw = await self._sessions.request(
                peer, CFP, envelope, timeout_s=CFP_WINDOW_MS / 1000
            )
            return self._answer(called, peer, raw)
        except (Unreachable, StreamLost, RequestTimeout) as exc:
            self._market.failed(peer, unreachable=True)
            reason = exc.code
        except (MeshError, RemoteProtocolError) as exc:
            reason = exc.code if isinstance(exc, MeshError) else "peer.protocol"
        return Refused(unit=called.unit, attempt=called.attempt, peer=peer, reason=reason)

    def _answer(self, called: Called, peer: str, raw: bytes) -> Proposed | Refused:
        network = self._context.network
        if len(raw) > TERMS_BYTES_MAX:
            raise TooLarge(len(raw), TERMS_BYTES_MAX)
        if peek(raw).t == Refuse.TYPE:
            refuse = read_message(raw, Refuse, network=network)
            self._market.refusals.refused(peer, refuse)
            return Refused(
                unit=called.unit,
                attempt=called.attempt,
                peer=peer,
                reason=refuse.reason[:60],
                text=refuse.text[:500],
            )
        proposal = read_message(raw, Proposal, network=network)
        if proposal.h.issuer != peer or proposal.cfp != digest(called.cfps[peer]):
            return Refused(
                unit=called.unit, attempt=called.attempt, peer=peer, reason="peer.protocol"
            )
        return Proposed(
            unit=called.unit,
            attempt=called.attempt,
            peer=peer,
            proposal=raw,
            agent=proposal.agent,
            capability=proposal.capability,
            price_mc=proposal.price_mc,
            eta_ms=proposal.eta_ms,
            expires_ms=proposal.h.expires_ms - self._sessions.offset_ms(peer),
        )

    async def decline(self, state: JobState, awarded: Awarded) -> None:
        """Tell those who proposed beside the winner why they lost; nobody is dialled for it."""
        unit = state.units[awarded.unit]
        there = self._sessions.connected()
        for peer, proposed in unit.attempts[awarded.attempt].proposals.items():
            if peer == awarded.peer or peer not in there:
                continue
            decline = Decline(
                h=self._signer.header(peer, topic(state, unit, 0)),
                proposal=digest(proposed.proposal),
                reason=why_lost(awarded.ranked, awarded.peer, peer),
            )
            envelope = self._signer.sign(decline)
            try:
                await self._sessions.request(peer, DECLINE, envelope, timeout_s=_DECLINE_S)
            except MeshError as exc:  # a courtesy: it lapses there without
                self._context.emit("contract.decline_unheard", peer=peer, why=str(exc))

    async def attend(
        self, journal: JobJournal, unit: Unit, attempt: Attempt
    ) -> Delivered | Failed | None:
        """Send an award, again while its contractor comes and goes; return what came of it.

        None says that the job ends early, or another was faster: the award isn't sent again,
        whoever cancels it sees to its end.
        """
        if attempt.by_letter:
            come = await self._orders.attend(journal, unit, attempt)
            return self._came(unit, attempt, come) if isinstance(come, bytes) else come
        self._out[attempt.peer] += 1
        try:
            return await self._attend(journal, unit, attempt)
        finally:
            self._out[attempt.peer] -= 1
            if not self._out[attempt.peer]:
                del self._out[attempt.peer]
            self._streams.pop((journal.job, unit.name, attempt.number), None)

    async def _attend(
        self, journal: JobJournal, unit: Unit, attempt: Attempt
    ) -> Delivered | Failed | None:
        state = journal.state
        award = read_message(attempt.award, Award, network=self._context.network)
        limit_s = award.timeout_ms / 1000 + _ANSWER_S
        lost_s: float | None = None
        sent = False
        ahead = self._market.load().get(f"{attempt.peer}/{attempt.agent}", 1) - 1
        while True:
            left_s = (state.required_plan.deadline_ms - self._context.clock.now_ms()) / 1000
            sent_s = trio.current_time()
            try:
                raw = await self._send_award(
                    journal, unit, attempt, max(0.1, min(left_s, limit_s))
                )
                return self._outcome(unit, attempt, raw, ahead=ahead, sent_s=sent_s)
            except (Unreachable, StreamLost) as exc:
                now_s = trio.current_time()
                sent = sent or isinstance(exc, StreamLost)
                if lost_s is None or (
                    isinstance(exc, StreamLost) and now_s - sent_s >= _RECONNECT_S
                ):
                    lost_s = now_s  # it was there meanwhile: a loss of its own
                if trio.current_time() - lost_s >= _RECONNECT_S:
                    self._market.failed(attempt.peer, unreachable=True)
                    # What never reached anybody was no try of theirs.
                    code = "peer.lost" if sent else Unreachable.code
                    return _failure(unit, attempt, code, str(exc))
            except Busy as exc:
                return _failure(unit, attempt, exc.code, str(exc), blame="broker")
            except RequestTimeout as exc:
                self._market.failed(attempt.peer, unreachable=False)
                # Given up here, it must not go on there until its lease lapses.
                with trio.move_on_after(_WITHDRAW_S):
                    await self.cancel(journal.state, unit.name, attempt, "superseded")
                return _failure(unit, attempt, exc.code, str(exc))
            except RequestFailed as exc:
                self._market.failed(attempt.peer, unreachable=False)
                return _failure(unit, attempt, exc.code, str(exc))
            except RemoteProtocolError as exc:
                self._market.failed(attempt.peer, unreachable=False)
                return _failure(unit, attempt, "peer.protocol", str(exc))
            await trio.sleep(_RETRY_S)
            if journal.state.cancelled is not None or not attempt.open:
                return None

    async def _send_award(
        self, journal: JobJournal, unit: Unit, attempt: Attempt, timeout_s: float
    ) -> bytes:
        """Ask once; what streams in meanwhile becomes events and checkpoints."""
        elected = journal.state.elected
        shown = elected.certificate if elected is not None else b""
        body = encode(AwardBody(attempt.award, attempt.proposal, shown))
        news: list[Progress] = []
        began: list[bool] = []

        def heard(raw: bytes) -> None:
            progress = read_message(raw, Progress, network=self._context.network)
            if progress.h.issuer == attempt.peer:
                if not began:
                    began.append(True)
                    nursery.start_soon(self._checkpoint, journal, unit, attempt, news)
                news[:] = [progress]
                piece = self._stream(journal.job, unit, attempt).take(progress)
                self._context.emit(PROGRESS, job=journal.job, **asdict(piece))

        async def ask() -> bytes:
            return await self._sessions.request(
                attempt.peer, AWARD, body, timeout_s=timeout_s, on_item=heard
            )

        async with trio.open_nursery() as nursery:
            # Captured, so that a failure leaves the nursery as itself and not in a group.
            answer = await outcome.acapture(ask)
            nursery.cancel_scope.cancel()
        return answer.unwrap()

    def _stream(self, job: str, unit: Unit, attempt: Attempt) -> TokenStream:
        key = (job, unit.name, attempt.number)
        found = self._streams.get(key)
        if found is None:
            # A hedge is a text beside another, and not that one anew.
            before = any(not one.turned for one in unit.attempts[: attempt.number])
            again = attempt.offset > 0 or (before and not attempt.hedge)
            found = self._streams[key] = TokenStream(unit.name, attempt.number, again=again)
        return found

    def so_far(self, job: str) -> list[Piece]:
        """Return what the agents at work on ``job`` have streamed, as far as it is kept."""
        return [
            piece
            for (whose, *_), stream in self._streams.items()
            if whose == job
            for piece in stream.so_far()
        ]

    async def _checkpoint(
        self, journal: JobJournal, unit: Unit, attempt: Attempt, news: list[Progress]
    ) -> None:

        def is_wanted() -> bool:
            wanted = unit.attempt(attempt.number) is attempt
            return wanted and attempt.delivered is None

        while True:
            await trio.sleep(_CHECKPOINT_S)
            if journal.state.seq > EVENTS_MAX // 2:
                return  # what is left is for what matters more
            if not news or not is_wanted():
                continue
            latest = news[-1]
            news.clear()
            if latest.items_done > attempt.items_done or latest.offset:
                progressed = Progressed(
                    unit=unit.name,
                    attempt=attempt.number,
                    items_done=latest.items_done,
                    offset=latest.offset,
                )
                try:
                    await journal.record(
                        progressed,
                        still=is_wanted,
                    )
                except StoreError as exc:
                    # Only a checkpoint: the award goes on without it.
                    self._context.emit("award.checkpoint_lost", job=journal.job, why=str(exc))

    def _came(self, unit: Unit, attempt: Attempt, raw: bytes) -> Delivered | Failed:
        """Read an answer that came in a letter."""
        try:
            return self._outcome(unit, attempt, raw)
        except RemoteProtocolError as exc:
            self._market.failed(attempt.peer, unreachable=False)
            return _failure(unit, attempt, "peer.protocol", str(exc))

    def _outcome(
        self,
        unit: Unit,
        attempt: Attempt,
        raw: bytes,
        *,
        ahead: int = 0,
        sent_s: float | None = None,
    ) -> Delivered | Failed:
        """Read an answer to an award, sent then behind ``ahead`` others of this broker.

        What took its time in letters says nothing of how long work waits there.
        """
        network = self._context.network
        body = decode_as(raw, RESULT_BODY)
        if body.refuse:
            refuse = read_message(body.refuse, Refuse, network=network)
            return self._refused(unit, attempt, refuse)
        for envelope, size_max in (
            (body.result, RESULT_BYTES_MAX),
            (body.receipt, TERMS_BYTES_MAX),
        ):
            if len(envelope) > size_max:
                raise TooLarge(len(envelope), size_max)
        result = read_message(body.result, Result, network=network)
        receipt = read_message(body.receipt, Receipt, network=network)
        award = read_message(attempt.award, Award, network=network)
        if trouble := _result_trouble(attempt, body, result, receipt, award=award):
            self._market.failed(attempt.peer, unreachable=False)
            return _failure(unit, attempt, "peer.protocol", trouble)
        if result.state != "completed":
            failed = self._not_completed(unit, attempt, result)
            return msgspec.structs.replace(
                failed,
                below=sum(row.awards for row in receipt.below),
                tokens=told(award, result, receipt),
            )
        run_ms = result.metering.run_ms
        if sent_s is not None:
            self._market.finished(
                award, sent_s=sent_s, run_ms=run_ms, ahead=ahead, calls=unit.calls
            )
        return Delivered(
            unit=unit.name,
            attempt=attempt.number,
            result=body.result,
            receipt=body.receipt,
            output=result.output,
            size=result.size,
            lengths=result.lengths,
            price_mc=result.price_mc,
            run_ms=run_ms,
            below=sum(row.awards for row in receipt.below),
            tokens=told(award, result, receipt),
        )

    def _refused(self, unit: Unit, attempt: Attempt, refuse: Refuse) -> Failed:
        """Return what a refused award comes to, and remember who refused."""
        wait_ms = refuse.retry_after_ms
        if refuse.reason == "crowded" and 0 < attempt.wait_max_ms < wait_ms:
            self._market.crowded(f"{attempt.peer}/{attempt.agent}", wait_ms=wait_ms)
            return _failure(unit, attempt, CROWDED, refuse.text, blame="broker")
        if refuse.reason in {"busy", "crowded"}:
            return _failure(unit, attempt, Busy.code, refuse.text, blame="broker")
        if refuse.reason == UNSETTLED and refuse.retry_after_ms:
            self._market.refusals.tighten(attempt.peer, self._out[attempt.peer] - 1)
            return _failure(unit, attempt, UNPAID, refuse.text, blame="broker")
        if refuse.reason == "not_taken":  # of the broker before, and it never came there
            return _failure(unit, attempt, CHANGED, refuse.text, blame="broker")
        self._market.spent(attempt.peer, attempt.agent)
        self._market.refusals.refused(attempt.peer, refuse)
        if code := CODES.get(refuse.reason):
            return _failure(unit, attempt, code, refuse.text, blame="broker")
        return _failure(unit, attempt, f"refused.{refuse.reason[:40]}", refuse.text)

    def _not_completed(self, unit: Unit, attempt: Attempt, result: Result) -> Failed:
        code = result.error_code[:60]
        if not code or code in UNTRIED:  # it was begun, whatever it says
            code = "agent.failed"
        if code == "artifact.unavailable":
            return _failure(unit, attempt, code, result.error_text, blame="artifact")
        if result.state == "failed":
            self._market.failed(attempt.peer, unreachable=False, grave=False)
        # One contractor's word that the input is bad, or what it may hand on too little, is
        # not enough; a second one's is.
        seen = any(failure.code == code for failure in unit.failures())
        if seen and (code == "input.invalid" or code.startswith("bounds.")):
            return _failure(unit, attempt, code, result.error_text, blame="input")
        return _failure(unit, attempt, code, result.error_text)

    async def cancel(self, state: JobState, name: str, attempt: Attempt, reason: str) -> None:
        """Cancel an award; returns when acknowledged, or when that has taken too long.

        Then its contractor is gone or deaf, and stops by itself when its lease lapses, or an
        order's time is over.
        """
        by_letter = {"lifetime_ms": ORDER_LIFETIME_MS_MAX} if attempt.by_letter else {}
        about = topic(state, state.units[name], 0)
        cancel = Cancel(
            h=self._signer.header(attempt.peer, about, **by_letter),
            award=digest(attempt.award),
            reason=reason[:60],
        )
        envelope = self._signer.sign(cancel)
        if by_letter:
            await self._orders.call_off(attempt, envelope)
            return
        limit_s = trio.current_time() + _CANCEL_S
        while (left_s := limit_s - trio.current_time()) > 0:
            try:
                await self._sessions.request(attempt.peer, CANCEL, envelope, timeout_s=left_s)
            except (Unreachable, StreamLost, Busy) as exc:
                self._context.emit("award.cancel_unheard", peer=attempt.peer, why=str(exc))
            except MeshError as exc:
                self._context.emit("award.cancel_refused", peer=attempt.peer, why=str(exc))
                return
            else:
                return
            await trio.sleep(_RETRY_S)


def _failure(
    unit: Unit,
    attempt: Attempt,
    code: str,
    text: str,
    *,
    blame: Blame = "peer",
) -> Failed:
    return Failed(
        unit=unit.name,
        attempt=attempt.number,
        peer=attempt.peer,
        code=code,
        text=text[:500],
        blame=blame,
    )


def _result_trouble(
    attempt: Attempt, body: ResultBody, result: Result, receipt: Receipt, *, award: Award
) -> str:
    """Return what is wrong with an answer, or nothing."""
    name = digest(attempt.award)
    if {result.h.issuer, receipt.h.issuer} != {attempt.peer}:
        return "result or receipt are not the contractor's"
    if (result.award, receipt.award) != (name, name):
        return "result or receipt are for another award"
    if receipt.result != digest(body.result) or receipt.cost_mc != result.price_mc:
        return "the receipt doesn't fit the result"
    if result.price_mc > award.price_cap_mc:
        return f"it charges {result.price_mc} mc, above the cap of {award.price_cap_mc} mc"
    if trouble := result_trouble(award, result, receipt):
        return trouble
    if trouble := beyond(award, receipt.below):
        return f"it had more done below than it was given: {trouble}"
    return ""
