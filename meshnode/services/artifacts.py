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
from itertools import count
from typing import Final, TypeVar

import msgspec
import outcome
import trio

from meshnode.domain.facts import ArtifactRef
from meshnode.errors import ArtifactError, Busy, StoreError, StreamLost, Unreachable
from meshnode.ports import Delete, Put, Stream, Write
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
    not_held,
)
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.keys import digest
from protocol.messages import Ticket, read_message
from protocol.timely import check_timely

_META: Final = "artifact"  # hash -> _Meta
_CHUNK: Final = "artifact_chunk"  # hash/number -> bytes
_GRANT: Final = "artifact_job"  # hash/PeerId of the job's broker/job -> nothing

_STREAMS_PER_PEER: Final = 32
#: The first message of a stream must be whole within this, seconds.
_HEADER_S: Final = 5.0
#: A transfer slower than this is given up, bytes per second.
_RATE_MIN: Final = 4 * 1024
_MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
_MEMORY_ITEM_MAX: Final = 8 * 1024 * 1024
#: Artifacts on the disk that are known to be what their names say, and jobs that are known
#: to have them.
_NOTED_MAX: Final = 4096
#: Largest artifact that is fetched: it is whole in memory, and its size a peer's claim.
_FETCHED_BYTES_MAX: Final = 256 * 1024 * 1024
#: Where room is short, it is looked for at once.
_GARBAGE_S: Final = 600.0
_ROOM_AGAIN_MS: Final = 60_000

K = TypeVar("K")

#: Where a peer can be dialled.
AddressesOf = Callable[[str], Sequence[str]]
#: A peer's clock minus this node's, milliseconds.
OffsetOf = Callable[[str], int]


class _Meta(msgspec.Struct, frozen=True):
    size: int
    expires_ms: int
    broker: str = ""  # whose room it takes: of the job that it was first kept for


_META_ROW: Final = msgspec.msgpack.Decoder(_Meta)


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
    """

    artifact: bytes
    size: int
    holder: str
    ticket: bytes = b""
    broker: str = ""
    job: str = ""


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
        self._counting = trio.Lock()
        self._stir = trio.Event()  # something was kept since the last look
        self._addresses: AddressesOf = lambda _: ()
        self._offset_ms: OffsetOf = lambda _: 0

    async def run(self) -> None:
        """Serve, and collect garbage, until cancelled."""
        self._transport.serve(PROTOCOL, self._serve, per_peer_max=_STREAMS_PER_PEER)
        while True:
            await trio.sleep(_GARBAGE_S)
            self._stir = trio.Event()
            try:
                await self.collect_garbage()
                if not self._kept_bytes:
                    await self._stir.wait()  # where nothing is kept, nothing lapses
            except StoreError as exc:
                self._emit("artifact.garbage_kept", why=str(exc))

    # --- holding ---

    async def put(self, data: bytes, *, job: str, broker: str) -> ArtifactRef:
        """Keep ``data`` for ``job`` and return its name; the same bytes are kept once.

        Raises:
            ArtifactError: Larger than this node keeps.
            Busy: There is no room until older ones lapse.
            StoreError: The disk refused.
        """
        ref, writes = await self.prepare(data, job=job, broker=broker)
        await self._store.commit(*writes)
        return ref

    async def prepare(
        self, data: bytes, *, job: str, broker: str
    ) -> tuple[ArtifactRef, list[Write]]:
        """Return the name of ``data``, and what keeps it once it is committed.

        So it can be kept in one commit with what names it.

        Raises:
            ArtifactError: Larger than this node keeps.
            Busy: There is no room until older ones lapse.
        """
        if len(data) > min(limits.ARTIFACT_SIZE_MAX, self._config.artifact_bytes_max):
            raise ArtifactError(f"an artifact of {len(data)} bytes is too large to keep here")
        name = digest(data)
        key = name.hex()
        expires_ms = self._clock.now_ms() + int(self._config.artifact_lifetime_s * 1000)
        there = await self._store.read(_META, key)
        payer = broker if there is None else _META_ROW.decode(there).broker
        writes: list[Write] = [
            Put(_META, key, msgspec.msgpack.encode(_Meta(len(data), expires_ms, payer))),
            Put(_GRANT, _grant(name, broker, job), b""),
        ]
        size = limits.CHUNK_SIZE
        chunks = [
            Put(_CHUNK, f"{key}/{number:06}", data[at : at + size])
            for number, at in enumerate(range(0, len(data), size))
        ]
        if there is None:
            await self._take_room(len(data), broker)
            writes += chunks
        self._remember(name, data)
        _note(self._sound, name)
        _note(self._granted, _grant(name, broker, job))
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

    def in_memory(self, artifact: bytes, *, broker: str = "", job: str = "") -> bytes | None:
        """Return the bytes of ``artifact`` if they can be had without looking for them.

        Args:
            artifact: SHA-256.
            broker: For whose job, which must have it; empty for one of this node's own.
            job: Which.
        """
        alien = broker not in {"", self._signer.peer}
        if alien and _grant(artifact, broker, job) not in self._granted:
            return None
        return self._memory.get(artifact)

    async def _is_for(self, wanted: Wanted) -> bool:
        """Tell whether what is held here may be used for a job: else it needs a ticket too.

        A broker that knows a hash would otherwise have this node's agents read to it what
        the holder doesn't give it.
        """
        if wanted.broker in {"", self._signer.peer}:
            return True
        grant = _grant(wanted.artifact, wanted.broker, wanted.job)
        return grant in self._granted or await self._store.read(_GRANT, grant) is not None

    async def local(self, artifact: bytes, *, size: int | None = None) -> bytes | None:
        """Return the bytes of ``artifact`` if they are here.

        Raises:
            ArtifactError: They are not ``size`` bytes; they were not read.
        """
        if (data := self._memory.get(artifact)) is not None:
            _expect(size, len(data), artifact)
            self._memory.move_to_end(artifact)
            return data
        raw = await self._store.read(_META, key := artifact.hex())
        if raw is None:
            return None
        _expect(size, _META_ROW.decode(raw).size, artifact)
        chunks = await self._store.scan(_CHUNK, f"{key}/", count_max=1_000_000)
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
        for key, raw in await self._store.scan(_META, count_max=1_000_000):
            meta = _META_ROW.decode(raw)
            if meta.expires_ms > now_ms:
                kept[meta.broker] += meta.size
                continue
            # The chunks' names follow from the size: they needn't be read to be deleted.
            count = -(-meta.size // limits.CHUNK_SIZE)
            doomed: list[Write] = [Delete(_META, key)]
            doomed += [Delete(_CHUNK, f"{key}/{number:06}") for number in range(count)]
            rows = await self._store.scan(_GRANT, f"{key}/", count_max=1_000_000)
            doomed += [Delete(_GRANT, row) for row, _ in rows]
            if await self._store.read(_META, key) != raw:
                continue  # wanted again meanwhile
            await self._store.commit(*doomed)
            if (dropped := self._memory.pop(bytes.fromhex(key), None)) is not None:
                self._memory_bytes -= len(dropped)
            gone += 1
        self._kept_bytes, self._kept_for = kept.total(), kept
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
        limit_s = min(timeout_s, 2 * _HEADER_S + wanted.size / _RATE_MIN)
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
        self._offset_ms = offset_ms

    # --- serving ---

    async def _serve(self, stream: Stream) -> None:
        body = b""
        try:
            with trio.move_on_after(_HEADER_S):
                body, _ = await first_message(stream)
        except RemoteProtocolError as exc:
            self._emit("artifact.refused", peer=stream.peer, why=str(exc))
        if not body:
            return
        try:
            fetch = decode_message(body)
            if not isinstance(fetch, Fetch):
                await stream.send(not_held(ErrorCode.OUT_OF_TURN, "a fetch comes first"))
                return
            await self._check_reader(fetch, stream.peer)
        except RemoteProtocolError as exc:
            self._emit("artifact.refused", peer=stream.peer, why=str(exc))
            await stream.send(not_held(exc.code, str(exc)))
            return
        except ArtifactError as exc:
            await stream.send(not_held(ErrorCode.REFUSED, str(exc)))
            return
        await self._send(stream, fetch)

    async def _send(self, stream: Stream, fetch: Fetch) -> None:
        """Send what is asked for; from the disk a piece at a time, since it may be large."""
        raw = await self._store.read(_META, fetch.artifact.hex())
        if raw is None:
            await stream.send(not_held(ErrorCode.NOT_FOUND, "it is not held here"))
            return
        size = _META_ROW.decode(raw).size
        with trio.move_on_after(2 * _HEADER_S + size / _RATE_MIN):
            await stream.send(encode_message(Found(size)))
            if (data := self._memory.get(fetch.artifact)) is not None:
                await stream.send(data[fetch.offset :])
            elif not await self._send_chunks(stream, fetch, size):
                # Without an end: the reader is not to take it for all there is.
                self._emit("artifact.damaged", artifact=fetch.artifact.hex())
                return
            await stream.finish()

    async def _send_chunks(self, stream: Stream, fetch: Fetch, size: int) -> bool:
        """Send an artifact from the disk; return whether it was whole and undamaged."""
        async with trio.open_nursery() as nursery:
            ahead, chunks = trio.open_memory_channel[Sequence[tuple[str, bytes]]](0)
            nursery.start_soon(self._read_ahead, fetch.artifact.hex(), ahead)
            # Captured, so that a lost stream leaves the nursery as itself and not in a group.
            sent = await outcome.acapture(self._send_from, chunks, stream, fetch, size)
            nursery.cancel_scope.cancel()
        return sent.unwrap()

    async def _send_from(
        self,
        chunks: trio.MemoryReceiveChannel[Sequence[tuple[str, bytes]]],
        stream: Stream,
        fetch: Fetch,
        size: int,
    ) -> bool:
        at, hashed = 0, sha256()
        is_sound = fetch.artifact in self._sound
        async for some in chunks:
            for _, chunk in some:
                if not is_sound:
                    hashed.update(chunk)
                if (skipped := max(0, fetch.offset - at)) < len(chunk):
                    await stream.send(chunk[skipped:])
                at += len(chunk)
        if at != size or not (is_sound or hashed.digest() == fetch.artifact):
            return False
        _note(self._sound, fetch.artifact)
        return True

    async def _read_ahead(
        self, key: str, ahead: trio.MemorySendChannel[Sequence[tuple[str, bytes]]]
    ) -> None:
        """Read the chunks of an artifact while those before them are being sent.

        Ten at once: a look into the store takes a thread, and a few megabytes are no burden.
        """
        async with ahead:
            for number in count():
                try:
                    ten = await self._store.scan(_CHUNK, f"{key}/{number:05}")
                except StoreError as exc:
                    self._emit("artifact.unreadable", artifact=key, why=str(exc))
                    return
                await ahead.send(ten)
                if len(ten) < 10:  # noqa: PLR2004 - as above
                    return

    async def _check_reader(self, fetch: Fetch, reader: str) -> None:
        """Let pass whom the broker of one of the artifact's jobs lets read it, and that broker.

        Raises:
            ArtifactError: Nobody gave ``reader`` the right.
            RemoteProtocolError: The ticket doesn't hold.
        """
        key = fetch.artifact.hex()
        if not fetch.ticket:
            if await self._store.scan(_GRANT, f"{key}/{reader}/", count_max=1):
                return
            raise ArtifactError("a ticket of its job's broker is needed")
        ticket = read_message(fetch.ticket, Ticket, network=self._signer.network)
        issuer_now_ms = self._clock.now_ms() + self._offset_ms(ticket.h.issuer)
        check_timely(ticket, audience=reader, now_ms=issuer_now_ms)
        if (ticket.artifact, ticket.holder) != (fetch.artifact, self._signer.peer):
            raise ArtifactError("the ticket is for another artifact or holder")
        # A job is its broker's: the same id from another broker is another job.
        grant = _grant(fetch.artifact, ticket.h.issuer, ticket.h.job)
        if await self._store.read(_GRANT, grant) is None:
            raise ArtifactError("the ticket is not from the broker of a job that has it")


def _grant(artifact: bytes, broker: str, job: str) -> str:
    """Return the key of what says that a job has an artifact."""
    return f"{artifact.hex()}/{broker}/{job}"


def _note(noted: OrderedDict[K, None], key: K) -> None:
    noted[key] = None
    if len(noted) > _NOTED_MAX:
        noted.popitem(last=False)


def _expect(size: int | None, found: int, artifact: bytes) -> None:
    if size is not None and size != found:
        told = f"artifact {artifact.hex()[:12]} has {found} bytes, not {size} as was said"
        raise ArtifactError(told)
