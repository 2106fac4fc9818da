"""Room: bytes that awards wait for, in turns; and awards in a node with little of it.

In virtual time (a MockClock's).
"""

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.config import NodeConfig
from meshnode.domain.values import canonical
from meshnode.errors import MeshError
from meshnode.services.bodies import AwardBody
from meshnode.services.executor import Executor
from meshnode.services.room import Room
from protocol.messages import Binding, Part, Result
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.broker_by_hand import Hand, meet, result_of
from tests.meshnode.services.worlds import TextAgent, answers_after, play, until

# --- the room ------------------------------------------------------------------------


class Visits:
    """Tasks that take some of a room and stay for a second."""

    def __init__(self, room: Room, nursery: trio.Nursery) -> None:
        self.room = room
        self.nursery = nursery
        self.came: list[str] = []

    async def begin(self, name: str, size: int) -> trio.CancelScope:
        """Have a task named by whose it is, as in ``a1``, take ``size`` bytes."""
        scope = trio.CancelScope()

        async def visit() -> None:
            with scope:
                async with self.room.taken(size, whose=name[0]):
                    self.came.append(name)
                    assert self.room.left >= 0
                    await trio.sleep(1)

        self.nursery.start_soon(visit)
        await wait_all_tasks_blocked()
        return scope


async def test_who_finds_room_does_not_wait(autojump_clock: MockClock) -> None:
    room = Room(10)
    async with trio.open_nursery() as nursery:
        visits = Visits(room, nursery)
        await visits.begin("a1", 4)
        await visits.begin("b1", 6)
        assert (visits.came, room.left) == (["a1", "b1"], 0)
        await visits.begin("c1", 0)
        assert visits.came[-1] == "c1", "who needs none never waits"
    assert (room.left, room.waiting) == (10, 0)


async def test_what_is_large_comes_to_its_turn(autojump_clock: MockClock) -> None:
    room = Room(10)
    async with trio.open_nursery() as nursery:
        visits = Visits(room, nursery)
        await visits.begin("a1", 4)
        await visits.begin("b1", 10)
        await visits.begin("c1", 4)  # it would fit, and b1 would wait for it
        assert visits.came == ["a1"]
    assert visits.came == ["a1", "b1", "c1"]


async def test_they_take_turns_by_whose_they_are(autojump_clock: MockClock) -> None:
    room = Room(10)
    async with trio.open_nursery() as nursery:
        visits = Visits(room, nursery)
        for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1"):
            await visits.begin(name, 10)
    assert visits.came == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]


async def test_who_gives_up_waiting_leaves_nothing(autojump_clock: MockClock) -> None:
    room = Room(10)
    async with trio.open_nursery() as nursery:
        visits = Visits(room, nursery)
        await visits.begin("a1", 6)
        large = await visits.begin("b1", 10)
        await visits.begin("c1", 4)
        assert visits.came == ["a1"]
        large.cancel()
        await wait_all_tasks_blocked()
        assert visits.came == ["a1", "c1"], "it waited for b1 only"
    assert (room.left, room.waiting) == (10, 0)


async def test_who_is_given_room_while_it_gives_up_leaves_nothing(
    autojump_clock: MockClock,
) -> None:
    room = Room(10)
    async with trio.open_nursery() as nursery:
        visits = Visits(room, nursery)
        first = await visits.begin("a1", 10)
        second = await visits.begin("b1", 10)
        await visits.begin("c1", 10)
        first.cancel()
        second.cancel()
    assert visits.came[-1] == "c1"
    assert (room.left, room.waiting) == (10, 0)


async def test_what_fails_inside_gives_its_room_back(autojump_clock: MockClock) -> None:
    room = Room(10)
    with pytest.raises(ValueError, match="inside"):
        async with room.taken(10, whose="a"):
            raise ValueError("inside")
    assert room.left == 10


# --- awards --------------------------------------------------------------------------

_SIZE = 60_000


def cramped(bytes_max: int) -> NodeConfig:
    host = msgspec.structs.replace(CONFIG.host, inputs_bytes_max=bytes_max)
    return msgspec.structs.replace(CONFIG, host=host)


class Sender:
    """Awards with inputs of their own, sent to node b."""

    def __init__(self, hand: Hand, offer: bytes) -> None:
        self.hand = hand
        self.offer = offer
        self.results: dict[str, Result] = {}

    async def award(self, letter: str, *, deadline_s: float = 60.0) -> AwardBody:
        """Return an award whose input is ``_SIZE`` bytes of ``letter``."""
        node = self.hand.node
        data = canonical(letter * (_SIZE - 2))
        ref = await node.artifacts.put(data, job="job", broker=node.peer)
        ticket = node.artifacts.ticket(
            ref.artifact, holder=node.peer, reader=self.hand.peer, topic=self.hand.topic()
        )
        part = Part(artifact=ref.artifact, size=ref.size, holder=node.peer)
        return self.hand.award(
            self.offer,
            deadline_s=deadline_s,
            inputs={"text": Binding(parts=[part])},
            tickets=[ticket],
        )

    async def send(self, name: str, body: AwardBody) -> None:
        self.results[name] = result_of(await self.hand.send(body))


async def sender(mesh: SimMesh, agent: TextAgent, bytes_max: int) -> Sender:
    hand = await meet(mesh, agent, cramped(bytes_max))
    return Sender(hand, await hand.offer())


def room_of(mesh: SimMesh) -> Room:
    """Return the room of node b."""
    executor = mesh.node("b").contractor._executor
    assert isinstance(executor, Executor)
    return executor._room


def test_inputs_of_all_awards_are_never_more_than_the_owner_gives() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        send = await sender(mesh, agent, 2 * _SIZE)
        most = 0
        async with trio.open_nursery() as nursery:
            for letter in "abcdef":
                nursery.start_soon(send.send, letter, await send.award(letter))
            while len(send.results) < 6:
                held = room_of(mesh).bytes_max - room_of(mesh).left
                most = max(most, agent.running)
                assert agent.running * _SIZE <= held <= 2 * _SIZE
                await trio.sleep(0.1)
        assert most == 2
        assert {result.state for result in send.results.values()} == {"completed"}
        assert room_of(mesh).left == 2 * _SIZE

    play(story)


def test_nothing_is_fetched_before_there_is_room() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        send = await sender(mesh, agent, _SIZE)
        artifacts = mesh.node("b").artifacts
        async with trio.open_nursery() as nursery:
            bodies = {letter: await send.award(letter) for letter in "ab"}
            for letter, body in bodies.items():
                nursery.start_soon(send.send, letter, body)
            await until(lambda: agent.running == 1)
            await trio.sleep(2)
            assert len(artifacts._memory) <= 1
            assert room_of(mesh).waiting == 1

    play(story)


def test_the_deadline_holds_while_an_award_waits_for_room() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(20))
        send = await sender(mesh, agent, _SIZE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send.send, "a", await send.award("a"))
            await until(lambda: agent.running == 1)
            begun_s = trio.current_time()
            await send.send("b", await send.award("b", deadline_s=8))
            assert 7 < trio.current_time() - begun_s < 9
        assert send.results["b"].error_code == "agent.timeout"
        assert send.results["a"].state == "completed"
        assert (room_of(mesh).left, room_of(mesh).waiting) == (_SIZE, 0)

    play(story)


def test_the_lease_holds_while_an_award_waits_for_room() -> None:
    async def ignore(hand: Hand, body: AwardBody) -> None:
        with pytest.raises(MeshError):
            await hand.send(body)

    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(300), timeout_s=300.0)
        send = await sender(mesh, agent, _SIZE)
        mesh.world.nursery.start_soon(ignore, send.hand, await send.award("a"))
        await until(lambda: agent.running == 1)
        mesh.world.nursery.start_soon(ignore, send.hand, await send.award("b"))
        await until(lambda: room_of(mesh).waiting == 1)
        mesh.crash("a")
        await until(lambda: mesh.node("b").contractor.active == 0, within_s=25)
        assert len(agent.calls) == 1
        assert (room_of(mesh).left, room_of(mesh).waiting) == (_SIZE, 0)

    play(story)


def test_an_award_that_is_cancelled_while_it_waits_leaves_its_place_to_others() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(5))
        send = await sender(mesh, agent, _SIZE)
        async with trio.open_nursery() as nursery:
            bodies = {letter: await send.award(letter) for letter in "abc"}
            for letter, body in bodies.items():
                nursery.start_soon(send.send, letter, body)
                await trio.sleep(0.1)
            await until(lambda: room_of(mesh).waiting == 2)
            await send.hand.cancel(bodies["b"])
            assert room_of(mesh).waiting == 1
        states = {name: result.state for name, result in send.results.items()}
        assert states == {"a": "completed", "b": "cancelled", "c": "completed"}
        assert (room_of(mesh).left, len(agent.calls)) == (_SIZE, 2)

    play(story)


def test_inputs_that_would_never_fit_are_refused_at_once() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        send = await sender(mesh, agent, _SIZE - 1)
        await send.send("a", await send.award("a"))
        assert send.results["a"].error_code == "input.invalid"
        assert f"{_SIZE - 1} are the most here" in send.results["a"].error_text
        assert agent.calls == []

    play(story)


def test_an_artifact_that_is_larger_than_was_said_is_not_read() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent()
        send = await sender(mesh, agent, _SIZE)
        await send.send("a", await send.award("a"))  # it is there now
        node = mesh.node("b")
        data = canonical("b" * (_SIZE - 2))
        ref = await node.artifacts.put(data, job="job", broker=send.hand.node.peer)
        for forget in (False, True):
            if forget:
                node.artifacts._memory.clear()
            part = Part(artifact=ref.artifact, size=1, holder=send.hand.peer)
            body = send.hand.award(send.offer, inputs={"text": Binding(parts=[part])})
            await send.send("b", body)
            assert send.results["b"].error_code == "artifact.unavailable"
            assert f"{_SIZE} bytes, not 1 as was said" in send.results["b"].error_text
        assert len(agent.calls) == 1

    play(story)
