"""Scenarios that would differ between processes if anything but the seed counted.

Each is run by ``test_determinism.py`` in processes of different hash seeds and
memory layouts.  What could differ shows in the trace.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import trio
import trio.testing

from meshnode.errors import MeshError
from meshnode.ports import Stream
from simulations.kademlia import SimKademlia
from simulations.network import SimTransport, Weather
from simulations.weather import WORLD
from simulations.world import World
from tests.contracts.simulated_ports import made_up_record, sequence_of

MANY = 50


async def cancelled_together(world: World) -> None:
    """Many tasks, some in nurseries and scopes of their own, cancelled at once."""

    async def wait(name: int) -> None:
        try:
            await trio.sleep_forever()
        finally:
            world.trace.note(f"cancelled {name}")

    async def wait_in_pairs(name: int) -> None:
        async with trio.open_nursery() as inner:
            inner.start_soon(wait, name)
            inner.start_soon(wait, name + 1)

    async with trio.open_nursery() as nursery:
        for i in range(MANY):
            nursery.start_soon(wait, i)
            nursery.start_soon(wait_in_pairs, 1000 + 2 * i)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def timed_out_together(world: World) -> None:
    """Many deadlines at one moment."""

    async def wait(name: int) -> None:
        with trio.move_on_at(5.0):
            await trio.sleep_forever()
        world.trace.note(f"timed out {name}")

    async with trio.open_nursery() as nursery:
        for i in range(MANY):
            nursery.start_soon(wait, i)


async def woken_together(world: World) -> None:
    """Many waiters for one event, then for a lock, then for a condition."""
    event, lock, condition = trio.Event(), trio.Lock(), trio.Condition()

    async def wait(name: int) -> None:
        await event.wait()
        world.trace.note(f"event {name}")
        async with lock:
            world.trace.note(f"lock {name}")
            await trio.lowlevel.checkpoint()
        async with condition:
            await condition.wait()
        world.trace.note(f"condition {name}")

    async with trio.open_nursery() as nursery:
        for i in range(MANY):
            nursery.start_soon(wait, i)
        await trio.testing.wait_all_tasks_blocked()
        event.set()
        await trio.testing.wait_all_tasks_blocked()
        async with condition:
            condition.notify_all()


async def channels_closed_together(world: World) -> None:
    """Many senders and receivers of channels; the channels close under the rest."""
    send, receive = trio.open_memory_channel[int](3)
    closed, never = trio.open_memory_channel[int](0)

    async def put(name: int) -> None:
        await send.send(name)
        world.trace.note(f"put {name}")

    async def take(name: int) -> None:
        world.trace.note(f"{name} took {await receive.receive()}")
        try:
            await never.receive()
        except trio.ClosedResourceError:
            world.trace.note(f"closed {name}")

    async with trio.open_nursery() as nursery:
        for i in range(MANY):
            nursery.start_soon(put, i)
            nursery.start_soon(take, i)
        await trio.testing.wait_all_tasks_blocked()
        never.close()
    closed.close()


async def generators_left_as_garbage(world: World) -> None:
    """Async generators in reference cycles: the collector's time shows."""

    async def count(name: int) -> AsyncGenerator[int, None]:
        try:
            yield name
        finally:
            world.trace.note(f"collected {name}")

    async def leave(name: int) -> None:
        generator = count(name)
        cycle: list[object] = [generator]
        cycle.append(cycle)
        await anext(generator)

    kept: list[list[object]] = []
    for i in range(2000):
        if i % 50 == 0:
            await leave(i)
        kept += [[] for _ in range(20)]  # what Python counts to start its collector
        await trio.sleep(0.01)


_ROUGH = Weather(break_chance=0.01, dial_failure_chance=0.05, split_chance=0.2)


async def mesh_in_trouble(world: World) -> None:
    """Twenty peers that call each other while all kinds of faults happen to them."""
    await _get_into_trouble(world, _ROUGH)


async def world_in_trouble(world: World) -> None:
    """The same, with the peers all over the world, at home and in offices."""
    await _get_into_trouble(
        world, replace(WORLD, break_chance=0.01, late_chance=0.5, split_chance=0.2)
    )


async def _get_into_trouble(world: World, weather: Weather) -> None:
    network, rng = world.network, world.random("faults")
    network.set_weather(weather)
    names = [f"peer-{i}" for i in range(20)]

    async def echo(stream: Stream) -> None:
        while data := await stream.receive():
            await stream.send(data)

    def start(name: str) -> SimTransport:
        transport = network.transport(name)
        transport.serve("/echo/1", echo)
        return transport

    async def call(name: str) -> None:
        chance = world.random(f"calls of {name}")
        while True:
            other = network.transport(chance.choice(names))
            try:
                with trio.fail_after(3):
                    here = start(name)
                    addresses = other.addresses()
                    stream = await here.open(other.peer, "/echo/1", addresses=addresses)
                    await stream.send(bytes(chance.randint(1, 5000)))
                    world.trace.note(f"{name} got {len(await stream.receive())}")
                    await stream.aclose()
            except (MeshError, trio.TooSlowError) as exc:
                world.trace.note(f"{name}: {exc}")
                await trio.sleep(chance.random())

    faults: list[Callable[[str, str], object]] = [
        lambda one, _: network.freeze(one),
        lambda one, _: network.thaw(one),
        lambda one, _: network.crash(one, notice_s=rng.choice([0.0, 0.5, None])),
        network.cut_one_way,
        network.mend_one_way,
        lambda one, other: network.partition([one, *names[:7]], [other, *names[7:]]),
        lambda _one, _other: network.partition(),
        network.break_link,
    ]
    for name in names:
        start(name)
        world.nursery.start_soon(call, name)
    for _ in range(60):
        await trio.sleep(rng.random())
        one, other = rng.sample(names, 2)
        network.transport(one)
        rng.choice(faults)(one, other)


async def kademlia_in_trouble(world: World) -> None:
    """Nodes of a DHT that publish, look up, crash and come back, on a bad network."""
    rng = world.random("trouble")
    dht = SimKademlia(
        world.random("kademlia"),
        sequence_of,
        delay_s=lambda _one, _other: rng.uniform(0.01, 0.2),
        reaches=lambda _one, _other: rng.random() < 0.97,
        trace=world.trace,
    )
    world.nursery.start_soon(dht.run)
    peers = [f"n{i}" for i in range(60)]
    for peer in peers:
        dht.join(peer, peers[:2])
    for sequence in range(120):
        peer, asker = rng.choice(peers), rng.choice(peers)
        if sequence % 4 == 0:
            dht.crash(asker, silent=rng.random() < 0.5)
            await trio.sleep(rng.uniform(0, 60))
            dht.join(asker, peers[:2])
        try:
            await dht.port(peer).publish(made_up_record(peer, sequence), ["all", f"x{peer}"])
        except MeshError as exc:
            world.trace.note(f"{peer}: {exc}")
        world.trace.note(f"{await dht.port(asker).record(peer)!r}")
        world.trace.note(f"{list(await dht.port(asker).providers('all'))}")


async def order_of_a_set(world: World) -> None:
    """A scenario that breaks the rule: it must differ, or the tests see nothing."""
    for name in {f"name {i}" for i in range(MANY)}:
        world.trace.note(name)


SOUND: tuple[Callable[[World], Awaitable[None]], ...] = (
    cancelled_together,
    timed_out_together,
    woken_together,
    channels_closed_together,
    generators_left_as_garbage,
    mesh_in_trouble,
    world_in_trouble,
    kademlia_in_trouble,
)
