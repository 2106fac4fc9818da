"""The checkers of the small world see what they are there to see.

Each test breaks the real code in one way and plays seeds until the breakage shows; that
it shows, and as what, is the claim.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio

from meshnode.domain.facts import Charged
from meshnode.domain.job import JobState
from meshnode.errors import StoreError
from meshnode.ports import Put, Store, Write
from meshnode.services import job_runner
from meshnode.services.bodies import AWARD_BODY, RECEIPTS
from meshnode.services.contractor import Contractor
from meshnode.services.contracts import Contracts
from meshnode.services.journals import JobJournal
from meshnode.services.market import Market
from meshnode.services.receipts import DUE
from meshnode.services.sessions import Incoming
from meshnode.services.workbench import Workbench
from protocol.codec import decode_as
from protocol.keys import digest
from protocol.messages import Cancel, read_message
from simulations.mesh import NETWORK
from simulations.scenarios import five_nodes
from simulations.scenarios.five_nodes import Story, draw_story
from simulations.stage import Broken
from simulations.world import World

SEEDS = range(8)


def found(*, seeds: Sequence[int] = SEEDS) -> str:
    """Return what the checkers find within some seeds, or fail."""
    for seed in seeds:
        try:
            five_nodes.play(seed)
        except Broken as exc:
            return str(exc)
    pytest.fail("the checkers found nothing")


def seeds_with(claim: Callable[[Story], bool]) -> list[int]:
    """Return the seeds whose story has what it takes."""
    drawn = [draw_story(World.chance(seed, "story")) for seed in range(100)]
    return [seed for seed, story in enumerate(drawn) if claim(story)]


def is_cancelled(story: Story) -> bool:
    return story.cancel_s is not None


def breaks_early(story: Story) -> bool:
    """The broker loses a connection while awards are out on it."""
    return any(
        fault.kind == "break" and five_nodes.BROKER in fault.who and 2.0 < fault.at_s < 6.0
        for fault in story.schedule.faults
    )


def test_an_award_begun_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Contractor._on_award

    async def forgetful(self: Contractor, incoming: Incoming) -> bytes:
        self._bench._running.pop(digest(decode_as(incoming.body, AWARD_BODY).award), None)
        return await honest(self, incoming)

    monkeypatch.setattr(Contractor, "_on_award", forgetful)
    assert "twice" in found(seeds=seeds_with(breaks_early))


class Hasty:
    """A store that says "done" before it is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, *writes: Write) -> None:
        async def later() -> None:
            await trio.sleep(0.2)
            try:
                await self._store.commit(*writes)
            except StoreError:
                return  # it crashed meanwhile: lost, as such a write would be

        trio.lowlevel.spawn_system_task(later)
        await trio.lowlevel.checkpoint()


def test_an_award_sent_before_it_is_written_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = JobJournal.record

    async def hasty(self: JobJournal, *facts: Any, **options: Any) -> bool:
        if not isinstance(self._context.store, Hasty):
            self._context = replace(self._context, store=Hasty(self._context.store))
        return await honest(self, *facts, **options)

    monkeypatch.setattr(JobJournal, "record", hasty)
    assert "sent award" in found()


def test_work_begun_before_it_is_written_down_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = Contractor._take

    async def hasty(self: Contractor, *args: Any) -> bytes:
        records = self._records
        store, records._store = records._store, Hasty(records._store)
        try:
            return await honest(self, *args)
        finally:
            records._store = store

    monkeypatch.setattr(Contractor, "_take", hasty)
    assert "without writing it down" in found()


def test_a_cancel_acknowledged_too_early_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hasty(self: Contractor, incoming: Incoming) -> bytes:
        cancel = read_message(incoming.body, Cancel, network=NETWORK)
        self._emit(
            "award.stopped", award=cancel.award.hex(), job=cancel.h.job, unit=cancel.h.subtask
        )
        await trio.lowlevel.checkpoint()
        return b""

    monkeypatch.setattr(Contractor, "_on_cancel", hasty)
    seen = found(seeds=seeds_with(is_cancelled))
    assert "and it runs" in seen or "after it said that it had stopped" in seen


def test_a_second_acceptance_of_one_award_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Contracts.charge

    def generous(self: Contracts, *args: Any) -> tuple[Charged, list[Write]]:
        charged, writes = honest(self, *args)
        _, other = honest(self, *args)  # signed anew: other bytes
        kept = [write for write in other if isinstance(write, Put) and write.table == RECEIPTS]
        return charged, [*(w for w in writes if isinstance(w, Put) and w.table == DUE), *kept]

    monkeypatch.setattr(Contracts, "charge", generous)
    assert "the acceptance in the journal" in found()


def test_a_charge_above_the_result_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = JobState._charge

    def twice(self: JobState, fact: Charged, at_ms: int) -> None:
        honest(self, fact, at_ms)
        self.spent_mc += fact.paid_mc

    monkeypatch.setattr(JobState, "_charge", twice)
    assert "acceptances pay" in found()


def test_a_load_that_stays_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Market.publish_load

    def clinging(self: Market, job: str, load: dict[str, int]) -> None:
        if load:
            honest(self, job, load)

    monkeypatch.setattr(Market, "publish_load", clinging)
    assert "believes in a load" in found()


def test_a_wrong_output_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = five_nodes.inputs_and_outputs
    monkeypatch.setattr(
        five_nodes,
        "inputs_and_outputs",
        lambda story: (honest(story)[0], {"text": "else", "total": 0}),
    )
    assert "its outputs are" in found()


def test_a_journal_that_does_not_verify_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = JobJournal.export

    async def tampered(self: JobJournal) -> bytes:
        data = bytearray(await honest(self))
        data[len(data) // 2] ^= 1
        return bytes(data)

    monkeypatch.setattr(JobJournal, "export", tampered)
    assert "provenance does not verify" in found()


def test_a_node_that_dies_of_itself_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(self: Workbench, _: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    monkeypatch.setattr(Workbench, "_execute", dies)
    assert "died: RuntimeError: a bug" in found()


def test_a_job_that_never_ends_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(job_runner, "stop", stuck)
    assert "has not ended" in found(seeds=seeds_with(is_cancelled))
