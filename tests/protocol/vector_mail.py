"""Vectors of letters, their acknowledgements, seals, and what is said to mailboxes."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from protocol import codec, limits
from protocol.keys import Identity, digest
from protocol.mail import Enclosed, Letter, LetterAck, seal_letter
from protocol.mailbox import (
    Acks,
    Collect,
    Collected,
    Deposit,
    Held,
    Inquiry,
    KeyQuery,
    KeyRecord,
)
from protocol.signing import seal
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    STRANGER,
    changed,
    header,
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

WEEK_MS: Final = 7 * 24 * 3_600_000
#: The key that is made for one letter alone; here always the same.
SECRET: Final = digest(b"for one letter alone")


def letter(**fields: Any) -> Letter:
    """A valid letter of the broker to the contractor."""
    heading = fields.pop("h", {})
    plain = header(BROKER, CONTRACTOR, job="", subtask="", idempotency_key="", deadline_ms=0)
    valid = Letter(
        h=changed(plain, **{"expires_ms": NOW_MS + WEEK_MS, **heading}),
        kind="text/plain",
        subject="lunch",
        body=b"At one?",
        answers=b"",
    )
    made: Letter = changed(valid, **fields)
    return made


def posted(made: Letter, signer: Identity = BROKER, network: str = NETWORK) -> bytes:
    """The envelope of a letter, whether it holds or not."""
    return seal(signer, "letter", network, codec.encode(made))


def ack(envelope: bytes, **fields: Any) -> LetterAck:
    """A valid acknowledgement of the letter in ``envelope``."""
    valid = LetterAck(
        h=header(CONTRACTOR, BROKER, job="", subtask="", expires_ms=NOW_MS + WEEK_MS),
        letter=digest(envelope),
        sealed=b"",
        state="kept",
        reason="",
    )
    made: LetterAck = changed(valid, **fields)
    return made


def acked(made: LetterAck, signer: Identity = CONTRACTOR, kind: str = "letter.ack") -> bytes:
    """The envelope of an acknowledgement, whether it holds or not."""
    return seal(signer, kind, NETWORK, codec.encode(made))


def closed(enclosed: Enclosed, **fields: Any) -> bytes:
    """A letter sealed to the contractor."""
    told: dict[str, Any] = {
        "recipient": CONTRACTOR.peer,
        "x25519": CONTRACTOR.x25519_public,
        "network": NETWORK,
        "secret": SECRET,
    }
    return seal_letter(enclosed, **{**told, **fields})


def mail_cases() -> Iterator[Case]:
    """Letters, acknowledgements, seals and bodies, read by the contractor."""
    yield from _letters()
    yield from _acks()
    yield from _seals()
    yield from _bodies()


def _reading(kind: str, **fields: Any) -> dict[str, Any]:
    told = {"type": kind, "network": NETWORK, "now_ms": NOW_MS, "reader": "contractor"}
    return {**told, **fields}


def _letters() -> Iterator[Case]:
    read = _reading("letter")
    told = ok({"subject": "lunch", "size": 7})
    valid = posted(letter())

    def at(now_ms: int) -> dict[str, Any]:
        return {**read, "now_ms": now_ms}

    yield "a letter", read, valid, told
    fields = codec.decode(codec.encode(letter()))
    assert isinstance(fields, dict)
    later = seal(BROKER, "letter", NETWORK, codec.encode(fields | {"zz": 1}))
    yield "a letter with a field of a later version", read, later, told
    last_ms = NOW_MS + WEEK_MS + limits.SKEW_MS_MAX
    yield "the last millisecond of a letter", at(last_ms - 1), valid, told
    yield "an expired letter, the skew allowed", at(last_ms), valid, EXPIRED
    early_ms = NOW_MS - limits.LETTER_SKEW_MS_MAX
    yield "a letter from a day ahead", at(early_ms), valid, told
    yield "a letter from further ahead", at(early_ms - 1), valid, EXPIRED
    yield "a letter for somebody else", {**read, "reader": "stranger"}, valid, WRONG_AUDIENCE
    astray = posted(letter(), STRANGER)
    yield "a letter in another's name", read, astray, BAD_SIGNATURE
    elsewhere = posted(letter(), network="other")
    yield "a letter of another mesh", read, elsewhere, WRONG_NETWORK
    as_award = seal(BROKER, "award", NETWORK, codec.encode(letter()))
    yield "a letter signed as an award", read, as_award, UNKNOWN_TYPE
    over_ms = NOW_MS + limits.LETTER_LIFETIME_MS_MAX + 1
    for why, wrong, refusal in (
        ("a letter that lives over 30 days", letter(h={"expires_ms": over_ms}), MALFORMED),
        ("a letter to nobody", letter(h={"audience": "me"}), MALFORMED),
        ("a letter with an id of 15 bytes", letter(h={"id": bytes(15)}), MALFORMED),
        ("a kind in capitals", letter(kind="Text/Plain"), MALFORMED),
        ("no kind", letter(kind=""), MALFORMED),
        ("a kind of 65 characters", letter(kind="a" * 65), MALFORMED),
        ("a subject of two lines", letter(subject="a\nb"), MALFORMED),
        ("a subject of 201 characters", letter(subject="a" * 201), MALFORMED),
        ("a body of a byte too many", letter(body=bytes(65_537)), MALFORMED),
        ("a letter over the limit", letter(body=bytes(81_920)), TOO_LARGE),
        ("an answer to what is no hash", letter(answers=bytes(31)), MALFORMED),
    ):
        yield why, read, posted(wrong), refusal


def _acks() -> Iterator[Case]:
    read = _reading("letter.ack")
    envelope = posted(letter())
    one, other = digest(envelope), digest(b"a sealed letter")
    yield "an acknowledgement", read, acked(ack(envelope)), ok("kept")
    by_mailbox = acked(ack(envelope, sealed=other))
    yield "an acknowledgement of a sealed letter", read, by_mailbox, ok("kept")
    refused = {"state": "refused", "reason": "sealed.unreadable"}
    unread = acked(ack(envelope, letter=b"", sealed=other, **refused))
    yield "a refusal of what can't be opened", read, unread, ok("refused")
    by_other = acked(ack(envelope), STRANGER)
    yield "an acknowledgement by another", read, by_other, BAD_SIGNATURE
    as_letter = acked(ack(envelope), kind="letter")
    yield "an acknowledgement signed as a letter", read, as_letter, UNKNOWN_TYPE
    for why, fields in (
        ("an acknowledgement of nothing", {"letter": b""}),
        ("kept, of no name", {"letter": b"", "sealed": other}),
        ("kept, with a reason", {"letter": one, "reason": "x"}),
        ("refused without a reason", {"letter": one, "state": "refused"}),
        ("refused for 65 characters", {"state": "refused", "reason": "r" * 65}),
        ("a state that is not", {"letter": one, "state": "read"}),
        ("a letter of 31 bytes", {"letter": one[:31]}),
        ("a sealed letter of 31 bytes", {"letter": one, "sealed": one[:31]}),
    ):
        yield why, read, acked(ack(envelope, **fields)), MALFORMED
    headed = changed(ack(envelope).h, traceparent="t" * 256, job="j" * 256)
    long = codec.decode(codec.encode(ack(envelope, h=headed)))
    assert isinstance(long, dict)
    over = seal(CONTRACTOR, "letter.ack", NETWORK, codec.encode(long | {"zz": "a" * 4_000}))
    yield "an acknowledgement over the limit", read, over, TOO_LARGE


def _seals() -> Iterator[Case]:
    read = _reading("sealed")
    envelope = posted(letter())
    enclosed = Enclosed(envelope, [])
    sealed = closed(enclosed)
    told = ok({"letter": digest(envelope).hex(), "links": 0})
    yield "a sealed letter", read, sealed, told
    chained = closed(Enclosed(envelope, [b"link"] * 8))
    letter_hash = digest(envelope).hex()
    yield "a chain of 8 links", read, chained, ok({"letter": letter_hash, "links": 8})
    fields = codec.decode(sealed)
    assert isinstance(fields, dict)
    body, key = fields["c"], fields["e"]
    assert isinstance(body, bytes)
    assert isinstance(key, bytes)

    def with_(**parts: Any) -> bytes:
        return codec.encode(fields | parts)

    yield "opened by another", {**read, "reader": "stranger"}, sealed, MALFORMED
    yield "opened in another mesh", {**read, "network": "other"}, sealed, MALFORMED
    for why, data, refusal in (
        ("a flipped bit", with_(c=bytes([body[0] ^ 1]) + body[1:]), MALFORMED),
        ("cut by a byte", with_(c=body[:-1]), MALFORMED),
        ("nothing inside", with_(c=b""), MALFORMED),
        ("another ephemeral key", with_(e=STRANGER.x25519_public), MALFORMED),
        ("an ephemeral key of zeros", with_(e=bytes(32)), MALFORMED),
        ("an ephemeral key of small order", with_(e=b"\x01" + bytes(31)), MALFORMED),
        ("an ephemeral key of 31 bytes", with_(e=key[:31]), MALFORMED),
        ("a field more", with_(zz=0), MALFORMED),
        ("a field less", codec.encode({"c": body}), MALFORMED),
        ("for another's name", closed(enclosed, recipient=STRANGER.peer), MALFORMED),
        ("to another's key", closed(enclosed, x25519=STRANGER.x25519_public), MALFORMED),
        ("9 links", closed(Enclosed(envelope, [b""] * 9)), MALFORMED),
        ("a sealed letter over the limit", with_(c=bytes(102_400)), TOO_LARGE),
    ):
        yield why, read, data, refusal


def _bodies() -> Iterator[Case]:
    peer, one = CONTRACTOR.peer, bytes(32)
    for kind, body, count in (
        ("deposit", Deposit(peer, NOW_MS, b"sealed"), 3),
        ("collect", Collect(b"record", [b"ack"] * 32, one), 3),
        ("collected", Collected([Held(peer, b"sealed")], more=True), 2),
        ("inquiry", Inquiry([one] * 16, [one] * 16), 2),
        ("acks", Acks([b"", b"ack"], [one]), 2),
        ("key query", KeyQuery(peer), 1),
        ("key record", KeyRecord(b""), 1),
    ):
        yield f"{kind}: valid", _reading(kind), codec.encode(body), ok(count)
    older = codec.encode([b"record", []])
    yield "acks: without what is gone", _reading("acks"), codec.encode([[b""]]), ok(2)
    yield "collect: without what to go on after", _reading("collect"), older, ok(3)
    for why, kind, body, refusal in _wrong_bodies(lambda name, size: Held(name, bytes(size))):
        yield why, _reading(kind), codec.encode(body), refusal


def _wrong_bodies(held: Callable[[str, int], Held]) -> Iterator[tuple[str, str, Any, Any]]:
    peer, one = CONTRACTOR.peer, bytes(32)
    over = limits.SEALED_SIZE_MAX + 1
    yield "a deposit for nobody", "deposit", Deposit("me", NOW_MS, b"s"), MALFORMED
    yield "a deposit of nothing", "deposit", Deposit(peer, NOW_MS, b""), MALFORMED
    yield "a deposit before all time", "deposit", Deposit(peer, -1, b"s"), MALFORMED
    yield "a deposit over the limit", "deposit", Deposit(peer, NOW_MS, bytes(over)), TOO_LARGE
    yield "a record over the limit", "collect", Collect(bytes(65_537), []), TOO_LARGE
    yield "33 acknowledgements", "collect", Collect(b"", [b"a"] * 33), MALFORMED
    yield "a long acknowledgement", "collect", Collect(b"", [bytes(4_097)]), TOO_LARGE
    yield "after a hash of 31 bytes", "collect", Collect(b"", [], one[:31]), MALFORMED
    many = [held(peer, 1)] * 33
    yield "33 letters", "collected", Collected(many, more=False), MALFORMED
    yield "of nobody", "collected", Collected([held("me", 1)], more=False), MALFORMED
    large = Collected([held(peer, over)], more=False)
    yield "a letter larger than any", "collected", large, TOO_LARGE
    most = Collected([held(peer, limits.SEALED_SIZE_MAX)] * 2 + [held(peer, 1)], more=True)
    yield "letters over what one answer holds", "collected", most, TOO_LARGE
    yield "33 hashes", "inquiry", Inquiry([one] * 32, [one]), MALFORMED
    yield "a hash of 31 bytes", "inquiry", Inquiry([one[:31]], []), MALFORMED
    yield "33 answers", "acks", Acks([b""] * 33), MALFORMED
    yield "33 that are gone", "acks", Acks([], [one] * 33), MALFORMED
    yield "gone: a hash of 31 bytes", "acks", Acks([], [one[:31]]), MALFORMED
    yield "the key of nobody", "key query", KeyQuery("me"), MALFORMED
    yield "a kept record over the limit", "key record", KeyRecord(bytes(65_537)), TOO_LARGE
    yield "a map for an array", "key query", {"peer": peer}, MALFORMED
