"""Vectors of orders and outcomes: what letters between broker and contractor hold."""

from collections.abc import Iterator
from typing import Any, Final

from protocol import codec, limits
from protocol.keys import digest
from protocol.messages import Binding, Budget, Message, Part, Refuse
from protocol.orders import Order, Outcome
from protocol.signing import seal
from tests.protocol import samples
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    STRANGER,
    award,
    changed,
    header,
    receipt,
    result,
)
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    EXPIRED,
    MALFORMED,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_AUDIENCE,
    WRONG_NETWORK,
    Case,
    ok,
)

DAY_MS: Final = 24 * 3_600_000
RULES: Final = b'["none"]'
WORDS: Final = b'"two words"'
#: Until when the work may be begun, and when it has to have ended.
TIMES: Final = {"expires_ms": NOW_MS + DAY_MS, "deadline_ms": NOW_MS + 2 * DAY_MS}


def part(data: bytes) -> Binding:
    """An input that is enclosed."""
    whole = Part(artifact=digest(data), size=len(data), holder=BROKER.peer)
    return Binding(parts=[whole])


def ordered(**fields: Any) -> Message:
    """A valid order's award: two inputs enclosed, one inline."""
    heading = {**TIMES, "budget": Budget(), "hops": 0, **fields.pop("h", {})}
    inputs = {"rules": part(RULES), "text": part(WORDS), "also": part(WORDS)}
    inline = Binding(parts=[Part(inline=b'"import os"')])
    plain = award(lease_ms=0, inputs={**inputs, "code": inline})
    made: Message = changed(plain, h=header(BROKER, CONTRACTOR, **heading), **fields)
    return made


def signed(
    message: Message, kind: str = "award", by: Any = BROKER, net: str = NETWORK
) -> bytes:
    """An envelope, whether what is in it holds or not."""
    return seal(by, kind, net, codec.encode(message))


def body(awarded: bytes | None = None, *enclosed: bytes) -> bytes:
    """A letter's body: an order."""
    there = sorted(enclosed or (RULES, WORDS), key=digest)
    return codec.encode(Order(signed(ordered()) if awarded is None else awarded, there))


def order_cases() -> Iterator[Case]:
    """Orders as the contractor reads them, outcomes as the broker does."""
    yield from _orders()
    yield from _wrong_orders()
    yield from _outcomes()


def _reading(**fields: Any) -> dict[str, Any]:
    told = {"type": "order", "network": NETWORK, "now_ms": NOW_MS, "reader": "contractor"}
    return {**told, **fields}


def _orders() -> Iterator[Case]:
    valid = body()
    told = ok({"subtask": "audit/0", "enclosed": 2})
    yield "an order", _reading(), valid, told
    last_ms = NOW_MS + DAY_MS
    yield "the last millisecond to begin it", _reading(now_ms=last_ms - 1), valid, told
    yield "too late to begin, without a skew", _reading(now_ms=last_ms), valid, EXPIRED
    early_ms = NOW_MS - limits.SKEW_MS_MAX
    yield "by a clock that is a minute ahead", _reading(now_ms=early_ms), valid, told
    yield "by one further ahead", _reading(now_ms=early_ms - 1), valid, EXPIRED
    yield "for somebody else", _reading(reader="stranger"), valid, WRONG_AUDIENCE
    nothing = Binding(parts=[Part(inline=b"1")])
    alone = codec.encode(Order(signed(ordered(inputs={"code": nothing})), []))
    yield "nothing to enclose", _reading(), alone, ok({"subtask": "audit/0", "enclosed": 0})


def _wrong_orders() -> Iterator[Case]:
    later_ms = NOW_MS + limits.ORDER_LIFETIME_MS_MAX + 1
    for why, wrong in (
        ("an award with a lease", ordered(lease_ms=10_000)),
        ("the answer to a call", ordered(cfp=digest(b"cfp"))),
        ("of a job with a charter", ordered(h={"charter": bytes(32)})),
        ("to be handed on", ordered(h={"budget": Budget(subtasks=1)})),
        ("with a ticket", ordered(tickets=[b"ticket"])),
        ("with a key for its result", ordered(result_key=bytes(32))),
        ("begun after its deadline", ordered(h={"deadline_ms": NOW_MS + DAY_MS - 1})),
        ("a deadline over 7 days off", ordered(h={"deadline_ms": later_ms})),
        ("an expiry over 7 days off", ordered(h=dict.fromkeys(TIMES, later_ms))),
        ("expired as it is issued", ordered(h={"expires_ms": NOW_MS})),
        ("two sizes of one artifact", ordered(inputs={"a": part(RULES), "b": _short(RULES)})),
    ):
        yield why, _reading(), body(signed(wrong)), MALFORMED
    for why, enclosed in (
        ("something enclosed is missing", (RULES,)),
        ("something is enclosed beside", (RULES, WORDS, b"1")),
        ("something else is enclosed", (RULES, b'"two wordz"')),
        ("something is enclosed twice", (RULES, WORDS, WORDS)),
    ):
        yield why, _reading(), body(None, *enclosed), MALFORMED
    turned = codec.encode(Order(signed(ordered()), sorted([RULES, WORDS], key=digest)[::-1]))
    yield "enclosed in another order", _reading(), turned, MALFORMED
    many = [b"%d" % number for number in range(limits.ENCLOSED_MAX + 1)]
    inputs = {"all": Binding(parts=[part(one).parts[0] for one in many], gather=True)}
    yield "65 enclosed", _reading(), body(signed(ordered(inputs=inputs)), *many), MALFORMED
    over = body(None, bytes(limits.LETTER_BODY_SIZE_MAX))
    yield "more than a letter holds", _reading(), over, TOO_LARGE
    astray = body(signed(ordered(), by=STRANGER))
    yield "an order in another's name", _reading(), astray, BAD_SIGNATURE
    yield "of another mesh", _reading(), body(signed(ordered(), net="other")), WRONG_NETWORK
    yield "signed as something else", _reading(), body(signed(ordered(), "cfp")), UNKNOWN_TYPE
    yield "no order", _reading(), codec.encode({"award": b""}), MALFORMED


def _short(data: bytes) -> Binding:
    whole = part(data).parts[0]
    return Binding(parts=[changed(whole, size=whole.size - 1)])


def _outcomes() -> Iterator[Case]:
    read = _reading(type="outcome")
    awarded = signed(ordered())
    inline = samples._sealed(result(awarded))
    apart = samples._sealed(result(awarded, inline=b""))
    wrong = {"output": b"", "inline": b"", "size": 0, "lengths": {}, "price_mc": 0}
    failed = samples._sealed(
        result(awarded, state="failed", error_code="agent.failed", **wrong)
    )
    no = Refuse(h=header(CONTRACTOR, BROKER), of=digest(awarded), reason="price")
    refused = samples._sealed(no)

    def outcome(done: bytes = b"", output: bytes = b"", refuse: bytes = b"") -> bytes:
        half = samples._sealed(receipt(awarded, done)) if done else b""
        return codec.encode(Outcome(refuse, done, half, output))

    def told(state: str) -> Any:
        return ok({"award": digest(awarded).hex(), "state": state})

    yield "done", read, outcome(inline), told("completed")
    yield "done, the output beside", read, outcome(apart, samples.OUTPUT), told("completed")
    yield "failed", read, outcome(failed), told("failed")
    yield "refused", read, outcome(refuse=refused), told("refused")
    yield "without the last field", read, codec.encode([refused, b"", b""]), told("refused")
    yield "the output missing", read, outcome(apart), MALFORMED
    yield "the output twice", read, outcome(inline, samples.OUTPUT), MALFORMED
    yield "an output of what failed", read, outcome(failed, samples.OUTPUT), MALFORMED
    yield "another output", read, outcome(apart, b'{"issues":[1]}'), MALFORMED
    yield "refused and done", read, outcome(inline, refuse=refused), MALFORMED
    yield "nothing at all", read, outcome(), MALFORMED
    other = samples._sealed(result(signed(ordered(price_cap_mc=7))))
    half = samples._sealed(receipt(awarded, other))
    yield "of two awards", read, codec.encode(Outcome(b"", other, half)), MALFORMED
    half = samples._sealed(receipt(awarded, apart))
    yield "a receipt of another", read, codec.encode(Outcome(b"", inline, half)), MALFORMED
    by_other = receipt(awarded, inline, h=header(STRANGER, BROKER))
    two = codec.encode(Outcome(b"", inline, samples._sealed(by_other)))
    yield "by two nodes", read, two, MALFORMED
    large = outcome(apart, bytes(limits.LETTER_BODY_SIZE_MAX))
    yield "an outcome over a letter", read, large, TOO_LARGE
