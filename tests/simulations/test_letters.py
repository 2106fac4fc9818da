"""Nodes that die at random write to each other, and every letter comes once."""

from collections import Counter
from contextlib import suppress

import pytest
import trio

from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.services.crash_points import LETTER_LABELS, read_crash_point
from simulations.mesh import CONFIG, Down, SimMesh
from simulations.weather import Weather
from simulations.world import World, run
from tests.meshnode.services.correspondence import keeping

SEEDS = range(4)
BOXES = ("box0", "box1")
OWNERS = ("ada", "bob", "eve")
ROUNDS = 40
ROUGH = Weather(latency_s=0.05, jitter_s=0.05, split_chance=0.1)


async def trouble(mesh: SimMesh, world: World) -> None:
    """Let each node die now and then, at a point of letters or anywhere, and come back."""
    rng = world.random("trouble")

    async def live(name: str) -> None:
        while True:
            await trio.sleep(rng.uniform(5, 120))
            if rng.random() < 0.5:
                side, label = rng.choice(("before", "after")), rng.choice(LETTER_LABELS)
                mesh.crash_at(name, read_crash_point(f"{side}:{label}"), lambda: None)
                await trio.sleep(rng.uniform(5, 60))
            else:
                mesh.crash(name)
            await trio.sleep(rng.uniform(1, 120))
            mesh.spare(name)
            if not mesh.up(name):
                await mesh.restart(name)

    async with trio.open_nursery() as nursery:
        for name in (*BOXES, *OWNERS):
            nursery.start_soon(live, name)


async def correspond(mesh: SimMesh, world: World, promised: dict[str, tuple[str, str]]) -> None:
    """Have letters written; what an owner was told is on its way is promised."""
    rng = world.random("letters")
    for number in range(ROUNDS):
        await trio.sleep(rng.uniform(1, 60))
        sender, reader = rng.sample(OWNERS, 2)
        peer, body = mesh.peer(reader), f"{number}".encode()

        async def written(node: Node, peer: str = peer, body: bytes = body) -> str:
            return await node.outbox.write(peer, body)

        with suppress(Down, MeshError):  # nothing was promised
            promised[await mesh.ask(sender, written)] = (sender, reader)


def play(seed: int) -> Counter[str]:
    """Tell the story; return how many letters came which way."""
    ways: Counter[str] = Counter()

    async def story(world: World) -> None:
        mesh = SimMesh(world, weather=ROUGH)
        for name in BOXES:
            await mesh.start(name, config=keeping())
        for name in OWNERS:
            await mesh.start(name, config=CONFIG)
        await trio.sleep(20)
        promised: dict[str, tuple[str, str]] = {}
        came: Counter[str] = Counter()
        mesh.observers.append(
            lambda _, told: came.update(
                [str(told.fields["letter"])] if told.name == "letter.kept" else []
            )
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble, mesh, world)
            await correspond(mesh, world, promised)
            nursery.cancel_scope.cancel()
        for name in (*BOXES, *OWNERS):
            mesh.spare(name)
            if not mesh.up(name):
                await mesh.restart(name)
        await trio.sleep(3_600)
        assert len(promised) > ROUNDS / 4
        for letter, (sender, reader) in promised.items():
            row = await mesh.node(sender).outbox.row(letter)
            assert row.state == "delivered", (letter, row)
            kept, _ = await mesh.node(reader).inbox.letter(letter)
            ways["round" if kept.by else "straight"] += 1
        for name in OWNERS:
            node = mesh.node(name)
            assert node.outbox.waiting == 0
            bodies = [(await node.inbox.letter(one))[1] for one, _ in await node.inbox.rows()]
            said = [(letter.h.issuer, letter.body) for letter in bodies]
            assert len(said) == len(set(said)), "nothing twice"
        assert max(came.values(), default=1) == 1, "and nothing told twice"
        assert mesh.failures == []

    run(story, seed=seed)
    return ways


@pytest.mark.timeout(240)
def test_every_letter_comes_once_whoever_dies() -> None:
    ways: Counter[str] = Counter()
    for seed in SEEDS:
        ways += play(seed)
    assert ways["straight"] > 20
    assert ways["round"] > 5, "mailboxes were of use"
