"""Jobs that want to be sure: several answers to one thing, and what they teach.

(A MockClock's time.)
"""

from collections.abc import AsyncIterator, Sequence

import pytest
import trio

from meshnode.domain.explaining import explain
from meshnode.domain.explaining_words import in_words
from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import InputInvalid
from meshnode.node import Node, Terms
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.job_terms import check_terms
from protocol.graph import Check, Source, SubTask, TaskGraph
from protocol.limits import FAN_OUT_MAX
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import (
    Behave,
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    until,
)

CAPABILITY = "text.shout@1"


async def lying(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
    await trio.lowlevel.checkpoint()
    yield Output({"text": text.upper() + "?"})


async def shout(
    node: Node, text: str, *, assurance: str | float = "assured", deadline_s: float = 600.0
) -> JobState:
    terms = Terms(assurance=assurance, deadline_s=deadline_s)
    return await node.wait(await node.submit(shouting(), inputs(text), terms))


async def believe(node: Node, others: Sequence[Node], *, golds: int = 12) -> None:
    """Have ``node`` know that the agents of ``others`` were right so often."""
    for other in others:
        for _ in range(golds):
            noted = node.reputation.note(CAPABILITY, f"{other.peer}/shout", "gold_passed")
            await vars(node.reputation)["_store"].commit(*noted.writes)
            node.reputation.learned(noted)


async def audited(node: Node, state: JobState) -> None:
    """Have the journal say of itself that all of it holds together."""
    proved = verify_provenance(await (await node.journal(state.job)).export())
    assert proved.cost_mc == state.spent_mc


async def told(node: Node, state: JobState) -> str:
    """Return how the job is explained to people."""
    journal = await node.journal(state.job)
    explained = in_words(explain(state.job, journal.events(), now_ms=state.ended_ms))
    return " ".join(line for section in explained for line in section.lines)


def verdicts(state: JobState) -> list[str]:
    return [
        attempt.verdict.verdict if attempt.verdict else ""
        for attempt in state.units["say/0"].attempts
    ]


def test_several_are_asked_at_once_and_all_who_agree_are_paid() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(price_mc=3) for _ in range(4)]
        a, *others = await start(mesh, a=[], **{f"b{n}": [x] for n, x in enumerate(agents)})
        await until(lambda: len(a.known()) == len(others) + 1)
        await believe(a, others, golds=8)
        state = await shout(a, "hi")
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        unit = state.units["say/0"]
        assert unit.judged is not None
        assert unit.judged.outcome == "agreed"
        assert unit.judged.posterior_ppm >= 980_000
        asked = len(unit.attempts)
        assert asked >= 2
        assert verdicts(state) == ["agreed"] * asked
        assert state.spent_mc == 3 * asked
        assert len({attempt.peer for attempt in unit.attempts}) == asked
        replicas = [attempt.replica for attempt in unit.attempts]
        assert len(set(replicas)) == asked
        assert min(replicas) > asked, "drawn by chance, not counted"
        begun = [attempt.at_ms for attempt in unit.attempts]
        assert begun[1] - begun[0] < 100, "as many as are needed anyway are asked at once"

    play(story)


def test_a_believed_liar_is_outvoted_unpaid_and_believed_less() -> None:
    async def story(mesh: SimMesh) -> None:
        liar = TextAgent(lying, price_mc=1)
        a, b, *others = await start(
            mesh, a=[], b=[liar], c=[TextAgent()], d=[TextAgent()], e=[TextAgent()]
        )
        await until(lambda: len(a.known()) == len(others) + 2)
        await believe(a, [b, *others], golds=20)
        before = a.reputation.credibility(CAPABILITY, f"{b.peer}/shout")
        asked = []
        for number in range(24):
            state = await shout(a, f"word {number}", assurance=0.95)
            assert state.done is not None
            assert state.done.state == "completed", state.done.text
            assert await a.outputs(state.job) == {"said": f"WORD {number}"}
            tries = state.units["say/0"].attempts
            assert [x.paid_mc for x in tries if x.peer == b.peer] in ([], [0])
            assert all(x.paid_mc == 2 for x in tries if x.peer != b.peer)
            asked.append(any(x.peer == b.peer for x in tries))
            await audited(a, state)
        after = a.reputation.credibility(CAPABILITY, f"{b.peer}/shout")
        assert sum(asked[:12]) > sum(asked[12:]), "and is asked less"
        assert after < before
        _, events = await a.reputation.account(CAPABILITY, f"{b.peer}/shout")
        assert "outvoted" in {event.kind for event in events}

    play(story)


def test_where_nobody_is_believed_one_answer_comes_back_unverified_and_is_paid() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[TextAgent()], c=[TextAgent()])
        await until(lambda: len(a.known()) == 3)
        state = await shout(a, "hi")
        assert verdicts(state) == ["unverified"]
        assert state.spent_mc == 2
        assert state.done is not None
        assert state.done.state == "completed"
        await audited(a, state)
        assert "nobody else could make it surer" in await told(a, state)

    play(story)


def test_answers_that_none_outweighs_are_contested_and_all_of_them_kept() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *others = await start(mesh, a=[], b=[TextAgent(lying)], c=[TextAgent()])
        await until(lambda: len(a.known()) == 3)
        await believe(a, others, golds=8)
        state = await shout(a, "hi", assurance=0.95)
        unit = state.units["say/0"]
        assert verdicts(state) == ["contested", "contested"]
        assert unit.judged is not None
        assert {vote.group for vote in unit.judged.votes} == {0, 1}
        assert [attempt.paid_mc for attempt in unit.attempts] == [2, 2]
        await audited(a, state)
        said = " ".join((await told(a, state)).split())
        assert "2 answers, 2 different ones, by " in said
        names = [f"{attempt.peer[-8:]}'s shout (85 %)" for attempt in unit.attempts]
        assert any("; others by ".join(row) in said for row in (names, names[::-1])), said
        assert "none likely enough" in said
        assert "It was found contested: 1 of 2 answers said the same." in said

    play(story)


def test_answers_beside_the_first_are_not_bought_from_what_others_need() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {name: [TextAgent(price_mc=2)] for name in "bcde"}
        a, *others = await start(mesh, a=[], **agents)
        await until(lambda: len(a.known()) == 5)
        await believe(a, others, golds=8)
        terms = Terms(assurance="assured", budget_mc=5)
        words = ["one", "two"]
        graph = shouting(words=2)
        state = await a.wait(await a.submit(graph, inputs(*words), terms))
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert state.spent_mc <= 5
        await audited(a, state)

    play(story)


def test_who_was_proven_wrong_gets_no_more_work() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent(lying)])
        await until(lambda: len(a.known()) == 2)
        check = Check(kind="expected", output="/text", value=b'"HI"')
        graph = shouting(checks=[check])
        ends = []
        for _ in range(4):
            state = await a.wait(await a.submit(graph, inputs("hi"), Terms()))
            assert state.done is not None
            ends.append((state.done.code, state.done.text))
        assert ends[0][0] == "output.rejected"
        code, text = ends[-1]
        assert code == "trust.blocked", ends
        assert "wrong too often" in text
        assert b.peer in text

    play(story)


def test_one_that_never_answers_does_not_take_the_job_with_it() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {name: [TextAgent()] for name in "bc"}
        a, *others = await start(mesh, a=[], d=[TextAgent(never, price_mc=1)], **agents)
        await until(lambda: len(a.known()) == 4)
        await believe(a, others, golds=8)
        state = await shout(a, "hi", deadline_s=30.0)
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert await a.outputs(state.job) == {"said": "HI"}
        await audited(a, state)

    play(story)


def test_all_who_are_out_when_it_must_do_are_told() -> None:
    async def story(mesh: SimMesh) -> None:
        deaf = {name: [TextAgent(never, price_mc=1)] for name in "fg"}
        agents = {name: [TextAgent()] for name in "bcd"}
        a, *others = await start(mesh, a=[], **agents, **deaf)
        await until(lambda: len(a.known()) == 6)
        await believe(a, others, golds=8)
        state = await shout(a, "hi", assurance=0.9995, deadline_s=30.0)
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        tried = state.units["say/0"].attempts
        ends = [attempt.error.code if attempt.error else "" for attempt in tried]
        assert sorted(ends) == ["", "", "", "award.superseded", "award.superseded"]
        await audited(a, state)

    play(story)


def calling(name: str, text: Source) -> SubTask:
    return SubTask(id=name, capability="text.shout", inputs={"text": text}, each=[])


def test_what_comes_after_is_not_starved_for_being_sure() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {name: [TextAgent(price_mc=2)] for name in "bcd"}
        a, *others = await start(mesh, a=[], **agents)
        await until(lambda: len(a.known()) == 4)
        await believe(a, others, golds=8)
        graph = TaskGraph(
            name="two",
            subtasks=[
                calling("say", Source(kind="input", name="words", pointer="/0")),
                calling("again", Source(kind="task", name="say", pointer="/text")),
            ],
            outputs={"said": Source(kind="task", name="again", pointer="/text")},
        )
        terms = Terms(assurance="economy", budget_mc=5)
        began_s = trio.current_time()
        state = await a.wait(await a.submit(graph, inputs("hi"), terms))
        assert trio.current_time() - began_s < 30, "nobody is waited for who can't be paid"
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert len(state.units["say/0"].attempts) == 1

    play(story)


def test_a_check_that_passes_needs_no_other_answer() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *others = await start(mesh, a=[], b=[TextAgent()], c=[TextAgent()])
        await until(lambda: len(a.known()) == 3)
        await believe(a, others, golds=8)
        check = Check(kind="expected", output="/text", value=b'"HI"')
        job = await a.submit(shouting(checks=[check]), inputs("hi"), Terms(assurance="economy"))
        state = await a.wait(job)
        assert verdicts(state) == ["verified"]
        agent = f"{state.units['say/0'].attempts[0].peer}/shout"
        kinds = [event.kind for event in (await a.reputation.account(CAPABILITY, agent))[1]]
        assert kinds[-2:] == ["served", "check_passed"]

    play(story)


@pytest.mark.parametrize("assurance", ["sure", 0.2, 1.0, -1.0])
def test_an_assurance_that_is_none_is_refused(assurance: str | float) -> None:
    with pytest.raises(InputInvalid, match="an assurance of"):
        check_terms(Terms(assurance=assurance))


def test_a_broker_that_dies_among_answers_asks_and_pays_nobody_twice() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(1.0 + n)) for n in range(3)]
        a, *others = await start(mesh, a=[], **{f"b{n}": [x] for n, x in enumerate(agents)})
        await until(lambda: len(a.known()) == 4)
        await believe(a, others, golds=8)
        job = await a.submit(shouting(), inputs("hi"), Terms(assurance="assured"))
        journal = await a.journal(job)
        await until(lambda: "say/0" in journal.state.units)
        await until(lambda: bool(journal.state.units["say/0"].answers()))
        mesh.crash("a")
        again = await mesh.restart("a")
        state = await again.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert verdicts(state) == ["agreed"] * 3
        assert [len(agent.calls) for agent in agents] == [1, 1, 1]
        assert state.spent_mc == 6
        await audited(again, state)
        for other in others:
            _, events = await again.reputation.account(CAPABILITY, f"{other.peer}/shout")
            kinds = [event.kind for event in events]
            assert kinds.count("served") == kinds.count("accepted") == 1

    play(story)


def test_who_answered_and_is_gone_has_answered() -> None:
    async def story(mesh: SimMesh) -> None:
        async def last_words(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
            await trio.lowlevel.checkpoint()
            vars(a.market)["candidates"] = lambda _: []
            yield Output({"text": text.upper()})

        a, *_ = await start(mesh, a=[], b=[TextAgent(last_words)])
        await until(lambda: len(a.known()) == 2)
        state = await shout(a, "hi", assurance="economy")
        assert verdicts(state) == ["unverified"]
        assert await a.outputs(state.job) == {"said": "HI"}

    play(story)


def test_map_items_of_which_one_differs_are_told_apart_by_their_batch() -> None:
    async def sometimes(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.lowlevel.checkpoint()
        yield Output({"text": text.upper() + ("?" if text == "b" else "")})

    async def story(mesh: SimMesh) -> None:
        agents = {name: [TextAgent()] for name in "cdef"}
        a, b, *others = await start(mesh, a=[], b=[TextAgent(sometimes)], **agents)
        await until(lambda: len(a.known()) == 6)
        await believe(a, [b, *others], golds=8)
        terms = Terms(assurance=0.95)
        words = list("abcdef")
        state = await a.wait(await a.submit(shouting(6), inputs(*words), terms))
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert await a.outputs(state.job) == {"said": [word.upper() for word in words]}
        await audited(a, state)

    play(story)


def test_a_map_whose_answers_are_more_than_run_at_once_is_judged_all_the_same() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {name: [TextAgent(concurrency_max=32)] for name in "bcd"}
        liar = TextAgent(lying, price_mc=1, concurrency_max=32)
        a, *others = await start(mesh, a=[], e=[liar], **agents)
        await until(lambda: len(a.known()) == len(others) + 1)
        await believe(a, others, golds=8)
        words = [f"word {number}" for number in range(FAN_OUT_MAX // 2)]
        graph = shouting(len(words), batch_items_max=1)
        terms = Terms(assurance=0.95, deadline_s=600)
        begun_s = trio.current_time()
        state = await a.wait(await a.submit(graph, inputs(*words), terms))
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        units = state.units.values()
        assert all(unit.judged is not None for unit in units)
        assert sum(len(unit.judged.votes) for unit in units if unit.judged) > FAN_OUT_MAX
        assert trio.current_time() - begun_s < 60, "an answer waited until the deadline"
        await audited(a, state)

    play(story)


@pytest.mark.parametrize("paid", [0, 1, 6])
def test_who_has_not_paid_for_its_name_is_asked_where_too_few_others_are_there(
    paid: int,
) -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {f"b{n}": [TextAgent()] for n in range(4 + paid)}
        a, *others = await start(mesh, a=[], **agents)
        await until(lambda: len(a.known()) == len(others) + 1)
        await believe(a, others, golds=8)
        known = {other.peer for other in others[:paid]}
        vars(a.market)["_is_unpaid"] = lambda peer: peer not in known
        for number in range(5):
            state = await shout(a, f"hi{number}")
            assert set(verdicts(state)) == {"agreed"}
            asked = [attempt.peer for attempt in state.units["say/0"].attempts]
            assert len(asked) >= 2
            assert known.issuperset(asked[:paid]), "those who have come first"
            assert paid < len(asked) or known.issuperset(asked)
            await audited(a, state)

    play(story)


def eats_all(tail: str) -> Behave:
    """Answer with all the model tokens that the award lets be used."""

    async def behave(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        left = (await call.left()).tokens or 0
        yield Output({"text": text.upper() + tail}, usage={"tokens_in": 0, "tokens_out": left})

    return behave


@pytest.mark.parametrize("tokens_max", [3, 4])
def test_answers_that_used_all_tokens_up_must_do_at_once(tokens_max: int) -> None:
    async def story(mesh: SimMesh) -> None:
        agents = {f"b{n}": [TextAgent(eats_all("?" * (n % 2)))] for n in range(6)}
        a, *others = await start(mesh, a=[], **agents)
        await until(lambda: len(a.known()) == len(others) + 1)
        await believe(a, others, golds=8)
        for number in range(4):
            begun_s = trio.current_time()
            terms = Terms(assurance=0.98, tokens_max=tokens_max)
            state = await a.wait(await a.submit(shouting(), inputs(f"hi{number}"), terms))
            assert state.done is not None
            assert state.done.state == "completed", state.done.text
            assert state.tokens_used == tokens_max
            unit = state.units["say/0"]
            assert unit.judgements <= len(unit.attempts) + 1, "none says what one before did"
            assert trio.current_time() - begun_s < 2.0
            await audited(a, state)

    play(story)
