"""Model tokens are limited at every hop: who uses more than its award lets isn't paid."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from typing_extensions import override

from meshnode.domain.bounds import spent
from meshnode.domain.job import JobState
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import AgentError, MeshError
from meshnode.ports import AgentCall, Chunk, Left, Output
from meshnode.services import executor
from meshnode.services.execution import Execution
from meshnode.services.job_terms import Terms
from simulations.mesh import SimMesh
from tests.meshnode.services.test_delegation import (
    Sub,
    asking,
    awards_of,
    ended,
    sub_jobs,
)
from tests.meshnode.services.worlds import Behave, TextAgent, inputs, play, shouting, start


def model(tokens_in: int, tokens_out: int) -> Behave:
    """An agent that takes so many tokens for each call."""

    async def work(text: str, call: AgentCall) -> AsyncGenerator[Chunk | Output, None]:
        usage = {"tokens_in": tokens_in, "tokens_out": tokens_out}
        yield Output({"text": text.upper()}, usage=usage)

    return work


def test_a_job_within_its_limit_completes_and_tells_what_was_used() -> None:
    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[TextAgent(model(6, 4))])
        terms = Terms(tokens_max=30, hedges_pct=0)
        job = await a.submit(shouting(3), inputs("x", "y", "z"), terms)
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert state.tokens_used == 30
        assert sum(award.h.budget.tokens for award in awards_of(state)) == 30
        proved = verify_provenance(await (await a.journal(job)).export())
        assert proved.state == "completed"

    play(story)


def test_an_agent_that_takes_more_than_its_award_lets_is_not_paid() -> None:
    agent = TextAgent(model(6, 5))

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[agent])
        job = await a.submit(shouting(), inputs("x"), Terms(tokens_max=10, hedges_pct=0))
        state = await ended(a, job)
        assert state.done is not None
        assert (state.done.state, state.done.code) == ("failed", "bounds.tokens")
        assert "10 model tokens" in state.done.text
        assert (state.spent_mc, state.tokens_used) == (0, 10), "no more than it was given"
        (failure,) = state.units["say/0"].failures()
        assert failure.code == "bounds.tokens"
        assert "11 model tokens were used" in failure.text

    play(story)
    assert agent.calls == ["x"], "nothing is left for another try"


def test_an_agent_is_told_its_calls_share_of_what_its_award_has_left() -> None:
    told: list[int | None] = []

    async def work(text: str, call: AgentCall) -> AsyncGenerator[Chunk | Output, None]:
        told.append(await call.tokens())
        yield Output({"text": text.upper()}, usage={"tokens_in": 2, "tokens_out": 4})

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[TextAgent(work, concurrency_max=1)])
        for terms in (Terms(tokens_max=90, hedges_pct=0), Terms(hedges_pct=0)):
            job = await a.submit(shouting(3, batch_items_max=3), inputs("x", "y", "z"), terms)
            state = await ended(a, job)
            assert state.done is not None
            assert state.done.state == "completed"

    play(story)
    # Sixty for two calls of one agent, and thirty for one: whichever comes first.
    assert sorted(share for share in told[:3] if share is not None) == [30, 30, 54]
    assert told[3:] == [None, None, None]


def test_what_a_failed_try_did_not_use_is_there_for_the_next() -> None:
    async def breaks(text: str, call: AgentCall) -> AsyncGenerator[Chunk | Output, None]:
        raise AgentError("out of order")
        yield Output(text)

    async def story(mesh: SimMesh) -> None:
        broken = TextAgent(breaks, price_mc=0)  # so it is asked first
        a, b, c = await start(mesh, a=[], b=[broken], c=[TextAgent(model(6, 4))])
        job = await a.submit(shouting(), inputs("x"), Terms(tokens_max=10, hedges_pct=0))
        state = await ended(a, job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        tried = state.units["say/0"].attempts
        assert [(one.peer, one.tokens) for one in tried] == [(b.peer, 10), (c.peer, 10)]
        assert state.tokens_used == 10

    play(story)


def test_a_result_over_its_cap_is_refused_whatever_its_contractor_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executor, "_meter", _meter_and_go_on)
    monkeypatch.setattr(Execution, "over_cap", "")

    async def story(mesh: SimMesh) -> None:
        a, *_ = await start(mesh, a=[], b=[TextAgent(model(6, 5))])
        job = await a.submit(shouting(), inputs("x"), Terms(tokens_max=10, hedges_pct=0))
        state = await ended(a, job)
        (failure,) = state.units["say/0"].failures()
        assert (failure.code, failure.blame) == ("peer.protocol", "peer")
        assert failure.text == "it used 11 model tokens, above the cap of 10"
        assert (state.spent_mc, state.tokens_used) == (0, 10)

    play(story)


def _meter_and_go_on(execution: Execution, made: Output) -> None:
    execution.meter(tokens_in=made.usage["tokens_in"], tokens_out=made.usage["tokens_out"])


class Thinking(Sub):
    """An agent that has another do its work, and then uses ten tokens itself."""

    @override
    async def work(self, text: str, call: AgentCall) -> AsyncGenerator[Chunk | Output, None]:
        async with aclosing(super().work(text, call)) as pieces:
            async for made in pieces:
                assert isinstance(made, Output)
                yield Output(made.value, usage={"tokens_out": 10})


async def _three(mesh: SimMesh, tokens_max: int) -> tuple[Thinking, Thinking, list[JobState]]:
    b = Thinking("text.low@1", "high")
    c = Thinking("text.shout@1", "low", price_mc=9)
    leaf = TextAgent(model(60, 20))
    a, at_b, at_c, _ = await start(mesh, a=[], b=[b.agent], c=[c.agent], d=[leaf])
    terms = Terms(
        budget_mc=1_000,
        subtasks_max=20,
        fan_out_max=10,
        hedges_pct=0,
        replans_max=0,
        tokens_max=tokens_max,
    )
    job = await a.submit(asking("text.high@1"), inputs("x"), terms)
    return b, c, [await ended(a, job), *sub_jobs(at_b), *sub_jobs(at_c)]


def test_what_is_used_below_counts_at_every_hop() -> None:
    async def story(mesh: SimMesh) -> None:
        b, c, (state, *_) = await _three(mesh, 100)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert b.left == [Left(cost_mc=30, subtasks=10, hops=2, tokens=100)]
        assert c.left == [Left(cost_mc=9, subtasks=8, hops=1, tokens=100)]
        assert [(row.level, row.tokens) for row in spent(state)] == [(1, 10), (2, 10), (3, 80)]
        assert state.tokens_used == 100, "its agents' and the leaf's"

    play(story)


def test_a_sub_broker_spends_no_more_than_it_was_given() -> None:
    async def story(mesh: SimMesh) -> None:
        b, _, (state, at_b, at_c) = await _three(mesh, 99)
        assert state.done is not None
        assert state.done.state == "failed"
        assert state.done.code == "bounds.tokens"
        assert state.spent_mc == 0
        assert state.tokens_used == 99
        assert at_b.tokens_used == 90
        assert at_c.tokens_used == 80
        assert not b.refused, "it was within its award until it used some itself"

    play(story)


def test_a_leaf_that_needs_more_than_is_left_ends_the_jobs_above_it() -> None:
    async def story(mesh: SimMesh) -> None:
        b, c, (state, *_) = await _three(mesh, 79)
        assert state.done is not None
        assert state.done.code == "bounds.tokens"
        assert [error.code for error in (*b.refused, *c.refused)] == ["bounds.tokens"] * 2
        assert state.tokens_used == 79

    play(story)


@pytest.mark.parametrize("tokens_max", [-1, 2**53])
def test_a_limit_out_of_range_is_refused(tokens_max: int) -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[TextAgent()])
        with pytest.raises(MeshError, match="tokens_max") as refused:
            await a.submit(shouting(), inputs("x"), Terms(tokens_max=tokens_max))
        assert refused.value.hint

    play(story)
