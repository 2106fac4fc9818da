"""The contractor: answers calls, takes awards, does them, and stands by the result.

An award is written down before it is answered and done at most once per id: the same
award again attaches to what runs or returns what was.  While the broker's request is
open on a live session the lease holds; when it has been gone for the lease, the work
is stopped.  After a restart, unfinished awards are begun again.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from meshnode.domain.matching import matches
from meshnode.errors import Busy, MeshError, StoreError
from meshnode.ports import Put
from meshnode.services.agents import AgentHost
from meshnode.services.award_records import AwardRecords
from meshnode.services.bodies import (
    ACCEPTANCE,
    AWARD,
    AWARD_BODY,
    CANCEL,
    CFP,
    NOT_ALLOWED,
    OFFERS,
    OFFERS_BODY,
    RECEIPT_ROW,
    RECEIPTS,
    AwardBody,
    OffersBody,
    ReceiptRow,
    ResultBody,
)
from meshnode.services.context import Context
from meshnode.services.execution import Execution, Executor
from meshnode.services.membership import Members
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.signer import Topic
from meshnode.services.workbench import Workbench
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Malformed, RemoteProtocolError, Stale
from protocol.keys import digest
from protocol.messages import (
    Award,
    Cancel,
    Cfp,
    M,
    Message,
    Proposal,
    Refuse,
    StandingOffer,
    check_timely,
    read_message,
)
from protocol.receipts import Acceptance, check_receipt
from protocol.signing import peek

#: What a caller is told that the owner doesn't let call.
_STRANGER: Final = "this node works for members of its mesh only: ask its owner for an invite"
#: Items of one award under a standing offer.
_OFFER_ITEMS_MAX: Final = 1_000
#: Ids of messages remembered against replays.
_SEEN_MAX: Final = 20_000
#: Progress is passed on at most this often, seconds.
_PROGRESS_S: Final = 0.25
#: What is done within this has no progress to tell, seconds.
_QUICK_S: Final = 0.02
#: How often finished work is looked through for what nobody asks for any more, seconds.
_FORGET_S: Final = 600.0


class Contractor:
    """Work for others."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        members: Members,
        host: AgentHost,
        executor: Executor,
    ) -> None:
        self._signer = context.signer
        self._store = context.store
        self._clock = context.clock
        self._config = context.config.host
        self._emit = context.emit
        self._sessions = sessions
        self._members = members
        self._host = host
        self._executor = executor
        self._records = AwardRecords(context)
        self._bench = Workbench(context, executor=executor, records=self._records)
        self._seen: dict[bytes, None] = {}
        self._claims: dict[bytes, trio.Event] = {}  # awards that are being looked at
        self._unwanted: dict[tuple[str, bytes], None] = {}  # cancelled before they came
        self._recovered = trio.Event()
        self._draining = False
        sessions.handle(CFP, self._on_cfp)
        sessions.handle(OFFERS, self._on_offers)
        sessions.handle(AWARD, self._on_award)
        sessions.handle(CANCEL, self._on_cancel)
        sessions.handle(ACCEPTANCE, self._on_acceptance)

    @property
    def active(self) -> int:
        """Awards held and not finished."""
        return len(self._bench.running)

    async def run(self) -> None:
        """Do what was awarded, until cancelled; begins with what a restart left."""
        async with trio.open_nursery() as nursery:
            self._bench.work_in(nursery)
            await self._recover()
            self._recovered.set()
            while True:
                await trio.sleep(_FORGET_S)
                try:
                    await self._records.forget_old()
                except StoreError as exc:
                    self._emit("award.kept", why=str(exc))

    async def _recover(self) -> None:
        """Begin again what was awarded before a restart and has no result yet."""
        async for body, award in self._records.unfinished():
            execution = self._execution(body.award, award, now_ms=self._clock.now_ms())
            self._emit("award.recovered", award=execution.name.hex(), broker=award.h.issuer)
            self._bench.begin(execution)

    def _execution(self, envelope: bytes, award: Award, *, now_ms: int) -> Execution:
        return Execution(envelope, award, now_ms=now_ms, lease_s_max=self._config.lease_s)

    def drain(self) -> None:
        """Take no more awards."""
        self._draining = True

    async def drained(self) -> None:
        """Wait until nothing is being done."""
        while self._bench.running:
            await next(iter(self._bench.running.values())).done.wait()

    # --- proposing ---

    async def _on_cfp(self, incoming: Incoming) -> bytes:
        cfp = self._read(incoming, Cfp)
        self._refuse_replay(cfp)
        if not await self._members.may_call(incoming.peer):
            return self._refuse(cfp, incoming.body, NOT_ALLOWED, _STRANGER)
        name = self._agent_for(cfp.capability)
        if name is None:
            return self._refuse(cfp, incoming.body, "not_offered", "no such capability here")
        spec = self._host.specs()[name]
        if self._is_full(incoming.peer):
            return self._refuse(cfp, incoming.body, "busy", "too much to do", retry_ms=1000)
        if spec.price_mc * cfp.items > cfp.price_max_mc:
            return self._refuse(cfp, incoming.body, "price", f"the price is {spec.price_mc} mc")
        if cfp.input_bytes > spec.input_bytes_max * cfp.items:
            return self._refuse(cfp, incoming.body, "size", "the input is too large")
        latency_ms = self._host.latency_ms(name) or 500
        proposal = Proposal(
            h=self._signer.header(incoming.peer, Topic.of(cfp.h)),
            cfp=digest(incoming.body),
            agent=name,
            capability=spec.capability,
            price_mc=spec.price_mc,
            eta_ms=latency_ms * cfp.items,
            free=self._host.free(name),
            items=cfp.items,
        )
        self._emit("contract.proposed", peer=incoming.peer, capability=spec.capability)
        return self._signer.sign(proposal)

    async def _on_offers(self, incoming: Incoming) -> bytes:
        """Answer with standing offers for the capabilities asked for."""
        asked = decode_as(incoming.body, OFFERS_BODY).items
        if len(asked) > limits.CAPABILITIES_MAX:
            raise Malformed("too many capabilities asked for")
        offers: list[bytes] = []
        if not await self._members.may_call(incoming.peer):
            return encode(OffersBody(offers))  # it is told why when it calls
        for name, spec in sorted(self._host.specs().items()):
            wanted = any(_covers(query, spec.capability) for query in asked)
            if wanted and not self._draining:
                offers.append(self._offer(incoming.peer, name))
        await trio.lowlevel.checkpoint()
        return encode(OffersBody(offers))

    def _offer(self, peer: str, name: str) -> bytes:
        spec = self._host.specs()[name]
        offer = StandingOffer(
            h=self._signer.header(peer, Topic(), lifetime_ms=limits.LIFETIME_MS_MAX),
            agent=name,
            capability=spec.capability,
            price_mc=spec.price_mc,
            items_max=_OFFER_ITEMS_MAX,
            awards_max=self._config.per_peer_max,
            latency_ms=self._host.latency_ms(name),
        )
        return self._signer.sign(offer)

    def _agent_for(self, capability: str) -> str | None:
        for name, spec in sorted(self._host.specs().items()):
            if matches(capability, spec.capability):
                return name
        return None

    def _is_full(self, peer: str) -> bool:
        held = sum(1 for execution in self._bench.running.values() if execution.broker == peer)
        return (
            self._draining
            or len(self._bench.running) >= self._config.awards_max
            or held >= self._config.per_peer_max
        )

    # --- doing ---

    async def _on_award(self, incoming: Incoming) -> bytes:
        body = decode_as(incoming.body, AWARD_BODY)
        award = read_message(body.award, Award, network=self._signer.network)
        if award.h.issuer != incoming.peer:
            raise Malformed("an award comes from its issuer")
        await self._recovered.wait()
        name = digest(body.award)
        async with self._claimed(name):
            # What runs is looked for first: while the store is read it may come to its end.
            if name not in self._bench.running:
                if (known := await self._records.answer(name)) is not None:
                    return known
                if refusal := await self._take(body, award, name, incoming):
                    return encode(ResultBody(refusal, b"", b""))
            execution = self._bench.running[name]
        return await self._attach(execution, incoming)

    @asynccontextmanager
    async def _claimed(self, name: bytes) -> AsyncIterator[None]:
        """Look at an award alone: the same one, come twice, must not be begun twice."""
        while (other := self._claims.get(name)) is not None:
            await other.wait()
        claim = self._claims[name] = trio.Event()
        try:
            yield
        finally:
            del self._claims[name]
            claim.set()

    async def _take(
        self, body: AwardBody, award: Award, name: bytes, incoming: Incoming
    ) -> bytes:
        """Accept a new award and begin it, or return a signed refusal."""
        check_timely(award, audience=self._signer.peer, now_ms=self._peer_now_ms(incoming.peer))
        if not await self._members.may_call(incoming.peer):
            return self._refuse(award, body.award, NOT_ALLOWED, _STRANGER)
        try:
            self._check_terms(body, award, incoming.peer)
            await self._records.check_epoch(award)
        except _TermsError as exc:
            return self._refuse(award, body.award, exc.reason, str(exc))
        if (incoming.peer, name) in self._unwanted:
            return self._refuse(award, body.award, "cancelled", "it was cancelled before")
        if self._is_full(incoming.peer):
            return self._refuse(award, body.award, "busy", "too much to do", retry_ms=1000)
        now_ms = self._peer_now_ms(incoming.peer)
        await self._bench.take(self._execution(body.award, award, now_ms=now_ms), body)
        self._emit(
            "contract.awarded", peer=incoming.peer, job=award.h.job, unit=award.h.subtask
        )
        return b""

    def _check_terms(self, body: AwardBody, award: Award, broker: str) -> None:
        """Hold an award against the proposal or standing offer that this node signed."""
        terms = self._terms(body, award)
        if (terms.h.issuer, terms.h.audience) != (self._signer.peer, broker):
            raise _TermsError("terms", "the proposal is not this node's to this broker")
        if self._clock.now_ms() >= terms.h.expires_ms:
            raise _TermsError("offer_expired", "the proposal has expired")
        if (terms.agent, terms.capability) != (award.agent, award.capability):
            raise _TermsError("terms", "agent or capability differ from the proposal")
        if not award.each and award.items != 1:
            raise _TermsError("terms", "a single call has one item")
        if award.price_cap_mc < terms.price_mc * award.items:
            raise _TermsError("price", "the price cap is below the proposal")
        if award.agent not in self._host.specs():
            raise _TermsError("not_offered", f"there is no agent {award.agent!r} any more")
        if award.h.deadline_ms <= self._peer_now_ms(broker):
            raise _TermsError("deadline", "its deadline has passed")

    def _terms(self, body: AwardBody, award: Award) -> Proposal | StandingOffer:
        """Return what ``award`` binds, signature checked."""
        network = self._signer.network
        if digest(body.proposal) != award.proposal:
            raise _TermsError("terms", "it binds another proposal than the one that is with it")
        if peek(body.proposal).t == Proposal.TYPE:
            proposal = read_message(body.proposal, Proposal, network=network)
            if proposal.cfp != award.cfp:
                raise _TermsError("terms", "it binds another CFP than the proposal")
            if award.items > proposal.items:
                raise _TermsError("terms", f"{award.items} items are more than were called for")
            return proposal
        offer = read_message(body.proposal, StandingOffer, network=network)
        if award.items > offer.items_max or award.cfp:
            raise _TermsError("terms", f"{award.items} items are more than was offered")
        return offer

    async def _attach(self, execution: Execution, incoming: Incoming) -> bytes:
        """Stream progress to the broker until the result is there."""
        told = (0, 0)
        with execution.attached():
            with trio.move_on_after(_QUICK_S):
                await execution.done.wait()
            while not execution.done.is_set():
                await execution.moved(told)
                if execution.position == told:
                    break
                text = execution.text_since(told[1])
                told = execution.position
                await incoming.item(self._signer.sign(self._executor.progress(execution, text)))
                with trio.move_on_after(_PROGRESS_S):  # not more often than need be
                    await execution.done.wait()
        if execution.answer is None:
            raise Busy("this node")
        return execution.answer

    # --- ending ---

    async def _on_cancel(self, incoming: Incoming) -> bytes:
        """Stop an award; answered when nothing works on it any more."""
        cancel = self._read(incoming, Cancel)
        await self._recovered.wait()
        execution = self._bench.running.get(cancel.award)
        if execution is not None:
            if execution.broker != incoming.peer:
                raise Malformed("an award is cancelled by its broker")
            execution.stop("cancelled", cancel.reason)
            await execution.done.wait()
        else:
            # It may still be on its way, or be read right now by the task that took it in.
            self._unwanted[incoming.peer, cancel.award] = None
            if len(self._unwanted) > _SEEN_MAX:
                del self._unwanted[next(iter(self._unwanted))]
        self._emit(
            "award.stopped", award=cancel.award.hex(), job=cancel.h.job, unit=cancel.h.subtask
        )
        return b""

    async def _on_acceptance(self, incoming: Incoming) -> bytes:
        acceptance = self._read(incoming, Acceptance)
        key = acceptance.award.hex()
        finished = await self._records.finished(acceptance.award)
        if finished is None:
            raise Malformed("there is no such result here")
        award, result = finished[0].award, finished[1]
        check_receipt(
            award, result.result, result.receipt, incoming.body, network=self._signer.network
        )
        row = ReceiptRow(award, result.result, result.receipt, incoming.body)
        there = await self._store.read(RECEIPTS, key)
        if there is None:
            await self._store.commit(Put(RECEIPTS, key, encode(row)))
            self._emit(
                "contract.accepted",
                peer=incoming.peer,
                verdict=acceptance.verdict,
                paid_mc=acceptance.paid_mc,
            )
        elif decode_as(there, RECEIPT_ROW).acceptance != incoming.body:
            self._emit("contract.equivocation", peer=incoming.peer, award=key)
            raise Stale("another acceptance of this award was signed before")
        return b""

    async def receipts(self) -> Sequence[ReceiptRow]:
        """Return the receipts of work done here."""
        return [decode_as(raw, RECEIPT_ROW) for _, raw in await self._store.scan(RECEIPTS)]

    # --- reading ---

    def _peer_now_ms(self, peer: str) -> int:
        return self._clock.now_ms() + self._sessions.offset_ms(peer)

    def _read(self, incoming: Incoming, kind: type[M]) -> M:
        """Return the signed message in a request's body: from its sender, to us, in time."""
        message = read_message(incoming.body, kind, network=self._signer.network)
        if message.h.issuer != incoming.peer:
            raise Malformed(f"a {kind.TYPE} comes from its issuer")
        check_timely(
            message, audience=self._signer.peer, now_ms=self._peer_now_ms(incoming.peer)
        )
        return message

    def _refuse_replay(self, message: Message) -> None:
        key = message.h.issuer.encode() + message.h.id
        if key in self._seen:
            raise Stale("this message id was seen before")
        self._seen[key] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def _refuse(
        self, message: Message, envelope: bytes, reason: str, text: str, *, retry_ms: int = 0
    ) -> bytes:
        self._emit("contract.refused", peer=message.h.issuer, reason=reason)
        return self._signer.sign(
            Refuse(
                h=self._signer.header(message.h.issuer, Topic.of(message.h)),
                of=digest(envelope),
                reason=reason,
                text=text,
                retry_after_ms=retry_ms,
            )
        )


class _TermsError(MeshError):
    """An award that isn't within what was proposed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def _covers(query: bytes, capability: str) -> bool:
    try:
        return matches(query.decode(), capability)
    except (UnicodeDecodeError, RemoteProtocolError):
        return False
