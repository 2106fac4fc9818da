"""A silent peer is noticed without heartbeats as with them, and costs nothing till then."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from typing_extensions import override

from meshnode.errors import StreamLost
from meshnode.services.sessions import Incoming, Sessions
from protocol import limits
from simulations.network import SimNetwork
from simulations.silence import BEAT_S
from simulations.world import World, run
from tests.simulations.stories import STEADY, dial
from tests.simulations.stories import play as play_streams

LIMIT_S = 9.0

Story = Callable[[World, Sessions, Sessions], Awaitable[None]]
#: What makes b silent to a.
Silence = Callable[[SimNetwork], None]

SILENCES: dict[str, Silence] = {
    "frozen": lambda network: network.freeze("b"),
    "cut off": lambda network: network.partition(["a"], ["b"]),
    "cut off one way": lambda network: network.cut_one_way("b", "a"),
    "half-open": lambda network: network.break_link("b", "a", notice_s=None),
}


def play(story: Story, *, minds: bool, seed: int = 1) -> None:
    """Tell a story of two nodes that have sessions and nothing else."""

    async def scenario(world: World) -> None:
        network = world.network
        network.minds_silence = minds
        network.set_weather(STEADY)

        def side(name: str) -> Sessions:
            return Sessions(
                network.transport(name),
                network="test",
                clock=world.clock(),
                emit=lambda *_, **__: None,
                addresses=lambda peer: network.transport(peer).addresses(),
            )

        a, b = side("a"), side("b")
        for sessions in (a, b):
            await world.nursery.start(sessions.run)
        await story(world, a, b)

    run(scenario, seed=seed)


async def hang(_: Incoming) -> bytes:
    await trio.sleep_forever()
    return b""


@pytest.mark.parametrize("minds", [True, False], ids=["told", "heartbeats"])
@pytest.mark.parametrize("how", SILENCES)
def test_a_silent_peer_is_noticed_in_time_and_not_before(how: str, *, minds: bool) -> None:
    async def story(world: World, a: Sessions, b: Sessions) -> None:
        b.handle("m", hang)
        await a.connect("b")
        await trio.sleep(20.3)
        assert a.connected()

        async def ask() -> None:
            with pytest.raises(StreamLost, match="silent too long"):
                await a.request("b", "m", b"", timeout_s=600)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(0.5)
            SILENCES[how](world.network)
            silent_s = trio.current_time()
        noticed_s = trio.current_time() - silent_s
        latest_s = (
            limits.SILENCE_MS_MAX / 1000 + 1.5
        )  # looked for once a second, and a beat's way
        assert limits.SILENCE_MS_MAX / 1000 - BEAT_S - 1 <= noticed_s <= latest_s

    for seed in range(5):
        play(story, minds=minds, seed=seed)


@pytest.mark.parametrize("minds", [True, False], ids=["told", "heartbeats"])
def test_a_short_silence_ends_no_session(*, minds: bool) -> None:
    async def story(world: World, a: Sessions, b: Sessions) -> None:
        await a.connect("b")
        for _ in range(20):  # also when one silence follows soon after another
            world.network.freeze("b")
            await trio.sleep(4.0)
            world.network.thaw("b")
            await trio.sleep(1.0)
        assert a.connected() == ["b"]
        assert b.connected() == ["a"]

    play(story, minds=minds)


class Turns(trio.abc.Instrument):
    """Counts the turns that tasks take."""

    def __init__(self) -> None:
        self.count = 0

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


@pytest.mark.parametrize(("minds", "turns"), [(True, (1, 2)), (False, (7_000, 20_000))])
def test_an_idle_session_costs_turns_of_the_scheduler_only_if_it_must_beat(
    *, minds: bool, turns: tuple[int, int]
) -> None:
    async def story(_: World, a: Sessions, __: Sessions) -> None:
        await a.connect("b")
        await trio.sleep(10)
        counter = Turns()
        trio.lowlevel.add_instrument(counter)
        await trio.sleep(3600)
        trio.lowlevel.remove_instrument(counter)
        assert turns[0] <= counter.count <= turns[1]

    play(story, minds=minds)


def test_silence_is_told_once_and_of_the_one_that_is_silent() -> None:
    async def story(network: SimNetwork) -> None:
        network.minds_silence = True
        ab, ac = await dial(network, "a", "b"), await dial(network, "a", "c")
        told: list[str] = []
        assert ab.mind_silence(LIMIT_S, lambda: told.append("b"))
        assert ac.mind_silence(LIMIT_S, lambda: told.append("c"))
        network.freeze("b")
        await trio.sleep(60)
        network.thaw("b")
        network.freeze("b")
        await trio.sleep(60)
        assert told == ["b"]

    play_streams(story)


def test_a_stream_that_has_ended_tells_nothing() -> None:
    async def story(network: SimNetwork) -> None:
        network.minds_silence = True
        told: list[str] = []
        stream = await dial(network, "a", "b")
        assert stream.mind_silence(LIMIT_S, lambda: told.append("b"))
        network.freeze("b")
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(60)
        assert told == []
        assert not stream.mind_silence(LIMIT_S, lambda: told.append("b")), "it is over"

    play_streams(story)


def test_a_stream_opened_to_a_peer_that_is_silent_already_tells_too() -> None:
    async def story(network: SimNetwork) -> None:
        network.minds_silence = True
        told: list[float] = []
        stream = await dial(network, "a", "b")
        network.freeze("b")
        await trio.sleep(5)
        begun_s = trio.current_time()
        assert stream.mind_silence(LIMIT_S, lambda: told.append(trio.current_time() - begun_s))
        await trio.sleep(60)
        assert len(told) == 1
        assert LIMIT_S - BEAT_S <= told[0] <= LIMIT_S

    play_streams(story)
