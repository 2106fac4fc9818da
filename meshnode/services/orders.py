"""The broker's orders: awards in letters to nodes that are away, and what comes back.

An order is written down with its letter, and what came of it with that letter's id, so a
broker that was down in between goes on where it was: nothing is ordered twice, and an
outcome is taken once.  Nothing here needs the contractor to be there at any time.

Specified in protocol/spec/92-orders.md.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec
import trio

from meshnode.domain.bindings import artifacts
from meshnode.domain.facts import Failed
from meshnode.domain.ordering import UNANSWERED
from meshnode.domain.units import Attempt, Unit
from meshnode.domain.wording import Blame
from meshnode.errors import MeshError, NotFound, StoreError
from meshnode.ports import Delete, Put, Write
from meshnode.services.artifacts import Artifacts
from meshnode.services.bodies import ResultBody
from meshnode.services.context import Context
from meshnode.services.inbox import Inbox
from meshnode.services.journals import JobJournal
from meshnode.services.letter_writing import Draft
from meshnode.services.mail import ROWS_MAX, Carrier, LetterUnfit, OutboxRow
from meshnode.services.outbox import Outbox
from meshnode.services.receipts import DUE
from protocol.codec import Count, decode_as, encode
from protocol.errors import TooLarge
from protocol.keys import digest
from protocol.limits import LETTER_BODY_SIZE_MAX
from protocol.mail import Letter
from protocol.messages import Award, read_message
from protocol.orders import (
    ACCEPTED,
    CALLED_OFF,
    ORDER,
    OUTCOME,
    Answer,
    free_ms,
    read_outcome,
    write_order,
)
from protocol.receipts import Acceptance
from protocol.signing import peek

#: Orders of this node: award hash -> :class:`OrderRow`.
ORDERS: Final = "order"

#: A broker that was down looks into its mailboxes before it gives an order up, seconds.
_LOOK_S: Final = 120.0
#: The wall clock may be set: it is looked at this often, seconds.
_TICK_S: Final = 60.0
#: Refusals of an order's letter by which its reader says that it will never begin it.
_NEVER: Final = ("order.", "letter.refused")
#: An order is remembered for so long after its time: acceptances are worth a week.
_REMEMBERED_MS: Final = 8 * 24 * 3_600_000
_SWEEP_S: Final = 3_600.0


class OrderRow(msgspec.Struct, frozen=True, kw_only=True):
    """An order that was sent.

    Attributes:
        job: Which.
        peer: The contractor.
        letter: Name of the letter that it is in.
        free_ms: When the work may be given to another, Unix time.
        outcome: What came of it, encoded, or empty.
        called_off: Whether it was.
    """

    job: str
    peer: str
    letter: str
    free_ms: Count
    outcome: bytes = b""
    called_off: bool = False


_ROW: Final = msgspec.msgpack.Decoder(OrderRow)


class Orders:
    """See the module.  Run :meth:`run`."""

    def __init__(
        self, context: Context, *, artifacts: Artifacts, outbox: Outbox, inbox: Inbox
    ) -> None:
        self._context = context
        self._artifacts = artifacts
        self._outbox = outbox
        self._news = trio.Event()
        self._turn = trio.Lock()  # what is called off isn't sent after that
        inbox.carry(OUTCOME, Carrier(self._read, self._kept))
        outbox.on_end(self._letter_ended)

    async def run(self) -> None:
        """Forget what is long past, until cancelled."""
        while True:
            await trio.sleep(_SWEEP_S)
            try:
                await self.forget_old()
            except StoreError as exc:
                self._context.emit("order.kept_on", why=str(exc))

    async def forget_old(self) -> None:
        """Forget orders whose outcome, and acceptance, nobody waits for any more.

        Raises:
            StoreError: The disk refused; the rest goes the next time.
        """
        past_ms = self._context.clock.now_ms() - _REMEMBERED_MS
        for key, raw in await self._context.store.scan(ORDERS, count_max=ROWS_MAX):
            if decode_as(raw, _ROW).free_ms <= past_ms:
                await self._context.store.commit(Delete(ORDERS, key))

    # --- sending ---

    async def attend(
        self, journal: JobJournal, unit: Unit, attempt: Attempt
    ) -> bytes | Failed | None:
        """Send an order unless it was sent, and return what comes of it, as an answer has it.

        None says that nobody waits for it any more.

        Raises:
            StoreError: It can't be written down.
            Busy: As many letters wait as may.
        """
        name = digest(attempt.award)
        began_ms = self._context.clock.now_ms()
        while journal.state.cancelled is None and attempt.open:
            news = self._news
            sent = await self._row(name)
            row = sent or await self._send(name, journal, unit, attempt)
            if not isinstance(row, OrderRow):
                return row
            if row.outcome:
                return row.outcome
            if failed := await self._refused(row, unit, attempt):
                return failed
            due_ms = max(row.free_ms, began_ms + round(_LOOK_S * 1000))
            left_s = (due_ms - self._context.clock.now_ms()) / 1000
            if left_s <= 0:
                text = f"nothing came of the order to {attempt.peer} in its time"
                return _failure(unit, attempt, UNANSWERED, text)
            with trio.move_on_after(min(left_s, _TICK_S)):
                await news.wait()
        return None

    async def _send(
        self, name: bytes, journal: JobJournal, unit: Unit, attempt: Attempt
    ) -> OrderRow | Failed | None:
        """Write an order and its letter down together."""
        award = read_message(attempt.award, Award, network=self._context.network)
        left_ms = award.h.expires_ms - self._context.clock.now_ms()
        if left_ms <= 1_000:  # noqa: PLR2004 - a letter's shortest life
            text = f"there was no time left to order it from {attempt.peer}"
            return _failure(unit, attempt, "order.too_late", text)
        enclosed: list[bytes] = []
        for artifact, part in artifacts(award.inputs).items():
            data = await self._artifacts.local(artifact, size=part.size)
            if data is None:
                text = f"this node's copy of an input is gone: {artifact.hex()[:12]}"
                return _failure(unit, attempt, "artifact.unavailable", text, blame="artifact")
            enclosed.append(data)
        try:
            body = write_order(attempt.award, enclosed, network=self._context.network)
        except TooLarge as exc:
            text = (
                f"its inputs make an order of {exc.size} bytes, and a letter holds"
                f" {LETTER_BODY_SIZE_MAX}: only a node that is there can do it"
            )
            return _failure(unit, attempt, "order.too_large", text, blame="input")
        made: list[OrderRow] = []

        def keep(letter: str) -> Sequence[Write]:
            row = OrderRow(
                job=journal.job, peer=attempt.peer, letter=letter, free_ms=free_ms(award)
            )
            made.append(row)
            return [Put(ORDERS, name.hex(), encode(row))]

        async with self._turn:
            if journal.state.cancelled is not None or not attempt.open:
                return None
            draft = Draft(attempt.peer, body, ORDER, left_ms / 1000, unit.name)
            await self._outbox.post(draft, keep)
        self._context.emit(
            "order.sent", job=journal.job, unit=unit.name, peer=attempt.peer, award=name.hex()
        )
        return made[0]

    async def _refused(self, row: OrderRow, unit: Unit, attempt: Attempt) -> Failed | None:
        """Return how an order failed whose letter's reader will never begin it."""
        letter = await self._outbox.find(row.letter)
        if letter is None or letter.state != "failed" or not letter.code.startswith(_NEVER):
            return None
        text = f"{attempt.peer} takes no such order: {letter.code} ({letter.text})"
        return _failure(unit, attempt, "order.refused", text)

    def _letter_ended(self, row: OutboxRow) -> None:
        if row.kind == ORDER:
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- what comes back ---

    async def _read(self, letter: Letter) -> Sequence[Write]:
        """Take an outcome, with the output that is in it.

        Raises:
            LetterUnfit: It is of no order to its sender.
            RemoteProtocolError: It is none.
            Busy: There is no room for the output.
        """
        answer = read_outcome(letter.body, network=self._context.network)
        row = await self._row(answer.award)
        if row is None or {row.peer, letter.h.issuer} != {_maker(answer)}:
            raise LetterUnfit("order.unknown", "an outcome of nothing that was ordered of it")
        if row.outcome:
            return []
        outcome = answer.outcome
        body = ResultBody(outcome.refuse, outcome.result, outcome.receipt)
        row = msgspec.structs.replace(row, outcome=encode(body))
        writes: list[Write] = [Put(ORDERS, answer.award.hex(), encode(row))]
        if outcome.output:
            _, keeps = await self._artifacts.prepare(
                outcome.output, job=row.job, broker=self._context.peer
            )
            writes += keeps
        return writes

    def _kept(self, letter: Letter) -> None:
        self._context.emit("order.answered", peer=letter.h.issuer)
        self._tell()

    # --- calling off, and settling ---

    async def call_off(self, attempt: Attempt, cancel: bytes) -> None:
        """Have an order that is out ended, as soon as its contractor hears of it.

        Args:
            attempt: It is over.
            cancel: Envelope of the cancel.

        Raises:
            StoreError: It can't be written down.
            Busy: As many letters wait as may.
        """
        name = digest(attempt.award)
        async with self._turn:
            row = await self._row(name)
            left_ms = 0 if row is None else row.free_ms - self._context.clock.now_ms()
            if row is None or row.called_off or row.outcome or left_ms <= 1_000:  # noqa: PLR2004 - see above
                return
            off = encode(msgspec.structs.replace(row, called_off=True))
            draft = Draft(row.peer, cancel, CALLED_OFF, left_ms / 1000)
            await self._outbox.post(draft, lambda _: [Put(ORDERS, name.hex(), off)])
            with suppress(NotFound):  # what is at a mailbox is forgotten there too
                await self._outbox.delete(row.letter)
        self._tell()

    async def settle(self, key: str, peer: str, acceptance: bytes) -> bool:
        """Send the broker's half of a receipt by letter, if its award was ordered so.

        It is on the disk on return, and no longer due.  False says that it wasn't sent.

        Args:
            key: Hash of the award, in hex.
            peer: The contractor.
            acceptance: Envelope.
        """
        try:
            if await self._row(bytes.fromhex(key)) is None:
                return False
            half = read_message(acceptance, Acceptance, network=self._context.network)
            left_s = (half.h.expires_ms - self._context.clock.now_ms()) / 1000
            draft = Draft(peer, acceptance, ACCEPTED, left_s)
            await self._outbox.post(draft, lambda _: [Delete(DUE, key)])
        except MeshError as exc:  # it stays due
            self._context.emit("acceptance.held_up", why=str(exc))
            return False
        return True

    async def _row(self, name: bytes) -> OrderRow | None:
        raw = await self._context.store.read(ORDERS, name.hex())
        return None if raw is None else decode_as(raw, _ROW)


def _maker(answer: Answer) -> str:
    """Return by whom an outcome is."""
    return peek(answer.outcome.refuse or answer.outcome.result).i


def _failure(
    unit: Unit, attempt: Attempt, code: str, text: str, *, blame: Blame = "peer"
) -> Failed:
    return Failed(
        unit=unit.name,
        attempt=attempt.number,
        peer=attempt.peer,
        code=code,
        text=text[:500],
        blame=blame,
    )
