"""A contractor that lies, swells or idles costs its broker an attempt, and never the job.

Node b does its work for real; what it says of it is doctored on its way out.
In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import trio

from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, JsonValue, Output
from meshnode.services.bodies import (
    AWARD,
    CANCEL,
    CFP,
    OFFERS,
    OFFERS_BODY,
    RESULT_BODY,
    OffersBody,
    ResultBody,
)
from meshnode.services.job_terms import Terms
from meshnode.services.session import Incoming
from meshnode.services.signer import Topic
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.graph import Source, SubTask, TaskGraph
from protocol.keys import digest
from protocol.messages import Result, StandingOffer, read_message
from protocol.receipts import Receipt
from protocol.signing import peek, seal
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)

Doctor = Callable[[bytes], bytes]


def doctor(node: Node, method: str, change: Doctor) -> list[int]:
    """Have ``node``'s answers to ``method`` changed; return how many were, as it grows."""
    honest = node.sessions.handler(method)
    assert honest is not None
    count = [0]

    async def answer(incoming: Incoming) -> bytes:
        count[0] += 1
        return change(await honest(incoming))

    node.sessions.handle(method, answer)
    return count


def padded(node: Node, envelope: bytes, size: int) -> bytes:
    """Return ``envelope`` with an unknown field of ``size`` bytes, signed by ``node``."""
    parts = peek(envelope)
    fields: dict[str, Any] = msgspec.msgpack.decode(parts.p)
    payload = encode({**fields, "zz": b"x" * size})
    return seal(node.artifacts._signer.identity, parts.t, NETWORK, payload)


def with_result(node: Node, raw: bytes, change: Callable[[Result], Result]) -> bytes:
    """Return the answer to an award with its result changed and its receipt made to fit."""
    body = decode_as(raw, RESULT_BODY)
    signer = node.artifacts._signer
    result = signer.sign(change(read_message(body.result, Result, network=NETWORK)))
    receipt = read_message(body.receipt, Receipt, network=NETWORK)
    bound = msgspec.structs.replace(receipt, result=digest(result))
    return encode(ResultBody(b"", result, signer.sign(bound)))


def listing(**options: Any) -> TaskGraph:
    """Return a plan that maps over the list that its first sub-task makes."""
    first = SubTask(
        id="cut",
        capability="text.cut",
        inputs={"text": Source(kind="input", name="words", pointer="/0")},
    )
    second = SubTask(
        id="say",
        capability="text.shout",
        inputs={"text": Source(kind="task", name="cut", pointer="/words")},
        each=["text"],
        **options,
    )
    said = Source(kind="task", name="say", pointer="/text")
    return TaskGraph(name="test", subtasks=[first, second], outputs={"said": said})


class CutAgent(TextAgent):
    """From text to words."""

    def __init__(self, **options: Any) -> None:
        shape = {
            "type": "object",
            "properties": {"words": {"type": "array", "items": {"type": "string"}}},
            "required": ["words"],
        }
        super().__init__(
            cut, name="cut", capability="text.cut@1", output_schema=shape, **options
        )


async def cut(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    await trio.lowlevel.checkpoint()
    words: list[JsonValue] = [*text.split()]
    yield Output({"words": words})


@pytest.mark.parametrize("claimed", [10**15, 1])
def test_the_length_of_a_list_is_what_the_broker_counted(claimed: int) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, _ = await start(
            mesh, a=[], b=[CutAgent()], c=[CutAgent(price_mc=50), TextAgent()]
        )

        def lie(raw: bytes) -> bytes:
            return with_result(
                b, raw, lambda r: msgspec.structs.replace(r, lengths={"/words": claimed})
            )

        lies = doctor(b, AWARD, lie)
        job = await a.submit(listing(), inputs("x y z"))
        with trio.fail_after(60):
            state = await a.wait(job)
        assert lies == [1]
        assert await a.outputs(job) == {"said": ["X", "Y", "Z"]}
        assert state.units["cut/0"].failures()[0].code == "agent.output_invalid"

    play(story)


async def _ends_elsewhere(
    mesh: SimMesh, method: str, change: Callable[[Node], Doctor], *, calls: bool = False
) -> None:
    """Play a job in which cheap b answers ``method`` badly; dearer c must end it."""
    a, b, c = await start(mesh, a=[], b=[TextAgent()], c=[TextAgent(price_mc=50)])
    if calls:  # nobody has an offer out, so that proposals are asked for
        for node in (b, c):
            doctor(node, OFFERS, lambda _: encode(OffersBody([])))
    bad = doctor(b, method, change(b))
    job = await a.submit(shouting(), inputs("x"), Terms(deadline_s=100))
    with trio.fail_after(110):
        state = await a.wait(job)
    assert bad[0] > 0
    assert state.done is not None
    assert state.done.state == "completed", state.done
    accepted = state.units["say/0"].accepted
    assert accepted is not None
    assert accepted.peer == c.peer
    assert trio.current_time() < 60


def test_an_offer_that_no_event_could_hold_is_not_taken() -> None:
    def swell(node: Node) -> Doctor:
        def change(raw: bytes) -> bytes:
            offers = decode_as(raw, OFFERS_BODY).items
            return encode(OffersBody([padded(node, offer, 245_000) for offer in offers]))

        return change

    async def story(mesh: SimMesh) -> None:
        a, b, _ = await start(mesh, a=[], b=[TextAgent()], c=[TextAgent(price_mc=50)])
        bad = doctor(b, OFFERS, swell(b))
        for _ in range(2):  # the first submit finds no offers yet, the second b's
            job = await a.submit(shouting(), inputs("x"))
            with trio.fail_after(60):
                state = await a.wait(job)
            assert state.done is not None
            assert state.done.state == "completed", state.done
        assert bad[0] > 0

    play(story)


def test_a_proposal_that_no_event_could_hold_spoils_no_call() -> None:
    async def story(mesh: SimMesh) -> None:
        await _ends_elsewhere(
            mesh, CFP, lambda b: lambda raw: padded(b, raw, 245_000), calls=True
        )

    play(story)


def test_a_result_that_no_event_could_hold_fails_its_attempt() -> None:
    def swell(node: Node) -> Doctor:
        def change(raw: bytes) -> bytes:
            body = decode_as(raw, RESULT_BODY)
            result = padded(node, body.result, 245_000)
            receipt = read_message(body.receipt, Receipt, network=NETWORK)
            bound = msgspec.structs.replace(receipt, result=digest(result))
            return encode(ResultBody(b"", result, node.artifacts._signer.sign(bound)))

        return change

    async def story(mesh: SimMesh) -> None:
        await _ends_elsewhere(mesh, AWARD, swell)

    play(story)


def test_an_output_too_large_to_look_at_fails_its_attempt_unread() -> None:
    def swell(node: Node) -> Doctor:
        def change(raw: bytes) -> bytes:
            return with_result(
                node,
                raw,
                lambda r: msgspec.structs.replace(r, inline=b"", size=limits.ARTIFACT_SIZE_MAX),
            )

        return change

    async def story(mesh: SimMesh) -> None:
        await _ends_elsewhere(mesh, AWARD, swell)
        (failed,) = told(mesh.node("a"), "job.failed")
        assert "too large" in str(failed["fact"])

    play(story)


def test_a_contractor_that_is_there_and_never_answers_is_given_up_after_the_awards_time() -> (
    None
):
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(
            mesh, a=[], b=[TextAgent()], c=[TextAgent(price_mc=50, timeout_s=5.0)]
        )

        async def silent(_: Incoming) -> bytes:
            await trio.sleep_forever()
            return b""

        b.sessions.handle(AWARD, silent)
        told_to_stop = doctor(b, CANCEL, lambda raw: raw)
        job = await a.submit(shouting(timeout_ms=5_000), inputs("x"), Terms(deadline_s=600))
        with trio.fail_after(60):
            state = await a.wait(job)
        accepted = state.units["say/0"].accepted
        assert accepted is not None
        assert accepted.peer == c.peer
        assert told_to_stop[0] == 1

    play(story)


def test_a_peer_may_not_fill_the_broker_with_offers() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        signer = b.artifacts._signer
        number = [0]

        def flood(raw: bytes) -> bytes:
            (offer,) = decode_as(raw, OFFERS_BODY).items
            one = read_message(offer, StandingOffer, network=NETWORK)
            more = []
            for _ in range(100):
                number[0] += 1
                header = signer.header(a.peer, Topic())
                changed = msgspec.structs.replace(one, h=header, agent=f"agent{number[0]}")
                more.append(signer.sign(changed))
            return encode(OffersBody(more))

        asked = doctor(b, OFFERS, flood)
        for _ in range(5):
            a.market.candidates("text.shout")
            await trio.sleep(6)
        assert asked[0] == 5
        assert len(a.market._offers) <= limits.CAPABILITIES_MAX

    play(story)


def test_each_loss_of_a_long_awards_connection_has_its_own_time_to_come_back() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(30))
        a, b = await start(mesh, a=[], b=[agent])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: agent.running == 1)
        for _ in range(3):
            await trio.sleep(8)
            mesh.world.network.break_link(a.peer, b.peer)
        state = await a.wait(job)
        assert [len(unit.attempts) for unit in state.units.values()] == [1]
        assert agent.calls == ["x"]

    play(story)
