"""Model families, as the node's API has them probed."""

from collections.abc import AsyncIterator

import pytest
from trio.testing import MockClock

from tests.meshnode.gateway.api_nodes import Desk, open_desk


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


async def test_what_takes_no_questions_has_no_family(
    autojump_clock: MockClock, desk: Desk
) -> None:
    answer = await desk.http.post("/api/families/text.upper@1")
    assert (answer.status_code, answer.json()) == (200, {"agents": []})
    for odd in ("text.upper", "Odd@1"):
        assert (await desk.http.post(f"/api/families/{odd}")).status_code == 422
