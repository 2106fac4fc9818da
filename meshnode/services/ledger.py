"""The credit ledger of this node: written down with the receipts, and never without them.

A priced receipt and its posting are one commit, at the broker with the charge and at the
contractor with the acceptance, so no crash can part them, and no fsync is added.  The
posting is keyed by the award (:class:`~meshnode.ports.Once`), and the balances are rows
that the store adds to in the same commit, only if the key is new.

In memory are the balances alone.  They are read from their rows at the start, five of
them at most for each peer that was ever paid, however many receipts there were; then they
follow each commit.  Postings are history and go with the receipts
(:mod:`meshnode.services.retention`); balances stay.

Work that costs nothing, and a node's business with itself, make no postings.

Limits look ahead.  A contractor counts what a broker has in work here, and what was
delivered and isn't accepted yet (:mod:`meshnode.services.buyers`), so a broker that never
accepts uses its credit up.  A broker counts the awards that it has out, all jobs together.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import trio

from meshnode.domain.admission import No
from meshnode.domain.ledger import Balances, Kind, Posting, beyond
from meshnode.errors import StoreError
from meshnode.ports import Add, Delete, Once, Put, Write, read_sum
from meshnode.services.buyers import Buyers
from meshnode.services.context import Context
from meshnode.services.served import Served
from protocol.codec import encode

#: Key of a posting -> key of its row in :data:`HISTORY`.
POSTINGS: Final = "posting"
#: ``PeerId/time counted down/key`` -> :class:`~meshnode.domain.ledger.Posting`: the
#: newest of a peer come first.
HISTORY: Final = "ledger"
#: Account -> millicredits.
BALANCES: Final = "balance"

#: Note of what an heir of a job paid for the job's owner.
ADVANCED: Final = "paid for its job"
#: Later than any time in a key.
_TIME_MAX: Final = 10**15 - 1
_ACCOUNTS_MAX: Final = 10_000_000
_POSTING: Final = msgspec.msgpack.Decoder(Posting)


@dataclass(frozen=True, slots=True)
class Books:
    """What is written down of work for others: what was done, and what is owed for it."""

    served: Served
    ledger: "Ledger"


class Ledger:
    """See the module.  :meth:`load` first.

    Attributes:
        buyers: What is delivered and not paid for, and who is good for it.
    """

    def __init__(self, context: Context) -> None:
        self._own = context.peer
        self._store = context.store
        self._clock = context.clock
        self._limits = context.config.ledger
        self._balances = Balances()
        self.buyers = Buyers(context)
        self._promises: dict[str, Mapping[str, int]] = {}  # job -> PeerId -> awards out, mc

    @property
    def balances(self) -> Balances:
        """What is owed, as of the last commit."""
        return self._balances

    async def load(self) -> None:
        """Take up what the balances' rows say.

        Raises:
            StoreError: They can't be read.
        """
        rows = await self._store.scan(BALANCES, count_max=_ACCOUNTS_MAX)
        self._balances = Balances({name: read_sum(raw) for name, raw in rows})
        peers = self._balances.peers()
        await self.buyers.load({p: self._balances.standing(p).earned_mc for p in peers})

    def receipt(
        self, kind: Kind, peer: str, award: bytes, amount_mc: int, *, job: str, unit: str
    ) -> Posting | None:
        """Return the posting of a receipt; None if nothing moves by it.

        Args:
            kind: ``earned`` by this node, or ``spent``.
            peer: The other side.
            award: Its hash.
            amount_mc: As the acceptance says.
            job: Whose work it was.
            unit: Which of its units.
        """
        if not amount_mc or peer == self._own:
            return None
        return Posting(
            key=award.hex(),
            peer=peer,
            kind=kind,
            amount_mc=amount_mc,
            at_ms=self._clock.now_ms(),
            job=job,
            unit=unit,
        )

    def advance(
        self, kind: Kind, peer: str, award: bytes, amount_mc: int, *, job: str, unit: str
    ) -> Posting | None:
        """Return the posting of what an heir paid a contractor for a job's owner.

        The arguments are those of :meth:`receipt`; the award is the contractor's, so the
        posting has a key of its own beside that of the receipt.
        """
        posting = self.receipt(kind, peer, award, amount_mc, job=job, unit=unit)
        if posting is None:
            return None
        return msgspec.structs.replace(posting, key=advance_key(award), note=ADVANCED)

    @staticmethod
    def writes(posting: Posting | None) -> list[Write]:
        """Return what writes a posting down, once, to be committed with what it is about."""
        if posting is None:
            return []
        place = f"{posting.peer}/{_TIME_MAX - posting.at_ms:015}/{posting.key}"
        sums = [Add(BALANCES, name, amount_mc) for name, amount_mc in posting.sides()]
        kept: tuple[Put | Add, ...] = (Put(HISTORY, place, encode(posting)), *sums)
        return [Once(POSTINGS, posting.key, place.encode(), kept)]

    async def commit(self, posting: Posting | None, *writes: Write) -> None:
        """Write ``posting`` down with ``writes``, and take it in; even if cancelled.

        Raises:
            StoreError: The disk refused: nothing was written.
        """
        with trio.CancelScope(shield=True):
            await self._store.commit(*writes, *self.writes(posting))
        self.committed(posting)

    def committed(self, posting: Posting | None) -> None:
        """Take in a posting whose :meth:`writes` somebody else has committed."""
        if posting is not None:
            self._balances.add(posting)

    # --- limits: what others may owe ---

    @property
    def limits_owed(self) -> bool:
        """Whether there is a limit to what others may owe this node."""
        return self._limits.owed_max_mc > 0

    def unwilling(self, peer: str, *, working_mc: int, more_mc: int) -> No | None:
        """Return why ``peer`` may not have ``more_mc`` of work, if that is so.

        Args:
            peer: Who asks.
            working_mc: What it has in work here, at most.
            more_mc: What it would have beside.
        """
        if peer == self._own:
            return None
        return beyond(
            self._limits.owed_max_mc,
            due_mc=self._balances.due_mc(peer),
            reserved_mc=working_mc + self.buyers.waiting_mc(peer),
            more_mc=more_mc,
            payee=self._own,
        )

    def waiting_mc(self, peer: str) -> int:
        """Return what ``peer`` will owe for work that it hasn't accepted yet."""
        return self.buyers.waiting_mc(peer)

    # --- limits: what this node may owe ---

    @property
    def limits_owing(self) -> bool:
        """Whether there is a limit to what this node may owe."""
        return self._limits.owing_max_mc > 0

    def promise(self, job: str, out_mc: Mapping[str, int]) -> None:
        """Say what ``job`` may come to owe each peer for awards that are out; replaces."""
        if out_mc:
            self._promises[job] = out_mc
        else:
            self._promises.pop(job, None)

    def credit(self, peers: Iterable[str]) -> dict[str, int]:
        """Return what may still be awarded to each of ``peers``; nobody where no limit is."""
        limit_mc = self._limits.owing_max_mc
        if not limit_mc:
            return {}
        out: Counter[str] = Counter()
        for promise in self._promises.values():
            out.update(promise)
        return {
            peer: max(0, limit_mc + self._balances.due_mc(peer) - out[peer])
            for peer in peers
            if peer != self._own
        }

    # --- telling ---

    async def history(self, peer: str, *, count_max: int) -> Sequence[Posting]:
        """Return the newest postings with ``peer``, the newest first.

        Raises:
            StoreError: They can't be read.
        """
        found = await self._store.scan(HISTORY, f"{peer}/", count_max=count_max)
        return [read_posting(raw) for _, raw in found]


def advance_key(award: bytes) -> str:
    """Return the key of what an heir paid under the award of that hash."""
    return f"{award.hex()}.advance"


def forget_rows(key: str, place: bytes) -> list[Write]:
    """Return what forgets a posting, by its row in :data:`POSTINGS`; its balances stay."""
    return [Delete(POSTINGS, key), Delete(HISTORY, place.decode())]


def read_posting(raw: bytes) -> Posting:
    """Return the posting in a row.

    Raises:
        StoreError: There is none in it.
    """
    try:
        return _POSTING.decode(raw)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"a row of {HISTORY} is no posting: {exc}") from exc
