"""Serving artifacts: to the broker of a job that has them, and to whom it gives a ticket.

Specified in protocol/spec/70-artifacts.md.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import count
from typing import Final

import outcome
import trio

from meshnode.errors import ArtifactError, StoreError
from meshnode.ports import Stream
from meshnode.services.artifact_rows import CHUNK, GRANT, META, META_ROW, grants, note
from meshnode.services.context import Context
from meshnode.services.fencing import Fences
from meshnode.services.first_message import first_message
from protocol.artifacts import (
    PROTOCOL,
    Fetch,
    Found,
    decode_message,
    encode_message,
    not_held,
)
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.messages import Ticket, read_message
from protocol.timely import check_timely

_STREAMS_PER_PEER: Final = 32
#: The first message of a stream must be whole within this, seconds.
HEADER_S: Final = 5.0
#: A transfer slower than this is given up, bytes per second.
RATE_MIN: Final = 4 * 1024

#: A peer's clock minus this node's, milliseconds.
OffsetOf = Callable[[str], int]


class ArtifactServing:
    """See the module.

    Attributes:
        offset_ms: What judges the tickets of brokers whose clocks are off.
    """

    def __init__(
        self,
        context: Context,
        *,
        memory: Mapping[bytes, bytes],
        sound: OrderedDict[bytes, None],
    ) -> None:
        """Serve what is in the store.

        Args:
            context: This node.
            memory: Those that needn't be read, by hash.
            sound: Those on the disk that are known to be what their names say; added to.
        """
        self._signer = context.signer
        self._transport = context.transport
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._memory = memory
        self._sound = sound
        self._fences = Fences(context)
        self.offset_ms: OffsetOf = lambda _: 0

    def serve(self) -> None:
        """Answer whoever opens a stream."""
        self._transport.serve(PROTOCOL, self._serve, per_peer_max=_STREAMS_PER_PEER)

    async def _serve(self, stream: Stream) -> None:
        body = b""
        try:
            with trio.move_on_after(HEADER_S):
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
        raw = await self._store.read(META, fetch.artifact.hex())
        if raw is None:
            await stream.send(not_held(ErrorCode.NOT_FOUND, "it is not held here"))
            return
        size = META_ROW.decode(raw).size
        with trio.move_on_after(2 * HEADER_S + size / RATE_MIN):
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
        note(self._sound, fetch.artifact)
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
                    ten = await self._store.scan(CHUNK, f"{key}/{number:05}")
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
            if await self._store.scan(GRANT, f"{key}/{reader}/", count_max=1):
                return
            raise ArtifactError("a ticket of its job's broker is needed")
        ticket = read_message(fetch.ticket, Ticket, network=self._signer.network)
        issuer_now_ms = self._clock.now_ms() + self.offset_ms(ticket.h.issuer)
        check_timely(ticket, audience=reader, now_ms=issuer_now_ms)
        if (ticket.artifact, ticket.holder) != (fetch.artifact, self._signer.peer):
            raise ArtifactError("the ticket is for another artifact or holder")
        if not await self._has(fetch.artifact, ticket):
            raise ArtifactError("the ticket is not from the broker of a job that has it")

    async def _has(self, artifact: bytes, ticket: Ticket) -> bool:
        """Tell whether a job has ``artifact`` whose broker signed ``ticket``."""
        h = ticket.h
        own, *under_charter = grants(artifact, h.issuer, h.job, charter=h.charter)
        if await self._store.read(GRANT, own) is not None:
            return True
        for key in under_charter:
            if await self._store.read(GRANT, key) is not None:
                return await self._fences.is_broker(h.charter, h.epoch, h.issuer)
        return False
