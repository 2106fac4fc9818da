"""Every vector is answered as it says, and the files are what their script writes."""

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import pytest

from protocol import (
    app_keys,
    artifacts,
    catalogue,
    charter,
    codec,
    declines,
    graph,
    invites,
    journal,
    lifecycle,
    mail,
    mailbox,
    membership,
    messages,
    orders,
    records,
    reputation,
    shipping,
    timely,
    work,
)
from protocol.errors import RemoteProtocolError
from protocol.framing import FrameReader
from protocol.keys import Identity, digest, peer_id, public_key, verify
from protocol.messages import Message
from protocol.receipts import Acceptance, Receipt, check_receipt
from protocol.session import SessionMachine
from protocol.settlements import Payment, PaymentAnswer
from protocol.signing import unseal
from tests.protocol.make_vectors import FILES, FOLDER, vectors
from tests.protocol.samples import NOW_MS, identity

Read = Callable[[bytes, dict[str, Any]], Any]


def plain(value: Any) -> Any:
    """``value`` as JSON can show it."""
    match value:
        case bytes():
            return {"hex": value.hex()}
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case _:
            return value


def read_codec(data: bytes, _: dict[str, Any]) -> Any:
    value = codec.decode(data)
    # A second opinion: another library reads the same value and writes the same bytes.
    assert msgpack.unpackb(data, strict_map_key=True) == value
    assert msgpack.packb(value) == data
    return plain(value)


def read_framing(data: bytes, inputs: dict[str, Any]) -> Any:
    reader = FrameReader()
    cuts = [0, *inputs["cuts"], len(data)]
    pieces = [data[a:b] for a, b in pairwise(cuts)]
    return [body.hex() for piece in pieces for body in reader.feed(piece)]


def read_keys(data: bytes, inputs: dict[str, Any]) -> None:
    seed = bytes.fromhex(inputs.get("seed", ""))
    if inputs["op"] == "peer":
        assert public_key(inputs["peer"]) == data
        assert peer_id(data) == inputs["peer"]
        assert not seed or Identity(seed, seed).public == data
        if cid := inputs.get("cid"):
            body = cid[1:].upper()
            raw = base64.b32decode(body + "=" * (-len(body) % 8))
            assert raw.endswith(data)
        return
    message = bytes.fromhex(inputs["message"])
    verify(bytes.fromhex(inputs["key"]), message, data)
    signer = Identity(seed, seed)
    assert (signer.public.hex(), signer.sign(message)) == (inputs["key"], data)


def read_envelope(data: bytes, inputs: dict[str, Any]) -> Any:
    parts = unseal(data, kind=inputs["kind"], network=inputs["network"])
    return {"issuer": parts.i, "payload": parts.p.hex()}


def read_lifecycle(data: bytes, inputs: dict[str, Any]) -> Any:
    said = lifecycle.read_statement(data, **inputs)
    return {"peer": said.peer, "heir": said.heir, "from_ms": said.from_ms}


def read_app(data: bytes, inputs: dict[str, Any]) -> Any:
    told = dict(inputs)
    purpose = told.pop("purpose")
    certificate = app_keys.read_pass(data, **told)
    app_keys.require(certificate, purpose)
    return {"app": certificate.app, "name": certificate.name}


def read_membership(data: bytes, inputs: dict[str, Any]) -> Any:
    chain, network = membership.read_presented(data), inputs["network"]
    said = [
        lifecycle.read_statement(one, network=network, now_ms=inputs["now_ms"])
        for one in chain.rotations
    ]
    heirs = {one.peer: one.heir for one in said}
    lineage = membership.read_chain(
        chain.links, **inputs, heir=lambda peer: heirs.get(peer, peer)
    )
    depth = len(lineage.path) - 1
    return {"root": lineage.root, "inviter": lineage.inviter, "depth": depth}


def read_invite(data: bytes, _: dict[str, Any]) -> Any:
    invite = invites.read_token(data.decode())
    return {"peer": invite.peer, "addresses": invite.addresses}


def read_record(data: bytes, inputs: dict[str, Any]) -> Any:
    record = records.open_record(data, network=inputs["network"], now_ms=inputs["now_ms"])
    claims = [c.measured.holds(now_ms=inputs["now_ms"]) for c in record.capabilities]
    return {"peer": record.peer, "sequence": record.sequence, "claims": sum(claims)}


def read_work(data: bytes, inputs: dict[str, Any]) -> int:
    return work.work_bits(inputs["network"], inputs["peer"], data)


def read_catalogue(data: bytes, inputs: dict[str, Any]) -> Any:
    match inputs["type"]:
        case "digest":
            digest = catalogue.read(data, catalogue.Digest)
            return {"count": digest.count, "hash": digest.hash.hex()}
        case "pull":
            return {"have": catalogue.read(data, catalogue.Pull).have}
        case _:
            push = catalogue.read(data, catalogue.Push)
            return {"records": [record.hex() for record in push.records], "more": push.more}


def read_graph(data: bytes, _: dict[str, Any]) -> Any:
    return graph.order(graph.decode_graph(data))


def read_session(data: bytes, inputs: dict[str, Any]) -> Any:
    machine = SessionMachine(inputs["role"], network="test-net")
    machine.start(now_ms=NOW_MS)
    machine.receive(bytes.fromhex(inputs["before"]), now_ms=NOW_MS)
    return [type(event).__name__ for event in machine.receive(data, now_ms=NOW_MS)]


TYPES: dict[str, type[Message]] = {
    kind.TYPE: kind
    for kind in (
        messages.Cfp,
        messages.Proposal,
        messages.StandingOffer,
        messages.Refuse,
        declines.Decline,
        messages.Award,
        messages.Progress,
        messages.Result,
        messages.Cancel,
        messages.Ticket,
        Receipt,
        Acceptance,
        Payment,
        PaymentAnswer,
    )
}


def read_contract(data: bytes, inputs: dict[str, Any]) -> None:
    message = messages.read_message(data, TYPES[inputs["type"]], network=inputs["network"])
    timely.check_timely(message, audience=inputs["audience"], now_ms=inputs["now_ms"])


def read_receipt(data: bytes, inputs: dict[str, Any]) -> Any:
    award, result, receipt = (
        bytes.fromhex(inputs[name]) for name in ("award", "result", "receipt")
    )
    _, _, claimed, accepted = check_receipt(
        award, result, receipt, data, network=inputs["network"]
    )
    return {"cost_mc": claimed.cost_mc, "paid_mc": accepted.paid_mc}


def read_reputation(data: bytes, inputs: dict[str, Any]) -> Any:
    network = inputs["network"]
    match inputs["body"]:
        case "ask":
            asked = reputation.read_body(data, reputation.Question)
            return {"capability": asked.capability, "after": asked.after}
        case "told":
            body = reputation.read_body(data, reputation.Told)
            by = identity(inputs["by"]).peer
            told = [
                reputation.check_told(
                    one, by=by, capability=inputs["capability"], network=network
                )
                for one in body.contracts
            ]
            return {
                "contracts": [[accepted.verdict, accepted.paid_mc] for _, accepted in told],
                "next": body.next,
                "more": body.more,
            }
        case _:
            proofs = reputation.read_body(data, reputation.Proofs).proofs
            return [reputation.culprit_of(proof, network=network) for proof in proofs]


def read_artifact(data: bytes, _: dict[str, Any]) -> Any:
    return type(artifacts.decode_message(data)).__name__


def read_journal(data: bytes, _: dict[str, Any]) -> Any:
    segments = journal.read_export(data)
    return {
        "events": [len(segment.events) for segment in segments],
        "state": segments[-1].head.state,
    }


BODIES: dict[str, Any] = {
    "deposit": mailbox.Deposit,
    "collect": mailbox.Collect,
    "collected": mailbox.Collected,
    "inquiry": mailbox.Inquiry,
    "acks": mailbox.Acks,
    "key query": mailbox.KeyQuery,
    "key record": mailbox.KeyRecord,
}


def read_mail(data: bytes, inputs: dict[str, Any]) -> Any:
    network, reader = inputs["network"], identity(inputs["reader"])
    match inputs["type"]:
        case "letter":
            letter = mail.read_letter(data, network=network)
            mail.check_letter_time(letter, audience=reader.peer, now_ms=inputs["now_ms"])
            return {"subject": letter.subject, "size": len(letter.body)}
        case "letter.ack":
            return mail.read_ack(data, network=network).state
        case "sealed":
            enclosed = mail.open_sealed(reader, data, network=network)
            return {"letter": digest(enclosed.letter).hex(), "links": len(enclosed.links)}
        case kind:
            return len(mailbox.read_body(data, BODIES[kind]).__struct_fields__)


def read_orders(data: bytes, inputs: dict[str, Any]) -> Any:
    network, reader = inputs["network"], identity(inputs["reader"])
    if inputs["type"] == "order":
        order, award = orders.read_order(data, network=network)
        orders.check_order_time(award, audience=reader.peer, now_ms=inputs["now_ms"])
        return {"subtask": award.h.subtask, "enclosed": len(order.enclosed)}
    answer = orders.read_outcome(data, network=network)
    state = "refused" if answer.result is None else answer.result.state
    return {"award": answer.award.hex(), "state": state}


def read_charter(data: bytes, inputs: dict[str, Any]) -> Any:
    won = charter.read_certificate(data, **inputs)
    told = won.chartered.charter
    return {"job": told.job, "owner": told.owner, "epoch": won.epoch, "broker": won.broker}


def read_shipping(data: bytes, inputs: dict[str, Any]) -> Any:
    if inputs["type"] == "shipped":
        told = shipping.read_shipped(data)
        return {"segment": told.segment, "count": told.count}
    ship = shipping.read_ship(data)
    return {"first": ship.first, "events": len(ship.events)}


READERS: dict[str, Read] = {
    "codec": read_codec,
    "framing": read_framing,
    "keys": read_keys,
    "envelopes": read_envelope,
    "lifecycle": read_lifecycle,
    "app_keys": read_app,
    "membership": read_membership,
    "invites": read_invite,
    "records": read_record,
    "work": read_work,
    "catalogue": read_catalogue,
    "graphs": read_graph,
    "session": read_session,
    "contracts": read_contract,
    "receipts": read_receipt,
    "settlements": read_contract,
    "artifacts": read_artifact,
    "journal": read_journal,
    "mail": read_mail,
    "orders": read_orders,
    "reputation": read_reputation,
    "charter": read_charter,
    "shipping": read_shipping,
}


def load(path: Path) -> list[dict[str, Any]]:
    """The cases in a file."""
    document = json.loads(path.read_text(encoding="utf-8"))
    cases: list[dict[str, Any]] = document["cases"]
    return cases


CASES = [case for path in sorted(FOLDER.glob("*.json")) for case in load(path)]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_vector(case: dict[str, Any]) -> None:
    reader = READERS[case["id"].split("/")[0]]
    data, expected = bytes.fromhex(case["bytes"]), case["result"]
    if "refused" in expected:
        with pytest.raises(RemoteProtocolError) as caught:
            reader(data, case["inputs"])
        assert caught.value.code.name == expected["refused"], case["why"]
    else:
        assert reader(data, case["inputs"]) == expected["value"], case["why"]


def test_the_files_are_what_their_script_writes() -> None:
    written = dict(vectors())
    assert set(written) == set(FOLDER.glob("*.json"))
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is out of date"


@pytest.mark.parametrize("name", FILES)
def test_more_is_refused_than_accepted(name: str) -> None:
    cases = load(FOLDER / f"{name}.json")
    refused = sum("refused" in case["result"] for case in cases)
    assert refused > len(cases) - refused
    assert len({case["why"] for case in cases}) == len(cases)
