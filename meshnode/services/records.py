"""Records on their way in and out: this node's own, and others' as they are heard.

A sequence is written down before a record that carries it leaves, and is never below
the clock: neither a crash nor a lost store makes a node sign what others take for old.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshnode.domain.catalogue import Catalogue, Outcome, Verdict
from meshnode.errors import StoreError
from meshnode.ports import Emit, Put, Store, WallClock
from protocol.errors import RemoteProtocolError, Revoked
from protocol.keys import Identity
from protocol.records import (
    Capability,
    CapabilityName,
    NodeRecord,
    open_record,
    sign_record,
)
from protocol.signing import peek

TABLE: Final = "directory"
_SEQUENCE: Final = "sequence"

#: ``news(outcome, source)``: the catalogue took a record.
News = Callable[[Outcome, str], None]


def validate_record(network: str, clock: WallClock) -> Callable[[str, bytes], int | None]:
    """Return ``validate(peer, record)`` for directories: the sequence, or None to refuse."""

    def validate(peer: str, envelope: bytes) -> int | None:
        try:
            record = open_record(envelope, network=network, now_ms=clock.now_ms())
        except RemoteProtocolError:
            return None
        return record.sequence if record.peer == peer else None

    return validate


def names_of(capabilities: Sequence[Capability]) -> list[str]:
    """Return what a node is to be found under: full names, and every prefix of them."""
    names: dict[str, None] = {}
    for capability in capabilities:
        name = CapabilityName.parse(capability.name)
        names[str(name)] = None
        names.update(dict.fromkeys(name.prefixes()))
    return sorted(names)


class OwnRecord:
    """This node's record: signed here, with a sequence that only grows.

    Attributes:
        envelope: The last one signed; empty before the first.
        record: What is in it.
        work: Nonce of a proof of work, for the next ones; empty before there is any.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        network: str,
        clock: WallClock,
        store: Store,
        lifetime_ms: int,
        features: Sequence[str] = (),
    ) -> None:
        self.envelope = b""
        self.record: NodeRecord | None = None
        self._identity = identity
        self._network = network
        self._clock = clock
        self._store = store
        self._lifetime_ms = lifetime_ms
        self._features = list(features)
        self._sequence = 0
        self.work = b""

    async def load(self) -> None:
        """Go on from the sequence that was written down.

        Raises:
            StoreError: What is there is no sequence.
        """
        written = await self._store.read(TABLE, _SEQUENCE)
        if written is None:
            return
        if not written.isdigit():
            raise StoreError(
                f"{TABLE}/{_SEQUENCE} is {written[:20]!r}, not a number",
                hint="the store is damaged: restore it, or start with an empty one",
            )
        self._sequence = max(self._sequence, int(written))

    def outrun(self, sequence: int) -> None:
        """Sign higher than ``sequence`` from now on: others hold it."""
        self._sequence = max(self._sequence, sequence)

    async def sign(self, addresses: Sequence[str], capabilities: Sequence[Capability]) -> bytes:
        """Sign a record that replaces all before it, and return its envelope.

        Raises:
            LocalProtocolError: It breaks a limit; the message says which.
            StoreError: The sequence can't be written down.
        """
        now_ms = self._clock.now_ms()
        return await self._sign(now_ms, now_ms + self._lifetime_ms, addresses, capabilities)

    async def sign_leave(self) -> bytes:
        """Sign that the node is gone: neither addresses nor capabilities.

        It lapses no earlier than the record it replaces: else that one, kept somewhere
        out of reach, would come back after it.
        """
        now_ms = self._clock.now_ms()
        last_ms = self.record.expires_ms if self.record is not None else 0
        self._features = []  # it is nothing for others any more
        return await self._sign(now_ms, max(last_ms, now_ms + 1), (), ())

    async def _sign(
        self,
        now_ms: int,
        expires_ms: int,
        addresses: Sequence[str],
        capabilities: Sequence[Capability],
    ) -> bytes:
        sequence = max(self._sequence + 1, now_ms)
        record = NodeRecord(
            peer=self._identity.peer,
            sequence=sequence,
            issued_ms=now_ms,
            expires_ms=expires_ms,
            addresses=list(addresses),
            x25519=self._identity.x25519_public,
            capabilities=list(capabilities),
            features=self._features,
            work=self.work,
        )
        envelope = sign_record(self._identity, self._network, record)
        self._sequence = sequence
        await self._store.commit(Put(TABLE, _SEQUENCE, str(sequence).encode()))
        self.envelope, self.record = envelope, record
        return envelope


class Intake:
    """Where every record comes in, whoever brought it.

    Attributes:
        catalogue: Where it goes.
        refused: How many were refused, by the code of the rule (``room`` if none).
        ended: Keys whose records are worth nothing.
    """

    def __init__(self, catalogue: Catalogue, *, clock: WallClock, emit: Emit) -> None:
        self.catalogue = catalogue
        self.refused: dict[str, int] = {}
        self.ended: Mapping[str, object] = {}
        self._clock = clock
        self._emit = emit
        self._listeners: list[News] = []

    def on_news(self, listener: News) -> None:
        """Call ``listener`` for every record that the catalogue takes."""
        self._listeners.append(listener)

    def now_ms(self) -> int:
        """Return Unix time, as records are judged by it."""
        return self._clock.now_ms()

    def offer(self, envelope: bytes, *, source: str) -> Outcome:
        """Offer a record to the catalogue, and say what became of it.

        Args:
            envelope: From anywhere.
            source: PeerId of the neighbour that sent it, or ``dht``.
        """
        outcome = self._by_ended(envelope)
        if outcome is None:
            outcome = self.catalogue.offer(envelope, source=source, now_ms=self.now_ms())
        if outcome.reason:
            code = outcome.error.code.name.lower() if outcome.error is not None else "room"
            self.refused[code] = self.refused.get(code, 0) + 1
            self._emit(
                "directory.refused",
                peer=outcome.peer,
                source=source,
                code=code,
                why=outcome.reason,
            )
        for why in outcome.dropped:
            self._emit("directory.capability_dropped", peer=outcome.peer, why=why)
        if outcome.taken:
            self._emit(
                "directory.learned",
                peer=outcome.peer,
                sequence=outcome.sequence,
                source=source,
                how=outcome.verdict.value,
            )
            for listener in self._listeners:
                listener(outcome, source)
        return outcome

    def _by_ended(self, envelope: bytes) -> Outcome | None:
        """Refuse the record in ``envelope`` if it says that it is by a key that has ended."""
        if not self.ended:
            return None
        try:
            peer = peek(envelope).i
        except RemoteProtocolError:
            return None  # the catalogue says what is wrong with it
        if peer not in self.ended:
            return None
        error = Revoked(f"the key {peer} has ended")
        return Outcome(Verdict.REFUSED, error=error, reason=str(error))
