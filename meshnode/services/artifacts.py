"""Artifacts: content-addressed bytes, fetched straight from whoever made them.

A holder serves an artifact to a reader with a ticket from the broker of a job that
the artifact belongs to, or to that broker itself.  The reader hashes what comes:
the bytes are right or they are refused, wherever they came from.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from typing import Final

import msgspec
import trio

from meshnode.domain.facts import ArtifactRef
from meshnode.errors import ArtifactError, Busy, StoreError, StreamLost, Unreachable
from meshnode.ports import Delete, Put, Write
from meshnode.services.artifact_rows import (
    CHUNK,
    GRANT,
    META,
    META_ROW,
    Meta,
    grants,
    note,
)
from meshnode.services.artifact_serving import HEADER_S, RATE_MIN, ArtifactServing, OffsetOf
from meshnode.services.artifact_sizes import check_size
from meshnode.services.context import Context
from meshnode.services.first_message import first_message
from meshnode.services.signer import Topic
from protocol import limits
from protocol.artifacts import (
    PROTOCOL,
    Fetch,
    Found,
    NotHeld,
    decode_message,
    encode_message,
)
from protocol.errors import RemoteProtocolError
from protocol.keys import digest
from protocol.messages import Ticket

_MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
_MEMORY_ITEM_MAX: Final = 8 * 1024 * 1024
#: Largest artifact that is fetched: it is whole in memory, and its size a peer's claim.
_FETCHED_BYTES_MAX: Final = 256 * 1024 * 1024
#: What lapses is looked for when something is due, and so often at most and at least.
_GARBAGE_S: Final = (60.0, 600.0)
_ROOM_AGAIN_MS: Final = 60_000

#: Where a peer can be dialled.
AddressesOf = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An artifact to fetch.

    Attributes:
        artifact: SHA-256.
        size: Bytes.
        holder: PeerId that serves it.
        ticket: Signed ticket; empty when this node is the job's broker.
        broker: For whose job; empty for one of this node's own.
        job: Which.
        charter: Its charter's name, or empty.
    """

    artifact: bytes
    size: int
    holder: str
    ticket: bytes = b""
    broker: str = ""
    job: str = ""
    charter: bytes = b""


class Artifacts:
    """What this node holds, serves and fetches."""

    def __init__(self, context: Context) -> None:
        self._signer = context.signer
        self._transport = context.transport
        self._store = context.store
        self._clock = context.clock
        self._config = context.config.host
        self._emit = context.emit
        self._memory: OrderedDict[bytes, bytes] = OrderedDict()
        self._memory_bytes = 0
        self._sound: OrderedDict[bytes, None] = OrderedDict()
        self._granted: OrderedDict[str, None] = OrderedDict()  # the latest of the disk's
        self._kept_bytes: int | None = None  # on disk, as far as is known; None before a look
        self._kept_for: Counter[str] = Counter()  # of those, by broker
        self._soonest_ms = 0  # when what is kept may lapse, as far as is known
        self._counting = trio.Lock()
        self._stir = trio.Event()  # something was kept since the last look
        self._serving = ArtifactServing(context, memory=self._memory, sound=self._sound)
        self._addresses: AddressesOf = lambda _: ()

    async def run(self) -> None:
        """Serve, and collect garbage, until cancelled."""
        self._serving.serve()
        while True:
            await trio.sleep(self._rest_s())
            self._stir = trio.Event()
            try:
                await self.collect_garbage()
                if not self._kept_bytes:
                    await self._stir.wait()  # where nothing is kept, nothing lapses
            except StoreError as exc:
                self._emit("artifact.garbage_kept", why=str(exc))

    def _rest_s(self) -> float:
        """Return how long nothing can lapse: what comes meanwhile lives for a lifetime."""
        due_s = (self._soonest_ms - self._clock.now_ms()) / 1000
        shortest_s, longest_s = _GARBAGE_S
        return max(shortest_s, min(longest_s, due_s, self._config.artifact_lifetime_s))

    # --- holding ---

    async def put(self, data: bytes, *, job: str, broker: str) -> ArtifactRef:
        """Keep ``data`` for ``job`` and return its name; the same bytes are kept once.

        Raises:
            ArtifactTooLarge: Larger than this node keeps.
            Busy: There is no room until older ones lapse.
            StoreError: The disk refused.
        """
        ref, writes = await self.prepare(data, job=job, broker=broker)
        await self._store.commit(*writes)
        return ref

    async def prepare(
        self, data: bytes, *, job: str, broker: str, charter: bytes = b"", payer: str = ""
    ) -> tuple[ArtifactRef, list[Write]]:
        """Return the name of ``data``, and what keeps it once it is committed.

        So it can be kept in one commit with what names it.  Under a charter it is kept for
        the job, whoever its broker is.  It takes the room of ``payer``, or of ``broker``.

        Raises:
            ArtifactTooLarge: Larger than this node keeps.
            Busy: There is no room until older ones lapse.
        """
        check_size(len(data), kept_bytes_max=self._config.artifact_bytes_max)
        name = digest(data)
        key = name.hex()
        expires_ms = self._clock.now_ms() + int(self._config.artifact_lifetime_s * 1000)
        there = await self._store.read(META, key)
        payer = (payer or broker) if there is None else META_ROW.decode(there).broker
        writes: list[Write] = [
            Put(META, key, msgspec.msgpack.encode(Meta(len(data), expires_ms, payer))),
            *(Put(GRANT, key, b"") for key in grants(name, broker, job, charter=charter)),
        ]
        size = limits.CHUNK_SIZE
        chunks = [
            Put(CHUNK, f"{key}/{number:06}", data[at : at + size])
            for number, at in enumerate(range(0, len(data), size))
        ]
        if there is None:
            await self._take_room(len(data), payer)
            writes += chunks
        self._remember(name, data)
        note(self._sound, name)
        for given in grants(name, broker, job, charter=charter):
            note(self._granted, given)
        return ArtifactRef(artifact=name, size=len(data)), writes

    async def _take_room(self, size: int, broker: str) -> None:
        """Count ``size`` bytes as kept; what wasn't written in the end is found out here.

        Raises:
            Busy: They are more than the machine's owner gives to artifacts, or to those of
                one broker.
        """
        async with self._counting:
            if self._kept_bytes is None or self._lacking(size, broker):
                await self.collect_garbage()
            if lacking := self._lacking(size, broker):
                raise Busy(lacking, retry_after_ms=_ROOM_AGAIN_MS)
            self._kept_bytes = (self._kept_bytes or 0) + size
            self._kept_for[broker] += size
            self._stir.set()

    def _lacking(self, size: int, broker: str) -> str:
        """Return which room ``size`` bytes more don't fit into, or nothing."""
        if (self._kept_bytes or 0) + size > self._config.artifact_bytes_max:
            return "the room for artifacts"
        alien = broker != self._signer.peer
        if alien and self._kept_for[broker] + size > self._config.artifact_peer_bytes_max:
            return "the room for one broker's artifacts"
        return ""

    def is_full(self, broker: str) -> bool:
        """Tell whether nothing more can be kept for ``broker``, as far as is known."""
        return bool(self._lacking(1, broker))

    def in_memory(
        self, artifact: bytes, *, broker: str = "", job: str = "", charter: bytes = b""
    ) -> bytes | None:
        """Return the bytes of ``artifact`` if they can be had without looking for them.

        Args:
            artifact: SHA-256.
            broker: For whose job, which must have it; empty for one of this node's own.
            job: Which.
            charter: Its charter's name, or empty.
        """
        alien = broker not in {"", self._signer.peer}
        given = grants(artifact, broker, job, charter=charter)
        if alien and not any(key in self._granted for key in given):
            return None
        return self._memory.get(artifact)

    async def _is_for(self, wanted: Wanted) -> bool:
        """Tell whether what is held here may be used for a job: else it needs a ticket too.

        A broker that knows a hash would otherwise have this node's agents read to it what
        the holder doesn't give it.
        """
        if wanted.broker in {"", self._signer.peer}:
            return True
        given = grants(wanted.artifact, wanted.broker, wanted.job, charter=wanted.charter)
        if any(key in self._granted for key in given):
            return True
        for key in given:
            if await self._store.read(GRANT, key) is not None:
                return True
        return False

    async def local(self, artifact: bytes, *, size: int | None = None) -> bytes | None:
        """Return the bytes of ``artifact`` if they are here.

        Raises:
            ArtifactError: They are not ``size`` bytes; they were not read.
        """
        if (data := self._memory.get(artifact)) is not None:
            _expect(size, len(data), artifact)
            self._memory.move_to_end(artifact)
            return data
        raw = await self._store.read(META, key := artifact.hex())
        if raw is None:
            return None
        _expect(size, META_ROW.decode(raw).size, artifact)
        chunks = await self._store.scan(CHUNK, f"{key}/", count_max=1_000_000)
        data = b"".join(chunk for _, chunk in chunks)
        if digest(data) != artifact:
            self._emit("artifact.damaged", artifact=key)
            return None
        self._remember(artifact, data)
        return data

    def _remember(self, name: bytes, data: bytes) -> None:
        if len(data) > _MEMORY_ITEM_MAX or name in self._memory:
            return
        self._memory[name] = data
        self._memory_bytes += len(data)
        while self._memory_bytes > _MEMORY_BYTES_MAX:
            _, dropped = self._memory.popitem(last=False)
            self._memory_bytes -= len(dropped)

    async def collect_garbage(self) -> int:
        """Forget what is past its time; return how many artifacts went."""
        now_ms = self._clock.now_ms()
        gone = 0
        kept: Counter[str] = Counter()
        soonest_ms = now_ms + round(_GARBAGE_S[1] * 1000)
        for key, raw in await self._store.scan(META, count_max=1_000_000):
            meta = META_ROW.decode(raw)
            if meta.expires_ms > now_ms:
                kept[meta.broker] += meta.size
                soonest_ms = min(soonest_ms, meta.expires_ms)
                continue
            # The chunks' names follow from the size: they needn't be read to be deleted.
            count = -(-meta.size // limits.CHUNK_SIZE)
            doomed: list[Write] = [Delete(META, key)]
            doomed += [Delete(CHUNK, f"{key}/{number:06}") for number in range(count)]
            rows = await self._store.scan(GRANT, f"{key}/", count_max=1_000_000)
            doomed += [Delete(GRANT, row) for row, _ in rows]
            if await self._store.read(META, key) != raw:
                continue  # wanted again meanwhile
            await self._store.commit(*doomed)
            if (dropped := self._memory.pop(bytes.fromhex(key), None)) is not None:
                self._memory_bytes -= len(dropped)
            gone += 1
        self._kept_bytes, self._kept_for = kept.total(), kept
        self._soonest_ms = soonest_ms
        return gone

    # --- granting ---

    def ticket(self, artifact: bytes, *, holder: str, reader: str, topic: Topic) -> bytes:
        """Return a signed ticket that lets ``reader`` fetch ``artifact`` from ``holder``."""
        header = self._signer.header(reader, topic)
        return self._signer.sign(Ticket(h=header, artifact=artifact, holder=holder))

    # --- fetching ---

    async def fetch(self, wanted: Wanted, *, timeout_s: float) -> bytes:
        """Return the artifact's bytes, from here or from its holder, hash-checked.

        Raises:
            ArtifactError: It can't be had: names the artifact, the holder and why.
        """
        if await self._is_for(wanted):
            data = await self.local(wanted.artifact, size=wanted.size)
            if data is not None:
                return data
        short = wanted.artifact.hex()[:12]
        if wanted.size > _FETCHED_BYTES_MAX:
            raise ArtifactError(
                f"artifact {short} of {wanted.size} bytes is too large to be fetched here"
            )
        if wanted.holder == self._transport.peer:
            raise ArtifactError(f"artifact {short} is no longer held here")
        limit_s = min(timeout_s, 2 * HEADER_S + wanted.size / RATE_MIN)
        with trio.move_on_after(limit_s):
            try:
                return await self._fetch(wanted)
            except (StreamLost, Unreachable, RemoteProtocolError) as exc:
                raise ArtifactError(
                    f"artifact {short} could not be fetched from {wanted.holder}: {exc}"
                ) from exc
        raise ArtifactError(
            f"artifact {short} did not come from {wanted.holder} in {limit_s:g} s"
        )

    async def _fetch(self, wanted: Wanted) -> bytes:
        stream = await self._transport.open(
            wanted.holder, PROTOCOL, addresses=self._addresses(wanted.holder)
        )
        try:
            await stream.send(encode_message(Fetch(wanted.ticket, wanted.artifact, 0)))
            await stream.finish()
            body, data = await first_message(stream)
            answer = decode_message(body)
            if isinstance(answer, NotHeld):
                raise ArtifactError(f"{wanted.holder} refuses the artifact: {answer.message}")
            if not isinstance(answer, Found) or answer.size != wanted.size:
                raise ArtifactError(f"{wanted.holder} offers another size than was promised")
            hashed, held, size = sha256(data), BytesIO(), len(data)
            held.write(data)
            while size <= wanted.size and (more := await stream.receive()):
                hashed.update(more)
                held.write(more)  # which hands out what it holds without a copy
                size += len(more)
        finally:
            await stream.aclose()
        if size != wanted.size or hashed.digest() != wanted.artifact:
            self._emit("artifact.mismatch", peer=wanted.holder, artifact=wanted.artifact.hex())
            raise ArtifactError(
                f"{wanted.holder} sent bytes that don't match the artifact's hash"
            )
        return held.getvalue()

    def dial_with(self, addresses: AddressesOf) -> None:
        """Use ``addresses`` to find holders."""
        self._addresses = addresses

    def judge_with(self, offset_ms: OffsetOf) -> None:
        """Use ``offset_ms`` to judge the tickets of brokers whose clocks are off."""
        self._serving.offset_ms = offset_ms


def _expect(size: int | None, found: int, artifact: bytes) -> None:
    if size is not None and size != found:
        told = f"artifact {artifact.hex()[:12]} has {found} bytes, not {size} as was said"
        raise ArtifactError(told)
