"""An id is remembered for as long as its letter counts, whatever its sender's clock says.

Real nodes in virtual time (a MockClock's).
"""

import pytest

from meshnode.node import Node
from meshnode.services.mail import LETTER, SEEN, SEEN_ROW
from protocol.codec import decode_as
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.correspondence import by_hand
from tests.meshnode.services.worlds import play, told, until

HOUR_S = 3_600.0
DAY_MS = 86_400_000


async def with_a_clock(mesh: SimMesh, skew_ms: int) -> tuple[Node, Node]:
    """Start Bob, and Ada whose clock is off; they have a session and have measured it."""
    bob = await mesh.start("bob", config=CONFIG)
    ada = await mesh.start("ada", config=CONFIG, skew_ms=skew_ms)
    here = mesh.world.network.transport(bob.peer).addresses()
    await ada.sessions.connect(bob.peer, addresses=here)
    await until(lambda: abs(bob.sessions.offset_ms(ada.peer) - skew_ms) < 1_000)
    return ada, bob


def test_what_comes_by_a_slow_clock_is_remembered_for_as_long_as_it_counts() -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await with_a_clock(mesh, -2 * DAY_MS)
        envelope = by_hand(ada, bob.peer, 0)
        await ada.sessions.request(bob.peer, LETTER, envelope, timeout_s=10)
        bob.inbox._swept_s = -HOUR_S
        other = by_hand(ada, bob.peer, 1)
        await ada.sessions.request(bob.peer, LETTER, other, timeout_s=10)
        await ada.sessions.request(bob.peer, LETTER, envelope, timeout_s=10)
        assert len(told(bob, "letter.kept")) == 2
        assert len(told(bob, "letter.repeated")) == 1

    play(story)


@pytest.mark.parametrize("days", [20, 60_000])
def test_what_comes_by_a_fast_clock_is_remembered_for_a_month_at_most(days: int) -> None:
    async def story(mesh: SimMesh) -> None:
        ada, bob = await with_a_clock(mesh, days * DAY_MS)
        envelope = by_hand(ada, bob.peer)
        await ada.sessions.request(bob.peer, LETTER, envelope, timeout_s=10)
        (raw,) = mesh.members["bob"].disk.tables[SEEN].values()
        left_days = (decode_as(raw, SEEN_ROW).until_ms - bob.clock.now_ms()) / DAY_MS
        assert min(days, 31) <= left_days < 31.01, "by Bob's clock, at a mailbox"

    play(story)
