"""A node that is told to end finishes what it can in its time, and hands back the rest."""

import msgspec
import trio

from meshnode.node import Node
from simulations.mesh import CONFIG, SimMesh
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

BRIEF = msgspec.structs.replace(CONFIG, drain_s=8.0)


def workers(*nodes: Node) -> list[Node]:
    return [node for node in nodes if node.contractor.active]


def test_what_is_not_finished_in_time_is_done_elsewhere() -> None:
    async def story(mesh: SimMesh) -> None:
        slow = TextAgent(answers_after(40))
        a, b, c = await start(mesh, BRIEF, a=[], b=[slow], c=[TextAgent(answers_after(40))])
        job = await a.submit(shouting(), inputs("x"))
        await until(lambda: bool(workers(b, c)))
        (busy,) = workers(b, c)
        begun_s = trio.current_time()
        await busy.drain()
        assert 8 <= trio.current_time() - begun_s < 12
        assert busy.draining.startswith("1 award in work")
        assert told(busy, "node.draining")[0]["waiting_for"] == "1 award in work"
        assert told(busy, "node.waiting")
        assert told(busy, "node.handed_back")
        mesh.crash(mesh.name(busy.peer))  # drained, its process ends
        state = await a.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert len(told(busy, "award.begun")) == 1
        (other,) = {b.peer, c.peer} - {busy.peer}
        assert state.units["say/0"].current is None
        did = [attempt.peer for attempt in state.units["say/0"].attempts]
        assert did == [busy.peer, other], "the other one did it in the end"

    play(story)


def test_a_node_with_nothing_to_do_ends_at_once_and_says_what_goes_on_later() -> None:
    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(answers_after(20))])
        await a.submit(shouting(), inputs("x"))
        begun_s = trio.current_time()
        await a.drain()
        assert trio.current_time() - begun_s < 3
        assert a.draining == "nothing; 1 job of its own will go on at the next start"
        assert not told(a, "node.handed_back")

    play(story)


def test_what_still_looks_on_when_a_node_has_ended_begins_nothing() -> None:
    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent(answers_after(20))])
        await until(lambda: bool(a.market.providers("text.shout")))
        mesh.crash("a")
        for _ in range(100):  # until all that ran in it has ended
            await trio.lowlevel.checkpoint()
        (found,) = a.market.candidates("text.shout")
        assert (found.peer, found.asked) == (b.peer, False)
        a.broker.abandon("of nobody")

    play(story)
