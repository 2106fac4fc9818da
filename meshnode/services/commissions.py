"""Orders of others: work that came in a letter, done when there is room, answered by letter.

An order is on the disk before its letter is acknowledged, and leaves it in the commit that
writes the letter with its outcome.  In between a crash changes nothing: the award's hash
says whether it was begun, and its records what came of it.

What passes, such as a pause or a full node, is waited for until the order may no longer be
begun; anything else is a refusal, which is an outcome like any other.

Specified in protocol/spec/92-orders.md.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from meshnode.domain.admission import CLOSED, PAUSED, QUOTA, No
from meshnode.domain.ledger import CREDIT
from meshnode.domain.trust.buyers import UNSETTLED
from meshnode.errors import ArtifactError, Busy, MeshError
from meshnode.ports import Delete, Put, Write
from meshnode.services.artifacts import Artifacts
from meshnode.services.bodies import RESULT_BODY
from meshnode.services.context import Context
from meshnode.services.contractor import Contractor
from meshnode.services.inbox import Inbox
from meshnode.services.letter_writing import Draft
from meshnode.services.mail import ROWS_MAX, Carrier, LetterUnfit
from meshnode.services.outbox import LIFETIME_S, Outbox
from meshnode.services.signer import Topic
from protocol.codec import Count, decode_as, encode
from protocol.errors import Expired, Malformed, ProtocolError, RemoteProtocolError
from protocol.keys import digest
from protocol.mail import Letter
from protocol.messages import Award, Cancel, Message, Refuse, Result, read_message
from protocol.orders import (
    ACCEPTED,
    CALLED_OFF,
    ORDER,
    OUTCOME,
    Order,
    Outcome,
    check_order_time,
    read_order,
    write_outcome,
)
from protocol.receipts import Acceptance
from protocol.timely import check_timely

#: Orders of others that aren't answered: award hash -> :class:`CommissionRow`.
COMMISSIONS: Final = "commission"

#: Refusals that pass: the order is tried again until it may no longer be begun.
_PASSING: Final = frozenset({"busy", PAUSED, CLOSED, QUOTA, CREDIT, UNSETTLED})
#: How long until then, seconds: as the refusal says, within these.
_AGAIN_S: Final = (1.0, 30.0)
#: A letter for which there is no room is brought again after this, milliseconds.
_FULL_RETRY_MS: Final = 600_000


class CommissionRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order that isn't answered.

    Attributes:
        body: Of its letter.
        since_ms: When it came, Unix time.
        called_off: Whether it was: it is not begun.
    """

    body: bytes
    since_ms: Count
    called_off: bool = False


_ROW: Final = msgspec.msgpack.Decoder(CommissionRow)


class Commissions:
    """See the module.  Run :meth:`run`."""

    def __init__(
        self,
        context: Context,
        *,
        contractor: Contractor,
        artifacts: Artifacts,
        outbox: Outbox,
        inbox: Inbox,
    ) -> None:
        self._context = context
        self._config = context.config.orders
        self._contractor = contractor
        self._artifacts = artifacts
        self._outbox = outbox
        self._held: dict[bytes, str] = {}  # award -> its broker
        self._loaded = trio.Event()
        self._nursery: trio.Nursery | None = None
        inbox.carry(ORDER, Carrier(self._read_order, self._order_kept))
        inbox.carry(CALLED_OFF, Carrier(self._read_cancel, self._cancel_kept))
        inbox.carry(ACCEPTED, Carrier(self._read_acceptance, lambda _: None))

    async def run(self) -> None:
        """See to orders until cancelled; begins with those that a restart left."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            rows = await self._context.store.scan(COMMISSIONS, count_max=ROWS_MAX)
            kept = [(bytes.fromhex(key), decode_as(raw, _ROW)) for key, raw in rows]
            for name, row in sorted(kept, key=lambda item: (item[1].since_ms, item[0])):
                try:
                    self._hold(name, row.body)
                except RemoteProtocolError as exc:  # such as of another mesh: not ours to judge
                    self._context.emit("order.unreadable", award=name.hex(), why=str(exc))
            self._loaded.set()
            await trio.sleep_forever()

    def _hold(self, name: bytes, body: bytes) -> str:
        """See to an order that is on the disk; return by whom it is."""
        _, award = read_order(body, network=self._context.network)
        if name not in self._held:
            self._held[name] = award.h.issuer
            if self._nursery is not None:
                self._nursery.start_soon(self._see_to, name)
        return award.h.issuer

    # --- letters that come ---

    async def _read_order(self, letter: Letter) -> Sequence[Write]:
        """Take an order, if it may still be begun.

        Raises:
            LetterUnfit: It may not, or nothing may be ordered here.
            RemoteProtocolError: It is none, or another's.
            Busy: There is no room for it.
        """
        if not self._config.enabled:
            raise LetterUnfit("order.not_taken", "this node does no work by letter")
        order, award = read_order(letter.body, network=self._context.network)
        _need_issuer(award, letter)
        now_ms = self._context.clock.now_ms()
        try:
            check_order_time(award, audience=self._context.peer, now_ms=now_ms)
        except Expired as exc:
            raise LetterUnfit("order.expired", str(exc)) from exc
        await self._loaded.wait()
        name = digest(order.award)
        if name in self._held:
            return []
        self._make_sure_of_room(award.h.issuer)
        row = CommissionRow(body=letter.body, since_ms=now_ms)
        return [Put(COMMISSIONS, name.hex(), encode(row))]

    def _make_sure_of_room(self, peer: str) -> None:
        held = Counter(self._held.values())
        if held[peer] >= self._config.peer_waiting_max:
            what = "this node has as many orders of yours as it may"
        elif held.total() >= self._config.waiting_max:
            what = "this node has as many orders as it may"
        else:
            return
        self._context.emit("order.put_off", peer=peer, why=what)
        raise Busy("orders", retry_after_ms=_FULL_RETRY_MS, text=what)

    def _order_kept(self, letter: Letter) -> None:
        order, _ = read_order(letter.body, network=self._context.network)
        name = digest(order.award)
        self._context.emit("order.kept", peer=self._hold(name, letter.body), award=name.hex())

    async def _read_cancel(self, letter: Letter) -> Sequence[Write]:
        """Call an order off; one that is begun is stopped when that is written down."""
        cancel = read_message(letter.body, Cancel, network=self._context.network)
        self._check(cancel, letter)
        row = await self._row(cancel.award)
        if row is None or self._held.get(cancel.award) != cancel.h.issuer:
            return []
        row = msgspec.structs.replace(row, called_off=True)
        return [Put(COMMISSIONS, cancel.award.hex(), encode(row))]

    def _cancel_kept(self, letter: Letter) -> None:
        cancel = read_message(letter.body, Cancel, network=self._context.network)
        self._context.emit("order.called_off", peer=cancel.h.issuer, award=cancel.award.hex())
        self._contractor.call_off(cancel.h.issuer, cancel.award, cancel.reason)

    async def _read_acceptance(self, letter: Letter) -> Sequence[Write]:
        """Take the broker's half of a receipt, which is written down with what it earned."""
        acceptance = read_message(letter.body, Acceptance, network=self._context.network)
        self._check(acceptance, letter)
        await self._contractor.accepted(letter.body, acceptance)
        return []

    def _check(self, message: Message, letter: Letter) -> None:
        """Let pass what is by the letter's sender, for this node, and in its time."""
        _need_issuer(message, letter)
        now_ms = self._context.clock.now_ms()
        check_timely(message, audience=self._context.peer, now_ms=now_ms)

    # --- doing ---

    async def _see_to(self, name: bytes) -> None:
        """Have an order done, or refuse it, and answer, however often that is tried."""
        while name in self._held:
            try:
                again_s = await self._advance(name)
            except (MeshError, ProtocolError) as exc:
                self._context.emit("order.held_up", award=name.hex(), why=str(exc))
                again_s = _AGAIN_S[1]
            if again_s:
                await trio.sleep(again_s)

    async def _advance(self, name: bytes) -> float:
        """Go on with an order as far as it goes; return when to try again, in seconds.

        Raises:
            StoreError: It can't be read, or written.
            Busy: As many letters wait as may.
        """
        row = await self._row(name)
        if row is None:
            self._held.pop(name, None)
            return 0.0
        order, award = read_order(row.body, network=self._context.network)
        no = await self._begun(order, award, called_off=row.called_off)
        if no is not None:
            left_s = (award.h.expires_ms - self._context.clock.now_ms()) / 1000
            if no.reason in _PASSING and left_s > 0:
                shortest_s, longest_s = _AGAIN_S
                return min(left_s, max(shortest_s, min(longest_s, no.retry_ms / 1000)))
            await self._answer(name, award, Outcome(self._refused(order, award, no), b"", b""))
            return 0.0
        raw = await self._contractor.answer(name)
        if raw is None:  # its time was over while this node was down
            await self._forget(name)
            return 0.0
        await self._answer(name, award, await self._outcome(raw))
        return 0.0

    async def _begun(self, order: Order, award: Award, *, called_off: bool) -> No | None:
        """Begin what isn't begun; return why not, if that is so."""
        if called_off:
            self._contractor.call_off(award.h.issuer, digest(order.award), "called off")
        try:
            for data in order.enclosed:
                await self._artifacts.put(data, job=award.h.job, broker=award.h.issuer)
        except (ArtifactError, Busy) as exc:
            return No("busy", str(exc))
        return await self._contractor.commission(order.award, award)

    def _refused(self, order: Order, award: Award, no: No) -> bytes:
        signer, peer = self._context.signer, award.h.issuer
        self._context.emit("contract.refused", peer=peer, reason=no.reason, why=no.text)
        lifetime_ms = round(LIFETIME_S * 1000)
        return signer.sign(
            Refuse(
                h=signer.header(peer, Topic.of(award.h), lifetime_ms=lifetime_ms),
                of=digest(order.award),
                reason=no.reason,
                text=no.text,
                retry_after_ms=no.retry_ms,
            )
        )

    async def _outcome(self, raw: bytes) -> Outcome:
        """Return what came of an award as a letter tells it."""
        body = decode_as(raw, RESULT_BODY)
        result = read_message(body.result, Result, network=self._context.network)
        output = b""
        if result.state == "completed" and not result.inline:
            output = await self._artifacts.local(result.output) or b""
        return Outcome(b"", body.result, body.receipt, output)

    async def _answer(self, name: bytes, award: Award, outcome: Outcome) -> None:
        """Write an order's answer down in place of it."""
        try:
            body = write_outcome(outcome, network=self._context.network)
        except ProtocolError as exc:  # such as an output that has lapsed here
            self._context.emit("order.unanswerable", award=name.hex(), why=str(exc))
            await self._forget(name)
            return
        draft = Draft(award.h.issuer, body, OUTCOME, LIFETIME_S, award.h.subtask[:64])
        await self._outbox.post(draft, lambda _: [Delete(COMMISSIONS, name.hex())])
        self._held.pop(name, None)

    async def _forget(self, name: bytes) -> None:
        self._context.emit("order.lapsed", award=name.hex())
        await self._context.store.commit(Delete(COMMISSIONS, name.hex()))
        self._held.pop(name, None)

    async def _row(self, name: bytes) -> CommissionRow | None:
        raw = await self._context.store.read(COMMISSIONS, name.hex())
        return None if raw is None else decode_as(raw, _ROW)


def _need_issuer(message: Message, letter: Letter) -> None:
    if message.h.issuer != letter.h.issuer:
        raise Malformed("an order, and what follows from it, comes from who signed it")
