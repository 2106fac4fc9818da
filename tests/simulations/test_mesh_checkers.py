"""What is checked of a whole mesh: quiet when all is well, and seeing what is not."""

import importlib
from typing import Any

import pytest
import trio

from meshnode.domain.admission import DAY_HOURS
from meshnode.domain.facts import Charged, Fact
from meshnode.domain.job import JobState
from meshnode.ports import Put, Write
from meshnode.services.bodies import RECEIPTS
from meshnode.services.broker import Broker
from meshnode.services.contracts import Contracts
from meshnode.services.job_runner import JobRunner
from meshnode.services.market import Market
from meshnode.services.receipts import Receipts
from meshnode.services.served import ROWS_MAX, Served
from meshnode.services.workbench import Workbench
from simulations import player
from simulations.agents import UPPER, Act
from simulations.checkers import check_answers
from simulations.growth import BOUNDED, grown, look, tables
from simulations.money import check_money, read_books
from simulations.rogues import Repudiator, Welsher
from simulations.scenario import Load, Scenario
from simulations.stage import Stage
from tests.simulations.mischief import DEAR, ask, known, play


async def work(stage: Stage, jobs: int = 3, **options: Any) -> None:
    """Have some jobs done, and wait until all is at rest."""
    for i in range(jobs):
        end = await ask(stage, f"text {i}", **options)
        assert end.state == "completed"
    await stage.rest(20.0)


async def two(stage: Stage, **place: Any) -> None:
    """Start a broker that may be a rogue, and a dear contractor."""
    stage.add(name="broker", **place)
    stage.add([Act(UPPER, DEAR)], name="n")
    await known(stage)


# --- money -------------------------------------------------------------------------------


def money_after(*, conduct: Any = None, budget_mc: int = 100_000, jobs: int = 3) -> list[str]:
    """Return what the books say after some jobs of 200 mc each."""
    found: list[str] = []

    async def story(stage: Stage) -> None:
        await two(stage, **({"conduct": conduct} if conduct else {}))
        await work(stage, budget_mc=budget_mc, jobs=jobs)
        found.extend(check_money(stage.mesh))

    play(story)
    return found


def test_what_was_paid_is_what_was_got() -> None:
    async def story(stage: Stage) -> None:
        await two(stage)
        stage.add([UPPER], name="self")
        await known(stage)
        await work(stage)
        assert (await ask(stage, by="self0", budget_mc=50)).cost_mc == 2, "it pays itself"
        await stage.settle()
        books = read_books(stage.mesh)
        spent_mc = sum(end.cost_mc for end in stage.ends)
        assert books.paid_mc == books.got_mc == spent_mc > 2
        assert books.earned_mc.total() == spent_mc - 2
        assert list(check_money(stage.mesh)) == []

    play(story)


def test_a_receipt_that_was_never_given_is_missed() -> None:
    found = money_after(conduct=Welsher())
    assert sum("n0 never got 200 mc" in line for line in found) == 3
    assert found[-1] == "brokers paid 600 mc, contractors got 0 mc"


def test_two_stories_of_one_payment_are_seen() -> None:
    found = money_after(conduct=Repudiator(), jobs=1)  # then its word is worth no more work
    assert sum("says that it paid 200 mc, n0 that it got 0 mc" in line for line in found) == 1


def test_a_charge_without_a_receipt_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Contracts.charge

    def unkept(self: Contracts, *args: Any) -> tuple[Charged, list[Write]]:
        charged, writes = honest(self, *args)
        kept = [w for w in writes if not (isinstance(w, Put) and w.table == RECEIPTS)]
        return charged, kept

    monkeypatch.setattr(Contracts, "charge", unkept)
    found = money_after()
    assert sum("receipts of 0 mc, the journal charges 200 mc" in line for line in found) == 3


def test_more_than_the_budget_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Contracts.charge

    def tipping(self: Contracts, *args: Any) -> tuple[Charged, list[Write]]:
        charged, writes = honest(self, *args)
        return Charged(**{**_fields(charged), "paid_mc": 700}), writes

    monkeypatch.setattr(Contracts, "charge", tipping)
    found = money_after(budget_mc=699)
    assert sum("was charged 700 of 699 mc" in line for line in found) == 3


def test_one_work_charged_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest_charge, honest_fold = JobRunner._charge, JobState._charge

    def twice(self: JobRunner, step: Any) -> tuple[list[Fact], list[Write]]:
        facts, writes = honest_charge(self, step)
        return [*facts, *facts], writes

    def credulous(self: JobState, fact: Charged, at_ms: int) -> None:
        if fact.key in self.charges:
            self.spent_mc += fact.paid_mc
        else:
            honest_fold(self, fact, at_ms)

    async def never_at_hand(*_: Any) -> bool:
        return False

    monkeypatch.setattr(JobRunner, "_charge", twice)
    monkeypatch.setattr(JobRunner, "_settle", never_at_hand)
    monkeypatch.setattr(JobState, "_charge", credulous)
    found = money_after()
    assert sum("was charged twice for" in line for line in found) == 3


def test_earnings_that_no_receipt_shows_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Served.count

    def vain(self: Served, caller: str, capability: str = "", **more: int) -> None:
        if "earned_mc" in more:
            more["earned_mc"] *= 2
        honest(self, caller, capability, **more)

    monkeypatch.setattr(Served, "count", vain)
    assert money_after() == ["n0 counts 1200 mc as earned, its receipts say 600 mc"]


def _fields(charged: Charged) -> dict[str, Any]:
    return {name: getattr(charged, name) for name in charged.__struct_fields__}


# --- growth ------------------------------------------------------------------------------


def growth_of(jobs: int = 12) -> list[str]:
    """Return what grows from some jobs to as many more."""
    found: list[str] = []

    async def story(stage: Stage) -> None:
        await two(stage)
        await work(stage, jobs)
        await trio.sleep(90.0)  # allowances that are full again are forgotten
        before = look(stage.mesh)
        await work(stage, jobs)
        await trio.sleep(90.0)
        after = look(stage.mesh)
        found.extend(grown(before, after, slack=jobs // 2))
        assert after.total("disk receipt") - before.total("disk receipt") == 2 * jobs
        assert after.tasks

    play(story)
    return found


def test_jobs_leave_nothing_behind_in_memory() -> None:
    assert growth_of() == []


def test_an_award_that_is_never_let_go_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workbench, "_forget", lambda _, execution: execution.finish())
    (line,) = growth_of()
    assert line == "contractor._bench._running grew at 1 nodes: 12 to 24 at n0"


def test_a_load_that_is_never_taken_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Market.publish_load
    monkeypatch.setattr(
        Market, "publish_load", lambda self, job, load: load and honest(self, job, load)
    )
    monkeypatch.setattr(Market, "load", lambda _: {})
    (line,) = growth_of()
    assert line == "market._loads grew at 1 nodes: 12 to 24 at broker0"


def test_a_task_for_each_job_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Broker._close

    async def leaving(self: Broker, journal: Any) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(trio.sleep_forever)
        await honest(self, journal)

    monkeypatch.setattr(Broker, "_close", leaving)
    (line,) = growth_of()
    assert line == "broker._nursery tasks grew at 1 nodes: 12 to 24 at broker0"


def test_a_table_that_nobody_has_told_of_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Receipts.deliver

    def noting(self: Receipts, award: bytes, peer: str, acceptance: bytes) -> None:
        self.__dict__.setdefault("_noted", []).append(award)
        honest(self, award, peer, acceptance)

    monkeypatch.setattr(Receipts, "deliver", noting)
    (line,) = growth_of()
    assert line == "receipts._noted grew at 1 nodes: 12 to 24 at broker0"


def test_every_scenario_looks_for_what_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load(per_minute=60, by=("n0",))
    busy = Scenario(name="busy", story="", nodes=3, minutes=1, load=(load,))
    assert player.play(busy, seed=0).troubles == ()
    honest = Receipts.deliver

    def noting(self: Receipts, award: bytes, peer: str, acceptance: bytes) -> None:
        self.__dict__.setdefault("_noted", []).append(award)
        honest(self, award, peer, acceptance)

    monkeypatch.setattr(Receipts, "deliver", noting)
    (trouble,) = player.play(busy, seed=0).troubles
    assert trouble.startswith("receipts._noted grew at 1 nodes: ")


def test_rows_that_are_no_history_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Contracts.charge

    def noting(self: Contracts, *args: Any) -> tuple[Charged, list[Write]]:
        charged, writes = honest(self, *args)
        return charged, [*writes, Put("noted", charged.key, b"")]

    monkeypatch.setattr(Contracts, "charge", noting)
    (line,) = growth_of()
    assert line == "disk noted grew at 1 nodes: 12 to 24 at broker0"


def test_calls_that_stay_in_the_timetable_are_seen() -> None:
    async def story(stage: Stage) -> None:
        await two(stage)
        before = look(stage.mesh)
        for _ in range(20):
            stage.world.network.timetable.at(trio.current_time() + 9_999, lambda: None)
        (line,) = grown(before, look(stage.mesh), slack=5)
        assert line.startswith("the timetable grew from ")

    play(story)


def test_the_bounds_are_those_of_the_code() -> None:
    services = {
        "artifacts._memory": ("artifacts", "_MEMORY_BYTES_MAX"),
        "artifacts._granted": ("artifact_rows", "NOTED_MAX"),
        "artifacts._sound": ("artifact_rows", "NOTED_MAX"),
        "broker._ended": ("broker", "_ENDED_MAX"),
        "broker._tools.checking._schemas": ("checking", "_SCHEMAS_MAX"),
        "contractor._letters._seen": ("letters", "_SEEN_MAX"),
        "contractor._records._epochs": ("award_records", "_REMEMBERED_MAX"),
        "contractor._records._finished": ("award_records", "_REMEMBERED_MAX"),
        "contractor._records._taken": ("award_records", "_REMEMBERED_MAX"),
        "contractor._unwanted": ("contractor", "_UNWANTED_MAX"),
        "families._rows": ("families", "KEPT_MAX"),
        "golds._lending._dresses": ("gold_lending", "_DRESSES_MAX"),
        "market._watching._runs": ("watching", "AGENTS_MAX"),
        "market._watching._seen": ("watching", "AGENTS_MAX"),
        "measuring._tried": ("measuring", "_ROWS_MAX"),
        "outbox._ended": ("outbox", "_ENDED_MAX"),
        "tallies._open": ("served", "_OPEN_MAX"),
    }
    told = {
        table: getattr(importlib.import_module(f"meshnode.services.{module}"), name)
        for table, (module, name) in services.items()
    }
    assert {table: BOUNDED[table] for table in told} == told
    assert BOUNDED["tallies._rows"] == 2 * ROWS_MAX
    assert BOUNDED["tallies._past"] == DAY_HOURS * ROWS_MAX
    elsewhere = {
        "broker._journals",
        "directory._exchange._neighbours._told",
        "ledger._balances._amounts",
        "tallies._past",
        "tallies._rows",
    }
    assert set(BOUNDED) - set(told) == elsewhere


def test_every_bounded_table_is_there() -> None:
    async def story(stage: Stage) -> None:
        await two(stage)
        there = {table for table, _ in tables(stage.node("n0"))}
        assert set(BOUNDED) <= there
        assert len(there) > 50

    play(story)


# --- answers -----------------------------------------------------------------------------


def test_everybody_answers() -> None:
    async def story(stage: Stage) -> None:
        await two(stage)
        stage.add(n=3, name="hidden", listens=False)
        await known(stage)
        assert await check_answers(stage.mesh) == []
        stage.crash("n0")
        assert await check_answers(stage.mesh) == [], "who is down is no question here"

    play(story)


def test_who_has_frozen_is_seen() -> None:
    async def story(stage: Stage) -> None:
        await two(stage)
        stage.add(name="last")
        await known(stage)
        stage.freeze("n0")
        found = await check_answers(stage.mesh)
        # It hears nothing, and nobody hears what it asks.
        assert [line.partition(" ")[0] for line in found] == ["n0", "last0"]

    play(story)


def test_who_answers_its_owner_no_more_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(_: Broker) -> list[Any]:
        return await trio.sleep_forever()

    async def story(stage: Stage) -> None:
        await two(stage)
        monkeypatch.setattr(Broker, "jobs", stuck)
        assert len(await check_answers(stage.mesh)) == 2

    play(story)
