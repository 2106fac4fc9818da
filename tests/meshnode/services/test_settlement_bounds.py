"""What others can make a payee keep is bounded in bytes, number and time.

Real nodes in virtual time (a MockClock's).
"""

import pytest

from meshnode.services import settlements
from meshnode.services.bodies import PAYMENT, TERMS_BYTES_MAX
from meshnode.services.sessions import RequestFailed
from protocol.errors import ErrorCode
from protocol.settlements import PAYMENT_LIFETIME_MS
from simulations.mesh import SimMesh
from tests.meshnode.services.test_credit import credit
from tests.meshnode.services.test_settlements import MANUAL, owing, waiting
from tests.meshnode.services.worlds import TextAgent, play, until

DAY_MS = 24 * 3_600_000


def test_strangers_can_not_shut_out_who_owes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_NOTED_MAX", 6)

    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        strangers = [await mesh.start(name, config=MANUAL) for name in "cd"]
        await until(lambda: all(len(each.known()) == 4 for each in strangers))
        states = [
            (await each.settlements.settle(worker.peer, 1, f"note {n}"))[1].state
            for n in range(2)
            for each in strangers
        ]
        assert states == ["noted"] * 3 + ["sent"]
        states = [
            (await desk.settlements.settle(worker.peer, 1, f"note {n}"))[1].state
            for n in range(4)
        ]
        assert states == ["noted"] * 3 + ["sent"]
        assert len(waiting(worker)) == 6

    play(story)


def test_the_word_of_who_is_believed_fills_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlements, "_RECEIVED_OF_ONE_MAX", 3)

    async def story(mesh: SimMesh) -> None:
        desk = await mesh.start("a", config=MANUAL)
        believing = credit(settlement="manual", believed=(desk.peer,))
        worker = await mesh.start("b", agents=lambda: [TextAgent()], config=believing)
        await until(lambda: len(desk.known()) == 2)

        async def settle(note: str) -> str:
            return (await desk.settlements.settle(worker.peer, 1, note))[1].state

        assert [await settle(f"note {n}") for n in range(4)] == ["settled"] * 3 + ["sent"]
        await worker.settlements.load()
        assert await settle("another") == "sent", "it counts what is kept from before"
        context = worker.settlements._context
        object.__setattr__(context, "clock", mesh.world.clock(skew_ms=400 * DAY_MS))
        await worker.settlements.forget_old()
        assert await settle("note 3") == "settled", "there is room again"
        assert await worker.settlements.rows() != {}

    play(story)


def test_a_payment_that_nobody_confirmed_in_time_is_refused_by_itself() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, _ = await desk.settlements.settle(worker.peer, 4, "x")
        worker.settlements._letters._clock = mesh.world.clock(skew_ms=PAYMENT_LIFETIME_MS)
        worker.settlements._stir.set()
        await until(lambda: waiting(worker) == [], within_s=100)
        row = (await worker.settlements.rows())[key]
        assert (row.state, row.text) == ("refused", "it was not confirmed in time")
        assert (await desk.settlements.settle(worker.peer, 4, "x"))[1].state == "refused"

    play(story)


@pytest.mark.parametrize(
    ("came", "days", "kept"), [(True, 364, True), (True, 366, False), (False, 9, False)]
)
def test_the_age_of_a_payment_is_counted_from_its_decision(
    came: bool,
    days: int,
    kept: bool,
) -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        key, _ = await desk.settlements.settle(worker.peer, 4, "x")
        context = worker.settlements._context
        late_ms = 6 * DAY_MS
        object.__setattr__(context, "clock", mesh.world.clock(skew_ms=late_ms))
        row = await worker.settlements.decide(key, came=came)
        assert row.ended_ms - row.at_ms >= late_ms
        later = mesh.world.clock(skew_ms=late_ms + days * DAY_MS)
        object.__setattr__(context, "clock", later)
        await worker.settlements.forget_old()
        assert bool(await worker.settlements.rows()) == kept

    play(story)


def test_a_payment_that_is_too_large_is_refused_unread() -> None:
    async def story(mesh: SimMesh) -> None:
        desk, worker = await owing(mesh)
        for size, code in (
            (TERMS_BYTES_MAX, ErrorCode.MALFORMED),
            (TERMS_BYTES_MAX + 1, ErrorCode.TOO_LARGE),
        ):
            with pytest.raises(RequestFailed) as told:
                await desk.sessions.request(worker.peer, PAYMENT, bytes(size), timeout_s=5.0)
            assert told.value.failure == code

    play(story)
