"""What a broker saw of its contractors' pace: kept through a restart, bounded, told once."""

import pytest

from meshnode.domain.watching import RUNS_MAX, RUNS_MIN, Run
from meshnode.errors import StoreError
from meshnode.ports import Measures
from meshnode.services.watching import AGENTS_MAX, WATCHED, Watching
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    told,
)


def slow(at_ms: int) -> Run:
    return Run(took_ms=900, run_ms=880, trip_ms=5, at_ms=at_ms)


def test_what_was_seen_survives_a_crash() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, b=[TextAgent()])
        watching = node.market._watching
        for _ in range(RUNS_MIN):
            watching.saw("peer/slow", slow(node.clock.now_ms()), 200)
        (event,) = told(node, "claims.exceeded")
        assert (event["agent"], event["n"], event["seen_ms"]) == ("peer/slow", RUNS_MIN, 900)
        mesh.fill_disk("b")
        with pytest.raises(StoreError):
            await watching.save()
        await watching.save()
        mesh.crash("b")
        node = await mesh.restart("b")
        again = node.market._watching
        assert again is not watching
        assert again.expected_ms("peer/slow") == 880
        assert again.of("peer/slow", 200).overclaims
        watching = again
        for _ in range(RUNS_MAX):
            watching.saw("peer/slow", Run(210, 200, 5, node.clock.now_ms()), 200)
        assert watching.of("peer/slow", 200).n == RUNS_MAX
        assert [one["said_ms"] for one in told(node, "claims.kept")] == [200]

    play(story)


def test_the_longest_unseen_agents_are_forgotten_on_the_disk_too() -> None:
    async def story(mesh: SimMesh) -> None:
        (node,) = await start(mesh, b=[TextAgent()])
        context = node.market._context
        watching = Watching(context)
        at_ms = node.clock.now_ms()
        watching.saw("first", slow(at_ms), 0)
        watching.saw("second", slow(at_ms), 0)
        await watching.save()
        watching.saw("first", slow(at_ms), 0)
        for number in range(AGENTS_MAX - 1):
            watching.saw(f"agent{number}", slow(at_ms), 0)
        await watching.save()
        rows = {key for key, _ in await context.store.scan(WATCHED, count_max=2 * AGENTS_MAX)}
        assert len(rows) == AGENTS_MAX
        assert "first" in rows
        assert "second" not in rows

    play(story)


def test_a_broker_holds_results_against_the_claim_and_nobody_else_does() -> None:
    async def story(mesh: SimMesh) -> None:
        boast = Measures(samples=100, latency_ms=30)
        agent = TextAgent(answers_after(1.0), measures=boast, concurrency_max=2)
        broker, worker = await start(mesh, b=[], w=[agent])
        words = inputs(*"abcdefgh")
        await broker.wait(await broker.submit(shouting(8), words))
        (capability,) = worker.host.capabilities()
        seen = broker.market.watched(worker.peer, capability)
        assert seen.n >= 4
        assert 1_000 <= seen.said_ms <= 1_010
        assert 1_000 <= seen.seen_ms <= 1_100, "what it waited behind our own work is no matter"
        assert seen.claimed_ms == 30, "the offer that the broker holds"
        assert worker.market.watched(worker.peer, capability).n == 0

    play(story)
