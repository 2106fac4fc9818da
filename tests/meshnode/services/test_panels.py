"""Panels: judges are asked when answers differ and none is likely enough.

(A MockClock's time.)
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from typing_extensions import override

from meshnode.domain.explaining import explain
from meshnode.domain.job import JobState
from meshnode.node import Node, Terms
from meshnode.ports import AgentCall, AgentSpec, Chunk, JsonValue, Output
from protocol.graph import Check, Panel, Source, TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.test_assurance import CAPABILITY, audited, lying, told, verdicts
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, until

JUDGING = "text.judging@1"
ANY: dict[str, JsonValue] = {}
Says = Callable[[dict[str, Any]], str]


def shouts(value: dict[str, Any]) -> str:
    """Tell which answer is shouted without asking."""
    right = [name for name in "ab" if not value[name]["text"].endswith("?")]
    return right[0] if len(right) == 1 else "neither"


def asks(value: dict[str, Any]) -> str:
    """Have it the other way round."""
    return {"a": "b", "b": "a"}.get(shouts(value), "neither")


def first(_: dict[str, Any]) -> str:
    """Like whatever stands first."""
    return "a"


class Judge:
    """An agent that says which of two answers is better, as it is told to."""

    def __init__(self, says: Says = shouts, *, delay_s: float = 0.1, **options: Any) -> None:
        self.calls: list[dict[str, Any]] = []
        self._says = says
        self._delay_s = delay_s
        settings: dict[str, Any] = {
            "name": "judge",
            "capability": JUDGING,
            "description": "Judges.",
            "input_schema": {
                "type": "object",
                "properties": {"question": {"type": "string"}, "task": {}, "a": {}, "b": {}},
                "required": ["question", "task", "a", "b"],
                "additionalProperties": False,
            },
            "output_schema": {
                "type": "object",
                "properties": {"better": {"enum": ["a", "b", "tie", "neither"]}},
                "required": ["better"],
            },
            "price_mc": 5,
            "concurrency_max": 4,
            "timeout_s": 60.0,
        }
        self._spec = AgentSpec(**{**settings, **options})

    @property
    def spec(self) -> AgentSpec:
        return self._spec

    async def open(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self, value: JsonValue, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        assert isinstance(value, dict)
        self.calls.append(value)
        await trio.sleep(self._delay_s)
        yield Output({"better": self._says(value)})

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def believe(
    node: Node, capability: str, name: str, others: Sequence[Node], *, golds: int = 12
) -> None:
    """Have ``node`` know that the agents of ``others`` were right so often."""
    for other in others:
        for _ in range(golds):
            noted = node.reputation.note(capability, f"{other.peer}/{name}", "gold_passed")
            await vars(node.reputation)["_store"].commit(*noted.writes)
            node.reputation.learned(noted)


def disputed(question: str = "Which is shouted?", **options: Any) -> TaskGraph:
    return shouting(panel=Panel(question=question), **options)


async def mesh_of(
    mesh: SimMesh, judges: Sequence[Judge], makers: Sequence[TextAgent] = ()
) -> tuple[Node, list[Node], list[Node]]:
    """Start a broker, those who answer (a liar and an honest one), and judges, all believed."""
    made = list(makers) or [TextAgent(lying), TextAgent()]
    a, *others = await start(
        mesh,
        a=[],
        **{f"m{n}": [agent] for n, agent in enumerate(made)},
        **{f"j{n}": [judge] for n, judge in enumerate(judges)},
    )
    await until(lambda: len(a.known()) == len(others) + 1)
    answer, judge = others[: len(made)], others[len(made) :]
    await believe(a, CAPABILITY, "shout", answer)
    await believe(a, JUDGING, "judge", judge)
    return a, answer, judge


async def ask(
    node: Node, graph: TaskGraph, *, assurance: float = 0.9, **terms: Any
) -> JobState:
    job = await node.submit(graph, inputs("hi"), Terms(assurance=assurance, **terms))
    state = await node.wait(job)
    assert state.done is not None
    assert state.done.state == "completed", state.done.text
    await audited(node, state)
    return state


def test_judges_of_one_mind_settle_what_answers_cannot() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, makers, seats = await mesh_of(mesh, judges)
        before = [a.reputation.credibility(CAPABILITY, f"{m.peer}/shout") for m in makers]
        state = await ask(a, disputed())
        unit = state.units["say/0"]
        assert unit.judged is not None
        assert unit.judged.outcome == "agreed"
        assert 900_000 <= unit.judged.posterior_ppm <= 980_000
        assert await a.outputs(state.job) == {"said": "HI"}
        assert sorted(verdicts(state)) == ["agreed", "contested"]
        assert [attempt.paid_mc for attempt in unit.attempts] == [2, 2], "opinion costs no pay"
        assert state.spent_mc == 4 + 3 * 2 * 5
        for judge, seat in zip(judges, seats, strict=True):
            shown = [(call["a"]["text"], call["b"]["text"]) for call in judge.calls]
            assert sorted(shown) == [("HI", "HI?"), ("HI?", "HI")], seat.peer
            assert {str(call["task"]) for call in judge.calls} == {"{'text': 'hi'}"}
            words = str(judge.calls)
            assert not [m.peer for m in makers if m.peer in words], "nobody is told whose"
        after = [a.reputation.credibility(CAPABILITY, f"{m.peer}/shout") for m in makers]
        assert after == before, "and it teaches nothing"
        said = " ".join((await told(a, state)).split())
        assert "3 judges" in said, said

    play(story)


def test_what_a_panel_is_for_is_taken_first_even_where_it_is_not_likely_enough() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, [Judge(), Judge(), Judge()])
        for _ in range(4):
            state = await ask(a, disputed(), assurance=0.95)
            assert verdicts(state) == ["contested", "contested"]
            assert await a.outputs(state.job) == {"said": "HI"}

    play(story)


def test_who_likes_a_place_has_no_vote_and_one_judge_alone_decides_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, [Judge(first), Judge(), Judge(first)])
        state = await ask(a, disputed())
        unit = state.units["say/0"]
        assert unit.judged is not None
        assert unit.judged.outcome == "contested"
        assert verdicts(state) == ["contested", "contested"]
        sitting = unit.judged.sitting
        assert sitting is not None
        assert sitting.favours == -1
        assert sorted(seat.vote >= 0 for seat in sitting.seats) == [False, False, True]
        said = " ".join((await told(a, state)).split())
        assert said.count("changed its mind when the answers were swapped") == 2
        assert "of no one mind" in said

    play(story)


def test_judges_who_differ_leave_it_contested() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, [Judge(), Judge(), Judge(asks)])
        state = await ask(a, disputed())
        assert verdicts(state) == ["contested", "contested"]
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.sitting is not None
        assert sorted(judged.sitting.votes) == [1, 2]

    play(story)


def test_no_panel_is_asked_where_answers_agree_or_a_check_decides_or_nobody_names_one() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges, [TextAgent(), TextAgent(), TextAgent()])
        state = await ask(a, disputed())
        assert set(verdicts(state)) == {"agreed"}
        check = Check(kind="expected", output="/text", value=b'"HI"')
        state = await ask(a, disputed(checks=[check]))
        assert verdicts(state) == ["verified"]

    async def unnamed(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges)
        state = await ask(a, shouting())
        assert verdicts(state) == ["contested", "contested"]

    play(story)
    play(unnamed)
    assert [judge.calls for judge in judges] == [[], [], []]


def test_nobody_judges_its_own_answer_or_that_of_its_family() -> None:
    kin = Judge(model_family="smol")
    strangers = [Judge(model_family="grand"), Judge(model_family="tall"), Judge()]

    async def story(mesh: SimMesh) -> None:
        makers = [TextAgent(lying, model_family="smol"), TextAgent()]
        a, *_ = await mesh_of(mesh, [kin, *strangers], makers)
        state = await ask(a, disputed())
        assert sorted(verdicts(state)) == ["agreed", "contested"]
        assert not kin.calls
        assert all(len(judge.calls) == 2 for judge in strangers)

    play(story)


@pytest.mark.parametrize("family", ["?", "tall\tsmol", " ? ", "?\n?"])
def test_whatever_family_a_judge_declares_the_story_of_the_job_holds(family: str) -> None:
    async def story(mesh: SimMesh) -> None:
        makers = [TextAgent(lying, model_family="smol"), TextAgent()]
        a, *_ = await mesh_of(mesh, [Judge(model_family=family), Judge(), Judge()], makers)
        state = await ask(a, disputed())  # which is audited
        assert sorted(verdicts(state)) == ["agreed", "contested"]

    play(story)


@pytest.mark.parametrize("paid", [0, 1, 2])
def test_judges_who_have_not_paid_for_their_names_fill_a_panel_that_is_too_small(
    paid: int,
) -> None:
    judges = [Judge() for _ in range(4)]

    async def story(mesh: SimMesh) -> None:
        a, makers, seats = await mesh_of(mesh, judges)
        known = {other.peer for other in (*makers, *seats[:paid])}
        vars(a.market)["_is_unpaid"] = lambda peer: peer not in known
        state = await ask(a, disputed())
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.sitting is not None
        assert all(len(judge.calls) == 2 for judge in judges[:paid])
        assert sum(len(judge.calls) for judge in judges) == 4

    play(story)


def test_without_money_for_it_no_panel_is_asked() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges)
        state = await ask(a, disputed(), budget_mc=4 + 19)
        assert verdicts(state) == ["contested", "contested"]
        assert not any(judge.calls for judge in judges)
        state = await ask(a, disputed(), budget_mc=4 + 20)
        assert sum(len(judge.calls) for judge in judges) == 4, "two judges are enough"
        assert state.spent_mc == 24

    play(story)


def test_a_deaf_judge_is_waited_for_until_the_job_must_go_on() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _, seats = await mesh_of(mesh, [Judge(), Judge(), Judge(delay_s=1_000.0)])
        await believe(a, JUDGING, "judge", seats, golds=30)
        begun_s = trio.current_time()
        state = await ask(a, disputed(), deadline_s=60.0)
        assert trio.current_time() - begun_s < 60.0
        assert sorted(verdicts(state)) == ["agreed", "contested"], "the others decide"
        assert state.spent_mc == 4 + 2 * 2 * 5

    play(story)


class Deaf(Judge):
    """A judge that doesn't stop when it is told to."""

    @override
    async def run(self, value: JsonValue, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        assert isinstance(value, dict)
        self.calls.append(value)
        with trio.CancelScope(shield=True):
            await trio.sleep(60.0)
        yield Output({"better": "a"})


@pytest.mark.parametrize("deadline_s", [8.0, 12.0, 20.0, 28.0])
def test_deaf_judges_leave_a_short_job_the_time_to_go_on(deadline_s: float) -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, [Deaf(), Deaf()])
        begun_s = trio.current_time()
        state = await ask(a, disputed(), deadline_s=deadline_s)
        assert trio.current_time() - begun_s < deadline_s
        assert verdicts(state) == ["contested", "contested"]
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.sitting is not None
        assert state.spent_mc <= 4 + judged.sitting.cap_mc

    play(story)


def test_a_job_with_a_limit_of_model_tokens_asks_no_panel() -> None:
    async def story(mesh: SimMesh) -> None:
        judges = [Judge(asks), Judge(asks)]
        a, *_ = await mesh_of(mesh, judges)
        state = await ask(a, disputed(), tokens_max=10_000)
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.outcome == "contested"
        assert [judge.calls for judge in judges] == [[], []]

    play(story)


def test_with_too_little_time_left_no_panel_is_asked() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges)
        state = await ask(a, disputed(), deadline_s=5.0)
        assert verdicts(state) == ["contested", "contested"]
        assert not any(judge.calls for judge in judges)

    play(story)


def test_judges_see_nothing_that_its_readers_are_not_named_for() -> None:
    judges = [Judge(), Judge(), Judge()]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges)
        for readers, asked in ((["broker"], 0), (["broker", "verifier"], 6)):
            graph = disputed()
            source = Source(kind="input", name="words", pointer="/0", readers=readers)
            task = replace(graph.subtasks[0], inputs={"text": source})
            await ask(a, replace(graph, subtasks=[task]))
            assert sum(len(judge.calls) for judge in judges) == asked

    play(story)


def test_a_broker_that_dies_in_the_middle_of_a_panel_asks_and_pays_nobody_twice() -> None:
    judges = [Judge(delay_s=delay_s) for delay_s in (0.5, 4.0, 6.0)]

    async def story(mesh: SimMesh) -> None:
        a, *_ = await mesh_of(mesh, judges)
        job = await a.submit(disputed(), inputs("hi"), Terms(assurance=0.9))
        journal = await a.journal(job)
        await until(lambda: all(len(judge.calls) == 2 for judge in judges))
        await trio.sleep(1.0)
        assert journal.state.reserved_mc() >= 30
        mesh.crash("a")
        again = await mesh.restart("a")
        state = await again.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done.text
        assert sorted(verdicts(state)) == ["agreed", "contested"]
        assert [len(judge.calls) for judge in judges] == [2, 2, 2]
        assert state.spent_mc == 34
        await audited(again, state)

    play(story)


def test_a_job_that_is_cancelled_while_judges_are_asked_counts_what_they_may_be_paid() -> None:
    judges = [Judge(delay_s=delay_s) for delay_s in (1.0, 1.0, 30.0)]

    async def story(mesh: SimMesh) -> None:
        a, _, seats = await mesh_of(mesh, judges)

        def owed_mc() -> int:
            return -sum(a.ledger.balances.due_mc(seat.peer) for seat in seats)

        job = await a.submit(disputed(), inputs("hi"), Terms(assurance=0.9))
        await until(lambda: owed_mc() > 0)
        await a.cancel(job)
        state = await a.wait(job)
        await trio.sleep(60.0)
        judged = state.units["say/0"].judged
        assert judged is not None
        assert judged.sitting is not None
        assert 0 < owed_mc() <= state.spent_mc == judged.sitting.cap_mc
        assert state.reserved_mc() == 0
        await audited(a, state)
        journal = await a.journal(job)
        explained = explain(job, journal.events(), now_ms=state.ended_ms)
        assert sum(explained.paid_mc.values()) == explained.spent_mc == state.spent_mc
        assert sum(task.paid_mc for task in explained.tasks) == state.spent_mc

    play(story)


def test_the_parts_of_a_batch_are_judged_together() -> None:
    def shouts_all(value: dict[str, Any]) -> str:
        right = [n for n in "ab" if not any(x["text"].endswith("?") for x in value[n])]
        return right[0] if len(right) == 1 else "neither"

    judges = [Judge(shouts_all) for _ in range(3)]

    async def story(mesh: SimMesh) -> None:
        makers = [TextAgent(lying, concurrency_max=1), TextAgent(concurrency_max=1)]
        a, *_ = await mesh_of(mesh, judges, makers)
        graph = shouting(6, panel=Panel())
        job = await a.submit(graph, inputs(*"uvwxyz"), Terms(assurance=0.9))
        state = await a.wait(job)
        assert state.done is not None
        assert await a.outputs(job) == {"said": list("UVWXYZ")}
        call = judges[0].calls[0]
        assert len(call["task"]) == len(call["a"]) == len(call["b"]) > 1
        assert [part["text"].upper() for part in call["task"]] == [
            part["text"].removesuffix("?") for part in call["a"]
        ]
        assert "text.shout" in judges[0].calls[0]["question"]
        await audited(a, state)

    play(story)
