"""The awards that this node took and the results it gave, on disk, and for how long.

A result is kept for as long as its broker may ask for it again or still sends its half
of the receipt; then award and result go, or strangers' work would fill the disk.  What
both sides signed in the end stays among the receipts.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

import msgspec

from meshnode.errors import StoreError
from meshnode.ports import Delete, Put, Store, Write
from meshnode.services.bodies import (
    AWARD_BODY,
    RECEIPTS,
    RESULT_BODY,
    AwardBody,
    ResultBody,
)
from meshnode.services.context import Context
from meshnode.services.fencing import Fences
from meshnode.services.ledger import Ledger
from protocol.codec import decode_as, encode
from protocol.errors import RemoteProtocolError, Stale
from protocol.limits import LIFETIME_MS_MAX, SKEW_MS_MAX
from protocol.messages import Award, read_message
from protocol.signing import peek

_AWARDS: Final = "award"  # award hash -> AwardBody
_RESULTS: Final = "result"  # award hash -> ResultBody
_EPOCHS: Final = "epoch"  # broker/job -> highest epoch seen, and when; 8 bytes each

_OLD_EPOCH_BYTES: Final = 8
#: Epochs that are looked through at once.
_SWEPT_MAX: Final = 1_000_000

#: Past its deadline an award matters for as long as a message about it may hold.
_AFTER_MS: Final = LIFETIME_MS_MAX + 2 * SKEW_MS_MAX
#: The broker's half of the receipt may come late, and needs the award and result to fit.
_UNSETTLED_MS: Final = 7 * 24 * 3_600_000
#: No job lasts longer, whatever deadline a broker names.
_JOB_MS_MAX: Final = 7 * 24 * 3_600_000


#: What lapses otherwise is looked for this often, milliseconds.
_LOOK_MS: Final = 3_600_000
#: So many awards are looked through at once.
_PART_MAX: Final = 1_000
#: Awards, results and epochs in memory, and the largest result among them, bytes.
_REMEMBERED_MAX: Final = 512
_REMEMBERED_BYTES_MAX: Final = 32 * 1024


class _Times(msgspec.Struct, frozen=True):
    issued_ms: int
    deadline_ms: int


class _Timed(msgspec.Struct, frozen=True):
    h: _Times


_TIMES: Final = msgspec.msgpack.Decoder(_Timed)

K = TypeVar("K")
V = TypeVar("V")


async def is_open(store: Store, award: str) -> bool:
    """Tell whether the award of that hash, in hex, was taken here and has no result yet.

    Raises:
        StoreError: The disk refused.
    """
    taken = await store.read(_AWARDS, award) is not None
    return taken and await store.read(_RESULTS, award) is None


class AwardRecords:
    """See the module."""

    def __init__(self, context: Context, *, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store = context.store
        self._clock = context.clock
        self._network = context.network
        self._emit = context.emit
        # What was written lately, for the messages that follow within moments.
        self._taken: OrderedDict[bytes, AwardBody] = OrderedDict()
        self._finished: OrderedDict[bytes, tuple[AwardBody, ResultBody]] = OrderedDict()
        self._epochs: OrderedDict[str, int] = OrderedDict()
        self.fences = Fences(context)
        self._due_ms = 0  # nothing lapses before, as far as is known

    async def take(self, name: bytes, body: AwardBody, row: Sequence[Write]) -> None:
        """Write an award down, with what counts it."""
        self._due_ms = min(self._due_ms, self._clock.now_ms() + _AFTER_MS)
        await self._store.commit(Put(_AWARDS, name.hex(), encode(body)), *row)
        _remember(self._taken, name, body)

    async def finish(self, name: bytes, answer: bytes, keeps: Sequence[Write]) -> None:
        """Write a result down, with what keeps its output."""
        await self._store.commit(Put(_RESULTS, name.hex(), answer), *keeps)
        taken = self._taken.pop(name, None)
        if taken is not None and len(answer) <= _REMEMBERED_BYTES_MAX:
            _remember(self._finished, name, (taken, decode_as(answer, RESULT_BODY)))

    async def answer(self, name: bytes) -> bytes | None:
        """Return what an award was answered with in the end."""
        return await self._store.read(_RESULTS, name.hex())

    async def finished(self, name: bytes) -> tuple[AwardBody, ResultBody] | None:
        """Return an award with its result, if there is one."""
        if (known := self._finished.get(name)) is not None:
            return known
        award = await self._store.read(_AWARDS, name.hex())
        result = await self._store.read(_RESULTS, name.hex())
        if award is None or result is None:
            return None
        return decode_as(award, AWARD_BODY), decode_as(result, RESULT_BODY)

    async def unfinished(self) -> AsyncIterator[tuple[AwardBody, Award]]:
        """Yield what was taken, has no result yet and is still worth something."""
        async for key, raw in self._awards():
            try:
                body, award = self._read(raw)
            except RemoteProtocolError as exc:  # such as of another mesh: not ours to judge
                self._emit("award.unreadable", award=key, why=str(exc))
                continue
            if award.h.deadline_ms <= self._clock.now_ms():
                continue
            if await self._store.read(_RESULTS, key) is None:
                yield body, award

    async def forget_old(self) -> int:
        """Forget what nobody may ask for any more; return how many awards went.

        It costs nothing before something can have lapsed.
        """
        now_ms = self._clock.now_ms()
        if self._due_ms - _LOOK_MS <= now_ms < self._due_ms:  # or the clock was set back
            return 0
        self._due_ms = now_ms + _LOOK_MS  # what is taken meanwhile brings it forward
        try:
            await self._forget_epochs()
            await self.fences.forget_old()
            return await self._forget_awards(now_ms)
        except StoreError:
            self._due_ms = now_ms
            raise

    async def _forget_awards(self, now_ms: int) -> int:
        gone = 0
        async for key, raw in self._awards():
            try:  # only the times: each was checked whole as it came
                times = _TIMES.decode(peek(AWARD_BODY.decode(raw).award).p).h
            except (RemoteProtocolError, msgspec.DecodeError):
                continue  # told at the start
            deadline_ms = min(times.deadline_ms, times.issued_ms + _JOB_MS_MAX)
            settled = await self._store.read(RECEIPTS, key) is not None
            lapses_ms = deadline_ms + (_AFTER_MS if settled else _UNSETTLED_MS)
            if lapses_ms <= now_ms:
                # Its broker never accepted it: that credit is lost, not used up for ever.
                lost = self._ledger.buyers.ending(key, "refused")
                await self._store.commit(Delete(_AWARDS, key), Delete(_RESULTS, key), *lost)
                self._ledger.buyers.ended(key, "refused")
                self._finished.pop(bytes.fromhex(key), None)
                gone += 1
            else:  # one that is settled meanwhile goes within the hour after its time
                self._due_ms = min(self._due_ms, lapses_ms)
        return gone

    async def _forget_epochs(self) -> None:
        """Forget the epochs of jobs that can't run any more."""
        now_ms = self._clock.now_ms()
        for key, raw in await self._store.scan(_EPOCHS, count_max=_SWEPT_MAX):
            if len(raw) == _OLD_EPOCH_BYTES:  # of a version that wrote no time
                await self._store.commit(Put(_EPOCHS, key, raw + now_ms.to_bytes(8, "big")))
            elif int.from_bytes(raw[8:], "big") + 2 * _JOB_MS_MAX <= now_ms:
                await self._store.commit(Delete(_EPOCHS, key))
                self._epochs.pop(key, None)

    async def check_epoch(self, award: Award, certificate: bytes) -> None:
        """Refuse a broker whose job has moved on to a later epoch.

        Without a charter a job is its broker's: nobody else's epochs count for it.  With
        one it is its owner's, and ``certificate`` says whose epoch it is.

        Raises:
            Stale: A later epoch was seen.
            RemoteProtocolError: There is a charter, and no certificate for it that holds.
        """
        if award.h.charter:
            await self.fences.check(award, certificate)
            return
        key = f"{award.h.issuer}/{award.h.job}"
        seen = self._epochs.get(key)
        if seen is None:
            raw = await self._store.read(_EPOCHS, key)
            # Another award of the job may have come meanwhile, and with a later epoch.
            seen = max(int.from_bytes((raw or b"")[:8], "big"), self._epochs.get(key, 0))
            _remember(self._epochs, key, seen)
        if award.h.epoch < seen:
            raise Stale(f"epoch {award.h.epoch} of job {award.h.job}: {seen} was seen")
        if award.h.epoch > seen:
            now_ms = self._clock.now_ms()
            row = award.h.epoch.to_bytes(8, "big") + now_ms.to_bytes(8, "big")
            await self._store.commit(Put(_EPOCHS, key, row))
            _remember(self._epochs, key, max(award.h.epoch, self._epochs.get(key, 0)))

    async def _awards(self) -> AsyncIterator[tuple[str, bytes]]:
        """Yield every award: in parts, so that many of them are never in memory at once."""
        some = await self._store.scan(_AWARDS, count_max=_PART_MAX)
        if len(some) < _PART_MAX:
            for row in some:
                yield row
            return
        for part in "0123456789abcdef":  # a hash begins with any of them
            for row in await self._store.scan(_AWARDS, part, count_max=1_000_000):
                yield row

    def _read(self, raw: bytes) -> tuple[AwardBody, Award]:
        body = decode_as(raw, AWARD_BODY)
        return body, read_message(body.award, Award, network=self._network)


def _remember(among: OrderedDict[K, V], key: K, value: V) -> None:
    among[key] = value
    if len(among) > _REMEMBERED_MAX:
        among.popitem(last=False)
