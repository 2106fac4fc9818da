"""What a result says of waiting, and what its broker learns from that (a MockClock's time)."""

import trio

from protocol.messages import Result, read_message
from simulations.agents import ECHO, Act, Temper
from simulations.mesh import NETWORK
from simulations.stage import Stage
from simulations.world import World, run


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
        learned = [mesh.node(by).market.wait_ms(agent) for by in brokers]
        assert min(learned) == 0, "whoever came first met no queue"
        assert 1_000 < max(learned) < 2_000, "and the last one three calls"

    run(story, seed=1)
    waits.sort()
    assert all(1_000 <= ran <= 1_100 for _, ran in waits)
    assert [round(waited / 1000) for waited, _ in waits] == [0, 1, 2, 3]
