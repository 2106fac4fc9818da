"""Fencing: of a job with a charter, a contractor works for the newest broker it was shown.

The certificate comes with the award and is written down before the award is taken, so a
restart forgets neither.  It is kept by owner and job, because the charter says whose job
it is; a broker that has lost the job can't be let in again under a charter of its own.

A certificate that proves a later epoch is the only thing that raises what is kept: by an
award's word a stranger could lock a job's broker out.  What is kept goes once the charter
has expired, because then nobody can show an older certificate any more.

Specified in protocol/spec/85-failover.md, "Fencing".
"""

from typing import Final

import msgspec
import trio

from meshnode.domain.failover import Seen, admits, follows
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context
from protocol.charter import Epoch, read_certificate
from protocol.codec import decode_as, encode
from protocol.errors import Malformed, Stale
from protocol.limits import SKEW_MS_MAX
from protocol.messages import Award

#: owner/job -> FenceRow.
FENCES: Final = "fence"
#: Charter's name, hex -> owner/job.
CHARTERS: Final = "fence_charter"
#: Rows that are looked through at once.
_SWEPT_MAX: Final = 1_000_000
#: Earlier brokers of a job that are remembered.
_PAST_MAX: Final = 64


class FenceRow(msgspec.Struct, frozen=True, array_like=True):
    """What a contractor was shown last of a job.

    Attributes:
        epoch: The highest.
        broker: PeerId, whose it is.
        charter: The charter's name.
        expires_ms: When the charter expires.
        past: (epoch, PeerId) of those that were shown under this charter and lost the job.
    """

    epoch: int
    broker: str
    charter: bytes
    expires_ms: int
    past: tuple[tuple[int, str], ...] = ()

    @property
    def seen(self) -> Seen:
        """It, as the rules know it."""
        return Seen(self.epoch, self.broker, self.charter)


_ROW: Final = msgspec.msgpack.Decoder(FenceRow)


class Uncertified(Malformed):
    """An award under a charter that was never shown here: show it, and award again."""


class Fences:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self._store = context.store
        self._clock = context.clock
        self._network = context.network
        self._emit = context.emit
        # One at a time: a lower epoch must not be written over a higher one.
        self._turn = trio.Lock()

    async def check(self, award: Award, certificate: bytes) -> None:
        """Let ``award``, which is under a charter, pass if its broker is the job's newest.

        Args:
            award: Read before.
            certificate: What came with it, or empty if it was shown before.

        Raises:
            Uncertified: Nothing that was shown, now or before, is about its charter.
            Stale: A later epoch was seen, or this one is another broker's.
            RemoteProtocolError: The certificate doesn't hold, or is of another job.
        """
        award_of = Seen(award.h.epoch, award.h.issuer, award.h.charter)
        async with self._turn:
            seen = await self._seen(award.h.charter)
            if certificate and not admits(seen, award_of):
                seen = await self._show(award, certificate)
        if seen is None:
            raise Uncertified("no certificate was shown for this charter")
        if not admits(seen, award_of):
            raise Stale(f"epoch {award.h.epoch} of job {award.h.job}: {seen.epoch} was seen")

    async def current(self, charter: bytes) -> Seen | None:
        """Return the newest broker that was shown of the job with that charter."""
        return await self._seen(charter)

    async def is_broker(self, charter: bytes, epoch: int, peer: str) -> bool:
        """Tell whether ``peer`` was shown to be the broker of ``epoch``, and none later was."""
        return admits(await self._seen(charter), Seen(epoch, peer, charter))

    async def was_broker(self, charter: bytes, epoch: int, peer: str) -> bool:
        """Tell whether ``peer`` was shown to be the broker of ``epoch``, the newest or not."""
        key = await self._store.read(CHARTERS, charter.hex())
        row = None if key is None else await self._row(key.decode())
        if row is None or row.charter != charter:
            return False
        return (epoch, peer) in {(row.epoch, row.broker), *row.past}

    async def show(self, certificate: bytes, peer: str) -> Seen:
        """Keep that ``peer`` is a job's newest broker, if the job is known here.

        Raises:
            Uncertified: Nothing was ever awarded here under its charter.
            Stale: A later epoch was seen, or this one is another broker's.
            RemoteProtocolError: The certificate doesn't hold, or is another's.
        """
        won = read_certificate(certificate, network=self._network, now_ms=self._clock.now_ms())
        shown = Seen(won.epoch, won.broker, won.chartered.name)
        if won.broker != peer:
            raise Malformed("a certificate is shown by its broker")
        async with self._turn:
            # Only then: a stranger's charters would fill the disk.
            if await self._seen(shown.charter) is None:
                raise Uncertified("nothing was awarded here under this charter")
            return await self._keep(won, shown)

    async def _seen(self, charter: bytes) -> Seen | None:
        key = await self._store.read(CHARTERS, charter.hex())
        row = None if key is None else await self._row(key.decode())
        return None if row is None else row.seen

    async def _row(self, key: str) -> FenceRow | None:
        raw = await self._store.read(FENCES, key)
        return None if raw is None else decode_as(raw, _ROW)

    async def _show(self, award: Award, certificate: bytes) -> Seen:
        """Keep what ``certificate`` proves, if it is about ``award`` and not too late."""
        won = read_certificate(certificate, network=self._network, now_ms=self._clock.now_ms())
        shown = Seen(won.epoch, won.broker, won.chartered.name)
        charter = won.chartered.charter
        if (charter.job, shown.charter) != (award.h.job, award.h.charter):
            raise Malformed("the certificate is of another job or charter than the award")
        return await self._keep(won, shown)

    async def _keep(self, won: Epoch, shown: Seen) -> Seen:
        """Write down whose epoch ``won`` is, unless a later one was seen."""
        charter = won.chartered.charter
        key = f"{charter.owner}/{charter.job}"
        kept = await self._row(key)
        if not follows(None if kept is None else kept.seen, shown):
            if kept is not None and kept.charter == shown.charter and shown.epoch < kept.epoch:
                # It can't go on with the job, and owes what it accepted in its time.
                row = msgspec.structs.replace(kept, past=_with(kept.past, shown))
                await self._store.commit(Put(FENCES, key, encode(row)))
            raise Stale(f"epoch {shown.epoch} of job {charter.job} is over, or another's")
        past: tuple[tuple[int, str], ...] = ()
        if kept is not None and kept.charter == shown.charter:
            past = kept.past if kept.seen == shown else _with(kept.past, kept.seen)
        writes: list[Write] = [*_puts(key, won, past)]
        if kept is not None and kept.charter != shown.charter:
            writes.append(Delete(CHARTERS, kept.charter.hex()))
        await self._store.commit(*writes)
        self._emit("epoch.shown", job=charter.job, epoch=shown.epoch, broker=shown.broker)
        return shown

    async def forget_old(self) -> None:
        """Forget jobs whose charters have expired for everyone."""
        now_ms = self._clock.now_ms()
        for key, _ in await self._store.scan(FENCES, count_max=_SWEPT_MAX):
            async with self._turn:  # a later charter may take its place meanwhile
                row = await self._row(key)
                if row is not None and row.expires_ms + 2 * SKEW_MS_MAX <= now_ms:
                    await self._store.commit(
                        Delete(FENCES, key), Delete(CHARTERS, row.charter.hex())
                    )


def _with(past: tuple[tuple[int, str], ...], seen: Seen) -> tuple[tuple[int, str], ...]:
    """Return who were brokers with one more, the newest of them."""
    return tuple(sorted({*past, (seen.epoch, seen.broker)})[-_PAST_MAX:])


def _puts(key: str, won: Epoch, past: tuple[tuple[int, str], ...]) -> list[Put]:
    chartered = won.chartered
    row = FenceRow(won.epoch, won.broker, chartered.name, chartered.charter.expires_ms, past)
    return [Put(FENCES, key, encode(row)), Put(CHARTERS, chartered.name.hex(), key.encode())]
