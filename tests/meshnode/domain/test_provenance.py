"""A finished journal: what is true is shown, and no byte or event of it can be changed."""

from contextlib import suppress
from random import Random
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.provenance import Provenance, verify_provenance
from meshnode.domain.values import canonical, parse
from protocol.errors import BadSignature, RemoteProtocolError
from protocol.journal import Event, decode_event
from protocol.keys import digest
from protocol.messages import (
    Award,
    read_message,
)
from tests.meshnode.domain.contractors import NETWORK, Pen
from tests.meshnode.domain.exports import signed_export
from tests.meshnode.domain.journals import (
    Run,
    build_journal,
    contractors_of,
)
from tests.meshnode.domain.random_graphs import evaluate
from tests.meshnode.domain.random_runs import random_run
from tests.meshnode.domain.reviews import GRAPH, INPUTS, TRAITS, finished_run
from tests.meshnode.domain.test_forgery import forged, header_of, resealed

Data = dict[str, Any]


@pytest.fixture(scope="module")
def run() -> Run:
    return finished_run()


@pytest.fixture(scope="module")
def journal(run: Run) -> bytes:
    return run.export()


def test_a_finished_journal_tells_who_did_what_for_how_much(run: Run, journal: bytes) -> None:
    found = verify_provenance(journal)
    assert (found.job, found.network, found.owner) == ("job-1", NETWORK, run.broker)
    assert (found.state, found.code) == ("completed", "")
    assert found.brokers == (run.broker,)
    assert found.events == len(run.events)
    assert found.started_ms <= found.ended_ms == run.state.ended_ms
    rows = {row.unit: row for row in found.rows}
    assert set(rows) == {"each/0", "each/1", "each/2", "one/0", "last/0", "after/0", "after/1"}
    assert found.cost_mc == sum(row.cost_mc for row in found.rows) > 0
    first = rows["each/0"]
    assert (first.items, first.capability, first.agent) == (2, "work.a@1", "agent")
    assert (first.state, first.verdict, first.check) == ("completed", "verified", "recompute")
    assert first.peer in run.contractors
    assert first.ms > 0
    assert parse(run.blobs[first.output])
    assert rows["one/0"].verdict == "unverified"
    assert max(row.attempts for row in found.rows) > 1
    assert found.outputs["last"].artifact == digest(canonical(evaluate(GRAPH, INPUTS)["last"]))


def test_every_signature_counts_once(run: Run, journal: bytes) -> None:
    envelopes: set[bytes] = set()
    for event in map(decode_event, run.events):
        fields = [event.data.get(k, b"") for k in ("proposal", "award", "result", "receipt")]
        fields += [event.data.get("acceptance", b""), *event.data.get("cfps", {}).values()]
        envelopes |= {field for field in fields if field}
        if event.kind == "awarded":
            award = read_message(event.data["award"], Award, network=NETWORK)
            envelopes |= set(award.tickets)
    assert verify_provenance(journal).signatures == len(envelopes) + 1  # and the head


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_whatever_a_broker_went_through_its_journal_holds(seed: int) -> None:
    note(f"seed {seed}")
    run, _, _ = random_run(seed)
    state = run.run()
    assert state.done is not None
    found = verify_provenance(run.export())
    assert (found.state, found.code) == (state.done.state, state.done.code)
    assert found.cost_mc == state.spent_mc


def test_a_journal_can_be_built_in_one_call() -> None:
    built = verify_provenance(build_journal(GRAPH, INPUTS, 7, *TRAITS))
    assert isinstance(built, Provenance)


def test_any_flipped_missing_or_added_byte_is_refused(journal: bytes) -> None:
    rng = Random(1)
    places = {0, 1, len(journal) - 1, *(rng.randrange(len(journal)) for _ in range(250))}
    for place in sorted(places):
        flipped = bytearray(journal)
        flipped[place] ^= 1 << rng.randrange(8)
        with pytest.raises(RemoteProtocolError):
            verify_provenance(bytes(flipped))
        with pytest.raises(RemoteProtocolError):
            verify_provenance(journal[:place] + journal[place + 1 :])
        with pytest.raises(RemoteProtocolError):
            verify_provenance(journal[:place])
        added = bytes([rng.randrange(256)])
        with pytest.raises(RemoteProtocolError):
            verify_provenance(journal[: place + 1] + added + journal[place + 1 :])


def test_another_state_than_the_heads_is_refused(run: Run) -> None:
    events = [decode_event(body) for body in run.events]
    with pytest.raises(RemoteProtocolError, match="completed, and its head signs cancelled"):
        verify_provenance(forged(events, "cancelled"))


def test_an_event_left_out_or_moved_is_refused_even_if_signed(run: Run) -> None:
    events = [decode_event(body) for body in run.events]
    needless = {"progressed", "refused"}
    failed = {(e.data["unit"], e.data["attempt"]) for e in events if e.kind == "failed"}
    for n, event in enumerate(events):
        about = (event.data.get("unit"), event.data.get("attempt"))
        if event.kind in needless or about in failed:
            continue
        if event.kind == "proposed":  # one of several: only the one that was taken is missed
            continue
        with pytest.raises(RemoteProtocolError):
            verify_provenance(forged(events[:n] + events[n + 1 :]))
    with pytest.raises(RemoteProtocolError):
        verify_provenance(forged([*events[:-2], events[-1], events[-2]]))


def test_a_journal_in_anothers_name_is_refused(run: Run) -> None:
    forger = signed_export(Pen("stranger"), "job-1", run.events, "completed", writer=run.broker)
    with pytest.raises(BadSignature):
        verify_provenance(forger)
    own = signed_export(Pen("stranger"), "job-1", run.events, "completed")
    with pytest.raises(RemoteProtocolError, match="event 0"):
        verify_provenance(own)


def test_a_job_that_ends_while_an_award_is_out_is_refused(run: Run) -> None:
    events = [decode_event(body) for body in run.events]
    (first, *_) = [event.seq for event in events if event.kind == "awarded"]
    ending = [
        Event(seq=0, at_ms=1, kind="cancelled", data={"reason": "owner", "text": ""}),
        Event(seq=0, at_ms=1, kind="done", data={"state": "cancelled"}),
    ]
    with pytest.raises(RemoteProtocolError, match=r"it ends while .* go on"):
        verify_provenance(forged([*events[: first + 1], *ending], "cancelled"))


def test_one_message_id_for_two_messages_is_refused(run: Run) -> None:
    events = [decode_event(body) for body in run.events]
    awards = [event for event in events if event.kind == "awarded"]
    first = read_message(awards[0].data["award"], Award, network=NETWORK)
    award = awards[1].data["award"]
    h = header_of(award, Award, id=first.h.id)
    awards[1].data["award"] = resealed(award, Award, h=h)
    with pytest.raises(RemoteProtocolError, match="one id"):
        verify_provenance(forged(events))


def test_an_award_under_an_offer_that_had_lapsed_is_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Run(GRAPH, INPUTS, contractors_of(3, *TRAITS), budget_mc=500)
    for contractor in late.contractors.values():
        envelope, _ = contractor._offer(late.broker, late.now_ms - 400_000)
        contractor.offer = (envelope, late.now_ms + 10**9)  # believed to hold for ever
    late.run()
    with pytest.raises(RemoteProtocolError, match="lapsed"):
        verify_provenance(late.export())


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**40),
    st.text(max_size=8),
    st.binary(max_size=40),
    st.lists(st.integers(-2, 3), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


@settings(max_examples=150)
@given(st.data())
def test_any_journal_is_believed_or_blamed_on_its_writer(run: Run, data: st.DataObject) -> None:
    events = [decode_event(body) for body in run.events]
    for _ in range(data.draw(st.integers(1, 2))):
        match data.draw(st.sampled_from(["field", "drop", "copy", "swap"])):
            case "field":
                event = data.draw(st.sampled_from(events))
                if event.data:
                    key = data.draw(st.sampled_from(sorted(event.data)))
                    event.data[key] = data.draw(JUNK)
            case "drop":
                del events[data.draw(st.integers(0, len(events) - 1))]
            case "copy":
                events.insert(
                    data.draw(st.integers(0, len(events))), data.draw(st.sampled_from(events))
                )
            case _:
                a, b = (data.draw(st.integers(0, len(events) - 1)) for _ in range(2))
                events[a], events[b] = events[b], events[a]
    with suppress(RemoteProtocolError):  # and nothing else
        verify_provenance(forged(events))
