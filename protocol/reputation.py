"""What nodes tell each other of third ones: receipts that both sides signed, and proofs.

Bodies of session requests, whose transport proves who asks and answers: they are not signed.
What weighs anything is inside, and every reader checks it itself.

A receipt is told as its two halves alone.  Award and result have what the work was about
(inputs, outputs, where they are), and are told nobody.

Specified in protocol/spec/95-reputation.md; vectors in protocol/vectors/reputation.json.
"""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from protocol import limits
from protocol.codec import decode_as
from protocol.errors import Malformed, TooLarge, WrongAudience
from protocol.messages import read_message
from protocol.receipts import Acceptance, Receipt, check_halves
from protocol.records import CapabilityName

ASK: Final = "reputation.ask"
PROOFS: Final = "reputation.proofs"

Statement = Literal["receipt", "acceptance"]
_Name = Annotated[str, msgspec.Meta(max_length=limits.CAPABILITY_NAME_SIZE_MAX)]
_Cursor = Annotated[str, msgspec.Meta(max_length=limits.CURSOR_SIZE_MAX)]


class _Body(msgspec.Struct, frozen=True, array_like=True):
    """On the wire an array of its fields."""


class Question(_Body, frozen=True, array_like=True):
    """Body of ``reputation.ask``: which contracts have you finished, on either side?

    Attributes:
        capability: Full name, with its version.
        after: From an answer before: only what was finished since; empty for the beginning.
    """

    capability: _Name
    after: _Cursor = ""


class Halves(_Body, frozen=True, array_like=True):
    """A finished contract.

    Attributes:
        receipt: The contractor's half, its envelope.
        acceptance: The broker's.
    """

    receipt: bytes
    acceptance: bytes


class Told(_Body, frozen=True, array_like=True):
    """Answer to ``reputation.ask``.

    Attributes:
        contracts: What was finished first comes first.
        next: Where the next question goes on; nothing but its writer need understand it.
        more: There are others after these.
    """

    contracts: list[Halves]
    next: _Cursor
    more: bool


class Contradiction(_Body, frozen=True, array_like=True):
    """Two statements of one signer that can't both be meant.

    Attributes:
        statement: What both are.
        first: Envelope, the lesser of the two by its bytes.
        second: Envelope.
    """

    statement: Statement
    first: bytes
    second: bytes


class Proofs(_Body, frozen=True, array_like=True):
    """Body of ``reputation.proofs``: these have contradicted themselves."""

    proofs: list[Contradiction]


B = TypeVar("B", Question, Told, Proofs)

_DECODERS: Final[dict[type[_Body], "msgspec.msgpack.Decoder[Any]"]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Question, Told, Proofs)
}


def read_body(frame: bytes, kind: type[B]) -> B:
    """Return a body of ``kind``, all limits held; signatures are not looked at.

    Raises:
        Malformed: It is none, or has more in it than may be.
        TooLarge: A half has more bytes than may be, or all together have.
    """
    body: B = decode_as(frame, _DECODERS[kind])
    if isinstance(body, Question):
        if not CapabilityName.parse(body.capability).major:
            raise Malformed("a question is about one version of a capability")
    elif isinstance(body, Told):
        _bounded(len(body.contracts), limits.TOLD_MAX)
        if body.more and not body.contracts:
            raise Malformed("there are more, and none is told")
        _sized([half for one in body.contracts for half in (one.receipt, one.acceptance)])
    else:
        _bounded(len(body.proofs), limits.PROOFS_MAX)
        _sized([half for one in body.proofs for half in (one.first, one.second)])
    return body


def check_told(
    told: Halves, *, by: str, capability: str, network: str
) -> tuple[Receipt, Acceptance]:
    """Return what a told contract says, proven.

    Args:
        told: See there.
        by: PeerId of who tells it.
        capability: That was asked for.
        network: Network id.

    Raises:
        Malformed: It isn't what was asked for.
        WrongAudience: It is none of the teller's.
        RemoteProtocolError: As of :func:`~protocol.receipts.check_halves`.
    """
    receipt, acceptance = check_halves(told.receipt, told.acceptance, network=network)
    if by not in {receipt.h.issuer, acceptance.h.issuer}:
        raise WrongAudience("it tells of a contract between others")
    if receipt.capability != capability:
        raise Malformed("it tells of another capability than was asked for")
    if receipt.below:
        raise Malformed("it tells of work below, which is nobody else's affair")
    return receipt, acceptance


def culprit_of(proof: Contradiction, *, network: str) -> str:
    """Return who signed both statements, proven to contradict each other.

    Raises:
        NoContradiction: The two go together.
        RemoteProtocolError: One of them is forged or of another type.
    """
    if proof.first >= proof.second:
        raise NoContradiction("it is one statement, or in the wrong order")
    first = _read(proof.statement, proof.first, network)
    second = _read(proof.statement, proof.second, network)
    if _about(first) != _about(second):
        raise NoContradiction("they are by two, or about two things")
    if _said(first) == _said(second):
        raise NoContradiction("they say the same")
    return first.h.issuer


class NoContradiction(Malformed):
    """Two statements that may both be made."""


def _read(statement: Statement, envelope: bytes, network: str) -> Receipt | Acceptance:
    if statement == "receipt":
        return read_message(envelope, Receipt, network=network)
    return read_message(envelope, Acceptance, network=network)


def _about(statement: Receipt | Acceptance) -> tuple[str, bytes, bytes, int]:
    h = statement.h
    return h.issuer, statement.award, h.charter, h.epoch


def _said(statement: Receipt | Acceptance) -> tuple[object, ...]:
    if isinstance(statement, Receipt):
        return statement.result, statement.cost_mc, statement.capability, statement.agent
    return statement.receipt, statement.verdict, statement.paid_mc


def _bounded(count: int, count_max: int) -> None:
    if count > count_max:
        raise Malformed(f"{count} in one body, allowed are {count_max}")


def _sized(halves: list[bytes]) -> None:
    for half in halves:
        if len(half) > limits.HALF_SIZE_MAX:
            raise TooLarge(len(half), limits.HALF_SIZE_MAX)
    if (size := sum(map(len, halves))) > limits.TOLD_BYTES_MAX:
        raise TooLarge(size, limits.TOLD_BYTES_MAX)
