"""When a job's broker dies in the middle of what it writes, all disks tell one story of it.

Real nodes in virtual time (a MockClock's); the auditor reads the disks and asks nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from meshnode.services.crash_points import read_crash_point
from simulations.mesh import SimMesh
from simulations.money import check_money
from simulations.tellings import check_endings
from tests.meshnode.services.test_failover import WORDS, mesh_of, terms
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    until,
)


@dataclass
class Left:
    """What a job left behind, and how often each word was said."""

    mesh: SimMesh
    calls: list[str]


@cache
def left_after(point: str) -> Left:
    """Have the broker of a job die at ``point``, a standby go on, and the broker come back."""
    found: list[Left] = []

    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(1.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        mesh.crash_at("a", read_crash_point(point), lambda: None)
        graph = shouting(8, batch_items_max=1)
        job = await owner.submit(graph, inputs(*WORDS), terms(mesh, deadline_s=300.0))
        await until(lambda: not mesh.up("a"))
        await trio.sleep(15)
        await mesh.restart("a")
        state = await mesh.node("a").wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        await trio.sleep(60)
        found.append(Left(mesh, [call for agent in agents for call in agent.calls]))

    play(story)
    return found[0]


def troubles(mesh: Any) -> Iterator[str]:
    yield from check_money(mesh)
    yield from check_endings(mesh)


@pytest.mark.parametrize(
    "point",
    [
        "before:job.delivered",  # with all its awards out
        "after:job.charged",  # paid by its own journal alone
        "before:receipt.kept",  # ended by its own journal alone
        "after:receipt.kept#3",  # ended for all, and not paid for
        "after:job.done",
    ],
)
def test_a_broker_that_dies_there_leaves_one_end_and_each_unit_paid_once(point: str) -> None:
    left = left_after(point)
    assert list(troubles(left.mesh)) == []
    assert sorted(left.calls) == sorted(WORDS)


@pytest.fixture
def passed_on() -> Any:
    """Return a copy of the disks of a job that an heir ended, to do something to."""
    mesh = left_after("after:job.charged").mesh
    members = {
        name: SimpleNamespace(
            name=name,
            peer=member.peer,
            disk=SimpleNamespace(
                tables={table: dict(rows) for table, rows in member.disk.tables.items()},
                logs={log: list(entries) for log, entries in member.disk.logs.items()},
            ),
        )
        for name, member in mesh.members.items()
    }
    return SimpleNamespace(members=members, network_id=mesh.network_id, name=mesh.name)


def log_of(mesh: Any, prefix: str, *, ends: str = "") -> tuple[Any, str]:
    """Return whose disk has a log of that name, and the log."""
    return next(
        (member, log)
        for member in mesh.members.values()
        for log in member.disk.logs
        if log.startswith(prefix) and log.endswith(ends) and member.name != "a"
    )


def test_a_job_without_an_end_is_seen(passed_on: Any) -> None:
    for member in passed_on.members.values():
        for key in [k for k in member.disk.tables.get("copy_head", {}) if k.endswith("2")]:
            del member.disk.tables["copy_head"][key]
    heir, log = log_of(passed_on, "job/")
    del heir.disk.logs[log]
    assert any("has no end" in line for line in troubles(passed_on))


def test_an_owner_that_does_not_know_the_end_is_seen(passed_on: Any) -> None:
    heads = passed_on.members["a"].disk.tables["copy_head"]
    (last,) = [key for key in heads if key.endswith("2")]
    del heads[last]
    assert any("a, whose it is, doesn't know it" in line for line in troubles(passed_on))


def test_a_debt_in_the_books_of_a_broker_that_lost_is_seen(passed_on: Any) -> None:
    heir, _ = log_of(passed_on, "job/")
    for table in ("posting", "ledger", "balance"):
        passed_on.members["a"].disk.tables[table] = dict(heir.disk.tables[table])
    assert any("a posted 2 mc spent" in line for line in troubles(passed_on))
