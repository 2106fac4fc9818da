"""Gold tasks in real nodes: who knows the answer passes, and can't see that it was asked.

Ada's node asks; Bob's and Carl's do the work.  In virtual time (a MockClock's).
"""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio

from meshnode.domain.facts import Elected
from meshnode.domain.gold_tasks import lent as lendable
from meshnode.domain.graph_builder import TaskGraph as Graph
from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.domain.values import canonical
from meshnode.errors import InputInvalid, JobEnded, NotFound
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, JsonValue, Output
from meshnode.services.bodies import OFFERS, OffersBody
from meshnode.services.crash_points import read_crash_point
from meshnode.services.job_terms import Terms
from meshnode.services.session import Incoming
from protocol.codec import encode
from protocol.graph import Check, Likeness, Source, SubTask, TaskGraph
from protocol.messages import Award, read_message
from protocol.signing import peek
from simulations.mesh import CONFIG, NETWORK, Down, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    told,
    until,
)

SHOUT = "text.shout@1"


async def lie(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    """Answer at once, and wrongly."""
    await trio.lowlevel.checkpoint()
    yield Output({"text": text.upper() + "!"})


async def keep(node: Node, *words: str, capability: str = SHOUT) -> list[str]:
    """Give ``node`` a gold for each word; return their ids."""
    return [
        await node.golds.kept.add(capability, {"text": word}, {"text": word.upper()})
        for word in words
    ]


def agent(node: Node) -> str:
    return f"{node.peer}/shout"


async def learned(node: Node, of: Node) -> list[str]:
    """Return what ``node`` has learned of ``of``, sorted."""
    _, events = await node.reputation.account(SHOUT, agent(of))
    return sorted(event.kind for event in events)


async def given(node: Node, to: Node) -> JobState:
    """Give ``to`` a gold and return how that ended, once it is noted."""
    job = await node.golds.give(SHOUT, agent(to))
    assert job, told(node, "gold.lacking") + told(node, "gold.not_given")
    with trio.fail_after(900):
        state = await node.wait(job)
    names = ("gold.passed", "gold.failed", "gold.absent")
    await until(lambda: any(e["job"] == job for name in names for e in told(node, name)))
    return state


def shape(envelope: bytes, state: JobState) -> dict[str, Any]:
    """Return all that a message says, but for what differs between any two jobs."""
    said: dict[str, Any] = msgspec.msgpack.decode(peek(envelope).p)
    h = said["h"]
    for name in ("id", "sequence"):
        del h[name]
    issued_ms = h.pop("issued_ms")
    h["expires_ms"] -= issued_ms
    h["deadline_ms"] = round((h["deadline_ms"] - state.planned_ms) / 1000)
    h["idempotency_key"] = h["idempotency_key"].replace(state.job, "JOB")
    h["replica"] = bool(h["replica"])  # a number by chance, or none
    assert len(h["job"]) == len(state.job)
    h["job"] = "JOB"
    h["traceparent"] = re.sub("[0-9a-f]", "x", h["traceparent"])
    for name in ("cfp", "proposal", "award", "receipt"):
        if name in said:
            said[name] = len(said[name])
    if "inputs" in said:
        said["inputs"] = {
            field: [
                {k: bool(v) if k in CONTENT else v for k, v in p.items()} for p in b["parts"]
            ]
            for field, b in said["inputs"].items()
        }
        said["tickets"] = len(said["tickets"])
    return said


#: Of an input's part: what it holds, which is another thing in every task.
CONTENT = ("inline", "artifact", "size")


async def acceptances(node: Node, state: JobState) -> list[bytes]:
    """Return ``node``'s acceptances of a job, as its contractor keeps them."""
    rows = await node.contractor.receipts()
    mine = [
        row
        for row in rows
        if read_message(row.award, Award, network=NETWORK).h.job == state.job
    ]
    return [row.acceptance for row in mine]


def test_who_knows_the_answer_passes_and_is_paid() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, ada=[], bob=[TextAgent()])
        (name,) = await keep(a, "so it is")
        before = a.reputation.credibility(SHOUT, agent(b))
        state = await given(a, b)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert state.spent_mc == 2
        standing = a.reputation.standing(SHOUT, agent(b))
        assert (standing.good_mu, standing.up_mu) == (1_000_000, 1_000_000)
        assert await learned(a, b) == ["gold_passed", "served"]
        assert a.reputation.credibility(SHOUT, agent(b)) > before
        (gold,) = await a.golds.kept.rows()
        assert (gold.name, gold.row.given, gold.row.passed) == (name, 1, 1)
        await until(lambda: b.ledger.balances.due_mc(a.peer) == 2)

    play(story)


def test_a_liar_fails_is_not_paid_and_is_believed_less() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, ada=[], bob=[TextAgent(lie)], carl=[TextAgent()])
        await keep(a, "one")
        before = a.reputation.credibility(SHOUT, agent(b))
        state = await given(a, b)
        assert state.done is not None
        assert (state.done.state, state.spent_mc) == ("failed", 0)
        assert [e["agent"] for e in told(a, "gold.failed")] == [agent(b)]
        standing = a.reputation.standing(SHOUT, agent(b))
        assert (standing.bad_mu, standing.good_mu, standing.owed) == (1_000_000, 0, 3)
        assert await learned(a, b) == ["gold_failed", "served"]
        assert a.reputation.credibility(SHOUT, agent(b)) < before
        assert a.reputation.book(SHOUT).is_blocked(agent(b))
        # Who was caught knows this one now, and so do those whom it tells.
        assert await a.golds.give(SHOUT, agent(c)) == ""

    play(story)


def test_one_who_does_not_answer_is_absent_and_nothing_else() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, ada=[], bob=[TextAgent(never)])
        await keep(a, "one")
        await given(a, b)
        standing = a.reputation.standing(SHOUT, agent(b))
        assert (standing.down_mu, standing.up_mu) == (1_000_000, 0)
        assert (standing.good_mu, standing.bad_mu) == (0, 0)

    play(story)


def test_no_gold_goes_twice_to_the_same_node_whatever_happens_between() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(), TextAgent(name="louder")]
        a, b, c = await start(mesh, ada=[], bob=agents, carl=[TextAgent()])
        (name,) = await keep(a, "one")
        await given(a, b)
        assert await a.golds.give(SHOUT, agent(b)) == ""
        assert await a.golds.give(SHOUT, f"{b.peer}/louder") == "", "one node, one memory"
        await a.golds.kept.remove(name[:6])
        await keep(a, "one")
        assert await a.golds.give(SHOUT, agent(b)) == "", "it was removed and given anew"
        mesh.crash("ada")
        a = await mesh.restart("ada")
        await until(lambda: len(a.known()) == 3)
        assert await a.golds.give(SHOUT, agent(b)) == "", "the node was started again"
        await given(a, c)
        assert agents[0].calls == ["one"]

    play(story)


def test_many_at_once_get_a_gold_each() -> None:
    async def story(mesh: SimMesh) -> None:
        worker = TextAgent(answers_after(5.0))
        a, b = await start(mesh, ada=[], bob=[worker])
        await keep(a, "one", "two")
        jobs: list[str] = []

        async def give() -> None:
            jobs.append(await a.golds.give(SHOUT, agent(b)))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(give)
        assert [bool(job) for job in sorted(jobs)] == [False, True, True]
        for job in filter(None, jobs):
            await a.wait(job)
        assert sorted(worker.calls) == ["one", "two"]

    play(story)


QUOTED = Check(kind="quoted", output="/text", input="/text")
LOOK = Terms(
    budget_mc=5_000,
    deadline_s=120.0,
    depth_max=2,
    subtasks_max=4,
    fan_out_max=2,
    traceparent="00-" + "ab" * 16 + "-" + "cd" * 8 + "-01",
)


async def believe(node: Node, other: Node) -> None:
    """Let ``node`` have seen enough of ``other`` to take its word alone, and no chance left."""
    for _ in range(40):
        noted = node.reputation.note(SHOUT, agent(other), "gold_passed")
        await node._ports.store.commit(*noted.writes)
        node.reputation.learned(noted)


async def no_offers(_: Incoming) -> bytes:
    await trio.lowlevel.checkpoint()
    return encode(OffersBody([]))


@pytest.mark.parametrize(
    ("words", "check", "way", "verdict"),
    [
        (["1"], [], "offer", "unverified"),
        (["1"], [QUOTED], "call", "verified"),
        (["1", "2", "3"], [], "call", "unverified"),
        (["1"], [], "sure", "agreed"),
        (["1"], [], "rival", "unverified"),
    ],
    ids=["a call", "checked, without an offer", "a map without one", "sure", "with a rival"],
)
def test_nothing_that_is_sent_says_that_it_is_a_gold(
    words: list[str], check: list[Check], way: str, verdict: str
) -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, ada=[], bob=[TextAgent()])
        if way == "call":
            b.sessions.handle(OFFERS, no_offers)
        if way == "rival":  # who would do it too, so that it would not wait for ever
            await start(mesh, carl=[TextAgent(price_mc=50)])
            await until(
                lambda: [bool(c.offer) for c in a.market.candidates(SHOUT)] == [True] * 2
            )
        graph = shouting(len(words), timeout_ms=45_000, checks=check)
        await believe(a, b)
        await keep(a, "4", "5", "6")
        assurance = "economy" if way == "sure" else ""
        job = await a.submit(graph, inputs(*words), replace(LOOK, assurance=assurance))
        usual = await a.wait(job)
        assert usual.done is not None
        assert usual.done.state == "completed", usual.done
        await until(lambda: a.golds.has_seen(SHOUT))
        gold = await given(a, b)
        assert len(gold.units) == len(usual.units) == len(words)
        for one, other in zip(usual.units.values(), gold.units.values(), strict=True):
            (was,), (now,) = one.attempts, other.attempts
            assert shape(was.award, usual) == shape(now.award, gold)
            assert bool(was.called) == bool(now.called) == (way == "call")
            assert (was.wait_max_ms > 0) == (way == "rival")
            for peer in was.called:
                assert shape(was.called[peer], usual) == shape(now.called[peer], gold)
        export = await (await a.journal(gold.job)).export()
        assert verify_provenance(export).state == "completed"
        await trio.sleep(5)  # the last halves of receipts are on their way
        took = [await acceptances(b, state) for state in (usual, gold)]
        assert len(took[0]) == len(took[1]) == len(words)
        for was_said, now_said in zip(*took, strict=True):
            first, second = shape(was_said, usual), shape(now_said, gold)
            assert first["verdict"] == verdict
            assert {**first, "h": 0} == {**second, "h": 0}

    play(story)


def test_a_gold_that_nothing_like_it_went_before_looks_as_a_plain_task_does() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, ada=[], bob=[TextAgent()])
        await keep(a, "one")
        gold = await given(a, b)
        graph = Graph("test")
        graph.output("said", graph.task(SHOUT, {"text": "two"})["text"])
        usual = await a.wait(await a.submit(graph.build(), {}))
        (one,), (other,) = gold.units["shout/0"].attempts, usual.units["shout/0"].attempts
        assert shape(one.award, gold) == shape(other.award, usual)

    play(story)


def test_a_task_that_is_to_be_sure_brings_golds_with_it() -> None:
    async def story(mesh: SimMesh) -> None:
        worker = TextAgent()
        a, b = await start(mesh, ada=[], bob=[worker])
        await keep(a, "one", "two")
        await a.wait(await a.submit(shouting(), inputs("three"), Terms()))
        assert told(a, "gold.given") == [], "nothing that takes what comes"
        job = await a.submit(shouting(), inputs("four"), Terms(assurance="economy"))
        await a.wait(job)
        await until(lambda: bool(told(a, "gold.passed")), within_s=60)
        assert [event["agent"] for event in told(a, "gold.passed")] == [agent(b)]
        rows = await a.broker.jobs()
        assert {name for name, row in rows if row.gold} == {told(a, "gold.given")[0]["job"]}

    play(story)


def test_of_a_map_of_golds_each_is_judged_by_itself() -> None:
    async def story(mesh: SimMesh) -> None:
        async def weak(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
            await trio.lowlevel.checkpoint()
            yield Output({"text": "?" if text == "5" else text})

        a, b = await start(mesh, ada=[], bob=[TextAgent(weak)])
        await a.wait(await a.submit(shouting(3), inputs("1", "2", "3")))
        await until(lambda: a.golds.has_seen(SHOUT))
        await keep(a, "4", "5", "6")
        await given(a, b)
        golds = {str(g.inputs["text"]): g.row for g in await a.golds.kept.rows()}
        assert {word: row.failed for word, row in golds.items()} == {"4": 0, "5": 1, "6": 0}
        assert sum(row.given for row in golds.values()) == 3

    play(story)


# --- whose they are ------------------------------------------------------------------


def known(word: str, *, part: bool = False, **source: Any) -> TaskGraph:
    """Return a job whose output its owner knows, or a part of it: a call that shouts a word."""
    whole = Check(kind="expected", value=canonical({"text": word.upper()}))
    partly = Check(kind="expected", output="/text", value=canonical(word.upper()))
    task = SubTask(
        id="say",
        capability="text.shout",
        inputs={"text": Source(kind="input", name="words", pointer="/0", **source)},
        checks=[partly if part else whole],
    )
    said = Source(kind="task", name="say", pointer="/text")
    return TaskGraph(name="test", subtasks=[task], outputs={"said": said})


async def lent(a: Node, graph: TaskGraph, terms: Terms) -> list[bool]:
    """Have a job done; return for each gold there is then whether it is of that job."""
    state = await a.wait(await a.submit(graph, inputs("one"), terms))
    assert state.done is not None
    assert state.done.state == "completed", state.done
    await trio.sleep(1)
    return [gold.row.origin == state.job for gold in await a.golds.kept.rows()]


def test_a_job_becomes_a_gold_for_others_if_its_owner_lends_it() -> None:
    async def story(mesh: SimMesh) -> None:
        first, second = TextAgent(), TextAgent(price_mc=500)
        a, b, c = await start(mesh, ada=[], bob=[first], carl=[second])
        assert await lent(a, known("one"), Terms(lends_golds=True)) == [True]
        assert first.calls == ["one"]
        ((job, _),) = await a.broker.jobs()
        state = await a.wait(job)
        plan = state.required_plan
        assert len(lendable(state, a.peer)) == 1
        assert lendable(state, b.peer) == [], "another's"
        for change in ({"under": b"x" * 32}, {"lends_golds": False}):
            state.plan = msgspec.structs.replace(plan, **change)
            assert lendable(state, a.peer) == []
        state.plan = plan
        state.elected = Elected(epoch=1, broker=a.peer, charter=b"", certificate=b"")
        assert lendable(state, a.peer) == [], "its heirs have seen it"
        assert await a.golds.give(SHOUT, agent(b)) == "", "it did that job"
        await given(a, c)
        assert second.calls == ["one"]

    play(story)


@pytest.mark.parametrize(
    ("graph", "terms"),
    [
        (known("one"), Terms()),
        (shouting(), Terms(lends_golds=True)),
        (known("one", readers=["broker", "owner", "verifier"]), Terms(lends_golds=True)),
        (known("one", part=True), Terms(lends_golds=True)),
    ],
    ids=["not lent", "not proven", "with readers", "proven in part"],
)
def test_no_other_job_becomes_a_gold(graph: TaskGraph, terms: Terms) -> None:
    async def story(mesh: SimMesh) -> None:
        (a, _) = await start(mesh, ada=[], bob=[TextAgent()])
        assert await lent(a, graph, terms) == []

    play(story)


# --- what a crash does ----------------------------------------------------------------


def test_a_gold_that_was_out_when_its_node_died_counts_once() -> None:
    async def story(mesh: SimMesh) -> None:
        worker = TextAgent(answers_after(20.0))
        a, b = await start(mesh, ada=[], bob=[worker])
        await keep(a, "one")
        job = await a.golds.give(SHOUT, agent(b))
        await until(lambda: worker.running == 1)
        mesh.crash("ada")
        a = await mesh.restart("ada")
        await until(lambda: bool(told(a, "gold.passed")))
        mesh.crash("ada")
        a = await mesh.restart("ada")
        await trio.sleep(60)
        standing = a.reputation.standing(SHOUT, agent(b))
        assert (standing.good_mu, standing.up_mu) == (1_000_000, 1_000_000)
        assert [row.came for _, row in await a.golds.kept.given()] == ["passed"]
        with pytest.raises(JobEnded):
            await a.broker.resume(job)

    play(story)


def test_a_gold_that_never_left_is_as_if_it_was_not_given() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, ada=[], bob=[TextAgent()])
        await keep(a, "one")
        mesh.crash_at("ada", read_crash_point("before:job.planned"), lambda: None)
        with pytest.raises(Down):
            await mesh.ask("ada", lambda node: node.golds.give(SHOUT, agent(b)))
        a = await mesh.restart("ada")
        await until(lambda: len(a.known()) == 2)
        await trio.sleep(1)  # it looks through what was out
        await given(a, b)
        (gold,) = await a.golds.kept.rows()
        assert gold.row.given == 1

    play(story)


# --- what is one ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "asked", "like"),
    [
        ("text.shout", {"text": "x"}, Likeness()),
        ("Shout!", {"text": "x"}, Likeness()),
        (SHOUT, ["x"], Likeness()),
        (SHOUT, {}, Likeness()),
        (SHOUT, {"text": "x" * 70_000}, Likeness()),
        (SHOUT, {"text": "x"}, Likeness("embedding")),
    ],
    ids=["no version", "no name", "no object", "nothing", "too large", "by meaning"],
)
def test_what_is_no_gold_is_refused(capability: str, asked: JsonValue, like: Likeness) -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, ada=[])
        with pytest.raises(InputInvalid):
            await a.golds.kept.add(capability, asked, {"text": "X"}, like)
        with pytest.raises(NotFound):
            await a.golds.kept.remove(SHOUT)

    play(story)


def test_lent_golds_lapse_and_the_owners_stay() -> None:
    async def story(mesh: SimMesh) -> None:
        config = msgspec.structs.replace(
            CONFIG, host=msgspec.structs.replace(CONFIG.host, history_s=3_600.0)
        )
        (a, _) = await start(mesh, config, ada=[], bob=[TextAgent()])
        await keep(a, "mine")
        await lent(a, known("one"), Terms(lends_golds=True))
        assert len(await a.golds.kept.rows()) == 2
        await trio.sleep(2 * 3_600)
        assert [gold.row.origin for gold in await a.golds.kept.rows()] == ["owner"]

    play(story)
