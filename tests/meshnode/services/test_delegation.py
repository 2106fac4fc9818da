"""Work that is handed on is bounded at every hop, by what the award above it gave.

``a`` has a job done whose agent at ``b`` hands on to ``c``, and that to ``d``.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import pytest
import trio

from meshnode.domain.bounds import spent
from meshnode.domain.graph_builder import TaskGraph
from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import (
    AgentError,
    BudgetReached,
    HopsReached,
    MeshError,
    SubtasksReached,
)
from meshnode.node import Node
from meshnode.ports import AgentCall, Chunk, Left, Output
from meshnode.services import delegation
from meshnode.services.job_terms import Terms
from protocol.messages import Award, read_message
from protocol.receipts import Receipt
from simulations.mesh import NETWORK, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    until,
)

#: Three brokers below each other: a, b and c.
TERMS = Terms(budget_mc=1_000, depth_max=3, subtasks_max=20, fan_out_max=10, hedges_pct=0)


def calling(capability: str, times: int = 1) -> TaskGraph:
    """A graph that calls another agent so often, with its input ``text``."""
    graph = TaskGraph("below")
    for number in range(times):
        place = graph.task(capability, text=graph.input("text"))
        graph.output(f"said{number}", place)
    return graph


class Sub:
    """An agent that has another agent do its work.

    Attributes:
        left: What it could hand on, at the start of each call.
        refused: What it was told when it asked for too much.
    """

    def __init__(self, below: str, name: str, *, times: int = 1, **options: Any) -> None:
        self.left: list[Left] = []
        self.refused: list[MeshError] = []
        self._graph = calling(below, times)
        self.budget_mc: int | None = None
        settings = {"price_mc": 30, "capability": f"text.{name}@1", **options}
        self.agent = TextAgent(self.work, name=name, **settings)

    async def work(self, text: str, call: AgentCall) -> AsyncGenerator[Chunk | Output, None]:
        self.left.append(await call.left())
        try:
            made: Any = await call.hand_on(
                self._graph, {"text": text}, budget_mc=self.budget_mc
            )
        except MeshError as exc:
            self.refused.append(exc)
            raise
        yield Output({"text": f"<{made['said0']['text']}>"})


def asking(capability: str) -> Any:
    """The job that ``a`` has done."""
    graph = TaskGraph("top")
    graph.output("said", graph.task(capability, text=graph.input("words")[0]))
    return graph.build()


async def three(mesh: SimMesh, leaf: TextAgent, **options: Any) -> tuple[Sub, Sub, list[Node]]:
    b, c = Sub("text.low@1", "high", **options), Sub("text.shout@1", "low", price_mc=9)
    nodes = await start(mesh, a=[], b=[b.agent], c=[c.agent], d=[leaf])
    return b, c, nodes


async def ended(node: Node, job: str) -> JobState:
    with trio.fail_after(300):
        return await node.wait(job)


def sub_jobs(node: Node) -> Sequence[JobState]:
    """The jobs of ``node`` that it still has in memory."""
    return [journal.state for journal in node.broker._journals.values()]


def awards_of(state: JobState) -> list[Award]:
    return [
        read_message(attempt.award, Award, network=NETWORK)
        for unit in state.units.values()
        for attempt in unit.attempts
        if attempt.award
    ]


def test_each_hop_gets_less_and_the_cost_rolls_up_into_the_receipt() -> None:
    leaf = TextAgent()

    async def story(mesh: SimMesh) -> None:
        b, c, nodes = await three(mesh, leaf)
        a = nodes[0]
        job = await a.submit(asking("text.high@1"), inputs("x"), TERMS)
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert await a.outputs(job) == {"said": {"text": "<<X>>"}}
        assert b.left == [Left(cost_mc=30, subtasks=10, hops=2)]
        assert c.left == [Left(cost_mc=9, subtasks=8, hops=1)], "its fan-out, within b's"
        (below_b,), (below_c,) = sub_jobs(nodes[1]), sub_jobs(nodes[2])
        assert below_b.required_plan.deadline_ms <= awards_of(state)[0].h.deadline_ms
        assert below_c.required_plan.deadline_ms <= awards_of(below_b)[0].h.deadline_ms
        assert [one.h.hops for one in awards_of(below_c)] == [0]
        assert [one.h.budget.subtasks for one in awards_of(below_c)] == [0]
        # What each was paid, and who has been at work: by sub-task and node, down to the leaf.
        peers = [node.peer for node in nodes]
        assert [
            (row.level, row.subtask, row.peer, row.cost_mc, row.awards) for row in spent(state)
        ] == [
            (1, "high", peers[1], 30, 1),
            (2, "high/low", peers[2], 9, 1),
            (3, "high/low/shout", peers[3], 2, 1),
        ]
        made = state.units["high/0"].accepted
        assert made is not None
        assert made.delivered is not None
        receipt = read_message(made.delivered.receipt, Receipt, network=NETWORK)
        assert [row.cost_mc for row in receipt.below] == [9, 2]
        assert (state.spent_mc, state.subtasks_used) == (30, 2)
        proved = verify_provenance(await (await a.journal(job)).export())
        assert (proved.state, proved.cost_mc) == ("completed", 30)

    play(story)


def test_nothing_is_handed_on_unless_the_owner_lets_it() -> None:
    leaf = TextAgent()

    async def story(mesh: SimMesh) -> None:
        b, _, (a, *_) = await three(mesh, leaf)
        state = await ended(a, await a.submit(asking("text.high@1"), inputs("x")))
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "bounds.subtasks")
        assert b.left[0].subtasks == 0
        assert "lets 0 more" in str(b.refused[0])
        assert "subtasks_max" in b.refused[0].hint
        assert not leaf.calls

    play(story)


def test_a_loop_of_brokers_ends_by_the_hop_limit() -> None:
    async def story(mesh: SimMesh) -> None:
        ping, pong = Sub("text.pong@1", "ping"), Sub("text.ping@1", "pong")
        a, _, _ = await start(mesh, a=[], b=[ping.agent], c=[pong.agent])
        terms = Terms(depth_max=4, subtasks_max=100, fan_out_max=100, hedges_pct=0)
        state = await ended(a, await a.submit(asking("text.ping@1"), inputs("x"), terms))
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "bounds.hops")
        hops = [left.hops for left in (*ping.left, *pong.left)]
        assert set(hops) == {3, 2, 1, 0}, "four brokers, and one more that may not"
        refused = [exc for exc in (*ping.refused, *pong.refused) if exc.hint]
        assert all(isinstance(exc, HopsReached) for exc in refused)
        assert "depth_max" in refused[0].hint
        assert len(hops) <= 2 + 4 + 8 + 16, "two attempts at each, where nobody else is left"

    play(story)


def test_what_does_not_fit_is_refused_before_anything_is_spent() -> None:
    leaf = TextAgent()

    async def story(mesh: SimMesh) -> None:
        many = Sub("text.shout@1", "many", times=4)
        dear = Sub("text.shout@1", "dear", price_mc=5)
        dear.budget_mc = 6
        a, *_ = await start(mesh, a=[], b=[many.agent, dear.agent], c=[leaf])
        terms = Terms(subtasks_max=3, fan_out_max=3, hedges_pct=0)
        state = await ended(a, await a.submit(asking("text.many@1"), inputs("x"), terms))
        assert isinstance(many.refused[0], SubtasksReached)
        assert "4 are to be handed on" in str(many.refused[0])
        assert "lets 3 more" in str(many.refused[0])
        assert state.subtasks_used == 0, "its receipts account for nothing, and it had begun"
        await ended(a, await a.submit(asking("text.dear@1"), inputs("x"), terms))
        assert isinstance(dear.refused[0], BudgetReached)
        assert "6 mc are to be handed on" in str(dear.refused[0])
        assert not leaf.calls

    play(story)


def test_two_jobs_under_one_award_share_what_it_gave() -> None:
    leaf = TextAgent(answers_after(5.0), concurrency_max=8)
    told: list[Any] = []

    async def twice(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        async def one(name: str) -> None:
            try:
                told.append(await call.hand_on(calling("text.shout@1", 2), {"text": name}))
            except MeshError as exc:
                told.append(exc)

        async with trio.open_nursery() as nursery:
            for name in "vw":
                nursery.start_soon(one, name)
        told.append(await call.left())
        await one("last")
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(twice, name="twice", capability="text.twice@1", price_mc=20)
        a, *_ = await start(mesh, a=[], b=[broker], c=[leaf])
        terms = Terms(subtasks_max=9, fan_out_max=4, hedges_pct=0)
        state = await ended(a, await a.submit(asking("text.twice@1"), inputs("x"), terms))
        refused, made, left, last = told
        assert isinstance(refused, SubtasksReached), "all is reserved by the first"
        assert set(made) == {"said0", "said1"}
        assert left == Left(cost_mc=16, subtasks=2, hops=2), "what it didn't use came back"
        assert set(last) == {"said0", "said1"}
        assert len(leaf.calls) == 4
        assert [(row.level, row.cost_mc, row.awards) for row in spent(state)] == [
            (1, 20, 1),
            (2, 4, 2),
            (2, 4, 2),
        ]

    play(story)


def test_items_of_one_award_that_hand_on_at_once_share_what_it_gave() -> None:
    leaf = TextAgent(answers_after(5.0), concurrency_max=8)

    async def story(mesh: SimMesh) -> None:
        broker = Sub("text.shout@1", "high", concurrency_max=2)
        a, b, _ = await start(mesh, a=[], b=[broker.agent], c=[leaf])
        graph = TaskGraph("top")
        each = {"text": graph.input("words").each}
        graph.output("said", graph.task("text.high@1", each=each))
        terms = Terms(budget_mc=1_000, subtasks_max=40, fan_out_max=10, hedges_pct=0)
        job = await a.submit(graph.build(), inputs(*"abcdefgh"), terms)
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert broker.refused == []
        assert [unit.calls for unit in state.units.values()] == [2, 2, 2, 2]
        assert (len(leaf.calls), state.subtasks_used) == (8, 8)
        plans = [below.required_plan for below in sub_jobs(b)]
        assert sum(plan.budget_mc == 30 for plan in plans) >= 4, "half of an award's money"

    play(story)


def test_handing_on_once_more_reads_none_of_what_went_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times, reads = 40, 0

    async def often(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        for number in range(times):
            await call.hand_on(calling("text.shout@1"), {"text": f"{number}"})
            await call.left()
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        nonlocal reads
        agent = TextAgent(often, name="often", capability="text.often@1", price_mc=100)
        a, b, _ = await start(mesh, a=[], b=[agent], c=[TextAgent()])
        journal = b.broker.journal

        async def counted(job: str) -> Any:
            nonlocal reads
            reads += 1
            return await journal(job)

        monkeypatch.setattr(b.broker, "journal", counted)
        terms = Terms(budget_mc=1_000, subtasks_max=times, fan_out_max=times, hedges_pct=0)
        state = await ended(a, await a.submit(asking("text.often@1"), inputs("x"), terms))
        assert state.subtasks_used == times
        assert reads <= 2 * times, "once when it begins, and once when the award ends"

    play(story)


def test_a_cancel_reaches_the_last_leaf_before_it_is_acknowledged() -> None:
    leaf = TextAgent(never)

    async def story(mesh: SimMesh) -> None:
        _, _, nodes = await three(mesh, leaf)
        a = nodes[0]
        job = await a.submit(asking("text.high@1"), inputs("x"), TERMS)
        await until(lambda: leaf.running == 1)
        begun_s = trio.current_time()
        await a.cancel(job)
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "cancelled"
        assert leaf.running == 0, "when it is told, nothing works on it any more"
        assert leaf.stopped_s[-1] - begun_s < 1.0
        for node in nodes[1:3]:
            (below,) = sub_jobs(node)
            assert below.done is not None
            assert below.done.code == "superior"

    play(story)


def test_an_agent_that_no_longer_waits_ends_what_it_handed_on() -> None:
    leaf = TextAgent(never)

    async def impatient(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        with trio.move_on_after(3.0):
            await call.hand_on(calling("text.shout@1"), {"text": text})
        await until(lambda: not leaf.running)
        yield Output({"text": "by itself"})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(impatient, name="wait", capability="text.wait@1", price_mc=20)
        a, *_ = await start(mesh, a=[], b=[broker], c=[leaf])
        job = await a.submit(asking("text.wait@1"), inputs("x"), TERMS)
        state = await ended(a, job)
        assert await a.outputs(job) == {"said": {"text": "by itself"}}
        assert len(leaf.stopped_s) == 1
        assert state.subtasks_used == 9, "what was cancelled accounts for nothing"

    play(story)


def test_a_sub_broker_that_was_killed_goes_on_with_what_it_had_handed_on() -> None:
    leaf = TextAgent(answers_after(20.0))

    async def story(mesh: SimMesh) -> None:
        b, _, nodes = await three(mesh, leaf)
        a = nodes[0]
        job = await a.submit(asking("text.high@1"), inputs("x"), TERMS)
        await until(lambda: leaf.running == 1)
        mesh.crash("b")
        again = await mesh.restart("b")
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert leaf.calls == ["x"], "found again, and not begun anew"
        assert len(b.left) == 2, "the agent itself was"
        assert b.left[1].subtasks == 0, "what the job under it has reserved counts still"
        (below,) = sub_jobs(again)
        assert below.subtasks_used == 2
        assert state.spent_mc == 30

    play(story)


def test_a_node_that_is_lost_with_what_it_was_given_counts_as_having_used_it() -> None:
    async def story(mesh: SimMesh) -> None:
        stuck = Sub("text.shout@1", "high")
        a, *_ = await start(mesh, a=[], b=[stuck.agent], c=[TextAgent(never)])
        terms = Terms(subtasks_max=10, fan_out_max=7, hedges_pct=0, replans_max=0)
        job = await a.submit(asking("text.high@1"), inputs("x"), terms)
        await until(lambda: bool(stuck.left))
        mesh.crash("b")
        journal = await a.journal(job)
        await until(lambda: journal.state.subtasks_used > 0, within_s=120)
        assert journal.state.subtasks_used == 7
        await mesh.restart("b")
        await until(lambda: len(awards_of(journal.state)) == 2, within_s=120)
        await a.cancel(job)
        await ended(a, job)
        gave = [award.h.budget.subtasks for award in awards_of(journal.state)]
        assert gave[:2] == [7, 3], "what is left, and no more"

    play(story)


def test_who_is_done_hands_nothing_on_any_more() -> None:
    leaf = TextAgent()
    calls: list[AgentCall] = []

    async def keeps(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        await trio.lowlevel.checkpoint()
        calls.append(call)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(keeps, name="keep", capability="text.keep@1", price_mc=20)
        a, *_ = await start(mesh, a=[], b=[broker], c=[leaf])
        await ended(a, await a.submit(asking("text.keep@1"), inputs("x"), TERMS))
        with pytest.raises(AgentError, match="over"):
            await calls[0].hand_on(calling("text.shout@1"), {"text": "late"})
        assert not leaf.calls

    play(story)


def test_an_award_has_no_more_jobs_under_it_than_are_kept_account_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delegation, "_JOBS_MAX", 1)
    refused: list[MeshError] = []

    async def twice(text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        await call.hand_on(calling("text.shout@1"), {"text": "v"})
        try:
            await call.hand_on(calling("text.shout@1"), {"text": "w"})
        except MeshError as exc:
            refused.append(exc)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        broker = TextAgent(twice, name="twice", capability="text.twice@1", price_mc=20)
        a, *_ = await start(mesh, a=[], b=[broker], c=[TextAgent()])
        state = await ended(a, await a.submit(asking("text.twice@1"), inputs("x"), TERMS))
        assert [type(exc) for exc in refused] == [SubtasksReached]
        assert state.subtasks_used == 1

    play(story)


@pytest.mark.parametrize("terms", [{"depth_max": 0}, {"depth_max": 9}, {"subtasks_max": 1_001}])
def test_bounds_out_of_range_are_refused(terms: dict[str, int]) -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[TextAgent()])
        with pytest.raises(MeshError) as refused:
            await a.submit(shouting(), inputs("x"), Terms(**terms))  # type: ignore[arg-type]  # of three integers one
        assert refused.value.hint

    play(story)
