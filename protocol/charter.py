"""Charters and epochs: who may be a job's broker, and how that passes on without a fork.

The owner signs one *charter* for a job.  It names the members, the owner and its
standbys, and a broker of the job is always one of them.  An *epoch* counts the job's
brokers: a member grants each epoch at most once, and who shows *grants* of one epoch by
a majority of the members is that epoch's broker, forever and for everyone.  Two
majorities share a member, so an epoch has one broker; nobody need trust a clock for
that.  The lease in a grant is only what lets a broker stop in time.

Specified in protocol/spec/85-failover.md; vectors in protocol/vectors/charter.json.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from protocol import limits
from protocol.codec import Count, Hash, decode_as, encode
from protocol.errors import Expired, LocalProtocolError, Malformed, TooLarge
from protocol.keys import Identity, digest, public_key
from protocol.messages import Budget
from protocol.signing import seal, unseal

CHARTER: Final = "charter"
GRANT: Final = "grant"

_Epoch = Annotated[int, msgspec.Meta(ge=1, le=limits.NUMBER_MAX)]


class Charter(msgspec.Struct, frozen=True, kw_only=True):
    """The owner's mandate for one job.

    Attributes:
        job: Job id.
        owner: PeerId of whoever signs it.
        standbys: PeerIds that may take the job over, the first one first.
        budget: What all of the job's brokers may spend together.
        first_epoch: Epoch of the first broker; nothing is granted below it.
        lease_ms: How long a grant holds.
        skew_ms: By how much a broker stops before its lease ends.
        issued_ms: Unix time by the owner's clock.
        expires_ms: Unix time from which it is worth nothing.
    """

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.HEADER_TEXT_SIZE_MAX)]
    owner: str
    standbys: list[str]
    budget: Budget
    first_epoch: _Epoch
    lease_ms: Count
    skew_ms: Count
    issued_ms: Count
    expires_ms: Count


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A member, its issuer, makes ``broker`` the job's broker of ``epoch``.

    Attributes:
        charter: Hash of the charter's envelope.
        epoch: Which one.
        broker: PeerId of a member.
        asked_ms: The asker's own time of asking, given back: its lease runs from then.
        until_ms: Until then, by its own clock, the issuer grants no later epoch to another.
    """

    charter: Hash
    epoch: _Epoch
    broker: str
    asked_ms: Count
    until_ms: Count


class Certificate(msgspec.Struct, frozen=True, array_like=True):
    """What proves who is a job's broker of an epoch.

    Attributes:
        charter: The charter's envelope.
        grants: Envelopes by a majority of the members, in the members' order.
    """

    charter: bytes
    grants: list[bytes]


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Body of ``epoch``: grant me this epoch, or prolong it.

    Attributes:
        charter: The charter's envelope.
        epoch: Which one.
        asked_ms: Unix time by the asker's clock.
        segment: Epoch of the newest journal segment that the asker has.
        count: Events of the job that it has, in all segments.
        held: The newest epoch whose broker is known to have had the end that the asker has.
    """

    charter: bytes
    epoch: _Epoch
    asked_ms: Count
    segment: Count
    count: Count
    held: Count = 0


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Answer to ``epoch``: a grant, or what stands against it.

    Attributes:
        grant: Envelope, or empty.
        epoch: The highest epoch that the answerer has granted; 0 beside a grant.
        broker: To whom; empty beside a grant, or where none was granted yet.
        over: The job has ended, and the asker has all that the answerer has: it need not
            ask any more.
    """

    grant: bytes
    epoch: Count
    broker: str
    over: bool = False


@dataclass(frozen=True, slots=True)
class Chartered:
    """A charter that was read and holds.

    Attributes:
        name: SHA-256 of its envelope: what headers, segments and grants call it.
        network: Network id.
        charter: What it says.
    """

    name: bytes
    network: str
    charter: Charter

    @property
    def members(self) -> tuple[str, ...]:
        """Who grants epochs and may be the broker: the owner, then the standbys."""
        return (self.charter.owner, *self.charter.standbys)

    @property
    def majority(self) -> int:
        """Members that it takes to win an epoch."""
        return len(self.members) // 2 + 1


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a certificate proves: who is the job's broker of this epoch."""

    chartered: Chartered
    epoch: int
    broker: str


_CHARTER: Final = msgspec.msgpack.Decoder(Charter)
_GRANT: Final = msgspec.msgpack.Decoder(Grant)
_CERTIFICATE: Final = msgspec.msgpack.Decoder(Certificate)
_ASK: Final = msgspec.msgpack.Decoder(Ask)
_ANSWER: Final = msgspec.msgpack.Decoder(Answer)


# --- charters ---


def sign_charter(identity: Identity, network: str, charter: Charter) -> bytes:
    """Return the signed envelope of ``charter``.

    Raises:
        LocalProtocolError: It is another's, or breaks a rule.
    """
    if charter.owner != identity.peer:
        raise LocalProtocolError("a charter is signed by the job's owner")
    payload = _own(charter, _CHARTER)
    try:
        _check_charter(charter)
    except Malformed as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    return seal(identity, CHARTER, network, payload)


def read_charter(envelope: bytes, *, network: str, now_ms: int) -> Chartered:
    """Return the charter in ``envelope``.

    Args:
        envelope: As its owner signed it.
        network: Network id.
        now_ms: Unix time.

    Raises:
        TooLarge: Over :data:`~protocol.limits.CHARTER_SIZE_MAX`.
        Expired: Its time is over, or it was issued in the future, beyond the skew allowed.
        RemoteProtocolError: Forged, for another mesh, or against the rules.
    """
    _within(envelope, limits.CHARTER_SIZE_MAX)
    parts = unseal(envelope, kind=CHARTER, network=network)
    charter = decode_as(parts.p, _CHARTER)
    _need(charter.owner == parts.i, "it is not signed by the owner that it names")
    _check_charter(charter)
    if now_ms >= charter.expires_ms + limits.SKEW_MS_MAX:
        raise Expired(f"a charter expired at {charter.expires_ms}")
    if charter.issued_ms > now_ms + limits.SKEW_MS_MAX:
        raise Expired(f"a charter was issued in the future, at {charter.issued_ms}")
    return Chartered(digest(envelope), network, charter)


def _check_charter(charter: Charter) -> None:
    members = [charter.owner, *charter.standbys]
    _need(
        limits.STANDBYS_MIN <= len(charter.standbys) <= limits.STANDBYS_MAX,
        "so many standbys can't be",
    )
    _need(len(set(members)) == len(members), "a member stands in it twice")
    for member in members:
        public_key(member)
    _need(
        limits.EPOCH_LEASE_MS_MIN <= charter.lease_ms <= limits.EPOCH_LEASE_MS_MAX,
        "its lease is out of range",
    )
    _need(2 * charter.skew_ms <= charter.lease_ms, "the skew takes over half of the lease")
    lifetime_ms = charter.expires_ms - charter.issued_ms
    _need(0 < lifetime_ms <= limits.CHARTER_LIFETIME_MS_MAX, "its lifetime is out of range")


# --- grants ---


def sign_grant(identity: Identity, chartered: Chartered, grant: Grant) -> bytes:
    """Return the signed envelope of ``grant``; it MUST be written down before it is sent.

    Raises:
        LocalProtocolError: This node is no member, or the grant breaks a rule.
    """
    payload = _own(grant, _GRANT)
    try:
        _check_grant(grant, identity.peer, chartered)
    except Malformed as exc:
        raise LocalProtocolError(f"our own {exc}") from exc
    return seal(identity, GRANT, chartered.network, payload)


def read_grant(envelope: bytes, chartered: Chartered) -> tuple[str, Grant]:
    """Return whose grant under ``chartered`` this is, and what it says.

    Raises:
        TooLarge: Over :data:`~protocol.limits.GRANT_SIZE_MAX`.
        RemoteProtocolError: Forged, of another charter, or not between two members.
    """
    _within(envelope, limits.GRANT_SIZE_MAX)
    parts = unseal(envelope, kind=GRANT, network=chartered.network)
    grant = decode_as(parts.p, _GRANT)
    _check_grant(grant, parts.i, chartered)
    return parts.i, grant


def _check_grant(grant: Grant, issuer: str, chartered: Chartered) -> None:
    _need(grant.charter == chartered.name, "a grant under another charter")
    _need(issuer in chartered.members, "a grant by somebody who is no member")
    _need(grant.broker in chartered.members, "a grant to somebody who is no member")
    _need(grant.epoch >= chartered.charter.first_epoch, "a grant below the first epoch")


# --- certificates ---


def write_certificate(charter: bytes, grants: Sequence[bytes]) -> bytes:
    """Return the body that shows ``grants``, in the members' order, under ``charter``."""
    return encode(Certificate(charter, list(grants)))


def read_certificate(body: bytes, *, network: str, now_ms: int) -> Epoch:
    """Return who is the broker of which job and epoch, as ``body`` proves.

    When the grants' leases end is not looked at: an epoch's broker never changes, and a
    later one shows a higher epoch.

    Raises:
        Malformed: Not such a body; fewer grants than a majority; grants of two epochs or
            brokers; out of order, or two by one member.
        Expired: The charter's time is over.
        RemoteProtocolError: As :func:`read_charter` and :func:`read_grant`.
    """
    certificate = decode_as(body, _CERTIFICATE)
    chartered = read_charter(certificate.charter, network=network, now_ms=now_ms)
    _need(
        chartered.majority <= len(certificate.grants) <= len(chartered.members),
        "it takes the grants of a majority, and not more than there are members",
    )
    grants = [read_grant(envelope, chartered) for envelope in certificate.grants]
    places = [chartered.members.index(issuer) for issuer, _ in grants]
    _need(places == sorted(set(places)), "grants out of order, or two by one member")
    won = {(grant.epoch, grant.broker) for _, grant in grants}
    _need(len(won) == 1, "grants of two epochs or brokers")
    epoch, broker = won.pop()
    return Epoch(chartered, epoch, broker)


# --- asking ---


def read_ask(body: bytes) -> Ask:
    """Return the body of ``epoch``; its charter is not verified yet.

    Raises:
        Malformed: Not such a body.
        TooLarge: Its charter is over the limit.
    """
    ask = decode_as(body, _ASK)
    _within(ask.charter, limits.CHARTER_SIZE_MAX)
    return ask


def read_answer(body: bytes) -> Answer:
    """Return the answer to ``epoch``; its grant is not verified yet.

    Raises:
        Malformed: Not such a body, or both a grant and what stands against it.
        TooLarge: Its grant is over the limit.
    """
    answer = decode_as(body, _ANSWER)
    _within(answer.grant, limits.GRANT_SIZE_MAX)
    _need(not (answer.grant and (answer.epoch or answer.broker)), "either a grant or none")
    return answer


def _own(value: msgspec.Struct, decoder: "msgspec.msgpack.Decoder[Any]") -> bytes:
    payload = encode(value)
    try:
        decoder.decode(payload)  # constructors don't hold the fields' ranges
    except msgspec.ValidationError as exc:
        raise LocalProtocolError(f"our own {type(value).__name__}: {exc}") from exc
    return payload


def _within(data: bytes, size_max: int) -> None:
    if len(data) > size_max:
        raise TooLarge(len(data), size_max)


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"charter: {otherwise}")
