"""Valid things of every kind, made from fixed keys: what the claims here break or read.

``HYPOTHESIS_PROFILE=nightly`` multiplies the examples of every property.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from hypothesis import settings
from hypothesis import strategies as st

from protocol.codec import Value
from protocol.declines import Decline
from protocol.graph import Check, Source, SubTask, TaskGraph
from protocol.journal import (
    Event,
    Head,
    Segment,
    SegmentExport,
    chain_of,
    encode_event,
    encode_segment,
    sign_head,
)
from protocol.keys import Identity, digest
from protocol.likeness import Likeness
from protocol.messages import (
    Award,
    Binding,
    Budget,
    Cancel,
    Cfp,
    Header,
    Label,
    Message,
    Metering,
    Part,
    Progress,
    Proposal,
    Refuse,
    Result,
    StandingOffer,
    Ticket,
    sign_message,
)
from protocol.receipts import Acceptance, Receipt
from protocol.records import CallLimits, Capability, Measured, NodeRecord, Sample
from protocol.settlements import Payment, PaymentAnswer

NETWORK: Final = "test-net"
NOW_MS: Final = 1_800_000_000_000
_FACTOR: Final = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 1


def examples(count: int) -> settings:
    """So many examples, many more at night."""
    return settings(max_examples=count * _FACTOR, deadline=None)


def identity(name: str) -> Identity:
    """The node called ``name``: always the same keys."""
    return Identity(digest(f"sign {name}".encode()), digest(f"seal {name}".encode()))


BROKER: Final = identity("broker")
CONTRACTOR: Final = identity("contractor")
STRANGER: Final = identity("stranger")


def changed(struct: msgspec.Struct, **fields: Any) -> Any:
    """``struct`` with other ``fields``."""
    return msgspec.structs.replace(struct, **fields)


def header(issuer: Identity, audience: Identity, **fields: Any) -> Header:
    """A valid header; ``fields`` replace what it has."""
    valid = Header(
        id=digest(f"{issuer.peer} {fields}".encode())[:16],
        issuer=issuer.peer,
        audience=audience.peer,
        issued_ms=NOW_MS,
        expires_ms=NOW_MS + 60_000,
        sequence=1,
        network=NETWORK,
        job="job-1",
        subtask="audit/0",
        replica=0,
        label=Label(),
        budget=Budget(cost_mc=500),
        hops=3,
        deadline_ms=NOW_MS + 600_000,
        idempotency_key="job-1/audit/0/0",
        traceparent="",
        epoch=1,
        charter=b"",
    )
    changed_header: Header = changed(valid, **fields)
    return changed_header


OUTPUT: Final = b'{"issues":[]}'


@dataclass(frozen=True)
class Deal:
    """A finished contract: its four envelopes."""

    award: bytes
    result: bytes
    receipt: bytes
    acceptance: bytes


def award(**fields: Any) -> Award:
    """A valid award of the broker to the contractor."""
    valid = Award(
        h=header(BROKER, CONTRACTOR),
        cfp=b"",
        proposal=digest(b"proposal"),
        agent="bandit",
        capability="code.security_audit@1",
        inputs={
            "code": Binding(parts=[Part(inline=b'"import os"')]),
            "rules": Binding(
                parts=[Part(artifact=digest(b"rules"), size=9, holder=BROKER.peer)], gather=True
            ),
        },
        each=[],
        items=1,
        price_cap_mc=100,
        timeout_ms=30_000,
        lease_ms=10_000,
        wait_max_ms=2_000,
    )
    made: Award = changed(valid, **fields)
    return made


def result(awarded: bytes, **fields: Any) -> Result:
    """A valid result of the award in the envelope ``awarded``."""
    valid = Result(
        h=header(CONTRACTOR, BROKER),
        award=digest(awarded),
        state="completed",
        output=digest(OUTPUT),
        size=len(OUTPUT),
        inline=OUTPUT,
        lengths={"/issues": 0},
        metering=Metering(run_ms=120),
        price_mc=90,
    )
    made: Result = changed(valid, **fields)
    return made


def receipt(awarded: bytes, delivered: bytes, **fields: Any) -> Receipt:
    """The contractor's half."""
    valid = Receipt(
        h=header(CONTRACTOR, BROKER, sequence=2),
        award=digest(awarded),
        result=digest(delivered),
        capability="code.security_audit@1",
        agent="bandit",
        cost_mc=90,
        latency_ms=130,
        voucher_mc=90,
    )
    made: Receipt = changed(valid, **fields)
    return made


def acceptance(awarded: bytes, claimed: bytes, **fields: Any) -> Acceptance:
    """The broker's half."""
    valid = Acceptance(
        h=header(BROKER, CONTRACTOR, sequence=2),
        award=digest(awarded),
        receipt=digest(claimed),
        verdict="verified",
        check="schema",
        paid_mc=90,
    )
    made: Acceptance = changed(valid, **fields)
    return made


def deal(
    *,
    of_award: Mapping[str, Any] | None = None,
    of_result: Mapping[str, Any] | None = None,
    of_receipt: Mapping[str, Any] | None = None,
    of_acceptance: Mapping[str, Any] | None = None,
) -> Deal:
    """A finished contract, with what the arguments replace in each message."""
    awarded = _sealed(award(**of_award or {}))
    delivered = _sealed(result(awarded, **of_result or {}))
    claimed = _sealed(receipt(awarded, delivered, **of_receipt or {}))
    accepted = _sealed(acceptance(awarded, claimed, **of_acceptance or {}))
    return Deal(awarded, delivered, claimed, accepted)


def _sealed(message: Message) -> bytes:
    signers = {signer.peer: signer for signer in (BROKER, CONTRACTOR, STRANGER)}
    return sign_message(signers[message.h.issuer], message)


def messages() -> dict[type[Message], Message]:
    """One valid message of each type."""
    asked, answered = header(BROKER, CONTRACTOR), header(CONTRACTOR, BROKER)
    capability = "code.security_audit@1"
    finished = deal()
    made: list[Message] = [
        Cfp(
            h=asked,
            capability=capability,
            items=1,
            input_bytes=900,
            timeout_ms=30_000,
            price_max_mc=100,
        ),
        Proposal(
            h=answered,
            cfp=digest(b"cfp"),
            agent="bandit",
            capability=capability,
            price_mc=90,
            eta_ms=500,
            free=1,
            items=8,
        ),
        StandingOffer(
            h=idle(answered),
            agent="bandit",
            capability=capability,
            price_mc=90,
            items_max=8,
            awards_max=4,
            latency_ms=400,
        ),
        Refuse(h=answered, of=digest(b"cfp"), reason="busy", retry_after_ms=1_000),
        Decline(h=asked, proposal=digest(b"proposal"), reason="price"),
        award(),
        Progress(h=answered, award=digest(finished.award), seq=1, items_done=0, text="half"),
        result(finished.award),
        Cancel(h=asked, award=digest(finished.award), reason="owner"),
        Ticket(h=asked, artifact=digest(OUTPUT), holder=BROKER.peer),
        receipt(finished.award, finished.result),
        acceptance(finished.award, finished.receipt),
        Payment(h=idle(asked), amount_mc=300, method="manual", reference="transfer 17"),
        PaymentAnswer(h=idle(answered), payment=digest(b"payment"), state="noted"),
    ]
    return {type(message): message for message in made}


def idle(head: Header) -> Header:
    """``head`` of a message that is about no job."""
    made: Header = changed(head, job="", subtask="", idempotency_key="")
    return made


def signer_of(message: Message) -> Identity:
    """Who has to sign ``message``."""
    return BROKER if message.h.issuer == BROKER.peer else CONTRACTOR


def capability(**fields: Any) -> Capability:
    """A valid capability."""
    valid = Capability(
        agent="bandit",
        name="code.security_audit@1",
        description="Finds security issues in Python code.",
        examples=[Sample(input=b'{"code":"x"}', output=b'{"issues":[]}')],
        input_schema=b'{"type":"object"}',
        output_schema=b'{"type":"object"}',
        price_mc=90,
        limits=CallLimits(
            concurrency=2, timeout_ms=30_000, input_bytes=65_536, output_bytes=65_536
        ),
        measured=Measured(samples=10, latency_ms=300, at_ms=NOW_MS - 1_000, tried=1, right=1),
        like=Likeness("numeric", relative_ppm=1_000),
        checks=["quoted"],
    )
    made: Capability = changed(valid, **fields)
    return made


def record(**fields: Any) -> NodeRecord:
    """A valid record of the contractor."""
    valid = NodeRecord(
        peer=CONTRACTOR.peer,
        sequence=7,
        issued_ms=NOW_MS,
        expires_ms=NOW_MS + 3_600_000,
        addresses=["/ip4/127.0.0.1/tcp/4001"],
        x25519=CONTRACTOR.x25519_public,
        capabilities=[capability()],
        features=["relay"],
    )
    made: NodeRecord = changed(valid, **fields)
    return made


def subtask(name: str, *before: str, **fields: Any) -> SubTask:
    """A sub-task that draws from the job's input, or from each of ``before``."""
    inputs = {f"from_{other}": Source(kind="task", name=other) for other in before}
    valid = SubTask(
        id=name,
        capability="text.summarization@1",
        inputs=inputs or {"text": Source(kind="input", name="text")},
    )
    made: SubTask = changed(valid, **fields)
    return made


def graph(*subtasks: SubTask, **fields: Any) -> TaskGraph:
    """A graph of ``subtasks``, or of a map and what draws from it."""
    tasks = list(subtasks) or [
        subtask(
            "audit",
            inputs={
                "code": Source(kind="input", name="files", pointer="/0/text"),
                "level": Source(kind="value", value=b'"high"'),
            },
            each=["code"],
            checks=[Check(kind="quoted", output="/issues/*/line", input="/code")],
        ),
        subtask("report", "audit"),
    ]
    valid = TaskGraph(
        name="review",
        subtasks=tasks,
        outputs={"report": Source(kind="task", name=tasks[-1].id)},
    )
    made: TaskGraph = changed(valid, **fields)
    return made


def events(first: int, count: int) -> list[bytes]:
    """``count`` events from number ``first`` on."""
    return [
        encode_event(Event(seq=seq, at_ms=NOW_MS + seq, kind="progressed", data={"n": seq}))
        for seq in range(first, first + count)
    ]


def segment(
    written: list[bytes],
    *,
    writer: Identity = BROKER,
    state: str = "",
    **fields: Any,
) -> SegmentExport:
    """A segment with the events ``written``; with ``state`` it ends the job."""
    valid = Segment(
        job="job-1",
        network=NETWORK,
        epoch=1,
        writer=writer.peer,
        charter=b"",
        parent=b"",
        opened_ms=NOW_MS,
    )
    opened: Segment = changed(valid, **fields)
    head = Head(
        job=opened.job,
        epoch=opened.epoch,
        count=len(written),
        chain=chain_of(encode_segment(opened), written),
        at_ms=NOW_MS + 5,
        state=state,
    )
    return SegmentExport(
        encode_segment(opened), written, sign_head(writer, opened.network, head)
    )


def journal(*counts: int) -> list[SegmentExport]:
    """A finished job of as many segments as ``counts``, with so many events each."""
    made: list[SegmentExport] = []
    first, parent = 0, b""
    for number, count in enumerate(counts, start=1):
        made.append(
            segment(
                events(first, count),
                writer=BROKER if number % 2 else CONTRACTOR,
                state="completed" if number == len(counts) else "",
                epoch=number,
                parent=parent,
            )
        )
        first, parent = first + count, digest(made[-1].head)
    return made


#: Values that the codec has: what a signed field may hold.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
values: st.SearchStrategy[Value] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=30,
)


@st.composite
def mutated(draw: st.DrawFn, valid: bytes) -> bytes:
    """``valid`` with one bit flipped, a byte added or removed, or its end cut off."""
    at = draw(st.integers(0, len(valid) - 1))
    match draw(st.sampled_from(["flip", "add", "remove", "cut"])):
        case "flip":
            bit = 1 << draw(st.integers(0, 7))
            return valid[:at] + bytes([valid[at] ^ bit]) + valid[at + 1 :]
        case "add":
            return valid[:at] + draw(st.binary(min_size=1, max_size=4)) + valid[at:]
        case "remove":
            return valid[:at] + valid[at + 1 :]
        case _:
            return valid[:at]
