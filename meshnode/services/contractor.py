"""The contractor: takes awards, does them, and stands by the result.

An award is written down before it is answered and done at most once per id: the same
award again attaches to what runs or returns what was.  While the broker's request is
open on a live session the lease holds; when it has been gone for the lease, the work
is stopped.  After a restart, unfinished awards are begun again.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from meshnode.domain.admission import No
from meshnode.errors import Busy, StoreError
from meshnode.services.admission import Admission
from meshnode.services.agents import AgentHost
from meshnode.services.award_records import AwardRecords
from meshnode.services.award_terms import AwardTerms
from meshnode.services.bodies import (
    ACCEPTANCE,
    AWARD,
    AWARD_BODY,
    CANCEL,
    RECEIPT_ROW,
    RECEIPTS,
    SUCCEED,
    AwardBody,
    ReceiptRow,
    ResultBody,
)
from meshnode.services.broker import Broker
from meshnode.services.buyers import Patience, lesson_of
from meshnode.services.context import Context
from meshnode.services.execution import Execution
from meshnode.services.executor import Executor
from meshnode.services.fencing import Uncertified
from meshnode.services.ledger import Books
from meshnode.services.letters import Letters
from meshnode.services.proposing import Proposing
from meshnode.services.receipts import receipt_writes
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.workbench import Workbench
from protocol.codec import decode_as, encode
from protocol.errors import Malformed, Stale
from protocol.keys import digest
from protocol.messages import (
    Award,
    Cancel,
    Header,
    read_message,
)
from protocol.receipts import Acceptance, check_receipt
from protocol.timely import check_timely

#: Cancels that came before their awards and are remembered.
_UNWANTED_MAX: Final = 20_000
#: Progress is passed on at most this often, seconds.
_PROGRESS_S: Final = 0.25
#: What is done within this has no progress to tell, seconds.
_QUICK_S: Final = 0.02
#: How often finished work is looked through for what nobody asks for any more, seconds.
_FORGET_S: Final = 600.0


class Contractor:
    """Work for others.

    Attributes:
        contradicted: Told of two acceptances of one award that aren't the same.
    """

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        door: Admission,
        host: AgentHost,
        executor: Executor,
        books: Books,
    ) -> None:
        self.contradicted: Callable[[bytes, bytes], Awaitable[None]] = _unheard
        self._signer = context.signer
        self._store = context.store
        self._clock = context.clock
        self._config = context.config.host
        self._emit = context.emit
        self._door = door
        self._host = host
        self._executor = executor
        served, ledger = books.served, books.ledger
        self._served = served
        self._ledger = ledger
        self._buyers = ledger.buyers
        self._patience = Patience(self._buyers, peer_max=self._config.per_peer_max)
        self._letters = Letters(context, sessions=sessions)
        self._terms = AwardTerms(context, host=host, letters=self._letters)
        self._records = AwardRecords(context, ledger=ledger)
        self._bench = Workbench(
            context,
            executor=executor,
            records=self._records,
            served=served,
            ledger=ledger,
            host=host,
        )
        self._claims: dict[bytes, trio.Event] = {}  # awards that are being looked at
        self._unwanted: dict[tuple[str, bytes], None] = {}  # cancelled before they came
        self._recovered = trio.Event()
        proposing = Proposing(
            context,
            door=door,
            letters=self._letters,
            host=host,
            bench=self._bench,
            served=served,
        )
        proposing.listen(sessions)
        sessions.handle(AWARD, door.limited(self._on_award, AWARD))
        sessions.handle(CANCEL, door.limited(self._on_cancel, CANCEL))
        sessions.handle(ACCEPTANCE, door.limited(self._on_acceptance, ACCEPTANCE))
        sessions.handle(SUCCEED, door.limited(self._on_succeed, SUCCEED))

    @property
    def active(self) -> int:
        """Awards held and not finished."""
        return len(self._bench.running)

    def in_work_mc(self, peers: Sequence[str]) -> int:
        """Return what is being done for ``peers``, by the awards' price caps."""
        return self._bench.in_work_mc(peers)

    async def run(self) -> None:
        """Do what was awarded, until cancelled; begins with what a restart left."""
        async with trio.open_nursery() as nursery:
            self._bench.work_in(nursery)
            await self._recover()
            self._recovered.set()
            while True:
                await trio.sleep(_FORGET_S)
                try:
                    await self._refuse_overdue()
                    await self._records.forget_old()
                except StoreError as exc:
                    self._emit("award.kept", why=str(exc))

    async def _recover(self) -> None:
        """Begin again what was awarded before a restart and has no result yet."""
        begun: set[bytes] = set()
        async for body, award in self._records.unfinished():
            execution = self._execution(body.award, award, now_ms=self._clock.now_ms())
            execution.again = True
            begun.add(execution.name)
            self._emit("award.recovered", award=execution.name.hex(), broker=award.h.issuer)
            self._bench.begin(execution)
        await self._executor.checkpoints.forget(begun)

    async def _refuse_overdue(self) -> None:
        """Learn of buyers that signed nothing for what they had."""
        for award in self._buyers.overdue():
            async with self._claimed(bytes.fromhex(award)):
                await self._buyers.refuse(award)

    def _execution(self, envelope: bytes, award: Award, *, now_ms: int) -> Execution:
        return Execution(envelope, award, now_ms=now_ms, lease_s_max=self._config.lease_s)

    def hand_on_to(self, broker: Broker) -> None:
        """Have ``broker`` take what the agents here hand on."""
        self._executor.delegations.work_with(broker)

    def drain(self) -> None:
        """Take no more awards."""
        self._bench.draining = True

    async def drained(self) -> None:
        """Wait until nothing is being done."""
        while self._bench.running:
            await next(iter(self._bench.running.values())).done.wait()

    # --- doing ---

    async def _on_award(self, incoming: Incoming) -> bytes:
        body = decode_as(incoming.body, AWARD_BODY)
        award = read_message(body.award, Award, network=self._signer.network)
        await self._recovered.wait()
        name = digest(body.award)
        if award.h.issuer != incoming.peer:
            return await self._hand_over(body, award, name, incoming)
        async with self._claimed(name):
            # What runs is looked for first: while the store is read it may come to its end.
            if name not in self._bench.running:
                if (known := await self._records.answer(name)) is not None:
                    return known
                if refusal := await self._take(body, award, name, incoming):
                    return encode(ResultBody(refusal, b"", b""))
            execution = self._bench.running[name]
        return await self._attach(execution, incoming)

    async def _hand_over(
        self, body: AwardBody, award: Award, name: bytes, incoming: Incoming
    ) -> bytes:
        """Answer an award to a later broker of its job; nothing is begun for it."""
        peer = incoming.peer
        if body.certificate:
            await self._records.fences.show(body.certificate, peer)
        await self._need_successor(award.h, peer)
        async with self._claimed(name):
            if name not in self._bench.running:
                if (known := await self._records.answer(name)) is not None:
                    return known
                no = No("not_taken", "there is no such award here: award it anew")
                return encode(
                    ResultBody(self._letters.refuse(award, body.award, no, to=peer), b"", b"")
                )
            execution = self._bench.running[name]
        return await self._attach(execution, incoming)

    async def _need_successor(self, of: Header, peer: str) -> None:
        """Let pass who was shown to be a later broker of a job than ``of`` is by.

        Raises:
            Malformed: It wasn't.
        """
        newest = await self._records.fences.current(of.charter) if of.charter else None
        if newest is None or newest.broker != peer or newest.epoch <= of.epoch:
            raise Malformed("it comes neither from its issuer nor from a later broker")

    async def _on_succeed(self, incoming: Incoming) -> bytes:
        """Take in that a job of which something was awarded here has a new broker."""
        await self._records.fences.show(incoming.body, incoming.peer)
        return b""

    @asynccontextmanager
    async def _claimed(self, name: bytes) -> AsyncIterator[None]:
        """Look at an award alone: what comes twice must not be begun, or counted, twice."""
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
        peer = incoming.peer
        check_timely(award, audience=self._signer.peer, now_ms=self._letters.peer_now_ms(peer))
        no = await self._door.stranger(peer)
        if no is None:
            no = await self._unwilling(body, award, name, peer)
        if no is not None:
            known = award.agent in self._host.specs()
            self._served.refused(peer, award.capability if known else "", no.reason)
            return self._letters.refuse(award, body.award, no)
        now_ms = self._letters.peer_now_ms(peer)
        await self._bench.take(self._execution(body.award, award, now_ms=now_ms), body)
        self._emit("contract.awarded", peer=peer, job=award.h.job, unit=award.h.subtask)
        return b""

    # --- what is ordered by letter ---

    async def commission(self, envelope: bytes, award: Award) -> No | None:
        """Begin what was ordered, unless it was begun before; return why not, if that is so.

        Its sender was let in, and what it takes is at hand.

        Raises:
            StoreError: The disk doesn't take it: it is not taken.
            Busy: This node is not running.
        """
        await self._recovered.wait()
        name = digest(envelope)
        async with self._claimed(name):
            known = name in self._bench.running
            if known or await self._records.answer(name) is not None:
                return None
            if (no := await self._unwilling_to(award, name)) is not None:
                return no
            execution = self._execution(envelope, award, now_ms=self._clock.now_ms())
            await self._bench.take(execution, AwardBody(envelope, b""))
        header = award.h
        self._emit("contract.awarded", peer=header.issuer, job=header.job, unit=header.subtask)
        return None

    async def _unwilling_to(self, award: Award, name: bytes) -> No | None:
        """Return why an order isn't begun now, if that is so."""
        peer = award.h.issuer
        if (no := self._terms.broken_by_order(award)) is not None:
            return no
        if (peer, name) in self._unwanted:
            return No("cancelled", "it was called off before")
        try:
            await self._records.check_epoch(award, b"")
        except Stale as exc:
            return No("terms", str(exc))
        return self._no_room(award, peer)

    async def answer(self, name: bytes) -> bytes | None:
        """Return what came of an award once nothing works on it; None if nothing did.

        Raises:
            StoreError: It can't be read.
        """
        await self._recovered.wait()
        execution = self._bench.running.get(name)
        if execution is not None:
            await execution.done.wait()
        return await self._records.answer(name)

    def call_off(self, peer: str, award: bytes, reason: str) -> None:
        """Stop an award of ``peer``, or don't begin it."""
        execution = self._bench.running.get(award)
        if execution is None:
            self._remember_unwanted(peer, award)
        elif execution.broker == peer:
            execution.stop("cancelled", reason)

    async def _unwilling(
        self, body: AwardBody, award: Award, name: bytes, peer: str
    ) -> No | None:
        """Return why ``award`` isn't taken, if that is so.

        What changes by taking others is looked at last: nothing may come between that
        and the taking.
        """
        if (no := self._terms.broken(body, award, peer)) is not None:
            return no
        no = await self._patience.until_settled(peer, lambda: self._no_room(award, peer))
        if no is not None:
            return no  # and nothing is written for it
        try:
            await self._records.check_epoch(award, body.certificate)
        except Uncertified as exc:
            return No("uncertified", str(exc))
        if (peer, name) in self._unwanted:
            return No("cancelled", "it was cancelled before")
        return self._no_room(award, peer)

    def _no_room(self, award: Award, peer: str) -> No | None:
        no = self._door.refusal(peer, award.items)
        if no is None:
            no = self._bench.unpaid(peer, award.price_cap_mc)
        if no is None and award.agent in (specs := self._host.specs()):
            purchaser = self._door.purchaser(peer)
            no = self._bench.unsettled(purchaser, specs[award.agent].price_mc, award.items)
        return self._bench.busy(peer, award) if no is None else no

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
                if execution.position == (execution.award.items, told[1]):
                    await execution.done.wait()  # all is done: the result says so itself
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
        cancel = self._letters.read(incoming, Cancel)
        await self._recovered.wait()
        execution = self._bench.running.get(cancel.award)
        if execution is not None:
            if execution.broker != incoming.peer:
                await self._need_successor(execution.award.h, incoming.peer)
            execution.stop("cancelled", cancel.reason)
            await execution.done.wait()
        else:
            # It may still be on its way, or be read right now by the task that took it in.
            self._remember_unwanted(incoming.peer, cancel.award)
        self._emit(
            "award.stopped", award=cancel.award.hex(), job=cancel.h.job, unit=cancel.h.subtask
        )
        return b""

    def _remember_unwanted(self, peer: str, award: bytes) -> None:
        self._unwanted[peer, award] = None
        if len(self._unwanted) > _UNWANTED_MAX:
            del self._unwanted[next(iter(self._unwanted))]

    async def _on_acceptance(self, incoming: Incoming) -> bytes:
        acceptance = self._letters.read(incoming, Acceptance)
        await self.accepted(incoming.body, acceptance)
        return b""

    async def accepted(self, envelope: bytes, acceptance: Acceptance) -> None:
        """Keep a broker's half of a receipt, which it sent; the same again changes nothing.

        Raises:
            RemoteProtocolError: It fits nothing here, or isn't its to give.
            StoreError: It can't be written down.
        """
        peer, key = acceptance.h.issuer, acceptance.award.hex()
        finished = await self._records.finished(acceptance.award)
        if finished is None:
            raise Malformed("there is no such result here")
        award, result = finished[0].award, finished[1]
        awarded, *_ = check_receipt(
            award, result.result, result.receipt, envelope, network=self._signer.network
        )
        if acceptance.h.issuer != awarded.h.issuer:
            await self._need_broker(awarded, acceptance)
        row = ReceiptRow(award, result.result, result.receipt, envelope)
        async with self._claimed(acceptance.award):
            there = await self._store.read(RECEIPTS, key)
            if there is None:
                await self._keep_receipt(row, acceptance, awarded.capability)
                self._emit(
                    "contract.accepted",
                    peer=peer,
                    verdict=acceptance.verdict,
                    paid_mc=acceptance.paid_mc,
                )
            elif decode_as(there, RECEIPT_ROW).acceptance != envelope:
                self._emit("contract.equivocation", peer=peer, award=key)
                await self.contradicted(decode_as(there, RECEIPT_ROW).acceptance, envelope)
                raise Stale("another acceptance of this award was signed before")

    async def _need_broker(self, award: Award, acceptance: Acceptance) -> None:
        """Let pass an acceptance by a broker of its job that was shown, whoever is it now.

        It sends what can't be lost any more, and may have been gone when another followed.

        Raises:
            Stale: It was none, or was never shown.
        """
        h = acceptance.h
        if not await self._records.fences.was_broker(award.h.charter, h.epoch, h.issuer):
            raise Stale(f"the broker of epoch {h.epoch} of job {h.job} was never shown")

    async def _keep_receipt(
        self, row: ReceiptRow, acceptance: Acceptance, capability: str
    ) -> None:
        """Write a finished contract down, with what it earned."""
        broker, paid_mc = acceptance.h.issuer, acceptance.paid_mc
        rejected = int(acceptance.verdict == "rejected")
        key = acceptance.award.hex()
        kind = lesson_of(acceptance)
        self._served.count(broker, capability, earned_mc=paid_mc, rejected=rejected)
        posting = self._ledger.receipt(
            "earned",
            broker,
            acceptance.award,
            paid_mc,
            job=acceptance.h.job,
            unit=acceptance.h.subtask,
        )
        try:
            await self._ledger.commit(
                posting,
                *receipt_writes(acceptance.award, row, now_ms=self._clock.now_ms()),
                *self._served.row(broker, capability),
                *self._buyers.ending(key, kind),
            )
            self._buyers.ended(key, kind)
        except StoreError:
            self._served.count(broker, capability, earned_mc=-paid_mc, rejected=-rejected)
            raise

    async def receipts(self) -> Sequence[ReceiptRow]:
        """Return the receipts of work done here."""
        return [decode_as(raw, RECEIPT_ROW) for _, raw in await self._store.scan(RECEIPTS)]


async def _unheard(_: bytes, __: bytes) -> None:
    await trio.lowlevel.checkpoint()
