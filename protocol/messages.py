"""What two nodes say to each other about a sub-task.

Every message is the payload of a signed envelope (:mod:`protocol.signing`) and
opens with the same :class:`Header`, whose fields are all required from version 1
on, even where nothing uses them yet: adding one later would break the wire.

CFP, proposal, refuse, award, result follow the Contract Net Protocol (FIPA
SC00029).  An award binds the hashes of the CFP and of the proposal, a result binds
the award, a receipt binds award and result: each names its reason by hash.

Specified in protocol/spec/60-contracts.md; vectors in protocol/vectors/contracts.json.
"""

from collections import OrderedDict
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec

from protocol import limits
from protocol.codec import Count, Hash, decode_as, encode
from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    WrongNetwork,
)
from protocol.keys import Identity, digest
from protocol.signing import seal, unseal

HASH_SIZE: Final = 32
MESSAGE_ID_SIZE: Final = 16

#: Text that becomes a key in stores and logs.
_Text = Annotated[str, msgspec.Meta(max_length=limits.HEADER_TEXT_SIZE_MAX)]


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """How secret a value is, and how far it can be trusted.

    Attributes:
        secrecy: 0 public, 1 mesh, 2 job, 3 secret: who may read it.
        taint: 0 the owner's own, 1 from a peer, 2 from outside the mesh: never instructions.
    """

    secrecy: Annotated[int, msgspec.Meta(ge=0, le=3)] = 2
    taint: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent below this message; 0 sub-tasks means none.

    Attributes:
        cost_mc: Millicredits.
        tokens: Model tokens, the reader's own among them; 0 for any number.
        subtasks: Awards that the contractor may make itself.
    """

    cost_mc: Count = 0
    tokens: Count = 0
    subtasks: Count = 0


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What every task message carries.

    Attributes:
        id: 16 random bytes; a repeated id from one issuer is a replay.
        issuer: PeerId, as in the envelope.
        audience: PeerId of the only reader that may act on it.
        issued_ms: Unix time by the issuer's clock.
        expires_ms: From then on it is worth nothing.
        sequence: Counts the issuer's messages to this audience.
        network: As in the envelope.
        job: Job id; empty in a standing offer.
        subtask: ``id/batch`` in the job's graph.
        replica: 0, or a number that tells apart the executions of one unit that are compared.
        label: Of the content.
        budget: What may be spent below.
        hops: Brokers that may still follow; 0 means that it may not be passed on.
        deadline_ms: Unix time when the work is worthless.
        idempotency_key: The same for every retry of the same work.
        traceparent: W3C trace context, or empty.
        epoch: Of the job's broker; a lower one than already seen is refused.
        charter: Hash of the owner's charter, or empty when the broker is the owner.
    """

    id: bytes
    issuer: str
    audience: str
    issued_ms: Count
    expires_ms: Count
    sequence: Count
    network: str
    job: _Text
    subtask: _Text
    replica: Count
    label: Label
    budget: Budget
    hops: Count
    deadline_ms: Count
    idempotency_key: _Text
    traceparent: _Text
    epoch: Count
    charter: bytes


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A signed task message; subclasses say what it is about."""

    TYPE: ClassVar[str]

    h: Header


class Cfp(Message, frozen=True, kw_only=True):
    """Call for proposals.  Reveals sizes, limits and labels, never content.

    Attributes:
        capability: What is needed.
        items: Calls of the agent that the award would hold.
        input_bytes: About how large the inputs are.
        timeout_ms: For the award.
        price_max_mc: What the broker would pay at most for all items.
    """

    TYPE: ClassVar[str] = "cfp"

    capability: str
    items: Count
    input_bytes: Count
    timeout_ms: Count
    price_max_mc: Count


class Proposal(Message, frozen=True, kw_only=True):
    """A binding answer to a CFP, until the header's expiry.

    Attributes:
        cfp: Hash of the CFP's envelope.
        agent: Which agent would do it.
        capability: Its full name.
        price_mc: For one item.
        eta_ms: Expected time from award to result.
        free: Calls that could start at once.
        items: Calls that it covers: those of the CFP.
    """

    TYPE: ClassVar[str] = "proposal"

    cfp: Hash
    agent: str
    capability: str
    price_mc: Count
    eta_ms: Count
    free: Count
    items: Count


class StandingOffer(Message, frozen=True, kw_only=True):
    """A proposal without a CFP: any award within it, until it expires, is welcome.

    Attributes:
        agent: Which agent.
        capability: Its full name.
        price_mc: For one item.
        items_max: Items of one award.
        awards_max: Awards under this offer.
        latency_ms: Expected time for one item.
    """

    TYPE: ClassVar[str] = "offer"

    agent: str
    capability: str
    price_mc: Count
    items_max: Count
    awards_max: Count
    latency_ms: Count


class Refuse(Message, frozen=True, kw_only=True):
    """No to a CFP or an award.

    Attributes:
        of: Hash of the envelope that is refused.
        reason: Stable code, such as ``busy``, ``price``, ``offer_expired``.
        text: For people.
        retry_after_ms: When asking again may help; 0 when that isn't known.
    """

    TYPE: ClassVar[str] = "refuse"

    of: Hash
    reason: str
    text: str = ""
    retry_after_ms: Count = 0


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an input: inline, or a place in an artifact.

    Attributes:
        inline: RFC 8785 JSON bytes; empty when it is an artifact.
        artifact: SHA-256 of the artifact, or empty.
        size: Of the artifact, bytes.
        holder: PeerId that serves it; the award carries the ticket for it.
        pointer: JSON Pointer into it; with ``items`` it applies to each item.
        start: First item, where the artifact holds a list.
        count: Number of items, or -1 for the value as it is.
        mapped: The artifact is a map's output: a list to whose items the pointer applies.
    """

    inline: bytes = b""
    artifact: bytes = b""
    size: Count = 0
    holder: str = ""
    pointer: str = ""
    start: Count = 0
    count: Annotated[int, msgspec.Meta(ge=-1, le=limits.NUMBER_MAX)] = -1
    mapped: bool = False


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """How one input field is put together.

    Attributes:
        parts: Pieces in order.
        gather: The pieces are lists to join; otherwise there is one piece, the value.
    """

    parts: list[Part]
    gather: bool = False


class Award(Message, frozen=True, kw_only=True):
    """Do it, on the terms of the proposal or offer that it binds.

    Attributes:
        cfp: Hash of the CFP's envelope, or empty under a standing offer.
        proposal: Hash of the proposal's or offer's envelope.
        agent: Which agent.
        capability: Its full name.
        inputs: Field -> how to get it; fields in ``each`` give lists.
        each: Fields mapped over; empty for a single call.
        items: Calls of the agent; 1 for a single call.
        price_cap_mc: Most that may be charged for all items.
        timeout_ms: From the start of the run to its end.
        lease_ms: Without a renewal for this long, stop; 0 for an order, which has none.
        result_key: X25519 key to seal the output to, or empty.
        lengths: JSON Pointers into the output whose list length the result must tell.
        readers: PeerIds that may be given tickets for the output.
        tickets: Signed tickets, one for each artifact among the inputs.
        wait_max_ms: Refused as ``crowded`` if it can't begin within this; 0 for any time.
    """

    TYPE: ClassVar[str] = "award"

    cfp: bytes
    proposal: Hash
    agent: str
    capability: str
    inputs: dict[str, Binding]
    each: list[str]
    items: Count
    price_cap_mc: Count
    timeout_ms: Count
    lease_ms: Count
    result_key: bytes = b""
    lengths: list[str] = []
    readers: list[str] = []
    tickets: list[bytes] = []
    wait_max_ms: Count = 0


class Progress(Message, frozen=True, kw_only=True):
    """How far an award is; a checkpoint of a stream, not its content.

    Attributes:
        award: Hash of the award's envelope.
        seq: Counts from 1.
        items_done: Of the award's items.
        offset: Characters streamed so far.
        checkpoint: SHA-256 of all that was streamed so far, as UTF-8, or empty.
        text: What was streamed since the last one, for the eye only.
    """

    TYPE: ClassVar[str] = "progress"

    award: Hash
    seq: Count
    items_done: Count
    offset: Count = 0
    checkpoint: bytes = b""
    text: str = ""


class Metering(msgspec.Struct, frozen=True, kw_only=True):
    """What it took.

    Attributes:
        queue_ms: Award received to run started.
        run_ms: Run started to output ready.
        tokens_in: Model tokens read.
        tokens_out: Model tokens written.
    """

    queue_ms: Count = 0
    run_ms: Count = 0
    tokens_in: Count = 0
    tokens_out: Count = 0


class Result(Message, frozen=True, kw_only=True):
    """What came of an award.

    Attributes:
        award: Hash of the award's envelope.
        state: ``completed``, ``failed`` or ``cancelled``.
        output: SHA-256 of the output artifact (RFC 8785 JSON); empty unless completed.
        size: Of the output, bytes.
        inline: The output itself when it is small enough; empty otherwise.
        lengths: The list lengths that the award asked for.
        metering: What it took.
        price_mc: What is charged, within the cap.
        error_code: Stable code when not completed.
        error_text: For people.
    """

    TYPE: ClassVar[str] = "result"

    award: Hash
    state: Literal["completed", "failed", "cancelled"]
    output: bytes = b""
    size: Count = 0
    inline: bytes = b""
    lengths: dict[str, Count] = {}
    metering: Metering = Metering()
    price_mc: Count = 0
    error_code: str = ""
    error_text: str = ""


class Cancel(Message, frozen=True, kw_only=True):
    """Stop an award; answered when nothing works on it any more.

    Attributes:
        award: Hash of the award's envelope.
        reason: Stable code, such as ``owner``, ``deadline``, ``superseded``.
    """

    TYPE: ClassVar[str] = "cancel"

    award: Hash
    reason: str


class Ticket(Message, frozen=True, kw_only=True):
    """The broker lets one reader fetch one artifact from its holder.

    The header's audience is the reader, its job the job.

    Attributes:
        artifact: SHA-256 of the artifact.
        holder: PeerId that serves it.
    """

    TYPE: ClassVar[str] = "ticket"

    artifact: Hash
    holder: str


M = TypeVar("M", bound=Message)

_DECODERS: Final[dict[type[Message], "msgspec.msgpack.Decoder[Any]"]] = {}

#: Messages that were read lately, for the next step of the same contract: messages don't
#: change.  Large ones are read again instead.
_READ_MAX: Final = 512
_READ_BYTES_MAX: Final = 8 * 1024
_READ: Final[OrderedDict[bytes, Message]] = OrderedDict()


def sign_message(identity: Identity, message: Message) -> bytes:
    """Return the signed envelope of ``message``.

    Raises:
        LocalProtocolError: The header names another issuer, or the message breaks a rule.
    """
    if message.h.issuer != identity.peer:
        raise LocalProtocolError("a message is signed by its issuer")
    payload = encode(message)
    try:
        # Read back what others will read: constructors don't hold the fields' ranges.
        read = _decoder(type(message)).decode(payload)
        _check(read)
    except (Malformed, msgspec.ValidationError) as exc:
        raise LocalProtocolError(f"our own {message.TYPE}: {exc}") from exc
    envelope = seal(identity, message.TYPE, message.h.network, payload)
    _remember(envelope, read)
    return envelope


def read_message(envelope: bytes, kind: type[M], *, network: str) -> M:
    """Return the message in ``envelope`` after every check that needs no clock.

    Raises:
        RemoteProtocolError: Forged, of another type or network, or against the rules.
    """
    # All checks but the caller's own expectations are functions of its bytes.
    known = _READ.get(envelope)
    if type(known) is kind and known.h.network == network:
        return known
    parts = unseal(envelope, kind=kind.TYPE, network=network)
    message = decode_as(parts.p, _decoder(kind))
    if message.h.issuer != parts.i:
        raise BadSignature("the header names another issuer than the envelope")
    if message.h.network != parts.n:
        raise WrongNetwork("the header names another network than the envelope")
    _check(message)
    _remember(envelope, message)
    return message


def _remember(envelope: bytes, message: Message) -> None:
    if len(envelope) <= _READ_BYTES_MAX:
        _READ[envelope] = message
        if len(_READ) > _READ_MAX:
            _READ.popitem(last=False)


def _decoder(kind: type[M]) -> "msgspec.msgpack.Decoder[M]":
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.msgpack.Decoder(kind)
    return decoder


def _check(message: Message) -> None:
    header = message.h
    _need(len(header.id) == MESSAGE_ID_SIZE, "id has not 16 bytes")
    lifetime_ms = header.expires_ms - header.issued_ms
    _need(lifetime_ms > 0, "it expires before it is issued")
    if isinstance(message, Award) and not message.lease_ms:  # an order: orders.py has the rest
        _need(lifetime_ms <= limits.ORDER_LIFETIME_MS_MAX, "it lives longer than 7 days")
    elif isinstance(message, Cfp | Proposal | StandingOffer | Award):
        _need(lifetime_ms <= limits.LIFETIME_MS_MAX, "it lives longer than 10 minutes")
    _need(0 <= header.hops <= limits.HOPS_MAX, "hops is out of range")
    _need(_is_hash_or_empty(header.charter), "charter is no hash")
    if isinstance(message, Award):
        _check_award(message)
    elif isinstance(message, Result):
        _check_result(message)
    elif isinstance(message, Progress):
        _need(len(message.text) <= limits.PROGRESS_SIZE_MAX, "the text is too long")
        _need(_is_hash_or_empty(message.checkpoint), "checkpoint is no hash")


def _check_result(result: Result) -> None:
    completed = result.state == "completed"
    _need(
        completed == bool(result.output) and _is_hash_or_empty(result.output),
        "an output's hash stands in a completed result, and in no other",
    )
    if result.inline:
        _need(len(result.inline) <= limits.INLINE_SIZE_MAX, "the inline output is too large")
        # Otherwise its readers and those who fetch by hash would get different outputs.
        _need(
            (digest(result.inline), len(result.inline)) == (result.output, result.size),
            "the inline output is another than the one named by hash",
        )


def _check_award(award: Award) -> None:
    _need(_is_hash_or_empty(award.cfp), "cfp is no hash")
    _need(_is_hash_or_empty(award.result_key), "result key has not 32 bytes")
    _need(award.items >= 1, "items")
    _need(award.timeout_ms > 0, "timeout")
    _need(len(award.inputs) <= limits.BINDINGS_MAX, "too many inputs")
    for binding in award.inputs.values():
        _need(len(binding.parts) <= limits.PARTS_MAX, "too many parts")
        _need(binding.gather or len(binding.parts) == 1, "one value has one part")
        for part in binding.parts:
            _check_part(part)
    _need(set(award.each) <= set(award.inputs), "it maps over what is not an input")


def _check_part(part: Part) -> None:
    _need(bool(part.inline) != bool(part.artifact), "a part is inline or in an artifact")
    _need(len(part.inline) <= limits.INLINE_SIZE_MAX, "an inline part is too large")
    _need(_is_hash_or_empty(part.artifact), "a part's artifact is no hash")


def _is_hash_or_empty(value: bytes) -> bool:
    return len(value) in {0, HASH_SIZE}


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(otherwise)
