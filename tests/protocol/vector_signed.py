"""Vectors of what is signed: records, task messages, receipts, journals."""

from collections.abc import Callable, Iterator
from typing import Any

from protocol import codec, limits
from protocol.declines import Decline
from protocol.framing import frame
from protocol.journal import END, HEAD, MAGIC, export
from protocol.keys import digest
from protocol.likeness import Likeness
from protocol.messages import Award, Budget, Cfp, Label, Metering, Result
from protocol.receipts import Spent
from protocol.records import CallLimits, Measured, sign_record
from protocol.settlements import PAYMENT_LIFETIME_MS, Payment, PaymentAnswer
from protocol.signing import peek, seal
from tests.protocol import samples
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, NOW_MS, STRANGER, changed
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    EXPIRED,
    MALFORMED,
    OUT_OF_TURN,
    STALE,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_AUDIENCE,
    WRONG_NETWORK,
    Case,
    H,
    ok,
)


def record_cases() -> Iterator[Case]:
    """Records of the contractor, read at ``now_ms``."""
    read = {"network": NETWORK, "now_ms": NOW_MS}
    told = ok({"peer": CONTRACTOR.peer, "sequence": 7, "claims": 1})
    silent = ok({"peer": CONTRACTOR.peer, "sequence": 7, "claims": 0})
    valid = sign_record(CONTRACTOR, NETWORK, samples.record())

    def forced(**fields: Any) -> bytes:
        return seal(CONTRACTOR, "record", NETWORK, codec.encode(samples.record(**fields)))

    def at(now_ms: int) -> dict[str, Any]:
        return {**read, "now_ms": now_ms}

    expiry = NOW_MS + 3_600_000
    yield "a record", read, valid, told
    yield "a seed node offers nothing", read, forced(capabilities=[]), silent
    yield "the last millisecond", at(expiry + 59_999), valid, told
    yield "expired, the skew allowed", at(expiry + 60_000), valid, EXPIRED
    yield "issued as far ahead as clocks may be", at(NOW_MS - 600_000), valid, told
    yield "issued in the future", at(NOW_MS - 600_001), valid, EXPIRED
    fields = codec.decode(codec.encode(samples.record()))
    assert isinstance(fields, dict)
    later = seal(CONTRACTOR, "record", NETWORK, codec.encode(fields | {"zz": 1}))
    yield "a field of a later version", read, later, told
    yield "of another network", {**read, "network": "other"}, valid, WRONG_NETWORK
    foreign = seal(BROKER, "record", NETWORK, codec.encode(samples.record()))
    yield "signed by somebody else", read, foreign, BAD_SIGNATURE
    as_offer = seal(CONTRACTOR, "offer", NETWORK, codec.encode(samples.record()))
    yield "signed as something else", read, as_offer, UNKNOWN_TYPE
    yield "a flipped bit in the type", read, valid[:-1] + bytes([valid[-1] ^ 1]), UNKNOWN_TYPE
    for why, measured, result in _claims(told, silent):
        yield why, read, forced(capabilities=[samples.capability(measured=measured)]), result
    coming = samples.capability(like=None, checks=["quoted", "of_a_later_version"])
    yield "a kind of check of a later version", read, forced(capabilities=[coming]), told
    yield from _records_against_the_rules(read, forced)


def _claims(told: Any, silent: Any) -> Iterator[tuple[str, Measured, Any]]:
    lapsed_ms = NOW_MS - limits.CLAIM_LIFETIME_MS
    yield "claimed for a millisecond more", Measured(samples=1, at_ms=lapsed_ms + 1), told
    yield "a claim that has lapsed", Measured(samples=1, at_ms=lapsed_ms), silent
    ahead_ms = NOW_MS + limits.RECORD_AHEAD_MS_MAX
    yield "measured as far ahead as clocks may be", Measured(samples=1, at_ms=ahead_ms), told
    yield "measured in the future", Measured(samples=1, at_ms=ahead_ms + 1), silent
    yield "measured nobody knows when", Measured(samples=1, latency_ms=1), silent
    yield "made of no calls", Measured(latency_ms=1, at_ms=NOW_MS), silent


def _records_against_the_rules(
    read: dict[str, Any], forced: Callable[..., bytes]
) -> Iterator[Case]:
    def offering(**fields: Any) -> bytes:
        return forced(capabilities=[samples.capability(**fields)])

    yield "expires as it is issued", read, forced(expires_ms=NOW_MS), MALFORMED
    over = NOW_MS + limits.RECORD_LIFETIME_MS_MAX + 1
    yield "lives longer than a day", read, forced(expires_ms=over), MALFORMED
    yield "a short sealing key", read, forced(x25519=bytes(31)), MALFORMED
    yield "a sealing key of zeros", read, forced(x25519=bytes(32)), MALFORMED
    small = (1 << 255 | (2**255 - 18)).to_bytes(32, "little")
    yield "a sealing key of small order", read, forced(x25519=small), MALFORMED
    yield "a negative sequence", read, forced(sequence=-1), MALFORMED
    yield "a proof of seven bytes", read, forced(work=bytes(7)), MALFORMED
    yield "an address that is no multiaddr", read, forced(addresses=["127.0.0.1"]), MALFORMED
    yield "17 addresses", read, forced(addresses=["/ip4/1.2.3.4"] * 17), MALFORMED
    twice = forced(capabilities=[samples.capability(), samples.capability()])
    yield "two capabilities of one agent", read, twice, MALFORMED
    yield "no version", read, offering(name="code.security_audit"), MALFORMED
    yield "a version with a leading zero", read, offering(name="code@01"), MALFORMED
    yield "a name in capitals", read, offering(name="Code@1"), MALFORMED
    yield "a negative price", read, offering(price_mc=-1), MALFORMED
    fast = offering(measured=Measured(samples=1, latency_ms=-1))
    yield "a negative latency would rank first", read, fast, MALFORMED
    boast = offering(measured=Measured(samples=1, tried=2, right=3))
    yield "more examples came out right than were tried", read, boast, MALFORMED
    many = offering(measured=Measured(samples=1, tried=5, right=5))
    yield "more examples were tried than there may be", read, many, MALFORMED
    wide = offering(like=Likeness("numeric", relative_ppm=1_000_001))
    yield "numbers may differ by more than all of them", read, wide, MALFORMED
    shouted = offering(checks=["Program"])
    yield "a kind of check in capitals", read, shouted, MALFORMED
    yield "nine kinds of checks", read, offering(checks=["quoted"] * 9), MALFORMED
    none = CallLimits(concurrency=0, timeout_ms=1, input_bytes=1, output_bytes=1)
    yield "takes no calls", read, offering(limits=none), MALFORMED
    yield "an empty schema", read, offering(input_schema=b""), MALFORMED
    yield (
        "a description of 1,001 characters",
        read,
        offering(description="a" * 1_001),
        MALFORMED,
    )


def _over(award: Any) -> Any:
    over_ms = NOW_MS + limits.ORDER_LIFETIME_MS_MAX + 1
    return changed(award, lease_ms=0, h=changed(award.h, expires_ms=over_ms))


#: Fields of a header that may not be left out.
HEADED = (
    "label",
    "budget",
    "hops",
    "deadline_ms",
    "idempotency_key",
    "traceparent",
    "epoch",
    "network",
)


def contract_cases() -> Iterator[Case]:
    """Task messages, read by their audience at ``now_ms``."""
    made = samples.messages()
    for kind, message in made.items():
        if kind in {Payment, PaymentAnswer}:
            continue
        signer = samples.signer_of(message)
        data = seal(signer, kind.TYPE, NETWORK, codec.encode(message))
        yield f"{kind.TYPE}: valid", _reading(kind.TYPE, message.h.audience), data, ok()
    cfp, award, result = made[Cfp], made[Award], made[Result]
    reading = _reading("cfp", CONTRACTOR.peer)

    def sent(message: Any, signer: Any = None, network: str = NETWORK) -> bytes:
        signer = signer or samples.signer_of(message)
        return seal(signer, message.TYPE, network, codec.encode(message))

    def headed(**fields: Any) -> bytes:
        return sent(changed(cfp, h=changed(cfp.h, **fields)))

    for_other = _reading("cfp", STRANGER.peer)
    yield "for another audience", for_other, sent(cfp), WRONG_AUDIENCE
    late = {**reading, "now_ms": cfp.h.expires_ms + limits.SKEW_MS_MAX}
    yield "expired", late, sent(cfp), EXPIRED
    early = {**reading, "now_ms": NOW_MS - limits.SKEW_MS_MAX - 1}
    yield "from the future", early, sent(cfp), EXPIRED
    yield "signed by another than its header says", reading, sent(cfp, STRANGER), BAD_SIGNATURE
    copied = sent(cfp, network="other")
    elsewhere = {**reading, "network": "other"}
    yield "copied to another network by its issuer", elsewhere, copied, WRONG_NETWORK
    yield "a CFP read as an award", _reading("award", CONTRACTOR.peer), sent(cfp), UNKNOWN_TYPE
    fields = codec.decode(codec.encode(cfp))
    assert isinstance(fields, dict)
    for name in HEADED:
        header = {k: v for k, v in fields["h"].items() if k != name}
        data = seal(BROKER, "cfp", NETWORK, codec.encode(fields | {"h": header}))
        yield f"without {name}", reading, data, MALFORMED
    for why, data in (
        ("an id of 15 bytes", headed(id=bytes(15))),
        ("expires as it is issued", headed(expires_ms=NOW_MS)),
        ("lives over 10 minutes", headed(expires_ms=NOW_MS + 600_001)),
        ("9 hops", headed(hops=9)),
        ("a negative epoch", headed(epoch=-1)),
        ("a charter that is no hash", headed(charter=b"x")),
        ("a secrecy that is not", headed(label=Label(secrecy=4))),
        ("a key of 257 characters", headed(idempotency_key="k" * 257)),
        ("negative items", sent(changed(cfp, items=-1))),
    ):
        yield why, reading, data, MALFORMED
    reading = _reading("award", CONTRACTOR.peer)
    for why, data in (
        ("an award without items", sent(changed(award, items=0))),
        ("an award that binds no proposal", sent(changed(award, proposal=b""))),
        ("an award that has no time", sent(changed(award, timeout_ms=0))),
        ("an order that lives over 7 days", sent(_over(award))),
        ("an award that maps over no input", sent(changed(award, each=["ghost"]))),
    ):
        yield why, reading, data, MALFORMED
    nothing = sent(changed(made[Decline], proposal=b""))
    yield "a decline of nothing", _reading("decline", CONTRACTOR.peer), nothing, MALFORMED
    reading = _reading("result", BROKER.peer)
    for why, data in (
        ("completed without an output", sent(changed(result, output=b"", inline=b""))),
        ("failed with an output", sent(changed(result, state="failed"))),
        ("an inline output of another hash", sent(changed(result, output=bytes(32)))),
        ("a negative list length", sent(changed(result, lengths={"/issues": -1}))),
        ("a state that is not", sent(changed(result, state="done"))),
    ):
        yield why, reading, data, MALFORMED


def _reading(kind: str, audience: str) -> dict[str, Any]:
    return {"type": kind, "network": NETWORK, "audience": audience, "now_ms": NOW_MS}


def receipt_cases() -> Iterator[Case]:
    """Finished contracts; the bytes are the acceptance."""
    other = digest(b"another message")

    def case(why: str, expected: Any, **parts: Any) -> Case:
        made = samples.deal(**parts)
        inputs = {
            "network": NETWORK,
            "award": made.award.hex(),
            "result": made.result.hex(),
            "receipt": made.receipt.hex(),
        }
        return why, inputs, made.acceptance, expected

    rejected = {"verdict": "rejected", "paid_mc": 0}
    yield case("accepted and paid", ok({"cost_mc": 90, "paid_mc": 90}))
    yield case("rejected", ok({"cost_mc": 90, "paid_mc": 0}), of_acceptance=rejected)
    yield case("rejected and paid", MALFORMED, of_acceptance={"verdict": "rejected"})
    yield case("accepted and not paid", MALFORMED, of_acceptance={"paid_mc": 0})
    yield case("receipt for another result", MALFORMED, of_receipt={"result": other})
    yield case("receipt for another award", MALFORMED, of_receipt={"award": other})
    yield case("acceptance of another receipt", MALFORMED, of_acceptance={"receipt": other})
    yield case("a charge above the result's price", MALFORMED, of_receipt={"cost_mc": 91})
    above = {"of_result": {"price_mc": 101}, "of_receipt": {"cost_mc": 101}}
    yield case("above the cap", MALFORMED, **above, of_acceptance={"paid_mc": 101})
    yield case("another capability", MALFORMED, of_receipt={"capability": "law@1"})
    for why, expected, parts in _passed_on():
        yield case(why, expected, **parts)
    third = samples.header(STRANGER, CONTRACTOR)
    yield case("accepted by a third party", BAD_SIGNATURE, of_acceptance={"h": third})
    astray = samples.header(CONTRACTOR, STRANGER)
    yield case("receipt for a third party", WRONG_AUDIENCE, of_receipt={"h": astray})
    job = samples.header(BROKER, CONTRACTOR, job="job-2")
    yield case("acceptance in another job", MALFORMED, of_acceptance={"h": job})
    first = {"charter": digest(b"a charter"), "epoch": 1}
    back = samples.header(CONTRACTOR, BROKER, **first)
    awarded = {
        "of_award": {"h": samples.header(BROKER, CONTRACTOR, **first)},
        "of_result": {"h": back},
        "of_receipt": {"h": back},
    }
    for why, by, expected in (
        (
            "accepted in a later epoch",
            {**first, "epoch": 2},
            ok({"cost_mc": 90, "paid_mc": 90}),
        ),
        ("accepted by another in the same epoch", first, BAD_SIGNATURE),
        ("accepted under another charter", {"charter": other, "epoch": 2}, BAD_SIGNATURE),
    ):
        later = samples.header(STRANGER, CONTRACTOR, **by)
        yield case(why, expected, **awarded, of_acceptance={"h": later})


def _passed_on() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Receipts that say what others did: why, what a reader answers, the messages' fields."""
    row: dict[str, Any] = {"level": 1, "subtask": "scan", "peer": STRANGER.peer}
    given = {
        "of_award": {
            "h": samples.header(
                BROKER, CONTRACTOR, hops=2, budget=Budget(cost_mc=50, subtasks=3)
            )
        }
    }
    paid = ok({"cost_mc": 90, "paid_mc": 90})
    for why, expected, rows in (
        (
            "all that the award allows was done below",
            paid,
            [{"cost_mc": 50, "awards": 2}, {"level": 2, "cost_mc": 50, "awards": 1}],
        ),
        ("a broker too deep below", MALFORMED, [{"level": 3, "awards": 1}]),
        ("awards below that the award doesn't allow", MALFORMED, [{"awards": 2}] * 2),
        ("more spent below than was given", MALFORMED, [{"cost_mc": 25}, {"cost_mc": 26}]),
    ):
        below = [Spent(**{**row, **fields}) for fields in rows]
        yield why, expected, {**given, "of_receipt": {"below": below}}
    capped = {
        "of_award": {
            "h": samples.header(
                BROKER, CONTRACTOR, hops=2, budget=Budget(cost_mc=50, tokens=100, subtasks=3)
            )
        }
    }
    for why, expected, own, counts in (
        ("all tokens that the award allows", paid, 30, [50, 20]),
        ("a token more than the award allows, there and below", MALFORMED, 31, [50, 20]),
        ("a token more than the award allows, below", MALFORMED, 0, [51, 50]),
        ("a token more than the award allows, there", MALFORMED, 101, []),
    ):
        below = [Spent(**row, tokens=count) for count in counts]
        metering = Metering(tokens_in=own - own // 3, tokens_out=own // 3)
        made = {"of_result": {"metering": metering}, "of_receipt": {"below": below}}
        yield why, expected, {**capped, **made}
    metering = Metering(tokens_in=10**9)
    yield (
        "any number of tokens, unless said otherwise",
        paid,
        {
            **given,
            "of_result": {"metering": metering},
        },
    )
    none = [Spent(level=1, subtask="scan", peer=STRANGER.peer, awards=1)]
    yield "done below, and nothing may be", MALFORMED, {"of_receipt": {"below": none}}


def settlement_cases() -> Iterator[Case]:
    """Payments and their answers, read by their audience at ``now_ms``."""
    made = samples.messages()
    payment, answer = made[Payment], made[PaymentAnswer]

    def sent(message: Any, signer: Any = None, **fields: Any) -> bytes:
        signer = signer or samples.signer_of(message)
        return seal(signer, message.TYPE, NETWORK, codec.encode(changed(message, **fields)))

    reading = _reading("payment", CONTRACTOR.peer)
    expires_ms = NOW_MS + PAYMENT_LIFETIME_MS
    week = sent(payment, h=changed(payment.h, expires_ms=expires_ms))
    late = expires_ms + limits.SKEW_MS_MAX
    yield "a payment", reading, sent(payment), ok()
    yield "a payment a week later", {**reading, "now_ms": late - 1}, week, ok()
    yield "a payment after its time", {**reading, "now_ms": late}, week, EXPIRED
    for_other = _reading("payment", STRANGER.peer)
    yield "a payment to somebody else", for_other, sent(payment), WRONG_AUDIENCE
    yield "a payment by another than it says", reading, sent(payment, STRANGER), BAD_SIGNATURE
    as_answer = _reading("payment_answer", CONTRACTOR.peer)
    yield "a payment read as an answer", as_answer, sent(payment), UNKNOWN_TYPE
    bad: tuple[tuple[str, dict[str, Any]], ...] = (
        ("a payment of nothing", {"amount_mc": 0}),
        ("a payment of less than nothing", {"amount_mc": -300}),
        ("a payment of more than a count holds", {"amount_mc": limits.NUMBER_MAX + 1}),
        ("a payment that nobody can find", {"reference": ""}),
        ("a reference of 257 characters", {"reference": "r" * 257}),
        ("a method of 257 characters", {"method": "m" * 257}),
    )
    for why, fields in bad:
        yield why, reading, sent(payment, **fields), MALFORMED
    reading = _reading("payment_answer", BROKER.peer)
    for state in ("settled", "noted", "refused"):
        yield f"it is {state}", reading, sent(answer, state=state), ok()
    for_other = _reading("payment_answer", CONTRACTOR.peer)
    yield "an answer to somebody else", for_other, sent(answer), WRONG_AUDIENCE
    wrong: tuple[tuple[str, dict[str, Any]], ...] = (
        ("a state that is not", {"state": "paid"}),
        ("an answer to nothing", {"payment": b""}),
        ("an answer of 257 characters", {"text": "t" * 257}),
    )
    for why, fields in wrong:
        yield why, reading, sent(answer, **fields), MALFORMED


def journal_cases() -> Iterator[Case]:
    """Exported journals."""
    small, two = export(samples.journal(2)), export(samples.journal(2, 1))
    yield "one segment", {}, small, ok({"events": [2], "state": "completed"})
    yield "two segments", {}, two, ok({"events": [2, 1], "state": "completed"})
    gap = export(samples.journal(1, 0, 1))
    yield "a segment without events", {}, gap, ok({"events": [1, 0, 1], "state": "completed"})
    (only,) = samples.journal(2)
    head = codec.decode(only.head)
    assert isinstance(head, dict)

    header, one, other = (0, only.header), (1, only.events[0]), (1, only.events[1])
    last = (2, only.head)
    for why, data, expected in (
        ("nothing", b"", MALFORMED),
        ("another magic", b"meshnode journal 2\n" + small[len(MAGIC) :], MALFORMED),
        ("no segment", MAGIC, MALFORMED),
        ("the last byte is missing", small[:-1], MALFORMED),
        ("a byte after the end", small + b"\0", MALFORMED),
        ("the last head is missing", _entries(header, one, other), MALFORMED),
        ("the last event is missing", _entries(header, one, last), MALFORMED),
        ("the first event is missing", _entries(header, other, last), MALFORMED),
        ("events swapped", _entries(header, other, one, last), MALFORMED),
        ("an event twice", _entries(header, one, one, other, last), MALFORMED),
        ("no header", _entries(one, other, last), MALFORMED),
        ("an entry of an unknown kind", _entries(header, one, (3, b""), last), MALFORMED),
        ("an element added to an entry", _entries((*header, 0), one, other, last), MALFORMED),
        (
            "a field added to the last head, which no signature covers",
            _entries(header, one, other, (2, codec.encode(head | {"z": 0}))),
            MALFORMED,
        ),
        ("the job goes on", export([samples.segment(samples.events(0, 1))]), MALFORMED),
        (
            "a head signed by another than the writer",
            _entries(header, one, other, (2, _head_by(CONTRACTOR, END, only.head))),
            BAD_SIGNATURE,
        ),
        (
            "a terminal head signed as one that isn't",
            _entries(header, one, other, (2, _head_by(BROKER, HEAD, only.head))),
            MALFORMED,
        ),
        ("a frame over the limit", MAGIC + H("00040001"), TOO_LARGE),
    ):
        yield why, {}, data, expected
    yield from _segments_out_of_place()


def _segments_out_of_place() -> Iterator[Case]:
    (only,) = samples.journal(2)
    first, second = samples.journal(2, 1)

    def second_with(**fields: Any) -> bytes:
        valid: dict[str, Any] = {"epoch": 2, "parent": digest(first.head)}
        later = samples.segment(samples.events(2, 1), state="failed", **valid | fields)
        return export([first, later])

    for why, data, expected in (
        ("the last segment is missing", export([first]), MALFORMED),
        ("the first segment is missing", export([second]), MALFORMED),
        ("segments swapped", export([second, first]), MALFORMED),
        ("follows another head", second_with(parent=bytes(32)), MALFORMED),
        ("of another job", second_with(job="job-2"), MALFORMED),
        ("of the same epoch", second_with(epoch=1), STALE),
        ("of an earlier epoch", second_with(epoch=0), STALE),
        (
            "a segment after the terminal head",
            export(
                [
                    only,
                    samples.segment(
                        samples.events(2, 1), epoch=2, parent=digest(only.head), state="failed"
                    ),
                ]
            ),
            OUT_OF_TURN,
        ),
    ):
        yield why, {}, data, expected


def _entries(*values: Any) -> bytes:
    return MAGIC + b"".join(frame(codec.encode(list(value))) for value in values)


def _head_by(signer: Any, kind: str, head: bytes) -> bytes:
    return seal(signer, kind, NETWORK, peek(head).p)
