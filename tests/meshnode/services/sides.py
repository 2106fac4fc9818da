"""Two nodes that have sessions and nothing else, over the simulated network."""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from meshnode.services.sessions import Incoming, Sessions
from simulations.network import SimNetwork
from simulations.world import World, run
from tests.meshnode.services.worlds import STILL


class Side:
    """One node that has sessions and nothing else."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.scope = trio.CancelScope()
        network = world.network
        self.sessions = Sessions(
            network.transport(name),
            network="test",
            clock=world.clock(),
            emit=lambda event, **fields: self.events.append((event, fields)),
            addresses=lambda peer: network.transport(peer).addresses(),
        )

    async def live(self, *, task_status: Any) -> None:
        with self.scope:
            await self.sessions.run(task_status=task_status)

    async def ask(self, peer: str, body: bytes = b"", **options: Any) -> bytes:
        return await self.sessions.request(
            peer, "m", body, timeout_s=options.pop("timeout_s", 60.0), **options
        )

    def count(self, name: str) -> int:
        return sum(event == name for event, _ in self.events)


Story = Callable[[SimNetwork, Side, Side], Awaitable[None]]


def play(story: Story, *, seed: int = 1) -> None:
    async def scenario(world: World) -> None:
        world.network.set_weather(STILL)
        sides = [Side(world, name) for name in ("a", "b")]
        for side in sides:
            await world.nursery.start(side.live)
        await story(world.network, *sides)
        assert world.network.handler_failures == []

    run(scenario, seed=seed)


async def echo(incoming: Incoming) -> bytes:
    await trio.lowlevel.checkpoint()
    return incoming.body


async def hang(_: Incoming) -> bytes:
    await trio.sleep_forever()
    return b""
