"""A job is named by its id or the beginning of it, however many there are."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from meshnode.cli.client import NodeClient
from meshnode.cli.failure import CommandFailed
from meshnode.cli.job_ids import whole
from meshnode.ports import Put
from meshnode.services.job_rows import JobRow
from protocol.codec import encode
from tests.meshnode.gateway.api_nodes import Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def named(number: int) -> str:
    return f"{number:020x}"


async def keep(desk: Desk, *rows: tuple[str, JobRow]) -> None:
    store = desk.node.broker._context.store
    await store.commit(*[Put("job", job, encode(row)) for job, row in rows])


async def test_a_job_is_found_behind_any_number_of_newer_ones(
    autojump_clock: MockClock, desk: Desk
) -> None:
    newer = [(named(n), JobRow(name="n", planned_ms=n, done=True)) for n in range(1, 10_101)]
    await keep(desk, ("ab" * 10, JobRow(done=False, name="old", planned_ms=0)), *newer)
    client = NodeClient(desk.http)
    for given in ("ab" * 10, "ab", "a"):
        assert await whole(client, given) == "ab" * 10
    (row,) = (await client.call("GET", "/api/jobs", running="1", limit="20"))["jobs"]
    assert row["name"] == "old", "nor are those missed that go on"


async def test_who_is_not_the_only_one_is_told_how_many_there_are(
    autojump_clock: MockClock, desk: Desk
) -> None:
    await keep(
        desk, *[(named(n), JobRow(done=False, name="n", planned_ms=n)) for n in range(150)]
    )
    client = NodeClient(desk.http)
    for given, says in (
        ("00", "many jobs begin with 00"),
        (named(1)[:-1], "16 jobs begin with"),
        ("ff", "no job 'ff'"),
        ("%", "no job '%'"),
        ("", "no job ''"),
    ):
        with pytest.raises(CommandFailed, match=says):
            await whole(client, given)
