"""Settling: what one owner paid another outside the mesh comes off both ledgers, once.

The payer signs a payment and asks until it is answered; the payee posts it when it came,
by the word of its settlement port, of its owner, or of a payer that its owner believes,
and answers that it is settled; then the payer posts it.  Both post under the hash of the
payment, in the commit that says that it is settled, so whatever crashes in between, it is
once in each ledger in the end.

Specified in protocol/spec/65-settlements.md.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import trio

from meshnode.domain.ledger import Kind, Posting
from meshnode.errors import (
    Busy,
    InputInvalid,
    KeyReused,
    MeshError,
    NotFound,
    StoreError,
)
from meshnode.ports import Delete, Put, Settlement
from meshnode.services.admission import Admission
from meshnode.services.bodies import PAYMENT, TERMS_BYTES_MAX
from meshnode.services.context import Context
from meshnode.services.ledger import POSTINGS, Ledger, forget_rows
from meshnode.services.letters import Letters
from meshnode.services.retention import RECEIPT_S_MIN
from meshnode.services.sessions import Incoming, RequestFailed, Sessions
from meshnode.services.signer import Topic
from meshnode.services.turns import Turns
from protocol.codec import encode
from protocol.errors import ErrorCode, Malformed, RemoteProtocolError, TooLarge
from protocol.keys import digest
from protocol.limits import HEADER_TEXT_SIZE_MAX, NUMBER_MAX
from protocol.messages import read_message
from protocol.settlements import PAYMENT_LIFETIME_MS, Payment, PaymentAnswer

#: Hash of a payment, in hex -> :class:`Settled`.
SETTLEMENTS: Final = "settlement"

#: An unanswered payment is asked about again after this, seconds.
_ASK_S: Final = 60.0
_ASK_TIMEOUT_S: Final = 10.0
_DIALLED_MS: Final = 24 * 3_600_000
#: Undecided payments that are kept: of one payer, and of all.  The last half of these is
#: for payers that owe this node something: strangers can't shut them out.
_NOTED_OF_ONE_MAX: Final = 16
_NOTED_MAX: Final = 1_024
#: Payments of one payer that are kept, decided ones with them: even one whose word is good
#: can't fill this disk.
_RECEIVED_OF_ONE_MAX: Final = 4_096
#: Rows that are looked through.
_ROWS_MAX: Final = 1_000_000
_FORGET_S: Final = 3_600.0

State = Literal["sent", "noted", "settled", "refused", "lapsed"]
#: What is said of a payment that no owner confirmed.
_LATE: Final = "it was not confirmed in time"
_OPEN: Final = frozenset({"sent", "noted"})


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    """A payment, at either side.

    Attributes:
        peer: The other side.
        kind: ``paid`` by this node, or ``received``.
        amount_mc: How much.
        reference: What owners call it.
        state: ``sent`` has no answer; ``noted`` waits for the payee's owner; ``lapsed`` is
            unknown to the payee, and too old to be told again.
        at_ms: When it was written down here, Unix time.
        expires_ms: Until when the payee may settle it, by the payer's clock.
        envelope: Of the payment.
        answer: Of the payee's last answer; at the payer only.
        text: What else there is to say.
        ended_ms: When it was decided, Unix time; 0 while it is open.
    """

    peer: str
    kind: Kind
    amount_mc: int
    reference: str
    state: State
    at_ms: int
    expires_ms: int
    envelope: bytes
    answer: bytes = b""
    text: str = ""
    ended_ms: int = 0


_ROW: Final = msgspec.msgpack.Decoder(Settled)


class Settlements:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(
        self,
        context: Context,
        *,
        sessions: Sessions,
        door: Admission,
        ledger: Ledger,
        port: Settlement,
        paid: Callable[[str], None],
    ) -> None:
        """Begin.

        Args:
            context: This node.
            sessions: How others are told.
            door: Who may tell this node.
            ledger: Where it is posted.
            port: How payments are made.
            paid: Told of each peer that says that it got what it was paid.
        """
        self._context = context
        self._sessions = sessions
        self._door = door
        self._ledger = ledger
        self._port = port
        self._paid = paid
        self._believed = frozenset(context.config.ledger.believed)
        self._letters = Letters(context, sessions=sessions)
        self._rows: dict[str, Settled] = {}  # those that are open, by the payment's hash
        self._received: Counter[str] = Counter()  # those that are kept, by payer
        self._turns = Turns()  # at a payment: a port may be slow, and holds up no other
        self._lock = trio.Lock()  # for writing, and for nothing that waits for others
        self._stir = trio.Event()
        sessions.handle(PAYMENT, door.limited(self._on_payment, PAYMENT))

    @property
    def method(self) -> str:
        """Name of how debts are paid."""
        return self._port.method

    async def load(self) -> None:
        """Take up what is open.

        Raises:
            StoreError: It can't be read.
        """
        rows = await self.rows()
        self._rows = {key: row for key, row in rows.items() if row.state in _OPEN}
        self._received = Counter(row.peer for row in rows.values() if row.kind == "received")

    async def run(self) -> None:
        """Ask about what is open, and forget what is old, until cancelled."""
        forget_s = trio.current_time() + _FORGET_S
        while True:
            self._stir = trio.Event()
            try:
                for key, row in list(self._rows.items()):
                    if row.kind == "paid" and self._is_worth_asking(row):
                        await self._ask(key)
                await self._give_up_late()
                if trio.current_time() >= forget_s:
                    forget_s = trio.current_time() + _FORGET_S
                    await self.forget_old()
            except StoreError as exc:
                self._context.emit("settlement.held_up", why=str(exc))
            paying = any(row.kind == "paid" for row in self._rows.values())
            with trio.move_on_after(_ASK_S if paying else _FORGET_S):
                await self._stir.wait()
                await trio.sleep(_ASK_S)  # whoever stirred it has asked

    # --- the payer ---

    async def settle(self, peer: str, amount_mc: int, reference: str) -> tuple[str, Settled]:
        """Pay ``peer``, or note that it was paid; return the payment's hash and how it stands.

        The same reference is the same payment: it is made once, and asked about again.

        Raises:
            InputInvalid: No amount, or no reference.
            KeyReused: The reference is that of another amount.
            NoSettlement: It wasn't paid.
            StoreError: It can't be written down.
        """
        if not 0 < amount_mc <= NUMBER_MAX or peer == self._context.peer:
            raise InputInvalid(f"{amount_mc} mc can't be paid to {peer}", hint="1 or more")
        if not 0 < len(reference) <= HEADER_TEXT_SIZE_MAX:
            raise InputInvalid(
                "a payment has a note by which the other owner finds it",
                hint=f"1 to {HEADER_TEXT_SIZE_MAX} characters",
            )
        async with self._turns.at(f"{peer}/{reference}"):
            key = await self._known(peer, amount_mc, reference)
            if not key:
                await self._port.pay(peer, amount_mc, reference)
                key = await self._keep_payment(peer, amount_mc, reference)
        await self._ask(key)
        self._stir.set()
        return key, await self._row(key)

    async def _known(self, peer: str, amount_mc: int, reference: str) -> str:
        """Return the hash of the payment to ``peer`` of that reference, or nothing."""
        for key, row in (await self.rows()).items():
            mine = (row.peer, row.kind, row.reference) == (peer, "paid", reference)
            if not mine or row.state in {"refused", "lapsed"}:
                continue
            if row.amount_mc != amount_mc:
                raise KeyReused(
                    f"{reference!r} is the payment of {row.amount_mc} mc to {peer}",
                    hint="give another note for another payment",
                )
            return key
        return ""

    async def _keep_payment(self, peer: str, amount_mc: int, reference: str) -> str:
        signer = self._context.signer
        header = signer.header(peer, Topic(), lifetime_ms=PAYMENT_LIFETIME_MS)
        envelope = signer.sign(
            Payment(
                h=header,
                amount_mc=amount_mc,
                method=self._port.method,
                reference=reference,
            )
        )
        row = Settled(
            peer=peer,
            kind="paid",
            amount_mc=amount_mc,
            reference=reference,
            state="sent",
            at_ms=self._context.clock.now_ms(),
            expires_ms=header.expires_ms,
            envelope=envelope,
        )
        key = digest(envelope).hex()
        async with self._lock:
            await self._keep(key, row)
        return key

    async def _ask(self, key: str) -> None:
        """Tell the payee of a payment, and write down what it makes of it."""
        row = self._rows.get(key)
        if row is None:
            return
        state: State | None = None  # as it was: somebody else may have asked meanwhile
        answer = b""
        try:
            raw = await self._sessions.request(
                row.peer, PAYMENT, row.envelope, timeout_s=_ASK_TIMEOUT_S
            )
            told = self._answer(key, row, raw)
            state, text, answer = told.state, told.text, raw
        except RequestFailed as exc:
            text = str(exc)
            if exc.failure == ErrorCode.EXPIRED:  # and it was never seen there
                state = "lapsed"
        except (MeshError, RemoteProtocolError) as exc:
            text = str(exc)
        async with self._lock:
            await self._turn(key, state, text=text, answer=answer)
        if state == "settled":
            self._paid(row.peer)

    def _is_worth_asking(self, row: Settled) -> bool:
        """Nobody is dialled for ever: after a day, who is away is not."""
        young = self._context.clock.now_ms() < row.at_ms + _DIALLED_MS
        return young or row.peer in self._sessions.connected()

    def _answer(self, key: str, row: Settled, raw: bytes) -> PaymentAnswer:
        if len(raw) > TERMS_BYTES_MAX:
            raise TooLarge(len(raw), TERMS_BYTES_MAX)
        answer = read_message(raw, PaymentAnswer, network=self._context.network)
        if answer.h.issuer != row.peer or answer.payment.hex() != key:
            raise Malformed("the answer is another's, or to another payment")
        return answer

    # --- the payee ---

    async def _on_payment(self, incoming: Incoming) -> bytes:
        """Answer how a payment stands; one that is new is looked for."""
        if len(incoming.body) > TERMS_BYTES_MAX:
            raise TooLarge(len(incoming.body), TERMS_BYTES_MAX)
        key = digest(incoming.body).hex()
        row = await self._known_here(key)
        if row is None:
            row = await self._look(key, incoming)
        if row.peer != incoming.peer:
            raise Malformed("a payment comes from its issuer")
        state: Literal["settled", "noted", "refused"] = "refused"
        if row.state == "settled" or row.state == "noted":  # noqa: PLR1714 - mypy reads this
            state = row.state
        answer = PaymentAnswer(
            h=self._context.signer.header(
                incoming.peer, Topic(), lifetime_ms=PAYMENT_LIFETIME_MS
            ),
            payment=bytes.fromhex(key),
            state=state,
            text=row.text,
        )
        return self._context.signer.sign(answer)

    async def _known_here(self, key: str) -> Settled | None:
        """Return a payment to this node that it has written down."""
        raw = await self._context.store.read(SETTLEMENTS, key)
        row = None if raw is None else _ROW.decode(raw)
        return row if row is not None and row.kind == "received" else None

    async def _look(self, key: str, incoming: Incoming) -> Settled:
        """Return how a new payment stands; it is written down unless it is refused.

        Who sends it is asked who it is before anybody can wait for that: a stranger may
        take its time.

        Raises:
            Malformed: It is none, or lives too long.
            Busy: Too many wait for this owner already.
            StoreError: It can't be written down.
        """
        payment = self._letters.read(incoming, Payment)
        if payment.h.expires_ms - payment.h.issued_ms > PAYMENT_LIFETIME_MS:
            raise Malformed("a payment lives for a week at most")
        no = await self._door.stranger(incoming.peer)
        ours = payment.method == self._port.method
        text = (
            "" if ours else f"this node settles by {self._port.method}, not by {payment.method}"
        )
        row = Settled(
            peer=incoming.peer,
            kind="received",
            amount_mc=payment.amount_mc,
            reference=payment.reference,
            state="refused",
            at_ms=self._context.clock.now_ms(),
            expires_ms=payment.h.expires_ms,
            envelope=incoming.body,
            text=(text if no is None else no.text)[:HEADER_TEXT_SIZE_MAX],
        )
        if no is not None or not ours:
            return row
        async with self._turns.at(key):
            known = await self._known_here(key)  # it may have come twice at once
            return known or await self._take(key, row)

    async def _take(self, key: str, row: Settled) -> Settled:
        """Look whether a payment came, and write down how it stands unless it is refused."""
        came = await self._port.came(row.peer, row.amount_mc, row.reference)
        if came is None and row.peer in self._believed:
            came = True
        if came is False:
            return row  # who is refused can't make this node write
        row = msgspec.structs.replace(row, state="settled" if came else "noted")
        async with self._lock:
            self._make_sure_of_room(row)
            row = await self._keep(key, row)
            self._received[row.peer] += 1
        return row

    def _make_sure_of_room(self, row: Settled) -> None:
        """Refuse one more payment where there are enough.

        Raises:
            Busy: Too many are kept of this payer, or too many wait for the owner.
        """
        if self._received[row.peer] >= _RECEIVED_OF_ONE_MAX:
            raise Busy(
                f"keeping payments of {row.peer}", retry_after_ms=round(_FORGET_S * 1000)
            )
        if row.state != "noted":
            return
        noted = Counter(each.peer for each in self._rows.values() if each.kind == "received")
        owes = self._ledger.balances.due_mc(row.peer) > 0
        room = _NOTED_MAX if owes else _NOTED_MAX // 2
        if noted[row.peer] >= _NOTED_OF_ONE_MAX or noted.total() >= room:
            raise Busy(
                f"confirming payments of {row.peer}", retry_after_ms=round(_ASK_S * 1000)
            )

    async def _give_up_late(self) -> None:
        """Refuse what nobody confirmed in time: its payer gave it up."""
        for key, row in list(self._rows.items()):
            if row.kind == "received" and self._is_late(row):
                async with self._lock:
                    await self._turn(key, "refused", text=_LATE)

    def _is_late(self, row: Settled) -> bool:
        return self._letters.peer_now_ms(row.peer) >= row.expires_ms

    async def decide(self, key: str, *, came: bool) -> Settled:
        """Confirm a payment that is said to have been made to this node, or deny it.

        Raises:
            NotFound: There is none such that waits for it.
            StoreError: It can't be written down.
        """
        async with self._lock:
            row = self._rows.get(key)
            if row is None or row.kind != "received":
                raise NotFound(
                    f"no payment {key[:12]!r} waits to be confirmed",
                    hint="see `meshnode ledger`",
                )
            if came and self._is_late(row):
                await self._turn(key, "refused", text=_LATE)
                raise NotFound(
                    f"the payment {key[:12]!r} is over a week old: its payer gave it up",
                    hint="ask them to say it again",
                )
            state: State = "settled" if came else "refused"
            return await self._turn(key, state, text="" if came else "it did not come")

    # --- both ---

    async def _turn(
        self, key: str, state: State | None, *, text: str, answer: bytes = b""
    ) -> Settled:
        """Write down how a payment that was open stands now; with the lock held."""
        old = self._rows.get(key)
        if old is None:
            return await self._row(key)  # it was decided meanwhile
        text = text[:HEADER_TEXT_SIZE_MAX]
        state = state or old.state
        if (state, text) == (old.state, old.text):
            return old  # each answer is another message; what they say is what matters
        row: Settled = msgspec.structs.replace(
            old, state=state, text=text, answer=answer or old.answer
        )
        return await self._keep(key, row)

    async def _keep(self, key: str, row: Settled) -> Settled:
        """Write a payment down, and post it with that if it is settled; return what is kept."""
        posting = None
        now_ms = self._context.clock.now_ms()
        if row.state not in _OPEN:
            row = msgspec.structs.replace(row, ended_ms=now_ms)
        if row.state == "settled":
            posting = Posting(
                key=key,
                peer=row.peer,
                kind=row.kind,
                amount_mc=row.amount_mc,
                at_ms=now_ms,
                note=row.reference,
            )
        await self._ledger.commit(posting, Put(SETTLEMENTS, key, encode(row)))
        if row.state in _OPEN:
            self._rows[key] = row
        else:
            self._rows.pop(key, None)
        fields = {"peer": row.peer, "amount_mc": row.amount_mc, "state": row.state}
        self._context.emit(f"settlement.{row.kind}", **fields)
        return row

    async def _row(self, key: str) -> Settled:
        raw = await self._context.store.read(SETTLEMENTS, key)
        if raw is None:
            raise NotFound(f"there is no payment {key[:12]!r} here")
        return _ROW.decode(raw)

    async def rows(self) -> dict[str, Settled]:
        """Return every payment that is kept, by its hash.

        Raises:
            StoreError: They can't be read.
        """
        found = await self._context.store.scan(SETTLEMENTS, count_max=_ROWS_MAX)
        return {key: _ROW.decode(raw) for key, raw in found}

    async def forget_old(self) -> None:
        """Forget what was decided longer ago than history is kept; balances hold it.

        What this node refused is forgotten sooner: strangers had it written down.

        Raises:
            StoreError: The disk refused; the rest goes the next time.
        """
        now_ms = self._context.clock.now_ms()
        history_s = max(self._context.config.host.history_s, RECEIPT_S_MIN)
        for key, row in (await self.rows()).items():
            brief = (row.kind, row.state) == ("received", "refused")
            kept_ms = round((RECEIPT_S_MIN if brief else history_s) * 1000)
            if row.state in _OPEN or (row.ended_ms or row.at_ms) >= now_ms - kept_ms:
                continue
            place = await self._context.store.read(POSTINGS, key)
            gone = [] if place is None else forget_rows(key, place)
            await self._context.store.commit(Delete(SETTLEMENTS, key), *gone)
            if row.kind == "received":
                self._received[row.peer] -= 1
        self._received = +self._received
