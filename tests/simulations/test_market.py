"""A simulated market is the same on one seed, conserves money, and moves as it should."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from math import sqrt
from pathlib import Path
from random import Random
from statistics import mean, stdev
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from meshnode.domain.crowding import SUBSET
from meshnode.domain.matching import Candidate, has_room
from simulations.market import MarketOptions, Unsound, check, main, simulate_market
from simulations.market_agents import (
    ERRING,
    FLAKY,
    HONEST,
    LYING,
    ON_OFF,
    OVERCLAIMING,
    SILENT,
    SLOW,
    WHITEWASHING,
    Behaviour,
    Conduct,
    Trader,
)
from simulations.market_arrivals import Arrival, Crowd, arrivals
from simulations.market_choice import (
    POLICIES,
    AtRandom,
    ByFinish,
    ByTurnaround,
    Choice,
    Chosen,
    Evidence,
)
from simulations.market_figures import MarketResult
from simulations.market_ledger import Ledger, Payment
from simulations.market_loop import Market, Rules

ROOT = Path(__file__).parents[2]
SMALL = MarketOptions(agents=200, tasks=4_000, brokers=20, capabilities=4, seed=5)
#: Whose choice hangs on the order of the candidates is among them.
SMALL_BY_POLICY = [replace(SMALL, policy=policy) for policy in POLICIES.values()]

CHILD = """
import sys
ballast = [[object()] for _ in range(int(sys.argv[1]))]
from simulations.market import simulate_market
from tests.simulations.test_market import SMALL_BY_POLICY
for options in SMALL_BY_POLICY:
    print(simulate_market(options).digest)
"""


@pytest.fixture(scope="module")
def small() -> MarketResult:
    """The small market, played once."""
    return simulate_market(SMALL)


def elsewhere(hash_seed: int) -> list[str]:
    """Return the digests of the small market, by each policy, as another process has them."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(hash_seed * 377)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_a_seed_gives_the_same_market_in_every_process() -> None:
    here = [simulate_market(options).digest for options in SMALL_BY_POLICY]
    assert len(set(here)) == len(POLICIES)
    assert elsewhere(1) == elsewhere(2) == here


def test_another_seed_or_another_policy_gives_another_market(small: MarketResult) -> None:
    others = [replace(SMALL, seed=6), replace(SMALL, policy=AtRandom)]
    digests = {simulate_market(other).digest for other in others}
    assert len(digests | {small.digest}) == 3


def test_a_result_goes_to_json_and_back(small: MarketResult) -> None:
    assert msgspec.json.decode(msgspec.json.encode(small), type=MarketResult) == small


def test_the_command_prints_the_same_market(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--agents", "40", "--tasks", "300", "--seed", "3", "--policy", "at_random", "--json"])
    printed = msgspec.json.decode(capsys.readouterr().out, type=MarketResult)
    options = MarketOptions(agents=40, tasks=300, seed=3, policy=AtRandom)
    assert printed == simulate_market(options)
    assert printed.windows


def test_progress_grows_to_the_number_of_tasks() -> None:
    told: list[tuple[int, int]] = []
    simulate_market(SMALL, on_progress=lambda ended, tasks: told.append((ended, tasks)))
    assert told == sorted(told)
    assert told[-1] == (SMALL.tasks, SMALL.tasks)


def test_windows_add_up_to_the_whole(small: MarketResult) -> None:
    windows = small.windows
    assert sum(window.arrived for window in windows) == small.tasks == SMALL.tasks
    accepted = sum(window.accepted for window in windows)
    assert accepted + sum(window.failed for window in windows) == small.tasks
    assert accepted / small.tasks == small.success_share
    assert sum(window.paid_mc for window in windows) == small.paid_mc
    assert sum(small.work.values()) == pytest.approx(1)
    assert windows[-1].end_s == small.elapsed_s


# --- what a broker sees, and whom it asks ----------------------------------------------


class Witness(AtRandom):
    """Chooses anyone, and keeps what it was shown and told."""

    def __init__(self, rng: Random) -> None:
        super().__init__(rng)
        self.shown: list[tuple[Choice, list[Candidate]]] = []
        self.chosen: dict[str, list[str]] = {}
        self.heard: list[Evidence] = []

    @override
    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        chosen = super().choose(choice, candidates)
        assert chosen is not None
        self.shown.append(
            (msgspec.structs.replace(choice, load=dict(choice.load)), [*candidates])
        )
        self.chosen.setdefault(choice.key, []).append(chosen.candidate.peer)
        return chosen

    @override
    def learn(self, evidence: Evidence) -> None:
        self.heard.append(evidence)


def witnessed(options: MarketOptions) -> tuple[MarketResult, Witness]:
    made: list[Witness] = []

    def maker(rng: Random) -> Witness:
        made.append(Witness(rng))
        return made[0]

    return simulate_market(replace(options, policy=maker)), made[0]


def only(behaviour: Behaviour, **more: Any) -> MarketOptions:
    """Return the small market with agents of one kind."""
    return replace(SMALL, mix=[(behaviour, 1.0)], **more)


def test_a_broker_is_shown_few_with_room_and_a_fresh_one_first() -> None:
    options = only(ERRING, rules=Rules(attempts_max=3), load=0.5)
    _, witness = witnessed(options)
    for choice, candidates in witness.shown:
        idle = [one for one in candidates if one.agent_id not in choice.load]
        assert len(idle) >= SUBSET, "who failed is not counted"
        assert len({candidate.peer for candidate in candidates}) == len(candidates)
        assert all(has_room(candidate, choice.load) for candidate in candidates)
    assert any(len(peers) == 3 for peers in witness.chosen.values())
    for peers in witness.chosen.values():
        assert len(set(peers)) == len(peers), "nobody who failed at a task is asked again"


def test_who_had_no_room_for_a_task_is_asked_again_after_all_the_others() -> None:
    options = only(HONEST, agents=40, capabilities=4, tasks=400, load=5.0)
    _, witness = witnessed(replace(options, rules=Rules(awards_max=1)))
    assert max(len(peers) for peers in witness.chosen.values()) > 10, "all ten, and again"
    for peers in witness.chosen.values():
        assert len(set(peers[:10])) == len(peers[:10])


def test_a_task_is_given_up_when_everybody_has_failed_at_it() -> None:
    never = Behaviour("never", Conduct(error_chance=1.0))
    result, witness = witnessed(only(never, agents=12, capabilities=4, tasks=50, load=0.05))
    assert result.failures == {"providers.failed": 50}
    assert {len(peers) for peers in witness.chosen.values()} == {3}
    assert result.paid_mc == 0


def test_attempts_end_at_their_limit() -> None:
    never = Behaviour("never", Conduct(error_chance=1.0))
    result = simulate_market(only(never, load=0.1))
    assert result.failures == {"agent.failed": SMALL.tasks}
    assert result.executions_per_task == Rules().attempts_max


def test_brokers_hear_what_became_of_each_award_and_of_errors_only_when_noticed() -> None:
    result, witness = witnessed(replace(SMALL, load=0.1))
    outcomes = Counter(evidence.outcome for evidence in witness.heard)
    accepted = sum(window.accepted for window in result.windows)
    wrong = sum(window.wrong for window in result.windows)
    assert outcomes["accepted"] == accepted
    # Those noticed after the last task's end are never told; a share of 0.3 is.
    assert 0.15 * wrong < outcomes["noticed"] < 0.4 * wrong
    assert wrong > 100
    assert outcomes["failed"] > 0
    assert outcomes["no_answer"] > 0


def test_what_is_caught_is_not_paid_and_done_again() -> None:
    rules = Rules(caught_chance=1.0)
    result, witness = witnessed(only(LYING, rules=rules, load=0.1))
    assert result.error_share == 0
    assert result.executions_per_task > 3
    rejected = [evidence for evidence in witness.heard if evidence.outcome == "rejected"]
    paid_mc = sum(
        each.candidate.price_mc for each in witness.heard if each.outcome == "accepted"
    )
    assert paid_mc == result.paid_mc
    assert len(rejected) > SMALL.tasks


# --- behaviours move what they should ---------------------------------------------------


def test_a_silent_agent_is_waited_for_and_then_the_last_choice() -> None:
    rules = Rules(deadline_s=300.0)
    mix = [(HONEST, 0.9), (SILENT, 0.1)]
    options = MarketOptions(
        agents=20, tasks=3_000, brokers=1, capabilities=1, load=0.02, mix=mix, rules=rules
    )
    result, witness = witnessed(options)
    unheard = [evidence for evidence in witness.heard if evidence.outcome == "no_answer"]
    assert unheard
    assert {round(each.took_s) for each in unheard} == {75}, "its time, slack and patience"
    shunned = [
        candidate.peer
        for choice, candidates in witness.shown
        for candidate in candidates
        if candidate.troubled
    ]
    assert set(shunned) == {each.candidate.peer for each in unheard}
    assert result.success_share > 0.99


def test_an_overclaimer_gets_more_than_its_share_and_makes_tasks_late() -> None:
    mixed = simulate_market(
        replace(SMALL, mix=[(HONEST, 0.9), (OVERCLAIMING, 0.1)], load=0.2, tasks=8_000)
    )
    honest = simulate_market(only(HONEST, load=0.2, tasks=8_000))
    assert mixed.work["overclaiming"] > 0.2
    assert mixed.latency_mean_s > honest.latency_mean_s


def test_who_measures_is_not_taken_in_for_long() -> None:
    mix = [(HONEST, 0.8), (OVERCLAIMING, 0.2)]
    options = replace(SMALL, mix=mix, load=0.1, tasks=8_000, brokers=2)
    told, seen = (simulate_market(replace(options, policy=p)) for p in (ByFinish, ByTurnaround))
    assert seen.work["overclaiming"] < 0.75 * told.work["overclaiming"]
    assert seen.latency_mean_s < 0.85 * told.latency_mean_s


def test_a_whitewasher_is_back_under_a_new_key_that_nobody_has_a_session_with() -> None:
    result, witness = witnessed(only(WHITEWASHING, load=0.1, tasks=8_000))
    noticed = sum(evidence.outcome == "noticed" for evidence in witness.heard)
    assert 0 < result.reborn <= noticed / WHITEWASHING.reborn_after
    reborn = [
        candidate
        for _, candidates in witness.shown
        for candidate in candidates
        if "." in candidate.peer
    ]
    assert any(not candidate.alive for candidate in reborn)
    assert any(candidate.alive for candidate in reborn)


def test_agents_that_turn_are_wrong_while_they_are_turned() -> None:
    result = simulate_market(only(ON_OFF, load=0.2, tasks=20_000, rules=Rules(window_s=10.0)))
    shares = {window.end_s % 60: [] for window in result.windows[:-1]}  # type: ignore[var-annotated]
    for window in result.windows[:-1]:
        shares[window.end_s % 60].append(window.error_share)
    assert max(shares[20.0] + shares[30.0]) < 0.1, "the first half of each minute"
    assert min(shares[50.0] + shares[0.0]) > 0.6, "the second half"


def test_a_flaky_agent_costs_time_and_a_slow_one_too() -> None:
    honest = simulate_market(only(HONEST, load=0.1, policy=AtRandom))
    slow = simulate_market(only(SLOW, load=0.1, policy=AtRandom))
    flaky = simulate_market(only(FLAKY, load=0.1, policy=AtRandom))
    assert slow.latency_mean_s > 2 * honest.latency_mean_s
    assert flaky.latency_p95_s > 2 * honest.latency_p95_s
    assert flaky.executions_per_task > 1.05


def test_a_flash_crowd_comes_when_it_was_asked_and_makes_others_wait() -> None:
    crowd = Crowd(factor=4.0, begin_s=30.0, length_s=20.0)
    rules = Rules(window_s=10.0)
    calm = only(HONEST, load=0.15, tasks=10_000, rules=rules, policy=AtRandom)
    result = simulate_market(replace(calm, crowd=crowd))
    arrived = [window.arrived for window in result.windows]
    assert mean(arrived[3:5]) == pytest.approx(4 * mean(arrived[:3]), rel=0.15)
    assert mean(arrived[5:7]) == pytest.approx(mean(arrived[:3]), rel=0.15)
    assert result.wait_mean_s > 1.5 * simulate_market(calm).wait_mean_s


# --- queues -----------------------------------------------------------------------------


def test_one_agent_makes_tasks_wait_as_long_as_queueing_theory_says() -> None:
    # Pollaczek and Khinchine: Poisson arrivals, one server, any distribution of runs.
    shortest_s, longest_s = 0.5, 1.5
    busy = 0.6
    second_moment = (longest_s**3 - shortest_s**3) / 3 / (longest_s - shortest_s)
    wanted_s = busy * second_moment / (2 * (1 - busy))
    trader = Trader(0, Behaviour("plain", Conduct()), (shortest_s, longest_s), concurrency=1)
    waits_s, shares = [], []
    for seed in range(12):
        market = Market(
            [trader],
            brokers=500,
            rules=Rules(deadline_s=1e6),
            policy=ByFinish(Random(0)),
            seed=f"{seed}",
        )
        market.run(islice(arrivals([busy], brokers=500, seed=f"{seed}"), 3_000))
        assert market.counter.executions == 3_000
        waits_s.append(market.counter.waited_s / 3_000)
        shares.append(market.counter.queued / 3_000)
    # Who comes at random finds the server busy as often as it is.
    assert abs(mean(shares) - busy) < 4 * stdev(shares) / sqrt(len(shares))
    error_s = stdev(waits_s) / sqrt(len(waits_s))
    assert abs(mean(waits_s) - wanted_s) < 4 * error_s
    assert error_s < 0.05 * wanted_s


def test_slots_are_as_busy_as_the_work_that_comes() -> None:
    traders = [Trader(0, Behaviour("plain", Conduct()), (1.0, 3.0), concurrency=2)] * 50
    market = Market(traders, brokers=50, rules=Rules(), policy=AtRandom(Random(2)), seed="work")
    market.run(islice(arrivals([20.0], brokers=50, seed="work"), 3_000))
    # 20 a second, of 2 s each, on 100 slots; without the first window and the last two.
    busy = [window.utilisation for window in market.counter.windows[1:-2]]
    assert len(busy) > 10
    assert mean(busy) == pytest.approx(0.4, rel=0.05)


def test_what_is_cancelled_at_its_deadline_runs_no_more_and_makes_room() -> None:
    trader = Trader(0, Behaviour("plain", Conduct()), (10.0, 10.0), concurrency=1)
    market = Market(
        [trader],
        brokers=9,
        rules=Rules(deadline_s=15.0),
        policy=AtRandom(Random(1)),
        seed="cancelled",
    )
    at_once = [Arrival(0.0, 0, broker) for broker in range(5)]
    market.run([*at_once, Arrival(16.0, 0, 5), Arrival(60.0, 0, 6)])
    # The second began after 10 s and was stopped after 15, three never began.
    assert market.counter.failures == {"deadline": 4}
    assert market.counter.executions == 4
    assert min(market.counter.latencies_s) > 10
    assert max(market.counter.latencies_s) < 10.5, "the sixth didn't wait for the second's end"


# --- money --------------------------------------------------------------------------------


def played() -> Market:
    traders = [Trader(0, price_mc=price_mc) for price_mc in (3, 5)]
    market = Market(traders, brokers=2, rules=Rules(), policy=AtRandom(Random(1)), seed="money")
    market.run(islice(arrivals([2.0], brokers=2, seed="money"), 40))
    return market


def test_what_brokers_paid_is_what_agents_got() -> None:
    market = played()
    assert check(market) == []
    assert market.counter.paid_mc == sum(payment.price_mc for payment in market.ledger) > 0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: setattr(m.brokers[0], "paid_mc", m.brokers[0].paid_mc - 1), "broker 0"),
        (lambda m: setattr(m.contractors[1], "earned_mc", 0), "agent 1"),
        (lambda m: m.ledger.add(next(iter(m.ledger))), "paid for twice"),
        (lambda m: m.ledger.add(Payment(999, 0, 0, 3)), "were paid for"),
        (lambda m: m.ledger.add(Payment(999, 0, 0, 4)), "3 were asked"),
        (lambda m: setattr(m.counter, "accepted", m.counter.accepted - 1), "were paid for"),
        (lambda m: setattr(m.counter, "arrived", 41), "41 tasks came and 40 ended"),
        (lambda m: m.brokers[1].load.update({"agent-0/worker": 1}), "1 units are out"),
    ],
)
def test_the_checker_finds_what_does_not_add_up(
    spoil: Callable[[Market], object], told: str
) -> None:
    market = played()
    spoil(market)
    assert any(told in trouble for trouble in check(market)), check(market)


def test_a_market_that_does_not_add_up_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "add", lambda *_: None)
    with pytest.raises(Unsound, match="0 were paid for"):
        simulate_market(SMALL)
