"""One at a time at each name, different names at once, and nothing is left of those gone."""

import trio
import trio.testing

from meshnode.services.turns import Turns


async def test_who_waits_for_a_name_waits_for_no_other(autojump_clock: object) -> None:
    turns = Turns()
    told: list[str] = []

    async def take(name: str, what: str, *, hold_s: float) -> None:
        async with turns.at(name):
            told.append(what)
            await trio.sleep(hold_s)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: take("slow", "first", hold_s=10))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lambda: take("slow", "second", hold_s=0))
        await trio.testing.wait_all_tasks_blocked()
        await take("quick", "other", hold_s=0)
        assert told == ["first", "other"]
    assert told == ["first", "other", "second"]
    assert turns._held == {}


async def test_who_gives_up_waiting_leaves_nothing_behind(autojump_clock: object) -> None:
    turns = Turns()

    async def wait() -> None:
        async with turns.at("one"):
            raise AssertionError("two at once")

    async with trio.open_nursery() as nursery, turns.at("one"):
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert turns._held["one"][1] == 1
    assert turns._held == {}
