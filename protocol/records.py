"""Capability records: what a node signs about itself, and everyone may pass on.

One record per node, under one signature, self-verifying wherever it came from
(the DHT, a neighbour, an invite).  A higher ``sequence`` replaces a lower one; a
record past ``expires_ms`` is worth nothing.  It is a hint: being alive is shown
by a session, being good by receipts.

Specified in protocol/spec/30-records.md; vectors in protocol/vectors/records.json.
"""

import re
from typing import Final

import msgspec
from typing_extensions import override

from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import BadSignature, Expired, LocalProtocolError, Malformed, TooLarge
from protocol.keys import Identity, is_sealing_key
from protocol.likeness import Likeness, check_likeness
from protocol.signing import seal, unseal
from protocol.work import is_nonce

TYPE: Final = "record"

_SEGMENT: Final = r"[a-z][a-z0-9_]{0,39}"
_NAME: Final = re.compile(rf"({_SEGMENT}(?:\.{_SEGMENT})*)(?:@([1-9][0-9]{{0,3}}))?")
_KIND: Final = re.compile(r"[a-z_]{1,20}")
_AGENT: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class CapabilityName(msgspec.Struct, frozen=True):
    """A hierarchical name with a major version: ``text.summarization@1``.

    Attributes:
        path: Dotted lower-case segments, general to special.
        major: Version, or 0 for "any" (only in a query).
    """

    path: str
    major: int = 0

    @classmethod
    def parse(cls, text: str) -> "CapabilityName":
        """Read ``path`` or ``path@major``.

        Raises:
            Malformed: Not such a name; the message shows it.
        """
        match = _NAME.fullmatch(text) if len(text) <= limits.CAPABILITY_NAME_SIZE_MAX else None
        if match is None:
            raise Malformed(
                f"{text[:100]!r} is not a capability name such as text.summarization@1"
            )
        return cls(match[1], int(match[2] or 0))

    def covers(self, other: "CapabilityName") -> bool:
        """Tell whether ``other`` answers a query for this name: same or more special."""
        return self.major in {0, other.major} and (
            other.path == self.path or other.path.startswith(self.path + ".")
        )

    def prefixes(self) -> list[str]:
        """Return the names it is found under, most general first, versions left out."""
        segments = self.path.split(".")
        return [".".join(segments[: n + 1]) for n in range(len(segments))]

    @override
    def __str__(self) -> str:
        return f"{self.path}@{self.major}" if self.major else self.path


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """An example call: input and output as RFC 8785 JSON bytes."""

    input: bytes
    output: bytes


class CallLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may take."""

    concurrency: Count
    timeout_ms: Count
    input_bytes: Count
    output_bytes: Count


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Performance that the node measured itself; a claim that brokers spot-check.

    It counts for a week from ``at_ms`` on (:meth:`holds`), by the reader's clock: who claims
    it doesn't say for how long.

    Attributes:
        samples: Calls measured; 0 means that nothing is claimed.
        latency_ms: Median of one call, milliseconds.
        at_ms: When the newest of them was, Unix time; 0 means that nothing is claimed.
        tokens_per_s: How fast a model writes one answer; 0 for what writes no tokens.
        context_tokens: What a model can hold; 0 where that isn't known.
        tried: Of the capability's examples, how many were run.
        right: How many of those came out as they say.
    """

    samples: Count = 0
    latency_ms: Count = 0
    at_ms: Count = 0
    tokens_per_s: Count = 0
    context_tokens: Count = 0
    tried: Count = 0
    right: Count = 0

    def holds(self, *, now_ms: int) -> bool:
        """Tell whether anything is claimed that counts now: no future, and no lapsed one."""
        return (
            self.samples > 0
            and 0 < self.at_ms <= now_ms + limits.RECORD_AHEAD_MS_MAX
            and now_ms < self.at_ms + limits.CLAIM_LIFETIME_MS
        )


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that one agent of the node can do.

    Attributes:
        agent: Local name of the agent.
        name: Capability name with its major version.
        description: For people, and for matching by meaning.
        examples: Up to 4 sample calls.
        input_schema: JSON Schema (2020-12) of one call's input, RFC 8785 bytes.
        output_schema: The same for its output.
        price_mc: Price of one call (one item of a map), millicredits.
        limits: What one call may take.
        measured: Performance claimed.
        model_family: Declared, such as ``smollm2``; empty for plain code.
        deterministic: The same input always gives the same output bytes.
        like: When two of its answers say the same; None if it doesn't say.
        checks: Kinds of checks that its outputs are made for, such as ``quoted`` or
            ``program``; those that a reader doesn't know say nothing to it.
    """

    agent: str
    name: str
    description: str
    examples: list[Sample]
    input_schema: bytes
    output_schema: bytes
    price_mc: Count
    limits: CallLimits
    measured: Measured
    model_family: str = ""
    deterministic: bool = False
    like: Likeness | None = None
    checks: list[str] = []


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says of itself.

    Attributes:
        peer: Its PeerId, and the issuer of the envelope.
        sequence: Higher replaces lower.
        issued_ms: Unix time, by the node's clock.
        expires_ms: Unix time from which it is worth nothing.
        addresses: Multiaddrs to dial, without ``/p2p``.
        x25519: Public key to seal to, 32 bytes.
        capabilities: At most 32; empty for a seed node.
        features: Protocol features, such as ``relay``.
        work: Nonce of a proof of work for its name (32-work.md), or empty.
    """

    peer: str
    sequence: Count
    issued_ms: Count
    expires_ms: Count
    addresses: list[str]
    x25519: bytes
    capabilities: list[Capability]
    features: list[str] = []
    work: bytes = b""


_DECODER: Final = msgspec.msgpack.Decoder(NodeRecord)


def sign_record(identity: Identity, network: str, record: NodeRecord) -> bytes:
    """Return the signed envelope of ``record``.

    Raises:
        LocalProtocolError: It breaks a limit, or isn't ``identity``'s own.
    """
    payload = encode(record)
    try:
        _check(decode_as(payload, _DECODER))
    except Malformed as exc:
        raise LocalProtocolError(f"our own record: {exc}") from exc
    if record.peer != identity.peer:
        raise LocalProtocolError("a node signs its own record only")
    envelope = seal(identity, TYPE, network, payload)
    if len(envelope) > limits.RECORD_SIZE_MAX:
        raise LocalProtocolError(
            f"the record has {len(envelope)} bytes, {limits.RECORD_SIZE_MAX} are allowed: "
            "shorten descriptions, schemas or examples"
        )
    return envelope


def open_record(envelope: bytes, *, network: str, now_ms: int) -> NodeRecord:
    """Return the record in ``envelope`` if it may be believed to be its issuer's now.

    Raises:
        TooLarge: Over :data:`~protocol.limits.RECORD_SIZE_MAX`.
        Expired: Past its expiry, or issued in the future, beyond what clocks may differ.
        RemoteProtocolError: Forged, for another network, or against the rules.
    """
    if len(envelope) > limits.RECORD_SIZE_MAX:
        raise TooLarge(len(envelope), limits.RECORD_SIZE_MAX)
    parts = unseal(envelope, kind=TYPE, network=network)
    record = decode_as(parts.p, _DECODER)
    if record.peer != parts.i:
        raise BadSignature("a record is signed by the node that it describes")
    _check(record)
    if now_ms >= record.expires_ms + limits.SKEW_MS_MAX:
        raise Expired(f"the record expired at {record.expires_ms}")
    if record.issued_ms > now_ms + limits.RECORD_AHEAD_MS_MAX:
        raise Expired(f"the record was issued in the future, at {record.issued_ms}")
    return record


def sealing_key(envelope: bytes, *, peer: str, network: str) -> bytes:
    """Return the X25519 key of ``peer`` from a record of it, whether that counts still or not.

    A node can't change its key, so where it is to be found no more may be sealed to.

    Raises:
        TooLarge: Over :data:`~protocol.limits.RECORD_SIZE_MAX`.
        RemoteProtocolError: Forged, another's, for another network, or against the rules.
    """
    if len(envelope) > limits.RECORD_SIZE_MAX:
        raise TooLarge(len(envelope), limits.RECORD_SIZE_MAX)
    parts = unseal(envelope, kind=TYPE, network=network)
    record = decode_as(parts.p, _DECODER)
    if record.peer != parts.i or record.peer != peer:
        raise BadSignature("a record is signed by the node that it describes")
    _check(record)
    return record.x25519


def _check(record: NodeRecord) -> None:
    """Hold ``record`` against the limits of 30-records.md."""
    lifetime_ms = record.expires_ms - record.issued_ms
    _need(0 < lifetime_ms <= limits.RECORD_LIFETIME_MS_MAX, "lifetime is out of range")
    _need(is_sealing_key(record.x25519), "x25519 has not 32 bytes, or is of small order")
    _need(len(record.addresses) <= limits.ADDRESSES_MAX, "too many addresses")
    for address in record.addresses:
        _need(
            0 < len(address) <= limits.ADDRESS_SIZE_MAX and address[0] == "/",
            "an address is not a multiaddr",
        )
    _need(len(record.features) <= limits.FEATURES_MAX, "too many features")
    _need(not record.work or is_nonce(record.work), "work is no nonce")
    _need(len(record.capabilities) <= limits.CAPABILITIES_MAX, "too many capabilities")
    agents = [capability.agent for capability in record.capabilities]
    _need(len(set(agents)) == len(agents), "two capabilities of one agent name")
    for capability in record.capabilities:
        _check_capability(capability)


def _check_capability(capability: Capability) -> None:
    where = capability.name[: limits.CAPABILITY_NAME_SIZE_MAX]
    _need(CapabilityName.parse(capability.name).major > 0, f"{where} has no version")
    _need(_AGENT.fullmatch(capability.agent) is not None, f"{where}: no such agent name")
    _need(
        len(capability.description) <= limits.DESCRIPTION_SIZE_MAX,
        f"{where}: the description is too long",
    )
    _need(len(capability.examples) <= limits.EXAMPLES_MAX, f"{where}: too many examples")
    for sample in capability.examples:
        _need(
            len(sample.input) + len(sample.output) <= limits.EXAMPLE_SIZE_MAX,
            f"{where}: an example is too long",
        )
    for schema in (capability.input_schema, capability.output_schema):
        _need(0 < len(schema) <= limits.SCHEMA_SIZE_MAX, f"{where}: a schema is too long")
    call = capability.limits
    _need(
        min(call.concurrency, call.timeout_ms, call.input_bytes, call.output_bytes) > 0,
        f"{where}: a limit is not positive",
    )
    if capability.like is not None:
        check_likeness(where, capability.like)
    _need(
        len(capability.checks) <= limits.CHECK_KINDS_MAX
        and all(_KIND.fullmatch(kind) for kind in capability.checks),
        f"{where}: that names no kinds of checks",
    )
    measured = capability.measured
    _need(
        measured.right <= measured.tried <= limits.EXAMPLES_MAX,
        f"{where}: more examples came out right than there are",
    )


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(f"record: {otherwise}")
