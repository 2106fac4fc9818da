"""A node's clock is set while jobs are at work, as by a time server: jobs end as they should.

Real nodes in virtual time (a MockClock's).  Real processes share one clock, which a test
can't set for one of them.
"""

import pytest
import trio

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
)

MINUTES_2 = 120_000


@pytest.mark.parametrize("by_ms", [MINUTES_2, -MINUTES_2])
@pytest.mark.parametrize("whose", ["a", "c", "w0"])
@pytest.mark.parametrize("standbys", [False, True])
def test_a_job_ends_once_whosever_clock_is_set(
    whose: str, by_ms: int, *, standbys: bool
) -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        asked = terms(mesh, deadline_s=300.0)
        if not standbys:
            asked = type(asked)(deadline_s=300.0)
        job = await owner.submit(shouting(8, batch_items_max=1), inputs(*WORDS), asked)
        await trio.sleep(1.0)
        mesh.members[whose].clock.jump(by_ms)
        await trio.sleep(9.0)
        mesh.members[whose].clock.jump(-by_ms)
        with trio.fail_after(300):
            state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        assert await owner.outputs(job) == {"said": [word.upper() for word in WORDS]}
        await trio.sleep(120)
        assert [*check_money(mesh), *check_endings(mesh)] == []

    play(story)
