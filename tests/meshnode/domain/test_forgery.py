"""A broker that lies in its own journal is found out, also with contractors who collude.

It holds its key and signs its chain again after each change, so that only what an
event says can give it away.
"""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from meshnode.domain.provenance import verify_provenance
from protocol.errors import RemoteProtocolError
from protocol.graph import decode_graph, encode_graph
from protocol.journal import Event, decode_event, encode_event
from protocol.keys import digest
from protocol.messages import (
    Award,
    Budget,
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
from tests.meshnode.domain.contractors import NETWORK, Pen, identity
from tests.meshnode.domain.exports import signed_export
from tests.meshnode.domain.journals import Run
from tests.meshnode.domain.reviews import TRAITS, finished_run

Data = dict[str, Any]


@pytest.fixture(scope="module")
def run() -> Run:
    return finished_run()


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


def other_inline(data: Data) -> None:
    """Put other bytes in place of the award's first artifact."""
    award = read_message(data["award"], Award, network=NETWORK)
    inputs = dict(award.inputs)
    part = inputs["all"].parts[0]
    put = msgspec.structs.replace(part, inline=b"[1]", artifact=b"", size=0, holder="")
    parts = [put, *inputs["all"].parts[1:]]
    inputs["all"] = msgspec.structs.replace(inputs["all"], parts=parts)
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
    "a limit to its wait that the award doesn't have": (
        "awarded", "one", put(wait_max_ms=1), "something else than the event",
    ),
    "sub-tasks that the award doesn't give": (
        "awarded", "each/0", put(subtasks=1), "another budget than the event",
    ),
    "sub-tasks that the job doesn't have": (
        "awarded", "each/0",
        lambda d: (in_award_header(budget=Budget(subtasks=1))(d), d.update(subtasks=1)),
        "1 sub-tasks for one award, 0 is the most",
    ),
    "more money below than the award has": (
        "awarded", "each/0", in_award_header(budget=Budget(cost_mc=10**9)),
        "another budget than the event",
    ),
    "more brokers below than the job has": (
        "awarded", "each/0", in_award_header(hops=3), "has 3 hops, the job 3",
    ),
    "awards below that no receipt tells of": (
        "delivered", "each/0", put(below=1), "something else than the event",
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
    "an award of more items than were called for": (
        "awarded", "one", in_award(items=2), "more items than the proposal",
    ),
    "an award for another agent": (
        "awarded", "each/0",
        lambda d: d.update(award=resealed(d["award"], Award, agent="x"), agent="x"),
        "another agent",
    ),
    "a sub-task that is cut otherwise than before": (
        "planned", "", lambda d: d.update(again={"each": {"job": "j", "sizes": [5]}}),
        "cut otherwise",
    ),
    "another agent in the event": ("awarded", "each/0", put(agent="x"), "something else"),
    "an award to another than the best": (
        "awarded", "each/0", lambda d: d["ranked"][0].update(peer="x"), "another candidate",
    ),
    "a candidate that would be done sooner than its parts": (
        "awarded", "each/0", lambda d: d["ranked"][0].update(finish_ms=1), "don't add up",
    ),
    "more candidates than there were": (
        "awarded", "each/0",
        lambda d: d.update(ranked=d["ranked"][:1] * 2, considered=1), "than were considered",
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
    "inline inputs that the producer didn't make": (
        "awarded", "last", other_inline, "'all' is not what",
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
    "a wait where any was allowed": (
        "failed", "", put(code="node.crowded"), "might have waited",
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


def test_who_the_plan_does_not_name_may_not_be_awarded(run: Run) -> None:
    awards = [decode_event(body) for body in run.events]
    named = sorted(
        {f"{e.data['peer']}/{e.data['agent']}" for e in awards if e.kind == "awarded"}
    )
    whole, _ = changed(run, "planned", put(only=named))
    assert verify_provenance(whole).state == "completed"
    for missing in named:
        less, _ = changed(
            run, "planned", put(only=[n for n in named if n != missing] or ["x/y"])
        )
        with pytest.raises(RemoteProtocolError, match="another agent than the plan names"):
            verify_provenance(less)
