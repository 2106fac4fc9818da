"""The broker, where the small world is too coarse: one job, one trouble.

In virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import (
    Busy,
    GraphError,
    InputInvalid,
    MeshError,
    NoProvider,
    NotFound,
    StoreError,
)
from meshnode.node import Node
from meshnode.ports import Put
from meshnode.services.bodies import ACCEPTANCE, AWARD, AWARD_BODY
from meshnode.services.context import Context
from meshnode.services.job_rows import JobRow
from meshnode.services.job_terms import Terms
from meshnode.services.journals import JobJournal
from meshnode.services.session import Incoming
from meshnode.services.sessions import Sessions
from protocol.codec import decode_as, encode
from protocol.graph import Source, SubTask, TaskGraph
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    slow_disk,
    start,
    told,
    until,
)


async def finished(node: Node, job: str) -> JobState:
    with trio.fail_after(300):
        return await node.wait(job)


def code_of(state: JobState) -> str:
    assert state.done is not None
    return state.done.code or state.done.state


def test_a_job_is_done_and_its_story_verifies() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b, c = await start(mesh, a=[], b=[TextAgent()], c=[TextAgent()])
        job = await a.submit(shouting(3), inputs("x", "y", "z"))
        state = await finished(a, job)
        assert code_of(state) == "completed"
        assert await a.outputs(job) == {"said": ["X", "Y", "Z"]}
        proved = verify_provenance(await (await a.journal(job)).export())
        assert (proved.state, proved.cost_mc) == ("completed", 6)
        assert state.spent_mc == 6
        await until(lambda: not mesh.members["a"].disk.tables["acceptance_due"])
        served = [*await b.served(), *await c.served()]
        assert sorted(served, key=str) == sorted(await a.served(), key=str)

    play(story)


@pytest.mark.parametrize("items", [1, 8], ids=["checked at once", "in batches"])
def test_nothing_is_sent_before_what_it_follows_from_is_on_the_disk(
    monkeypatch: pytest.MonkeyPatch, items: int
) -> None:
    honest = Sessions.request
    sent: list[str] = []

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(concurrency_max=8)])
        slow_disk(mesh, "a", 0.5)

        async def request(
            self: Sessions, peer: str, method: str, body: bytes, **options: Any
        ) -> bytes:
            logs = mesh.members["a"].disk.logs
            written = b"".join(entry for name in logs for entry in logs[name])
            if self is a.sessions and method in {AWARD, ACCEPTANCE}:
                sent.append(method)
                envelope = decode_as(body, AWARD_BODY).award if method == AWARD else body
                assert envelope in written, f"{method} is sent and not written"
            return await honest(self, peer, method, body, **options)

        monkeypatch.setattr(Sessions, "request", request)
        job = await a.submit(shouting(items), inputs(*"abcdefgh"[:items]))
        assert code_of(await finished(a, job)) == "completed"
        await until(lambda: sent.count(ACCEPTANCE) == sent.count(AWARD))
        assert sent

    play(story)


def test_a_consumer_is_awarded_in_the_commit_that_charges_its_producer() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        slow_disk(mesh, "a", 0.5)
        first = shouting()
        again = SubTask(
            id="again",
            capability="text.shout",
            inputs={"text": Source(kind="task", name="say", pointer="/text")},
        )
        said = {"said": Source(kind="task", name="again", pointer="/text")}
        graph = TaskGraph(name="test", subtasks=[*first.subtasks, again], outputs=said)
        job = await a.submit(graph, inputs("x"))
        assert code_of(await finished(a, job)) == "completed"
        written = [
            (e.kind, e.data.get("unit"), e.at_ms) for e in (await a.journal(job)).events(0)
        ]
        (charged,) = [
            at_ms for kind, unit, at_ms in written if (kind, unit) == ("charged", "say/0")
        ]
        awarded = [
            at_ms for kind, unit, at_ms in written if (kind, unit) == ("awarded", "again/0")
        ]
        assert awarded == [charged], "a commit of its own would come half a second later"

    play(story)


# --- taking jobs ---------------------------------------------------------------------


def test_what_is_offered_is_named_when_nobody_offers_what_is_asked_for() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        graph = shouting()
        asked = msgspec.structs.replace(graph.subtasks[0], capability="text.shoot")
        graph = msgspec.structs.replace(graph, subtasks=[asked])
        with pytest.raises(NoProvider, match=r"text\.shoot") as caught:
            await a.submit(graph, inputs("x"))
        assert "text.shout@1" in caught.value.line()
        assert trio.current_time() < 60

    play(story)


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        (Terms(budget_mc=-1), "budget"),
        (Terms(deadline_s=0), "deadline"),
        (Terms(deadline_s=float("inf")), "deadline"),
        (Terms(deadline_s=float("nan")), "deadline"),
        (Terms(idempotency_key="k" * 201), "key"),
    ],
)
def test_terms_out_of_range_are_refused(terms: Terms, says: str) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        with pytest.raises(InputInvalid, match=says):
            await a.submit(shouting(), inputs("x"), terms)
        assert await a.broker.jobs() == []

    play(story)


def test_a_graph_that_can_not_run_is_refused_before_anything_is_spent() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        task = SubTask(
            id="say", capability="text.shout", inputs={"text": Source(kind="task", name="say")}
        )
        graph = TaskGraph(
            name="cycle", subtasks=[task], outputs={"o": Source(kind="task", name="say")}
        )
        with pytest.raises(GraphError, match="cycle"):
            await a.submit(graph, {})
        with pytest.raises(MeshError):
            await a.submit(shouting(), {})
        assert await a.broker.jobs() == []

    play(story)


def test_a_submit_does_not_wait_for_anothers_search() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        unknown = TaskGraph(
            name="g",
            subtasks=[SubTask(id="t", capability="text.unknown", inputs={})],
            outputs={"r": Source(kind="task", name="t")},
        )
        refused_s: list[float] = []

        async def ask_for_the_unknown() -> None:
            with pytest.raises(NoProvider):
                await a.submit(unknown, {})
            refused_s.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_for_the_unknown)
            await trio.testing.wait_all_tasks_blocked()
            await a.submit(shouting(), inputs("x"))
            taken_s = trio.current_time()
        assert taken_s < refused_s[0]

    play(story)


def test_a_contractor_that_is_away_for_hours_still_gets_its_receipt() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        # Its ear for acceptances is closed from before the job on.
        b.sessions.handle("acceptance", _deaf)
        job = await a.submit(shouting(), inputs("x"))
        assert code_of(await finished(a, job)) == "completed"
        mesh.crash("b")
        await trio.sleep(6 * 3_600)
        again = await mesh.restart("b")
        assert not await again.served()
        await until(lambda: not mesh.members["a"].disk.tables["acceptance_due"])
        assert sorted(await again.served(), key=str) == sorted(await a.served(), key=str)

    play(story)


async def _deaf(_: Incoming) -> bytes:
    raise Busy("its inbox")


def test_a_submit_that_is_given_up_is_no_job_or_a_whole_one() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        a, _ = await start(mesh, a=[], b=[agent])
        terms = Terms(idempotency_key="k")
        for wait_s in (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.02):
            with trio.move_on_after(wait_s):
                await a.submit(shouting(), inputs("x"), terms)
            job = await a.submit(shouting(), inputs("x"), terms)
            assert code_of(await finished(a, job)) == "completed"
            terms = Terms(idempotency_key=f"k{wait_s}")
        await trio.sleep(1)
        assert all(row.done for _, row in await a.broker.jobs())

    play(story)


# --- ends ----------------------------------------------------------------------------


def test_a_job_past_its_deadline_ends_and_stops_what_runs() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(never)
        a, _ = await start(mesh, a=[], b=[agent])
        begun_s = trio.current_time()
        job = await a.submit(shouting(), inputs("x"), Terms(deadline_s=20))
        state = await finished(a, job)
        assert code_of(state) in {"deadline", "agent.timeout"}
        assert 19 <= trio.current_time() - begun_s <= 23
        assert agent.running == 0

    play(story)


def test_a_job_ends_soon_after_its_deadline_even_when_nobody_answers() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent(never)])
        begun_s = trio.current_time()
        job = await a.submit(shouting(), inputs("x"), Terms(deadline_s=20))
        await trio.sleep(18)
        mesh.world.network.freeze(b.peer)
        await finished(a, job)
        assert trio.current_time() - begun_s <= 20 + 16

    play(story)


def test_the_budget_holds() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        a, _ = await start(mesh, a=[], b=[agent])
        plan = shouting(6, batch_items_max=1)
        job = await a.submit(plan, inputs(*"uvwxyz"), Terms(budget_mc=7))
        state = await finished(a, job)
        assert code_of(state) == "budget.exceeded"
        assert state.spent_mc <= 7
        assert len(agent.calls) == 3, "what 7 mc pay for at 2 mc each"
        job = await a.submit(plan, inputs(*"uvwxyz"), Terms(budget_mc=12))
        assert code_of(await finished(a, job)) == "completed"

    play(story)


def test_a_cancelled_job_ends_with_nothing_running_and_nothing_charged() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(never), TextAgent(never)]
        a, _, _ = await start(mesh, a=[], b=agents[:1], c=agents[1:])
        job = await a.submit(shouting(4, batch_items_max=1), inputs(*"wxyz"))
        await until(lambda: sum(agent.running for agent in agents) == 4)
        await a.cancel(job)
        await a.cancel(job)  # twice is once
        state = await finished(a, job)
        assert code_of(state) == "owner"
        assert sum(agent.running for agent in agents) == 0
        assert (state.spent_mc, state.reserved_mc()) == (0, 0)
        await a.cancel(job)  # after the end too
        with pytest.raises(NotFound, match="cancelled"):
            await a.outputs(job)

    play(story)


# --- trouble -------------------------------------------------------------------------


def test_a_connection_that_breaks_under_an_award_costs_no_attempt() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        a, b = await start(mesh, a=[], b=[agent])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: agent.running == 1)
        mesh.world.network.break_link(a.peer, b.peer)
        state = await finished(a, job)
        assert code_of(state) == "completed"
        assert [len(unit.attempts) for unit in state.units.values()] == [1]
        assert agent.calls == ["x"]

    play(story)


def test_another_candidate_takes_over_from_one_that_freezes() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(5)), TextAgent(answers_after(5))]
        a, b, c = await start(mesh, a=[], b=agents[:1], c=agents[1:])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: any(agent.running for agent in agents))
        mesh.world.network.freeze((b if agents[0].running else c).peer)
        begun_s = trio.current_time()
        assert code_of(await finished(a, job)) == "completed"
        assert trio.current_time() - begun_s < 30
        assert [len(agent.calls) for agent in agents] == [1, 1]

    play(story)


def test_a_disk_that_is_full_for_a_while_delays_a_job_and_does_not_end_it() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(1))])
        job = await a.submit(shouting(6, batch_items_max=1), inputs(*"uvwxyz"))
        for _number in range(4):
            await trio.sleep(0.3)
            mesh.fill_disk("a", count=2)
        state = await finished(a, job)
        assert code_of(state) == "completed"
        assert told(a, "job.held_up") or told(a, "job.mishap")
        assert not told(a, "job.stalled")
        journal = await a.journal(job)
        mesh.crash("a")
        again = await mesh.restart("a")
        assert (await again.journal(job)).events() == journal.events()

    play(story)


@pytest.mark.parametrize("after_s", [0.0, 1.01])
def test_a_decision_that_the_disk_refuses_is_taken_again(after_s: float) -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(1))])
        job = await a.submit(shouting(6), inputs(*"uvwxyz"))
        await trio.sleep(after_s)
        mesh.fill_disk("a")  # when its inputs are cut, or its outputs put together
        assert code_of(await finished(a, job)) == "completed"
        assert await a.outputs(job) == {"said": list("UVWXYZ")}

    play(story)


def test_a_broker_that_was_down_for_long_goes_on() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(3))])
        words = "abcdefghijkl"  # more than can be given out before the crash
        job = await a.submit(shouting(12, batch_items_max=1), inputs(*words))
        await trio.sleep(1)
        mesh.crash("a")
        await trio.sleep(60)
        again = await mesh.restart("a")
        assert code_of(await finished(again, job)) == "completed"
        assert await again.outputs(job) == {"said": list(words.upper())}

    play(story)


def test_a_broker_that_is_cut_off_for_a_while_keeps_its_attempts() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent()])
        mesh.world.network.partition([a.peer], [b.peer])
        job = await a.submit(shouting(), inputs("x"))
        await trio.sleep(25)
        mesh.world.network.partition()
        state = await finished(a, job)
        assert code_of(state) == "completed"

    play(story)


def test_a_job_that_an_older_version_listed_is_listed() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        old = encode({"done": True, "name": "old", "planned_ms": 7})
        await a._ports.store.commit(Put("job", "f" * 20, old))
        job = await a.submit(shouting(), inputs("x"))
        await a.wait(job)
        await trio.sleep(1)  # its row is written after its end
        rows = dict(await a.broker.jobs())
        assert rows["f" * 20] == JobRow(done=True, name="old", planned_ms=7)
        assert (rows[job].state, rows[job].spent_mc) == ("completed", 2)
        assert rows[job].ended_ms >= rows[job].planned_ms

    play(story)


def test_a_draining_node_takes_no_more_jobs() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent()])
        await a.drain()
        with pytest.raises(MeshError, match="closing"):
            await a.submit(shouting(), inputs("x"))

    play(story)


def test_what_was_awarded_in_another_life_says_nothing_of_how_slow_work_is() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(20))])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: bool(told(a, "job.awarded")))
        mesh.crash("a")
        await trio.sleep(5)
        a = await mesh.restart("a")
        assert code_of(await finished(a, job)) == "completed"
        assert len(a.market._paces) == 0, "it was away, and not the contractor slow"
        job = await a.submit(shouting(), inputs("y"))
        assert code_of(await finished(a, job)) == "completed"
        assert len(a.market._paces) == 1

    play(story)


def test_a_job_that_could_not_be_read_at_the_start_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest, failures = JobJournal.open, [StoreError("the disk stutters")] * 2

    async def stuttering(context: Context, job: str) -> JobJournal:
        if failures:
            raise failures.pop()
        return await honest(context, job)

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(20))])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: bool(told(a, "job.awarded")))
        mesh.crash("a")
        monkeypatch.setattr(JobJournal, "open", stuttering)
        a = await mesh.restart("a")
        await until(lambda: not failures)
        assert code_of(await finished(a, job)) == "completed"

    play(story)
