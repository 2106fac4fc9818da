"""What a catalogue holds, whoever offers what in which order."""

from collections.abc import Sequence
from functools import cache

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.catalogue import Catalogue, Outcome, Room, Verdict
from protocol import limits
from protocol.catalogue import RECORDS_BYTES_MAX, RECORDS_MAX, summary
from protocol.errors import ErrorCode
from protocol.keys import Identity
from protocol.records import CallLimits, Capability, CapabilityName, Measured, NodeRecord
from protocol.records import sign_record as sign
from protocol.signing import peek

NETWORK = "test"
NOW_MS = 1_700_000_000_000
LIFETIME_MS = 600_000


@cache
def identity(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"), (number + 1).to_bytes(32, "big"))


def peer(number: int) -> str:
    return identity(number).peer


def capability(name: str, *, agent: str = "a", schema: bytes = b"{}") -> Capability:
    return Capability(
        agent=agent,
        name=name,
        description="",
        examples=[],
        input_schema=schema,
        output_schema=b"{}",
        price_mc=0,
        limits=CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
        measured=Measured(),
    )


@cache
def envelope(
    number: int,
    sequence: int = 1,
    *,
    names: tuple[str, ...] = (),
    issued_ms: int = NOW_MS,
    network: str = NETWORK,
    schema: bytes = b"{}",
    addresses: tuple[str, ...] = ("/memory/1",),
) -> bytes:
    who = identity(number)
    record = NodeRecord(
        peer=who.peer,
        sequence=sequence,
        issued_ms=issued_ms,
        expires_ms=issued_ms + LIFETIME_MS,
        addresses=list(addresses),
        x25519=who.x25519_public,
        capabilities=[
            capability(name, agent=f"a{place}", schema=schema)
            for place, name in enumerate(names)
        ],
    )
    return sign(who, network, record)


def catalogue(own: int = 99, room: Room | None = None) -> Catalogue:
    return Catalogue(peer(own), NETWORK, room or Room())


def offer(
    to: Catalogue, record: bytes, *, source: str = "source", now_ms: int = NOW_MS
) -> Outcome:
    return to.offer(record, source=source, now_ms=now_ms)


# --- the newest counts --------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), max_size=30))
def test_the_highest_sequence_wins_in_any_order_of_arrival(
    arrivals: list[tuple[int, int]],
) -> None:
    note(str(arrivals))
    held = catalogue()
    for number, sequence in arrivals:
        offer(held, envelope(number, sequence))
    highest: dict[str, int] = {}
    for number, sequence in arrivals:
        highest[peer(number)] = max(sequence, highest.get(peer(number), 0))
    assert held.sequences(now_ms=NOW_MS) == highest


def test_says_what_became_of_each_record() -> None:
    held = catalogue()
    assert offer(held, envelope(1, 2)).verdict is Verdict.NEW
    assert offer(held, envelope(1, 2)).verdict is Verdict.SAME
    assert offer(held, envelope(1, 3)).verdict is Verdict.NEWER
    assert offer(held, envelope(1, 2)).verdict is Verdict.STALE


def test_two_records_with_one_sequence_are_the_same_record() -> None:
    held = catalogue()
    offer(held, envelope(1, 1, names=("a.b@1",)))
    assert offer(held, envelope(1, 1, names=("c.d@1",))).verdict is Verdict.SAME
    assert len(held.providers(CapabilityName.parse("a.b@1"), now_ms=NOW_MS)) == 1


# --- what breaks the rules ----------------------------------------------------------


def forged() -> bytes:
    """Return a record of which one bit of the signature is flipped."""
    good = envelope(1)
    signature = peek(good).s
    return good.replace(signature, bytes([signature[0] ^ 1]) + signature[1:])


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (forged(), ErrorCode.BAD_SIGNATURE),
        (b"\x00" * (limits.RECORD_SIZE_MAX + 1), ErrorCode.TOO_LARGE),
        (b"not a record", ErrorCode.MALFORMED),
        (b"", ErrorCode.MALFORMED),
        (envelope(1, network="other"), ErrorCode.WRONG_NETWORK),
    ],
)
def test_a_record_that_no_honest_node_passes_on_blames_its_source(
    record: bytes, code: ErrorCode
) -> None:
    held = catalogue()
    outcome = offer(held, record)
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.error is not None
    assert outcome.error.code is code
    assert outcome.blames_source
    assert held.sequences(now_ms=NOW_MS) == {}
    assert held.have(source="source", now_ms=NOW_MS) == {}, "who forges can't hide a peer"


@pytest.mark.parametrize(
    "issued_ms",
    [
        NOW_MS - LIFETIME_MS - limits.SKEW_MS_MAX,
        NOW_MS + limits.RECORD_AHEAD_MS_MAX + 1,
    ],
)
def test_a_record_out_of_its_time_is_refused_and_blames_nobody(issued_ms: int) -> None:
    held = catalogue()
    outcome = offer(held, envelope(1, 7, issued_ms=issued_ms))
    assert outcome.error is not None
    assert outcome.error.code is ErrorCode.EXPIRED
    assert not outcome.blames_source
    assert held.sequences(now_ms=NOW_MS) == {}
    assert held.have(source="source", now_ms=NOW_MS) == {peer(1): 7}, "not sent again"
    assert held.have(source="other", now_ms=NOW_MS) == {}


@pytest.mark.parametrize("schema", [b"[", b'{"type": 3}', b'{"$ref": "http://x/y"}', b"3"])
def test_a_capability_whose_schema_cannot_be_used_is_dropped(schema: bytes) -> None:
    held = catalogue()
    record = envelope(1, names=("a.b@1",), schema=schema)
    outcome = offer(held, record)
    assert outcome.verdict is Verdict.NEW
    assert len(outcome.dropped) == 1
    assert "a.b@1" in outcome.dropped[0]
    assert held.providers(CapabilityName.parse("a.b"), now_ms=NOW_MS) == []
    assert held.answer({}, now_ms=NOW_MS).records == [record], "passed on as it was signed"


# --- expiry -------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 900)), max_size=12))
def test_an_expired_record_is_never_returned(events: list[tuple[int, int]]) -> None:
    """Each event: a peer signs and is heard of; then so many seconds pass."""
    note(str(events))
    held = catalogue()
    now_ms = NOW_MS
    signed: dict[str, int] = {}
    for number, wait_s in events:
        offer(held, envelope(number, now_ms, issued_ms=now_ms, names=("x@1",)), now_ms=now_ms)
        signed[peer(number)] = now_ms
        now_ms += wait_s * 1000
        fresh = {
            who
            for who, at_ms in signed.items()
            if now_ms < at_ms + LIFETIME_MS + limits.SKEW_MS_MAX
        }
        assert set(held.sequences(now_ms=now_ms)) == fresh
        assert {r.peer for r in held.records(now_ms=now_ms)} == fresh
        assert {
            r.peer for r, _ in held.providers(CapabilityName.parse("x"), now_ms=now_ms)
        } == fresh
        assert {who for who in signed if held.record(who, now_ms=now_ms)} == fresh


def test_what_lapsed_is_not_asked_for_again_and_not_taken_back() -> None:
    held = catalogue()
    offer(held, envelope(1, 5))
    later_ms = NOW_MS + LIFETIME_MS + limits.SKEW_MS_MAX
    assert held.sweep(now_ms=later_ms) == [peer(1)]
    assert held.sweep(now_ms=later_ms) == []
    assert held.sequences(now_ms=later_ms) == {}
    assert held.have(source="source", now_ms=later_ms) == {peer(1): 5}
    older = envelope(1, 4, issued_ms=later_ms)
    assert offer(held, older, now_ms=later_ms).verdict is Verdict.STALE
    newer = envelope(1, 6, issued_ms=later_ms)
    assert offer(held, newer, now_ms=later_ms).verdict is Verdict.NEW


# --- room ---------------------------------------------------------------------------

SMALL = Room(records_max=8, bytes_max=10**6, source_records_max=3, source_bytes_max=10**6)


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 3), st.sampled_from("abcd")), max_size=60
    )
)
def test_no_source_brings_more_than_its_share_and_nothing_goes_for_it(
    offers: list[tuple[int, int, str]],
) -> None:
    note(str(offers))
    held = catalogue(room=SMALL)
    brought: dict[str, str] = {}
    for number, sequence, source in offers:
        before = held.sequences(now_ms=NOW_MS)
        outcome = offer(held, envelope(number, sequence), source=source)
        after = held.sequences(now_ms=NOW_MS)
        if outcome.verdict is Verdict.NEW:
            brought[peer(number)] = source
        assert set(before) <= set(after), "an offer pushed a record out"
        assert len(after) <= SMALL.records_max
        for each in "abcd":
            assert list(brought.values()).count(each) <= SMALL.source_records_max


def test_a_full_share_takes_updates_and_leaves_room_to_others() -> None:
    held = catalogue(room=SMALL)
    for number in (1, 2, 3):
        assert offer(held, envelope(number), source="a").taken
    refused = offer(held, envelope(4), source="a")
    assert refused.verdict is Verdict.REFUSED
    assert not refused.blames_source
    assert peer(4) in held.have(source="a", now_ms=NOW_MS)
    assert peer(4) not in held.have(source="b", now_ms=NOW_MS)
    assert offer(held, envelope(1, 2), source="a").verdict is Verdict.NEWER
    assert offer(held, envelope(2, 2), source="b").verdict is Verdict.NEWER
    assert not offer(held, envelope(5), source="a").taken, "an update by another frees nothing"
    assert offer(held, envelope(4), source="b").taken


def test_a_share_is_bounded_in_bytes_too() -> None:
    size_bytes = len(envelope(1))
    held = catalogue(room=Room(source_bytes_max=2 * size_bytes + size_bytes // 2))
    assert offer(held, envelope(1)).taken
    assert offer(held, envelope(2)).taken
    assert not offer(held, envelope(3)).taken
    grown = envelope(1, 2, names=tuple(f"a.b{n}@1" for n in range(9)))
    assert not offer(held, grown).taken, "an update may not outgrow the share"
    assert held.sequences(now_ms=NOW_MS)[peer(1)] == 1
    assert offer(held, envelope(3), source="other").taken


def test_what_this_node_could_not_dial_goes_first_when_room_is_short() -> None:
    held = catalogue(room=SMALL)
    for number in (1, 2, 3):
        offer(held, envelope(number), source="a")
    held.demote(peer(2))
    assert offer(held, envelope(4), source="a").taken
    assert set(held.sequences(now_ms=NOW_MS)) == {peer(1), peer(3), peer(4)}
    assert offer(held, envelope(2), source="a").verdict is Verdict.STALE


def test_a_source_makes_no_room_in_anothers_share() -> None:
    held = catalogue(room=SMALL)
    offer(held, envelope(9), source="b")
    held.demote(peer(9))
    for number in (1, 2, 3):
        offer(held, envelope(number), source="a")
    assert not offer(held, envelope(4), source="a").taken
    assert peer(9) in held.sequences(now_ms=NOW_MS)


def test_expired_records_make_room() -> None:
    held = catalogue(room=SMALL)
    for number in (1, 2, 3):
        offer(held, envelope(number), source="a")
    later_ms = NOW_MS + LIFETIME_MS + limits.SKEW_MS_MAX
    new = envelope(4, issued_ms=later_ms)
    assert offer(held, new, source="a", now_ms=later_ms).taken


def test_the_own_record_always_has_room() -> None:
    held = catalogue(own=50, room=SMALL)
    for number, source in zip(range(1, 9), "aaabbbcc", strict=True):
        assert offer(held, envelope(number), source=source).taken
    assert not offer(held, envelope(9), source="d").taken
    assert offer(held, envelope(50), source=peer(50)).taken


# --- finding ------------------------------------------------------------------------


def test_providers_are_found_by_name_prefix_and_version() -> None:
    held = catalogue()
    offer(held, envelope(1, names=("text.summarization@1", "text.translation.formal@2")))
    offer(held, envelope(2, names=("text.summarization@2",)))
    offer(held, envelope(3, names=("textile@1",)))

    def found(query: str) -> set[str]:
        rows = held.providers(CapabilityName.parse(query), now_ms=NOW_MS)
        return {f"{record.peer} {c.name}" for record, c in rows}

    one, two = peer(1), peer(2)
    assert found("text.summarization@1") == {f"{one} text.summarization@1"}
    assert found("text.summarization") == {
        f"{one} text.summarization@1",
        f"{two} text.summarization@2",
    }
    assert found("text@2") == {
        f"{one} text.translation.formal@2",
        f"{two} text.summarization@2",
    }
    assert found("text.trans") == set()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["offer", "demote", "revive", "sweep", "wait", "clock back"]),
        st.integers(1, 4),
    ),
    max_size=25,
)


@settings(max_examples=300)
@given(STEPS)
def test_what_was_found_is_what_would_be_found_anew(steps: list[tuple[str, int]]) -> None:
    held, now_ms, sequence = catalogue(), NOW_MS, 4
    for number in range(1, 5):
        offer(held, envelope(number, number, names=("text.a0@1",)))
    for step, number in steps:
        match step:
            case "offer":
                sequence += 1
                names = (f"text.a{sequence % 2}@1",)
                record = envelope(number, sequence, names=names, issued_ms=now_ms)
                offer(held, record, now_ms=now_ms)
            case "demote":
                held.demote(peer(number))
            case "revive":
                held.revive(peer(number))
            case "sweep":
                held.sweep(now_ms=now_ms)
            case "wait":
                now_ms += LIFETIME_MS // 2
            case _:
                now_ms -= LIFETIME_MS // 2
        for query in ("text", "text.a0@1"):
            name = CapabilityName.parse(query)
            found = held.providers(name, now_ms=now_ms)
            assert found == held._find(name, now_ms).rows
            found.clear()  # the caller's own
        assert held.digest(now_ms=now_ms) == summary(held.sequences(now_ms=now_ms))


def test_an_update_changes_what_a_peer_is_found_under() -> None:
    held = catalogue()
    offer(held, envelope(1, 1, names=("a.b@1",)))
    offer(held, envelope(1, 2, names=("a.c@1",)))
    assert held.providers(CapabilityName.parse("a.b"), now_ms=NOW_MS) == []
    assert len(held.providers(CapabilityName.parse("a"), now_ms=NOW_MS)) == 1


def test_a_failed_dial_puts_a_peer_last_until_a_higher_sequence_or_a_session() -> None:
    held = catalogue()
    for number in (1, 2):
        offer(held, envelope(number, names=("x@1",)))
    first, second = sorted([peer(1), peer(2)])
    number = 1 if peer(1) == first else 2

    def order() -> list[str]:
        rows = held.providers(CapabilityName.parse("x"), now_ms=NOW_MS)
        return [record.peer for record, _ in rows]

    assert order() == [first, second]
    held.demote(first)
    assert order() == [second, first]
    assert held.is_demoted(first)
    offer(held, envelope(number, 1, names=("x@1",)))
    assert order() == [second, first], "the same record proves nothing"
    offer(held, envelope(number, 2, names=("x@1",)))
    assert order() == [first, second]
    held.demote(first)
    held.revive(first)
    assert order() == [first, second]


def test_who_has_left_is_not_known_but_stays_told() -> None:
    held = catalogue()
    offer(held, envelope(1, 1, names=("x@1",)))
    offer(held, envelope(1, 2, addresses=()))
    assert held.records(now_ms=NOW_MS) == []
    assert held.sequences(now_ms=NOW_MS) == {peer(1): 2}


# --- exchanging ---------------------------------------------------------------------

Offers = Sequence[tuple[int, int]]
OFFERS = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 4)), max_size=80)


def exchange(one: Catalogue, other: Catalogue) -> int:
    """Let ``one`` compare, pull and push until quiet, and return the messages."""
    messages = 0
    while one.digest(now_ms=NOW_MS) != other.digest(now_ms=NOW_MS):
        for asker, asked in ((one, other), (other, one)):
            more = True
            while more:
                push = asked.answer(asker.have(source=asked.own, now_ms=NOW_MS), now_ms=NOW_MS)
                assert len(push.records) <= RECORDS_MAX
                assert sum(map(len, push.records)) <= RECORDS_BYTES_MAX
                for record in push.records:
                    assert offer(asker, record, source=asked.own).taken
                more = push.more
                messages += 1
                assert messages < 20, "it doesn't come to rest"
    return messages


@given(OFFERS, OFFERS)
def test_two_catalogues_that_exchange_until_quiet_hold_the_same(
    at_one: Offers, at_other: Offers
) -> None:
    note(f"{at_one} {at_other}")
    one, other = catalogue(201), catalogue(202)
    expected: dict[str, int] = {}
    for held, offers in ((one, at_one), (other, at_other)):
        for number, sequence in offers:
            offer(held, envelope(number, sequence))
            expected[peer(number)] = max(sequence, expected.get(peer(number), 0))
    exchange(one, other)
    assert one.sequences(now_ms=NOW_MS) == other.sequences(now_ms=NOW_MS) == expected
    assert not one.lacks(
        other.have(source=one.own, now_ms=NOW_MS), source=other.own, now_ms=NOW_MS
    )


def test_what_is_declined_is_not_asked_for_again() -> None:
    one, other = catalogue(201, SMALL), catalogue(202)
    for number in range(1, 7):
        offer(other, envelope(number))
    have = one.have(source=other.own, now_ms=NOW_MS)
    for record in other.answer(have, now_ms=NOW_MS).records:
        offer(one, record, source=other.own)
    assert len(one.sequences(now_ms=NOW_MS)) == SMALL.source_records_max
    have = one.have(source=other.own, now_ms=NOW_MS)
    assert other.answer(have, now_ms=NOW_MS).records == []
    theirs = other.have(source=one.own, now_ms=NOW_MS)
    assert not one.lacks(theirs, source=other.own, now_ms=NOW_MS)


def test_shows_that_another_has_what_is_missing_here() -> None:
    held = catalogue()
    offer(held, envelope(1, 2))
    assert held.lacks({peer(1): 3}, source="a", now_ms=NOW_MS)
    assert held.lacks({peer(2): 0}, source="a", now_ms=NOW_MS)
    assert not held.lacks({peer(1): 2}, source="a", now_ms=NOW_MS)
