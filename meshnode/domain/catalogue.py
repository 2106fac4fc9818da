"""What this node knows of others: the newest record of each peer, and who brought it.

Anybody may make any number of keys, sign records with them and pass them on, so room
is given out by *source* (the neighbour that brought a record first): each may bring
so many and no more.  And nothing is ever put out to let something else in, except a
record that this node itself found wrong, by a failed dial: whoever floods a catalogue
fills his own share of it, and no honest record goes.

What was here and lapsed is remembered for a while by its sequence alone, so that a
neighbour whose clock is behind doesn't bring it back over and over.

Two records of one peer with one sequence are the same record, whichever came first: an
honest node never signs two.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

import msgspec

from meshnode.domain.offered import usable_record
from protocol import limits
from protocol.catalogue import (
    HAVE_MAX,
    RECORDS_BYTES_MAX,
    RECORDS_MAX,
    Digest,
    Push,
    summary,
)
from protocol.codec import decode_as
from protocol.errors import Expired, RemoteProtocolError, Revoked
from protocol.records import Capability, CapabilityName, NodeRecord, open_record
from protocol.signing import peek

#: How long a lapsed record's sequence is remembered: two clocks may be this far apart.
GONE_MS: Final = 2 * limits.SKEW_MS_MAX
#: How long a source isn't asked again for what there was no room for.
DECLINED_MS: Final = 300_000
#: Questions of which it is remembered who was found.
_FOUND_MAX: Final = 64

_RECORD: Final = msgspec.msgpack.Decoder(NodeRecord)


@dataclass(frozen=True, slots=True)
class Room:
    """How much a catalogue holds.

    Attributes:
        records_max: Peers; no more than one pull can name.
        bytes_max: Bytes of all envelopes.
        source_records_max: Peers of which one source brought the record.
        source_bytes_max: Bytes of those.
    """

    records_max: int = HAVE_MAX
    bytes_max: int = 64 * 1024 * 1024
    source_records_max: int = HAVE_MAX // 4
    source_bytes_max: int = 16 * 1024 * 1024


class Verdict(Enum):
    """What became of a record that was offered."""

    NEW = "new"
    NEWER = "newer"
    SAME = "same"
    STALE = "stale"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a record, and why.

    Attributes:
        verdict: In one word.
        peer: Whose record it is; empty unless its signature was checked.
        sequence: Its sequence; 0 likewise.
        record: What is held of ``peer`` now, if it was taken.
        error: The rule that it broke.
        reason: Why it was refused, for people.
        dropped: Reasons why some of what its capabilities say can't be used.
    """

    verdict: Verdict
    peer: str = ""
    sequence: int = 0
    record: NodeRecord | None = None
    error: RemoteProtocolError | None = None
    reason: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether the catalogue has changed."""
        return self.verdict in {Verdict.NEW, Verdict.NEWER}

    @property
    def blames_source(self) -> bool:
        """Whether no honest node would have passed the record on.

        Being late is nobody's fault: clocks differ, and news takes its time.
        """
        return self.error is not None and not isinstance(self.error, Expired | Revoked)


@dataclass(slots=True)
class _Held:
    envelope: bytes
    record: NodeRecord
    source: str
    offers: list[tuple[CapabilityName, Capability]]
    demotions: int = 0


@dataclass(slots=True)
class _Share:
    """What one source has brought."""

    records: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Memory:
    """A sequence that isn't wanted until then."""

    sequence: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class _Found:
    """Who offers something, as it stays from one time to another unless a record changes."""

    since_ms: int
    until_ms: float
    rows: list[tuple[NodeRecord, Capability]]


@dataclass(slots=True)
class Catalogue:
    """The newest record of each peer that counts.

    Attributes:
        own: This node's PeerId; its own record always has room.
        network: The mesh; records of others are refused.
        room: How much is held.
    """

    own: str
    network: str
    room: Room = Room()
    _held: dict[str, _Held] = field(default_factory=dict)
    _shares: dict[str, _Share] = field(default_factory=dict)
    _size_bytes: int = 0
    _index: dict[str, dict[str, None]] = field(default_factory=dict)
    _gone: dict[str, _Memory] = field(default_factory=dict)
    _declined: dict[str, dict[str, _Memory]] = field(default_factory=dict)
    _found: dict[CapabilityName, _Found] = field(default_factory=dict)
    _summed: tuple[int, float, Digest] | None = None

    # --- taking ---

    def offer(self, envelope: bytes, *, source: str, now_ms: int) -> Outcome:
        """Take the record in ``envelope`` if it is valid, newer and there is room.

        Args:
            envelope: Signed record, from anywhere.
            source: Who brought it: a neighbour's PeerId, or ``dht``.
            now_ms: Unix time.
        """
        try:
            if (same := self._unchanged(envelope, now_ms)) is not None:
                return same
            record = open_record(envelope, network=self.network, now_ms=now_ms)
        except Expired as exc:
            # Its signature held, or another rule would have been named: so it is told apart.
            late = decode_as(peek(envelope).p, _RECORD)
            self._decline(source, late, now_ms)
            return Outcome(
                Verdict.REFUSED, late.peer, late.sequence, error=exc, reason=str(exc)
            )
        except RemoteProtocolError as exc:
            return Outcome(Verdict.REFUSED, error=exc, reason=str(exc))
        return self._offer(envelope, record, source, now_ms)

    def _unchanged(self, envelope: bytes, now_ms: int) -> Outcome | None:
        """Recognise the very bytes that are held: a flood brings most records twice."""
        if len(envelope) > limits.RECORD_SIZE_MAX:
            return None
        held = self._held.get(peek(envelope).i)
        if held is None or held.envelope != envelope or not _counts(held.record, now_ms):
            return None
        return Outcome(Verdict.SAME, held.record.peer, held.record.sequence, held.record)

    def _offer(self, envelope: bytes, record: NodeRecord, source: str, now_ms: int) -> Outcome:
        peer, sequence = record.peer, record.sequence
        held = self._held.get(peer)
        gone = self._gone.get(peer)
        if held is not None and held.record.sequence == sequence:
            return Outcome(Verdict.SAME, peer, sequence, held.record)
        if (held is not None and held.record.sequence > sequence) or (
            gone is not None and gone.until_ms > now_ms and gone.sequence >= sequence
        ):
            return Outcome(Verdict.STALE, peer, sequence)
        # Who brought a peer first answers for it: else a flooder whose records are
        # renewed through others would have his share free for more.
        payer = held.source if held is not None else source
        if reason := self._no_room(peer, payer, len(envelope), now_ms):
            self._decline(source, record, now_ms)
            return Outcome(Verdict.REFUSED, peer, sequence, reason=reason)
        was_held = self._held.get(peer) is not None
        if was_held:
            self._remove(peer)
        usable, dropped = usable_record(record)
        self._put(_Held(envelope, usable, payer, _offers(usable)))
        verdict = Verdict.NEWER if was_held else Verdict.NEW
        return Outcome(verdict, peer, sequence, usable, dropped=dropped)

    def _no_room(self, peer: str, payer: str, size_bytes: int, now_ms: int) -> str:
        """Return why ``size_bytes`` of ``peer`` can't be held, or make room for them."""
        if peer == self.own:
            return ""
        if self._shortage(peer, payer, size_bytes):
            self.sweep(now_ms=now_ms)
        while short := self._shortage(peer, payer, size_bytes):
            among = payer if short == _SHARE_USED else None
            victim = self._useless(peer, among)
            if victim is None:
                return short
            self._forget(victim, until_ms=now_ms + DECLINED_MS)
        return ""

    def _shortage(self, peer: str, payer: str, size_bytes: int) -> str:
        held = self._held.get(peer)
        more, more_bytes = 1, size_bytes
        if held is not None:
            more, more_bytes = 0, size_bytes - len(held.envelope)
        if more_bytes <= 0 and more == 0:
            return ""
        share, room = self._shares.get(payer, _Share()), self.room
        if (
            share.records + more > room.source_records_max
            or share.size_bytes + more_bytes > room.source_bytes_max
        ):
            return _SHARE_USED
        if (
            len(self._held) + more > room.records_max
            or self._size_bytes + more_bytes > room.bytes_max
        ):
            return _FULL
        return ""

    def _useless(self, wanted: str, source: str | None) -> str | None:
        """Return who may be put out: demoted by this node, longest due first."""
        demoted = [
            (held.record.expires_ms, peer)
            for peer, held in self._held.items()
            if held.demotions and peer not in {self.own, wanted}
            if source is None or held.source == source
        ]
        return min(demoted)[1] if demoted else None

    def _decline(self, source: str, record: NodeRecord, now_ms: int) -> None:
        declined = self._declined.setdefault(source, {})
        declined.pop(record.peer, None)
        declined[record.peer] = _Memory(record.sequence, now_ms + DECLINED_MS)
        if len(declined) > self.room.records_max:
            del declined[next(iter(declined))]

    def _put(self, held: _Held) -> None:
        peer = held.record.peer
        self._held[peer] = held
        share = self._shares.setdefault(held.source, _Share())
        share.records += 1
        share.size_bytes += len(held.envelope)
        self._size_bytes += len(held.envelope)
        self._gone.pop(peer, None)
        self._found.clear()
        self._summed = None
        for prefix in _prefixes(held):
            self._index.setdefault(prefix, {})[peer] = None

    def _remove(self, peer: str) -> None:
        held = self._held.pop(peer)
        self._found.clear()
        self._summed = None
        share = self._shares[held.source]
        share.records -= 1
        share.size_bytes -= len(held.envelope)
        if not share.records:
            del self._shares[held.source]
        self._size_bytes -= len(held.envelope)
        for prefix in _prefixes(held):
            peers = self._index[prefix]
            del peers[peer]
            if not peers:
                del self._index[prefix]

    def _forget(self, peer: str, *, until_ms: int) -> None:
        """Let go of ``peer``, but for its sequence."""
        sequence = self._held[peer].record.sequence
        self._remove(peer)
        self._gone[peer] = _Memory(sequence, until_ms)
        if len(self._gone) > self.room.records_max:
            del self._gone[next(iter(self._gone))]

    # --- letting go ---

    def sweep(self, *, now_ms: int) -> Sequence[str]:
        """Let go of what has expired, and return whose records those were."""
        expired = [p for p, held in self._held.items() if not _counts(held.record, now_ms)]
        for peer in expired:
            self._forget(peer, until_ms=now_ms + GONE_MS)
        self._gone = _still(self._gone, now_ms)
        for source in list(self._declined):
            kept = _still(self._declined[source], now_ms)
            if kept:
                self._declined[source] = kept
            else:
                del self._declined[source]
        return sorted(expired)

    def drop(self, peer: str, *, now_ms: int) -> None:
        """Let go of ``peer``, if it is held."""
        if peer in self._held:
            self._forget(peer, until_ms=now_ms + GONE_MS)

    def demote(self, peer: str) -> None:
        """Note that a dial failed: ``peer`` comes last, and first goes if room is short."""
        if (held := self._held.get(peer)) is not None:
            held.demotions += 1
            self._found.clear()

    def revive(self, peer: str) -> None:
        """Note that there is a session with ``peer``: whatever failed before is over."""
        if (held := self._held.get(peer)) is not None and held.demotions:
            held.demotions = 0
            self._found.clear()

    # --- knowing ---

    def record(self, peer: str, *, now_ms: int) -> NodeRecord | None:
        """Return the record of ``peer``, if one that counts is here."""
        held = self._held.get(peer)
        return held.record if held is not None and _counts(held.record, now_ms) else None

    def is_demoted(self, peer: str) -> bool:
        """Tell whether a dial of ``peer`` failed since its record came."""
        held = self._held.get(peer)
        return held is not None and held.demotions > 0

    def records(self, *, now_ms: int) -> list[NodeRecord]:
        """Return the record of every peer, in order of PeerId; who has left is left out."""
        return [
            held.record
            for _, held in sorted(self._held.items())
            if _counts(held.record, now_ms) and not has_left(held.record)
        ]

    def providers(
        self, query: CapabilityName, *, now_ms: int
    ) -> list[tuple[NodeRecord, Capability]]:
        """Return who offers what ``query`` covers: undemoted first, by PeerId, by agent.

        A job asks the same again at every turn, so what was found is kept while it holds.
        """
        found = self._found.get(query)
        if found is None or not found.since_ms <= now_ms < found.until_ms:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            found = self._found[query] = self._find(query, now_ms)
        return list(found.rows)

    def _find(self, query: CapabilityName, now_ms: int) -> _Found:
        holding = [
            held
            for peer in self._index.get(query.path, {})
            for held in [self._held[peer]]
            if _counts(held.record, now_ms)
        ]
        rows = [
            (held.demotions > 0, held.record.peer, capability.agent, held.record, capability)
            for held in holding
            for name, capability in held.offers
            if query.covers(name)
        ]
        rows.sort(key=lambda row: row[:3])
        until_ms = min((_counts_until_ms(held.record) for held in holding), default=inf)
        return _Found(now_ms, until_ms, [(record, able) for *_, record, able in rows])

    # --- comparing ---

    def sequences(self, *, now_ms: int) -> dict[str, int]:
        """Return the sequence of each peer's record."""
        return {
            peer: held.record.sequence
            for peer, held in sorted(self._held.items())
            if _counts(held.record, now_ms)
        }

    def digest(self, *, now_ms: int) -> Digest:
        """Return what two catalogues compare; kept while it holds, as all ask for it."""
        if self._summed is None or not self._summed[0] <= now_ms < self._summed[1]:
            counts = (_counts_until_ms(held.record) for held in self._held.values())
            until_ms = min((ms for ms in counts if ms > now_ms), default=inf)
            self._summed = (now_ms, until_ms, summary(self.sequences(now_ms=now_ms)))
        return self._summed[2]

    def have(self, *, source: str, now_ms: int) -> dict[str, int]:
        """Return what ``source`` need not send: what is here, lapsed or was declined."""
        have = self.sequences(now_ms=now_ms)
        for memories in (self._gone, self._declined.get(source, {})):
            for peer, memory in memories.items():
                if memory.until_ms > now_ms:
                    have[peer] = max(memory.sequence, have.get(peer, 0))
        return dict(sorted(have.items())[:HAVE_MAX])

    def lacks(self, have: Mapping[str, int], *, source: str, now_ms: int) -> bool:
        """Tell whether ``source``, who has ``have``, could bring something."""
        here = self.have(source=source, now_ms=now_ms)
        return any(sequence > here.get(peer, -1) for peer, sequence in have.items())

    def answer(self, have: Mapping[str, int], *, now_ms: int) -> Push:
        """Return what a peer that has ``have`` lacks, as much as one message holds."""
        return self.push(
            peer
            for peer, sequence in self.sequences(now_ms=now_ms).items()
            if sequence > have.get(peer, -1)
        )

    def push(self, peers: Iterable[str]) -> Push:
        """Return the records of ``peers``, as many as one message holds, in that order."""
        records: list[bytes] = []
        size_bytes = 0
        for peer in peers:
            held = self._held.get(peer)
            if held is None:
                continue
            size_bytes += len(held.envelope)
            if len(records) == RECORDS_MAX or size_bytes > RECORDS_BYTES_MAX:
                return Push(records=records, more=True)
            records.append(held.envelope)
        return Push(records=records)


_SHARE_USED: Final = "its source has brought as many records as it may"
_FULL: Final = "the catalogue is full"


def has_left(record: NodeRecord) -> bool:
    """Tell whether ``record`` says that its node is no longer there."""
    return not record.addresses and not record.capabilities


def _counts(record: NodeRecord, now_ms: int) -> bool:
    """Tell whether ``record`` would still be taken: the rule of :func:`open_record`."""
    return now_ms < _counts_until_ms(record)


def _counts_until_ms(record: NodeRecord) -> int:
    return record.expires_ms + limits.SKEW_MS_MAX


def _still(memories: dict[str, _Memory], now_ms: int) -> dict[str, _Memory]:
    return {peer: memory for peer, memory in memories.items() if memory.until_ms > now_ms}


def _offers(record: NodeRecord) -> list[tuple[CapabilityName, Capability]]:
    return [(CapabilityName.parse(c.name), c) for c in record.capabilities]


def _prefixes(held: _Held) -> dict[str, None]:
    return {prefix: None for name, _ in held.offers for prefix in name.prefixes()}
