"""What the tests of the simulated network are told with."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from meshnode.ports import Stream
from simulations.network import SimNetwork, SimStream, Weather
from simulations.world import World, run

ECHO: Final = "/echo/1"
HOLD: Final = "/hold/1"

STEADY: Final = Weather(latency_s=0.1, jitter_s=0.0, split_chance=0.0)


async def echo(stream: Stream) -> None:
    """Send back what comes."""
    while data := await stream.receive():
        await stream.send(data)


async def hold(stream: Stream) -> None:
    """Take a stream and do nothing with it."""
    await trio.sleep_forever()


def start(network: SimNetwork, *peers: str) -> None:
    """Let ``peers`` serve."""
    for peer in peers:
        transport = network.transport(peer)
        transport.serve(ECHO, echo)
        transport.serve(HOLD, hold)


async def dial(network: SimNetwork, here: str, there: str, protocol: str = ECHO) -> SimStream:
    """Open a stream between two peers."""
    addresses = network.transport(there).addresses()
    return await network.transport(here).open(there, protocol, addresses=addresses)


def play(story: Callable[[SimNetwork], Awaitable[None]], weather: Weather = STEADY) -> None:
    """Tell a story on a network where peers a, b and c serve."""

    async def scenario(world: World) -> None:
        start(world.network, "a", "b", "c")
        await story(world.network)
        assert world.network.handler_failures == []

    run(scenario, seed=1, weather=weather)


async def arrives_after_s(stream: SimStream) -> float:
    """Return how long the next bytes take."""
    begun_s = trio.current_time()
    await stream.receive()
    return trio.current_time() - begun_s
