"""Who goes on with a job pays for it, and its owner owes that: once, whoever dies and where.

Real nodes in virtual time (a MockClock's), by seed.
"""

from random import Random
from typing import Any, Literal

import msgspec
import pytest
import trio

from meshnode.config import LedgerConfig
from meshnode.domain.facts import Charged, Delivered, Failed, Planned
from meshnode.domain.job import JobState
from meshnode.errors import NoStandbys
from meshnode.node import Terms
from meshnode.services import job_terms
from meshnode.services.acceptances import Acceptances
from meshnode.services.bodies import RECEIPTS
from meshnode.services.charges import Charges
from meshnode.services.checking import Checking
from meshnode.services.crash_points import JOB_LABELS, STANDBY_LABELS, CrashPoint
from meshnode.services.job_runner import JobRunner
from meshnode.services.ledger import ADVANCED, Ledger
from meshnode.services.successions import Successions
from simulations.mesh import SimMesh
from simulations.money import check_money, read_books
from tests.meshnode.services.test_failover import WITH, WORDS, broker_of, mesh_of, terms
from tests.meshnode.services.test_failover_safety import begun
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    told,
    until,
)

#: What each word costs at a :class:`TextAgent`, millicredits.
PRICE_MC = 2


async def at_rest(mesh: SimMesh, job: str, names: str = "acd") -> list[str]:
    """Let a job end, and its money come to rest; return what is wrong with that."""
    with trio.fail_after(250):
        state = await mesh.node("a").wait(job)
    assert state.done is not None
    assert state.done.state == "completed", state.done
    assert await mesh.node("a").outputs(job) == {"said": [word.upper() for word in WORDS]}
    await trio.sleep(60)
    assert all(mesh.up(name) for name in names)
    return list(check_money(mesh))


def test_an_heir_pays_and_the_owner_owes_it_that() -> None:
    async def story(mesh: SimMesh) -> None:
        _, job = await begun(mesh, after_s=5.0)
        mesh.crash("a")
        heir = await broker_of(mesh, job, "c", "d")
        await mesh.node(heir).wait(job)
        await mesh.restart("a")
        assert await at_rest(mesh, job) == []
        owner, other = mesh.node("a"), mesh.node(heir)
        due_mc = other.ledger.balances.due_mc(owner.peer)
        assert 0 < due_mc < PRICE_MC * len(WORDS), "each paid for a part"
        assert owner.ledger.balances.due_mc(other.peer) == -due_mc
        balances = owner.ledger.balances
        paid_mc = sum(balances.due_mc(peer) for peer in balances.peers())
        assert paid_mc == -PRICE_MC * len(WORDS), "the owner is charged for each word once"
        rest = other.ledger.balances
        assert sum(rest.due_mc(peer) for peer in rest.peers()) == 0, "and the heir for none"
        posted = await owner.ledger.history(other.peer, count_max=100)
        assert {posting.note for posting in posted} == {ADVANCED}
        for node in (owner, other):  # postings go with receipts, and balances stay
            node.retention._clock = mesh.world.clock(skew_ms=10**11)
            await node.retention.sweep()
        assert await owner.ledger.history(other.peer, count_max=100) == []
        assert await other.ledger.history(owner.peer, count_max=100) == []
        assert owner.ledger.balances.due_mc(other.peer) == -due_mc

    play(story)


def test_what_a_loser_charged_and_nobody_knew_of_is_owed_to_nobody() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3.0), concurrency_max=8)
        owner, *_ = await mesh_of(mesh, agent)
        graph = shouting(8, batch_items_max=1)
        job = await owner.submit(graph, inputs(*WORDS), terms(mesh, deadline_s=300.0))
        await trio.sleep(2.5)
        # Its worker it hears, and its heirs not: what it charges, they charge anew.
        mesh.world.network.partition([mesh.peer("a")], [mesh.peer("c"), mesh.peer("d")])
        await trio.sleep(1.5)
        charged = [e for e in (await owner.journal(job)).events() if e.kind == Charged.KIND]
        assert charged
        mesh.crash("a")
        assert mesh.members["a"].disk.tables.get(RECEIPTS, {}) == {}
        mesh.world.network.partition(
            [mesh.peer("a"), mesh.peer("w0")], [mesh.peer("c"), mesh.peer("d")]
        )
        again = await mesh.restart("a")
        await trio.sleep(20)
        assert mesh.members["w0"].disk.tables.get(RECEIPTS, {}) == {}
        mesh.world.network.partition()
        assert await at_rest(mesh, job) == []
        assert (await again.journal(job)).following
        assert sum(payment.paid_mc for payment in read_books(mesh).got.values()) == 16

    play(story)


def test_a_contractor_that_never_heard_of_an_heir_is_shown_it_and_paid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check = JobRunner._check

    async def never_shown(*_: Any) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(Successions, "_show_all", never_shown)
    monkeypatch.setattr(Checking, "is_at_hand", lambda *_: False)

    async def story(mesh: SimMesh) -> None:
        async def slow(self: JobRunner, *args: Any) -> Any:
            if self._context.peer == mesh.identity("a").peer:
                await trio.sleep_forever()
            return await check(self, *args)

        monkeypatch.setattr(JobRunner, "_check", slow)
        owner, *_ = await mesh_of(mesh, TextAgent())
        job = await owner.submit(shouting(), inputs("one"), terms(mesh, deadline_s=300.0))
        journal = await owner.journal(job)
        await until(lambda: any(e.kind == Delivered.KIND for e in journal.events()))
        await trio.sleep(1.0)
        mesh.crash("a")  # its heirs have what was delivered, and it has accepted nothing
        heir = await broker_of(mesh, job, "c", "d")
        state = await mesh.node(heir).wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        await until(lambda: bool(mesh.members["w0"].disk.tables.get(RECEIPTS)), within_s=60)
        assert not told(mesh.node(heir), "acceptance.refused")

    play(story)


def test_nobody_stands_by_for_more_than_its_owner_lets_another_owe() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent(never))
        limited = msgspec.structs.replace(WITH, ledger=LedgerConfig(owed_max_mc=30))
        await start(mesh, limited, e=[], f=[])
        peers = (mesh.peer("e"), mesh.peer("f"))
        job = await owner.submit(shouting(), inputs("one"), Terms(standbys=peers, budget_mc=20))
        with pytest.raises(NoStandbys, match="1 of the job's 3 members"):
            await owner.submit(shouting(), inputs("two"), Terms(standbys=peers, budget_mc=20))
        await owner.cancel(job)
        await owner.wait(job)
        await trio.sleep(5)
        await owner.submit(shouting(), inputs("two"), Terms(standbys=peers, budget_mc=20))

    play(story)


def test_nobody_pays_for_a_job_in_the_name_of_somebody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(3.0))
        owner, *_ = await mesh_of(mesh, agent)
        victim = mesh.peer("w0")

        def lying(**fields: Any) -> Planned:
            return Planned(**{**fields, "owner": victim})

        monkeypatch.setattr(job_terms, "Planned", lying)
        await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        mesh.crash("a")
        await trio.sleep(60)
        for name in ("c", "d"):
            assert await mesh.node(name).broker.jobs() == []
        assert told(mesh.node("c"), "job.not_taken_over")

    play(story)


async def whatever(mesh: SimMesh, rng: Random) -> str:
    """A job of which members die at crash points and elsewhere, and are cut off."""
    slow = answers_after(rng.choice((1.0, 3.0)))
    agents = [TextAgent(slow, concurrency_max=1) for _ in range(2)]
    owner, *_ = await mesh_of(mesh, *agents)
    graph = shouting(8, batch_items_max=rng.choice((1, 2)))
    labels = [label for label in (*JOB_LABELS, *STANDBY_LABELS) if label != "job.planned"]

    async def again(name: str) -> None:
        await trio.sleep(rng.choice((0.5, 6.0)))
        if not mesh.up(name):
            await mesh.restart(name)

    job = await owner.submit(graph, inputs(*WORDS), terms(mesh, deadline_s=300.0))
    async with trio.open_nursery() as nursery:
        for name in ("a", "c", "d"):
            side: Literal["before", "after"] = "before" if rng.random() < 0.5 else "after"
            point = CrashPoint(side, rng.choice(labels), rng.randint(1, 3))
            mesh.crash_at(name, point, lambda name=name: nursery.start_soon(again, name))  # type: ignore[misc]
        for number in range(rng.randint(1, 4)):
            await trio.sleep(rng.uniform(0.5, 4.0))
            name = "a" if number == 0 else rng.choice(("a", "c", "d", "w0"))
            if rng.random() < 0.5:
                mesh.crash(name)
                await again(name)
            else:
                rest = [mesh.peer(one) for one in mesh.members if one != name]
                mesh.world.network.partition([mesh.peer(name)], rest)
                await trio.sleep(rng.choice((0.5, 6.0)))
                mesh.world.network.partition()
        for name in ("a", "c", "d"):
            mesh.spare(name)
    for name in mesh.members:
        if not mesh.up(name):
            await mesh.restart(name)
    return job


#: Each fault that is planted below is found within these.
SEEDS = (*range(12), 20)


def troubles_of(seed: int) -> list[str]:
    found: list[str] = []

    async def story(mesh: SimMesh) -> None:
        job = await whatever(mesh, Random(f"money {seed}"))
        found.extend(await at_rest(mesh, job))

    play(story, seed=seed)
    return found


@pytest.mark.parametrize("seed", [*SEEDS, 219])
def test_money_is_conserved_whoever_dies_and_where(seed: int) -> None:
    assert troubles_of(seed) == []


_LOST = Failed(unit="", attempt=0, peer="", code="lost", text="", blame="broker")


def _charged_twice(patch: pytest.MonkeyPatch) -> None:
    """An heir charges again what was charged before it."""
    elect = JobState._elect

    def forgetful(self: JobState, fact: Any) -> None:
        elect(self, fact)
        if fact.epoch > 1:
            self.charges.clear()
            for unit in self.units.values():
                if unit.accepted is not None:
                    unit.accepted.error = unit.accepted.error or _LOST
                    unit.accepted = None
                    self.begun[unit.subtask][unit.name] = unit

    patch.setattr(JobState, "_elect", forgetful)


def _written_at_once(patch: pytest.MonkeyPatch) -> None:
    """A charge is sent before a majority has it."""

    async def hasty(self: Acceptances) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(Acceptances, "_until_safe", hasty)


def _advanced_for_ever(patch: pytest.MonkeyPatch) -> None:
    """What an heir paid is posted as often as a job is closed, and under another key."""
    honest = Ledger.advance
    numbers = iter(range(10_000))

    def unkeyed(self: Ledger, *args: Any, **about: Any) -> Any:
        posting = honest(self, *args, **about)
        if posting is None:
            return None
        return msgspec.structs.replace(posting, key=f"{posting.key}{next(numbers)}")

    patch.setattr(Ledger, "advance", unkeyed)


def _owner_owes_nothing(patch: pytest.MonkeyPatch) -> None:
    """The owner doesn't post what its heirs paid."""
    honest = Charges._advance

    async def mean(self: Charges, journal: Any) -> None:
        if journal.state.required_plan.owner != self._context.peer:
            await honest(self, journal)

    patch.setattr(Charges, "_advance", mean)


MUTANTS = {
    _charged_twice: ("charged twice",),
    _written_at_once: ("paid by two brokers", "nobody paid", "never got"),
    _advanced_for_ever: ("posted",),
    _owner_owes_nothing: ("posted",),
}


@pytest.mark.parametrize(("mutant", "words"), MUTANTS.items())
def test_the_checker_catches(
    mutant: Any, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    said: list[str] = []
    for seed in SEEDS:
        said = troubles_of(seed)
        if said:
            break
    assert any(word in line for line in said for word in words), said
