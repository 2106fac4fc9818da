"""Whoever dies or is cut off, and whenever: a job with standbys ends once, and is paid once.

Real nodes in virtual time (a MockClock's), by seed.
"""

from collections import Counter
from random import Random

import pytest
import trio

from meshnode.domain.provenance import verify_provenance
from meshnode.services import shipping
from meshnode.services.bodies import RECEIPT_ROW, RECEIPTS
from protocol.codec import decode_as
from protocol.keys import digest
from protocol.messages import read_message
from protocol.receipts import Acceptance
from simulations.mesh import NETWORK, SimMesh
from simulations.money import check_money
from tests.meshnode.services.test_failover import WORDS, mesh_of, terms
from tests.meshnode.services.test_failover_safety import seat_of
from tests.meshnode.services.worlds import TextAgent, answers_after, inputs, play, shouting

SEEDS = range(16)
MEMBERS = ("a", "c", "d")


def broker(mesh: SimMesh) -> str:
    """The member that is the job's broker as far as anybody knows."""
    seats = [seat_of(mesh, name) for name in MEMBERS if mesh.up(name)]
    _, peer = max(seat.newest for seat in seats)
    return next((name for name in MEMBERS if mesh.peer(name) == peer), "a")


async def trouble(mesh: SimMesh, rng: Random, names: list[str]) -> None:
    """One member or worker at a time dies or is cut off, and is back some seconds later.

    The broker is the first, for so long that it loses the job, and every other time again.
    """
    for number in range(rng.randint(2, 6)):
        await trio.sleep(rng.uniform(0.2, 4.0))
        name = broker(mesh) if number % 2 == 0 else rng.choice(names)
        away_s = rng.choice((6.0, 15.0) if number == 0 else (0.5, 6.0, 15.0))
        if rng.random() < 0.5:
            mesh.crash(name)
            await trio.sleep(away_s)
            await mesh.restart(name)
        else:  # from everybody, or from the other members only: its workers hear it still
            near = mesh.members if rng.random() < 0.5 else MEMBERS
            rest = [mesh.peer(one) for one in near if one != name]
            mesh.world.network.partition([mesh.peer(name)], rest)
            await trio.sleep(away_s)
            mesh.world.network.partition()


def paid(mesh: SimMesh, name: str) -> Counter[bytes]:
    """Award -> how often its receipt is there at ``name``, as its contractor's."""
    found: Counter[bytes] = Counter()
    for raw in mesh.members[name].disk.tables.get(RECEIPTS, {}).values():
        row = decode_as(raw, RECEIPT_ROW)
        accepted = read_message(row.acceptance, Acceptance, network=NETWORK)
        if accepted.h.audience == mesh.peer(name):
            found[digest(row.award)] += 1
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_with_standbys_ends_once_whoever_dies(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a journal goes in parts of any size, as one of large events does.
    monkeypatch.setattr(shipping, "_EVENTS_MAX", (1, 3, 256)[seed % 3])

    async def story(mesh: SimMesh) -> None:
        rng = Random(f"failover {seed}")
        # So slow that the job goes on for longer than its first broker is let.
        agents = [
            TextAgent(answers_after(rng.choice((2.0, 4.0))), concurrency_max=1)
            for _ in range(3)
        ]
        owner, *_ = await mesh_of(mesh, *agents)
        graph = shouting(8, batch_items_max=rng.choice((1, 2, 4)))
        job = await owner.submit(graph, inputs(*WORDS), terms(mesh, deadline_s=300.0))
        await trouble(mesh, rng, [*MEMBERS, "w0", "w1", "w2"])
        with trio.fail_after(200):
            state = await mesh.node("a").wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        outputs = await mesh.node("a").outputs(job)
        assert outputs == {"said": [word.upper() for word in WORDS]}
        journal = await mesh.node("a").journal(job)
        found = verify_provenance(await journal.export())
        await trio.sleep(60)
        awards = {
            digest(unit.accepted.award): unit.accepted
            for unit in state.units.values()
            if unit.accepted is not None
        }
        got = sum((paid(mesh, name) for name in ("w0", "w1", "w2")), Counter())
        assert max(got.values()) == 1
        assert set(awards) <= set(got), "who did the work is paid"
        assert len(found.brokers) == len(journal.segments), "it was over when that was said"
        assert len(found.brokers) > 1, "it passed on"
        assert list(check_money(mesh)) == []

    play(story, seed=seed)
