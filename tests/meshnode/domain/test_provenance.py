"""A finished journal: what is true is shown, and nothing false passes, whoever signs it.

The forger here is the broker itself: it holds the key and signs its chain again after
each change, so that only what an event says can give it away.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.domain.provenance import Provenance, verify_provenance
from meshnode.domain.values import canonical, parse
from meshnode.ports import JsonValue
from protocol.errors import BadSignature, RemoteProtocolError
from protocol.graph import Check, Source, SubTask, TaskGraph, decode_graph, encode_graph
from protocol.journal import Event, decode_event, encode_event
from protocol.keys import digest
from protocol.messages import (
    Award,
    Cfp,
    Header,
    Message,
    Proposal,
    Result,
    StandingOffer,
    Ticket,
    read_message,
)
from protocol.receipts import Acceptance, Receipt
from protocol.signing import peek
from tests.meshnode.domain.contractors import NETWORK, Pen, Traits, identity
from tests.meshnode.domain.journals import (
    Run,
    build_journal,
    contractors_of,
    signed_export,
)
from tests.meshnode.domain.random_graphs import evaluate
from tests.meshnode.domain.test_steps import random_run

Data = dict[str, Any]

DOCUMENTS = Source(kind="input", name="docs", pointer="/list")
GRAPH = TaskGraph(
    name="review",
    subtasks=[
        SubTask(
            id="each",
            capability="work.a",
            inputs={
                "x": DOCUMENTS,
                "c": Source(kind="value", value=b"[0,1,2,3,4]"),
                "whole": Source(kind="input", name="docs"),
            },
            each=["x", "c"],
            batch_items_max=2,
            checks=[Check(kind="recompute")],
        ),
        SubTask(
            id="one", capability="work.b", inputs={"k": Source(kind="value", value=b"[1]")}
        ),
        SubTask(
            id="last",
            capability="work.a",
            inputs={
                "all": Source(kind="task", name="each", pointer="/id"),
                "one": Source(kind="task", name="one"),
            },
        ),
        SubTask(
            id="after",
            capability="work.a@1",
            inputs={"item": Source(kind="task", name="one", pointer="/a~1b")},
            each=["item"],
        ),
    ],
    outputs={
        "last": Source(kind="task", name="last"),
        "ids": Source(kind="task", name="each", pointer="/id"),
        "title": Source(kind="value", value=b'"t"'),
    },
)
INPUTS: dict[str, JsonValue] = {"docs": {"list": [{"t": n} for n in range(5)], "title": "x"}}
#: Some make offers and some bid; some fail at first.
TRAITS = (
    Traits(price_mc=3, concurrency=1, latency_ms=400, fails=0.2),
    Traits(price_mc=4, concurrency=1, latency_ms=500),
    Traits(capability="work.b@1", price_mc=2, offers=False, bid_ms=100),
    Traits(capability="work.b@1", price_mc=2, offers=False, bid_ms=100, offset_ms=-900_000),
)


@pytest.fixture(scope="module")
def run() -> Run:
    """A job that was completed, with a failed attempt on the way."""
    for seed in range(100):
        made = Run(GRAPH, INPUTS, contractors_of(seed, *TRAITS), budget_mc=500)
        state = made.run()
        if any(unit.failures() for unit in state.units.values()):
            assert state.done is not None
            assert state.done.state == "completed"
            return made
    raise AssertionError("nobody failed")


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


# --- a broker that lies --------------------------------------------------------------

BROKER = identity("broker")
STRANGER = Pen("stranger")


def resealed(envelope: bytes, kind: type[Message], **fields: object) -> bytes:
    """The broker's own message with other ``fields``, signed again by the broker."""
    message = read_message(envelope, kind, network=NETWORK)
    pen = Pen("broker")
    return pen.sign(msgspec.structs.replace(message, **fields))


def header_of(envelope: bytes, kind: type[Message], **fields: object) -> Header:
    return msgspec.structs.replace(read_message(envelope, kind, network=NETWORK).h, **fields)


def as_stranger(envelope: bytes, kind: type[Message], **fields: object) -> bytes:
    """The message with ``fields``, signed by somebody else in their own name."""
    message = read_message(envelope, kind, network=NETWORK)
    h = header_of(envelope, kind, issuer=STRANGER.identity.peer)
    return STRANGER.sign(msgspec.structs.replace(message, h=h, **fields))


def forged(events: list[Event], state: str = "completed") -> bytes:
    bodies = [
        encode_event(msgspec.structs.replace(event, seq=n)) for n, event in enumerate(events)
    ]
    return signed_export(Pen("broker"), "job-1", bodies, state)


def changed(
    run: Run, kind: str, change: Callable[[Data], object], *, where: str = ""
) -> tuple[bytes, int]:
    """The journal with one event of ``kind`` (of unit ``where``) changed; and its number."""
    events = [decode_event(body) for body in run.events]
    for event in events:
        about = event.data.get("unit", event.data.get("subtask", ""))
        if event.kind == kind and about.startswith(where):
            change(event.data)
            return forged(events), event.seq
    raise AssertionError(f"no {kind} of {where}")


def put(**fields: object) -> Callable[[Data], object]:
    return lambda data: data.update(fields)


def in_award(**fields: object) -> Callable[[Data], object]:
    return lambda data: data.update(award=resealed(data["award"], Award, **fields))


def in_award_header(**fields: object) -> Callable[[Data], object]:
    def change(data: Data) -> None:
        h = header_of(data["award"], Award, **fields)
        data["award"] = resealed(data["award"], Award, h=h)

    return change


def other_bytes(data: Data) -> None:
    """Point the award's first artifact at other bytes."""
    award = read_message(data["award"], Award, network=NETWORK)
    inputs = dict(award.inputs)
    name = "all"
    part = inputs[name].parts[0]
    moved = msgspec.structs.replace(part, artifact=digest(b"other bytes"))
    parts = [moved, *inputs[name].parts[1:]]
    inputs[name] = msgspec.structs.replace(inputs[name], parts=parts)
    data["award"] = resealed(data["award"], Award, inputs=inputs, tickets=[])


def other_order(data: Data) -> None:
    """Join the batches of a map in another order."""
    award = read_message(data["award"], Award, network=NETWORK)
    inputs = dict(award.inputs)
    parts = inputs["all"].parts[::-1]
    inputs["all"] = msgspec.structs.replace(inputs["all"], parts=parts)
    data["award"] = resealed(data["award"], Award, inputs=inputs)


def other_ticket(data: Data) -> None:
    """A ticket for something that is none of the inputs."""
    award = read_message(data["award"], Award, network=NETWORK)
    ticket = Ticket(
        h=header_of(data["award"], Award, id=b"0" * 16),
        artifact=digest(b"secret"),
        holder=award.h.audience,
    )
    tickets = [*award.tickets, Pen("broker").sign(ticket)]
    data["award"] = resealed(data["award"], Award, tickets=tickets)


def other_proposal(data: Data) -> None:
    """A proposal that somebody else signed."""
    data["proposal"] = as_stranger(data["proposal"], _kind_of(data["proposal"]))


def _kind_of(envelope: bytes) -> type[Message]:
    return Proposal if peek(envelope).t == Proposal.TYPE else StandingOffer


def other_acceptance(**fields: object) -> Callable[[Data], object]:
    return lambda data: data.update(
        acceptance=resealed(data["acceptance"], Acceptance, **fields)
    )


def colluding(envelope: bytes, **fields: object) -> bytes:
    """A contractor's own message with other ``fields``, signed by that contractor."""
    kind = next(k for k in (Proposal, StandingOffer, Result, Receipt) if _is(envelope, k))
    message = read_message(envelope, kind, network=NETWORK)
    names = [f"contractor {n}" for n in range(len(TRAITS))]
    (name,) = [name for name in names if identity(name).peer == message.h.issuer]
    h = msgspec.structs.replace(message.h, id=digest(envelope)[:16])
    return Pen(name).sign(msgspec.structs.replace(message, h=h, **fields))


def _is(envelope: bytes, kind: type[Message]) -> bool:
    return peek(envelope).t == kind.TYPE


def in_answer(
    part: str, told: Data | None = None, **fields: object
) -> Callable[[Data], object]:
    """Another result or receipt, signed by its contractor; the event tells the same."""

    def change(data: Data) -> None:
        data[part] = colluding(data[part], **fields)
        if part == "result":
            data["receipt"] = colluding(data["receipt"], result=digest(data["result"]))
        data.update(told or {})

    return change


def in_terms(**fields: object) -> Callable[[Data], object]:
    """Another proposal or offer, signed by its contractor, and an award that binds it."""

    def change(data: Data) -> None:
        data["proposal"] = colluding(data["proposal"], **fields)
        bound = digest(data["proposal"])
        data["award"] = resealed(data["award"], Award, proposal=bound)

    return change


def in_cfps(**fields: object) -> Callable[[Data], object]:
    return lambda data: data["cfps"].update(
        {peer: resealed(cfp, Cfp, **fields) for peer, cfp in data["cfps"].items()}
    )


def in_slices(field: str, *, count: int | None = None) -> Callable[[Data], object]:
    """Other bytes in every slice of ``field``, of which ``count`` are left."""
    other = {"artifact": digest(b"x"), "size": 1}

    def change(data: Data) -> None:
        data["slices"][field] = [other for _ in data["slices"].get(field, [0])][:count]

    return change


def plan(**fields: object) -> Callable[[Data], object]:
    """Another graph: its first sub-task with other ``fields``."""

    def change(data: Data) -> None:
        graph = decode_graph(data["graph"])
        graph.subtasks[0] = msgspec.structs.replace(graph.subtasks[0], **fields)
        data["graph"] = encode_graph(graph)

    return change


def swap_slices(data: Data) -> None:
    data["slices"]["whole"] = data["slices"]["x"]


LIES: dict[str, tuple[str, str, Callable[[Data], object], str]] = {
    # claim: (kind, unit, change, what is said of it)
    "another owner": ("planned", "", put(owner=STRANGER.identity.peer), "owner"),
    "a negative budget": ("planned", "", put(budget_mc=-1), "negative budget"),
    "a slice of what is no input": ("expanded", "each", in_slices("z"), "not an input"),
    "a slice of an output": ("expanded", "last", in_slices("one"), "outputs are not cut"),
    "a slice too few": ("expanded", "each", in_slices("x", count=1), "for each batch"),
    "a slice of another job input": (
        "expanded", "each", in_slices("whole"), "another job input",
    ),
    "a slice of another constant": ("expanded", "each", in_slices("c"), "another constant"),
    "a CFP for other work": (
        "called", "one", in_cfps(capability="work.a@1"), "asks for other work",
    ),
    "a CFP for more items": ("called", "one", in_cfps(items=2), "asks for other work"),
    "a proposal to another CFP": (
        "proposed", "one", lambda d: d.update(proposal=colluding(d["proposal"], cfp=b"0" * 32)),
        "another CFP",
    ),
    "an award that binds a proposal made elsewhere": (
        "awarded", "one", in_terms(free=7), "not made",
    ),
    "more items than were offered": (
        "awarded", "each/0", in_terms(items_max=1), "more items than the offer",
    ),
    "a result for another award": (
        "delivered", "each/0", in_answer("result", award=b"0" * 32), "another award",
    ),
    "a receipt for another award": (
        "delivered", "each/0", in_answer("receipt", award=b"0" * 32), "another award",
    ),
    "a receipt for another result": (
        "delivered", "each/0", in_answer("receipt", result=b"0" * 32), "another result",
    ),
    "a delivery of what failed": (
        "delivered", "one",
        in_answer(
            "result", {"output": b"", "size": 0, "lengths": {}, "price_mc": 0},
            state="failed", output=b"", size=0, inline=b"", lengths={}, price_mc=0,
        ),
        "not completed",
    ),
    "a length that isn't told": (
        "delivered", "one", in_answer("result", {"lengths": {}}, lengths={}), "missing",
    ),
    "a price above the offer": (
        "delivered", "each/0", in_answer("result", {"price_mc": 99}, price_mc=99),
        "costs more than was offered",
    ),
    "another epoch": ("planned", "", put(epoch=3), "epoch"),
    "a graph that asks for other work": (
        "planned", "", plan(capability="work.c"), "other work|does not answer",
    ),
    "a check that the graph doesn't name": ("planned", "", plan(checks=[]), "doesn't name"),
    "an input that the job has not": (
        "planned", "", put(inputs={}), "input that the job has not",
    ),
    "a smaller budget": ("planned", "", put(budget_mc=7), "budget"),
    "a deadline before the award": ("planned", "", put(deadline_ms=5), "deadline"),
    "batches that leave items out": ("expanded", "each", put(sizes=[2, 2]), "batches of 4"),
    "an empty batch": ("expanded", "each", put(sizes=[2, 2, 1, 0]), "empty batch"),
    "batches of a single call": ("expanded", "one", put(sizes=[1]), "one batch"),
    "a job input that isn't cut": ("expanded", "each", put(slices={}), "not cut"),
    "slices that differ where all get the same": (
        "expanded", "each", swap_slices, "different ones",
    ),
    "batches that begin before their producer is done": (
        "expanded", "one", put(subtask="last"), "not finished",
    ),
    "a proposal by somebody else": ("proposed", "one", other_proposal, "signed by another"),
    "another price in a proposal": ("proposed", "one", put(price_mc=1), "something else"),
    "another agent in a proposal": ("proposed", "one", put(agent="x"), "something else"),
    "an award by somebody else": (
        "awarded", "each/0", lambda d: d.update(award=as_stranger(d["award"], Award)),
        "signed by another",
    ),
    "an award to somebody else": (
        "awarded", "each/0", put(peer=STRANGER.identity.peer), "for another|signed by another",
    ),
    "an award for another job": (
        "awarded", "each/0", in_award_header(job="job-2"), "about job-2",
    ),
    "an award for another unit": (
        "awarded", "each/0", in_award_header(subtask="each/1"), "each/1",
    ),
    "an award of another epoch": ("awarded", "each/0", in_award_header(epoch=1), "epoch"),
    "an award that binds another proposal": (
        "awarded", "each/0", in_award(proposal=digest(b"x")), "another proposal",
    ),
    "an offer by somebody else": ("awarded", "each/0", other_proposal, "proposal"),
    "an award that names a CFP never sent": (
        "awarded", "each/0", in_award(cfp=digest(b"x")), "never sent",
    ),
    "an award that binds another CFP": (
        "awarded", "one", in_award(cfp=digest(b"x")), "another CFP",
    ),
    "an award for another agent": (
        "awarded", "each/0", in_award(agent="x"), "another agent",
    ),
    "an award for another capability": (
        "awarded", "each/0", in_award(capability="work.b@1"), "another agent or capability",
    ),
    "an award of other items": ("awarded", "each/0", in_award(items=3), "other items"),
    "another cap in the event": ("awarded", "each/0", put(price_cap_mc=1), "something else"),
    "a cap below the price": (
        "awarded", "each/0",
        lambda d: d.update(award=resealed(d["award"], Award, price_cap_mc=1), price_cap_mc=1),
        "below the price",
    ),
    "a cap over the budget": (
        "awarded", "each/0",
        lambda d: d.update(
            award=resealed(d["award"], Award, price_cap_mc=900), price_cap_mc=900
        ),
        "budget",
    ),
    "no output schema": ("awarded", "each/0", put(schema=b""), "schema"),
    "inputs that the producer didn't make": (
        "awarded", "last", other_bytes, "'all' is not what",
    ),
    "a map's batches in another order": ("awarded", "last", other_order, "'all' is not what"),
    "an award without its inputs": ("awarded", "last", in_award(inputs={}), "other inputs"),
    "a ticket for something else": ("awarded", "last", other_ticket, "ticket"),
    "another output": ("delivered", "each/0", put(output=digest(b"x")), "something else"),
    "another size": ("delivered", "each/0", put(size=1), "something else"),
    "another length": ("delivered", "one", put(lengths={"/a~1b": 9}), "something else"),
    "another price in the result": ("delivered", "each/0", put(price_mc=0), "something else"),
    "another run time": ("delivered", "each/0", put(run_ms=1), "something else"),
    "a result by somebody else": (
        "delivered", "each/0", lambda d: d.update(result=as_stranger(d["result"], Result)),
        "signed by another",
    ),
    "a receipt by somebody else": (
        "delivered", "each/0", lambda d: d.update(receipt=as_stranger(d["receipt"], Receipt)),
        "signed by another",
    ),
    "another verdict": (
        "verified", "each/0", put(verdict="unverified", check=""), "another verdict",
    ),
    "a verdict by a check that wasn't asked": (
        "verified", "one", put(verdict="verified", check="quoted"), "doesn't name",
    ),
    "verified by nothing": ("verified", "each/0", put(check=""), "doesn't name"),
    "another payment in the event": ("charged", "each/0", put(paid_mc=0), "something else"),
    "another payment in the acceptance": (
        "charged", "each/0", other_acceptance(paid_mc=77), "paid is neither",
    ),
    "another charge key": ("charged", "each/0", put(key="job-1/each/1/0"), "charged as"),
    "another verdict in the acceptance": (
        "charged", "each/0", other_acceptance(verdict="agreed"), "another verdict",
    ),
    "an acceptance of another receipt": (
        "charged", "each/0", other_acceptance(receipt=digest(b"x")), "another result or rec",
    ),
    "a failure blamed on another": (
        "failed", "", put(peer=STRANGER.identity.peer), "blames another",
    ),
    "another output of the job": (
        "done", "", lambda d: d["outputs"]["last"].update(artifact=digest(b"x")),
        "'last' is not what",
    ),
    "another constant as the job's output": (
        "done", "", lambda d: d["outputs"]["title"].update(artifact=digest(b"x")),
        "'title' is not what",
    ),
    "an output of the job left out": (
        "done", "", lambda d: d["outputs"].pop("ids"), "other outputs",
    ),
    "another end than the head signs": ("done", "", put(state="failed"), "without a reason"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "where", "change", "says"), LIES.values(), ids=LIES.keys())
def test_a_broker_that_signs_a_lie_is_found_out(
    run: Run, kind: str, where: str, change: Callable[[Data], object], says: str
) -> None:
    data, seq = changed(run, kind, change, where=where)
    with pytest.raises(RemoteProtocolError, match=says) as caught:
        verify_provenance(data)
    if kind not in {"planned", "verified"}:  # those are found out by what follows
        assert f"event {seq} ({kind})" in str(caught.value)


def test_what_the_forger_leaves_alone_holds(run: Run) -> None:
    events = [decode_event(body) for body in run.events]
    assert verify_provenance(forged(events)).state == "completed"


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
