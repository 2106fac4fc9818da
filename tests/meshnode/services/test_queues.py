"""What a broker makes of how long its awards waited, and what contractors say of it."""

import pytest
import trio
from trio.testing import MockClock

from meshnode.services import queues
from meshnode.services.queues import HALF_LIFE_S, Queues
from protocol.messages import Result, read_message
from simulations.agents import ECHO, Act, Temper
from simulations.mesh import NETWORK
from simulations.stage import Stage
from simulations.world import World, run


async def test_a_wait_behind_others_is_remembered_and_fades(autojump_clock: MockClock) -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=5_100, run_ms=1_000, ahead_ms=0)
    assert seen.wait_ms("p/a") == 2_000, "half of it: one wait is not yet a queue"
    assert seen.wait_ms("p/b") == 0
    await trio.sleep(HALF_LIFE_S)
    assert seen.wait_ms("p/a") == 1_000
    await trio.sleep(20 * HALF_LIFE_S)
    assert seen.wait_ms("p/a") == 0


@pytest.mark.parametrize(
    ("took_ms", "ahead_ms"), [(1_050, 0), (3_050, 2_000), (900, 5_000)], ids=str
)
async def test_the_way_and_own_work_are_no_queue(took_ms: int, ahead_ms: int) -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=took_ms, run_ms=1_000, ahead_ms=ahead_ms)
    assert seen.wait_ms("p/a") == 0


async def test_an_award_that_did_not_wait_takes_the_queue_down() -> None:
    seen = Queues()
    seen.saw("p/a", took_ms=9_100, run_ms=1_000, ahead_ms=0)
    before_ms = seen.wait_ms("p/a")
    seen.saw("p/a", took_ms=1_100, run_ms=1_000, ahead_ms=0)
    assert 0 < seen.wait_ms("p/a") <= before_ms // 2 + 1


async def test_only_so_many_agents_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "_AGENTS_MAX", 3)
    seen = Queues()
    for number in range(4):
        seen.saw(f"p/{number}", took_ms=9_000, run_ms=1_000, ahead_ms=0)
    assert [bool(seen.wait_ms(f"p/{number}")) for number in range(4)] == [False, *[True] * 3]


def test_a_result_says_how_long_the_award_waited_and_how_long_it_ran() -> None:
    """Four brokers at once, at an agent that does one call a second."""
    waits: list[tuple[int, int]] = []

    async def story(world: World) -> None:
        mesh = Stage(world)
        slow = Act(ECHO, Temper(latency_s=(1.0, 1.0), concurrency_max=1))
        mesh.add([slow], n=1, name="agent")
        brokers = mesh.add(n=4, name="broker")
        await mesh.ready()
        await trio.sleep(2)

        async def ask(by: str) -> None:
            end = await mesh.submit("text.echo@1", {"text": by}, by=by)
            state = (await mesh.node(by).journal(end.job)).state
            (attempt,) = state.units["call/0"].attempts
            assert attempt.delivered is not None
            result = read_message(attempt.delivered.result, Result, network=NETWORK)
            waits.append((result.metering.queue_ms, result.metering.run_ms))

        async with trio.open_nursery() as nursery:
            for by in brokers:
                nursery.start_soon(ask, by)
        agent = f"{mesh.mesh.peer('agent0')}/echo"
        learned = [mesh.node(by).market.queues.wait_ms(agent) for by in brokers]
        assert min(learned) == 0, "whoever came first met no queue"
        assert 1_000 < max(learned) < 2_000, "and the last one three calls"

    run(story, seed=1)
    waits.sort()
    assert all(1_000 <= ran <= 1_100 for _, ran in waits)
    assert [round(waited / 1000) for waited, _ in waits] == [0, 1, 2, 3]
