"""Vectors of what nodes tell each other of third ones."""

from collections.abc import Iterator
from typing import Any, Final

from protocol import codec, limits
from protocol.keys import digest
from protocol.messages import Message, sign_message
from protocol.receipts import Spent
from protocol.reputation import Contradiction, Halves, Proofs, Question, Told
from protocol.signing import peek
from tests.protocol import samples
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, STRANGER, changed, header
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    MALFORMED,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_AUDIENCE,
    WRONG_NETWORK,
    Case,
    ok,
)

AUDIT: Final = "code.security_audit@1"
DEAL: Final = samples.deal()
REJECTED: Final[dict[str, Any]] = {"verdict": "rejected", "paid_mc": 0}


def reputation_cases() -> Iterator[Case]:
    """Questions, answers as who asked reads them, and proofs."""
    yield from _questions()
    yield from _answers()
    yield from _wrong_answers()
    yield from _proofs()
    yield from _no_proofs()


def _questions() -> Iterator[Case]:
    def case(why: str, body: Any, expected: Any) -> Case:
        return why, {"network": NETWORK, "body": "ask"}, codec.encode(body), expected

    yield case("a question", Question(AUDIT), ok({"capability": AUDIT, "after": ""}))
    yield case("going on", Question(AUDIT, "17"), ok({"capability": AUDIT, "after": "17"}))
    yield case("without a cursor", [AUDIT], ok({"capability": AUDIT, "after": ""}))
    yield case("no version", Question("code.security_audit"), MALFORMED)
    yield case("no capability", Question(""), MALFORMED)
    yield case("nothing", [], MALFORMED)
    long = "c" * (limits.CURSOR_SIZE_MAX + 1)
    yield case("a cursor that is too long", Question(AUDIT, long), MALFORMED)
    yield case("a name that is too long", Question("a" * 95 + "@1"), MALFORMED)


def halves(**parts: Any) -> Halves:
    """A finished contract, told, with what the arguments replace in each message."""
    made = samples.deal(**parts)
    return Halves(made.receipt, made.acceptance)


def _answer(why: str, expected: Any, *told: Halves, by: str = "broker", **fields: Any) -> Case:
    body = changed(Told(list(told), "17", more=False), **fields)
    inputs = {"network": NETWORK, "body": "told", "by": by, "capability": AUDIT}
    return why, inputs, codec.encode(body), expected


def _answers() -> Iterator[Case]:
    whole = halves()
    one = {"contracts": [["verified", 90]], "next": "17", "more": False}
    yield _answer("one contract, told by its broker", ok(one), whole)
    yield _answer("told by its contractor", ok(one), whole, by="contractor")
    none = {"contracts": [], "next": "17", "more": False}
    yield _answer("nothing to tell", ok(none))
    both = {"contracts": [["verified", 90], ["rejected", 0]], "next": "17", "more": True}
    refused = halves(of_acceptance=REJECTED)
    yield _answer("a rejection, and more", ok(both), whole, refused, more=True)
    most = {**one, "contracts": [["verified", 90]] * limits.TOLD_MAX}
    yield _answer("as many as may be", ok(most), *[whole] * limits.TOLD_MAX)


def _wrong_answers() -> Iterator[Case]:
    whole, other = halves(), digest(b"another message")
    yield _answer("one more than may be", MALFORMED, *[whole] * (limits.TOLD_MAX + 1))
    yield _answer("more, and none told", MALFORMED, more=True)
    yield _answer("by a third party", WRONG_AUDIENCE, whole, by="stranger")
    law = halves(of_receipt={"capability": "law@1"})
    yield _answer("of another capability", MALFORMED, law)
    below = [Spent(level=1, subtask="a/0", peer=STRANGER.peer, awards=1)]
    yield _answer("with work below", MALFORMED, halves(of_receipt={"below": below}))
    yield _answer("the broker's half binds another", MALFORMED, _bound({"receipt": other}))
    yield _answer("halves of two awards", MALFORMED, _bound({"award": other}))
    yield _answer("rejected and paid", MALFORMED, _bound({"verdict": "rejected"}))
    yield _answer("accepted and not paid", MALFORMED, _bound({"paid_mc": 0}))
    job = header(BROKER, CONTRACTOR, job="job-2")
    yield _answer("halves of two jobs", MALFORMED, _bound({"h": job}))
    third = header(STRANGER, CONTRACTOR)
    yield _answer("accepted by a third party", WRONG_AUDIENCE, _bound({"h": third}))
    astray = header(BROKER, STRANGER)
    yield _answer("accepted for a third party", WRONG_AUDIENCE, _bound({"h": astray}))
    yield _answer("the halves changed places", UNKNOWN_TYPE, Halves(*_flat(whole)[::-1]))
    yield _answer("no envelope", MALFORMED, Halves(whole.receipt, b""))
    half = forged(whole.acceptance)
    yield _answer("a forged half", BAD_SIGNATURE, Halves(whole.receipt, half))
    large = bytes(limits.HALF_SIZE_MAX + 1)
    yield _answer("a half that is too large", TOO_LARGE, Halves(large, whole.acceptance))
    heavy = bytes(limits.HALF_SIZE_MAX)
    yield _answer("too large together", TOO_LARGE, *[Halves(heavy, heavy)] * 11)
    why, inputs, data, _ = _answer("in another mesh", None, whole)
    yield why, {**inputs, "network": "other-net"}, data, WRONG_NETWORK


def _flat(told: Halves) -> tuple[bytes, bytes]:
    return told.receipt, told.acceptance


def _bound(fields: dict[str, Any]) -> Halves:
    return halves(of_acceptance=fields)


def signed(message: Message, **of_header: Any) -> bytes:
    """A statement, made once more: another message id."""
    signers = {signer.peer: signer for signer in (BROKER, CONTRACTOR, STRANGER)}
    signer = signers[message.h.issuer]
    again = changed(message.h, id=bytes(16), sequence=9, **of_header)
    return sign_message(signer, changed(message, h=again))


def forged(envelope: bytes) -> bytes:
    """The envelope with another signature."""
    signature = peek(envelope).s
    return envelope.replace(signature, signature[:-1] + bytes([signature[-1] ^ 1]))


def accepted(h: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """The broker's half, made once more."""
    return signed(samples.acceptance(DEAL.award, DEAL.receipt, **fields), **h or {})


def charged(h: dict[str, Any] | None = None, **fields: Any) -> bytes:
    """The contractor's half, made once more."""
    return signed(samples.receipt(DEAL.award, DEAL.result, **fields), **h or {})


def proof(statement: Any, one: bytes, other: bytes) -> Contradiction:
    """What two statements are together, in their order."""
    return Contradiction(statement, *sorted((one, other)))


def _proof(why: str, expected: Any, *proofs: Contradiction) -> Case:
    inputs = {"network": NETWORK, "body": "proofs"}
    return why, inputs, codec.encode(Proofs(list(proofs))), expected


def _proofs() -> Iterator[Case]:
    verdicts = proof("acceptance", DEAL.acceptance, accepted(**REJECTED))
    charges = proof("receipt", DEAL.receipt, charged(cost_mc=80))
    results = proof("receipt", DEAL.receipt, charged(result=digest(b"another")))
    yield _proof("two verdicts on one award", ok([BROKER.peer]), verdicts)
    yield _proof("two charges for one award", ok([CONTRACTOR.peer]), charges)
    yield _proof("two results of one award", ok([CONTRACTOR.peer]), results)
    yield _proof("two proofs", ok([BROKER.peer, CONTRACTOR.peer]), verdicts, charges)
    most = [verdicts] * limits.PROOFS_MAX
    yield _proof("as many proofs as may be", ok([BROKER.peer] * limits.PROOFS_MAX), *most)
    yield _proof("a proof more than may be", MALFORMED, *most, verdicts)


def _no_proofs() -> Iterator[Case]:
    verdicts = proof("acceptance", DEAL.acceptance, accepted(**REJECTED))
    backwards = Contradiction("acceptance", verdicts.second, verdicts.first)
    yield _proof("in the wrong order", MALFORMED, backwards)
    same = Contradiction("acceptance", DEAL.acceptance, DEAL.acceptance)
    yield _proof("one statement", MALFORMED, same)
    again = proof("acceptance", DEAL.acceptance, accepted())
    yield _proof("the same said twice", MALFORMED, again)
    slower = proof("receipt", DEAL.receipt, charged(latency_ms=999))
    yield _proof("the same but for the time it took", MALFORMED, slower)
    work = proof("acceptance", DEAL.acceptance, accepted(award=digest(b"other"), **REJECTED))
    yield _proof("about two awards", MALFORMED, work)
    epoch = {"charter": digest(b"a charter"), "epoch": 2}
    late = proof("acceptance", DEAL.acceptance, accepted(epoch, **REJECTED))
    yield _proof("in two epochs", MALFORMED, late)
    other = signed(
        samples.acceptance(DEAL.award, DEAL.receipt, h=header(STRANGER, CONTRACTOR), **REJECTED)
    )
    yield _proof("by two", MALFORMED, proof("acceptance", DEAL.acceptance, other))
    mixed = proof("receipt", DEAL.receipt, DEAL.acceptance)
    yield _proof("two kinds of statements", UNKNOWN_TYPE, mixed)
    lie = proof("acceptance", DEAL.acceptance, forged(accepted(**REJECTED)))
    yield _proof("one of them forged", BAD_SIGNATURE, lie)
    large = Contradiction("receipt", bytes(1), bytes(limits.HALF_SIZE_MAX + 1))
    yield _proof("too large", TOO_LARGE, large)
    yield _proof("none good, one bad", MALFORMED, verdicts, again)
    inputs = {"network": NETWORK, "body": "proofs"}
    unknown = codec.encode([[["award", DEAL.award, DEAL.award]]])
    yield "of another kind of message", inputs, unknown, MALFORMED
