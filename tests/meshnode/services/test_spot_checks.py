"""Brokers ask for records' examples now and then: overclaimers are found, honest ones aren't.

Ada's node asks; the others work.  In virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import HostConfig, NodeConfig, TrustConfig
from meshnode.node import Node
from meshnode.ports import Example
from meshnode.services import spot_checks
from meshnode.services.crash_points import read_crash_point
from meshnode.services.job_terms import Terms
from protocol.likeness import Likeness
from protocol.records import Measured
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.test_golds import SHOUT, acceptances, agent, learned, lie, shape
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    play,
    shouting,
    start,
    told,
    until,
)

#: A check follows within so long here, seconds; else these tests' time would be long.
SOON_S = 2.0
WORDS = ("one", "two", "three", "four")
#: Every other call that others do pays for a check.
SHARE = 0.5


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_checks, "_WITHIN_S", SOON_S)


def examples(*words: str) -> list[Example]:
    return [Example({"text": word}, {"text": word.upper()}) for word in words or WORDS]


def config(**trust: Any) -> NodeConfig:
    """Return one of a node that checks often, and does not measure its own agents."""
    return msgspec.structs.replace(
        CONFIG,
        trust=TrustConfig(**{"spot_share": SHARE, "work_bits": 0, **trust}),
        host=HostConfig(measure=False),
    )


def claim(node: Node, right: int = 4) -> None:
    """Have a node's record say how many of its agent's examples came out right."""
    now_ms = node.clock.now_ms()
    node.host.recall(
        "shout", Measured(samples=4, latency_ms=5, at_ms=now_ms, tried=4, right=right)
    )


async def known(node: Node, *others: Node) -> None:
    """Wait until ``node`` knows what the others claim."""

    def is_known() -> bool:
        offers = [node.market.capability(o.peer, "shout", SHOUT) for o in others]
        return all(offer is not None and offer.measured.tried for offer in offers)

    await until(is_known, within_s=120.0)


async def work(node: Node, by: Node, jobs: int = 1, *, calls: int = 1) -> None:
    """Have ``by`` do jobs for ``node``, and let what follows happen."""
    words = [chr(ord("a") + n) for n in range(calls)]
    for _ in range(jobs):
        terms = Terms(budget_mc=10_000)
        job = await node.submit(shouting(calls), inputs(*words), terms)
        await node.wait(job)
        await trio.sleep(SOON_S + 1.0)


def asked(node: Node) -> list[dict[str, object]]:
    return told(node, "spots.asked")


async def claiming(mesh: SimMesh, worker: TextAgent, **trust: Any) -> tuple[Node, Node]:
    """Start Ada's node and one that claims to do all examples of its agent right."""
    a, b = await start(mesh, config(**trust), ada=[], bob=[worker])
    claim(b)
    await known(a, b)
    return a, b


def test_who_errs_often_and_claims_not_to_is_found_and_shown() -> None:
    worker = TextAgent(lie, examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        before = a.reputation.credibility(SHOUT, agent(b))
        await work(a, b, 6)
        seen = a.spots.of(SHOUT, agent(b))
        assert (seen.asked, seen.came_right, seen.overclaims) == (3, 0, True)
        assert [e["agent"] for e in told(a, "spots.overclaims")] == [agent(b)]
        assert (await learned(a, b)).count("overclaimed") == 1, "chance can't be told before"
        assert a.reputation.credibility(SHOUT, agent(b)) < before
        assert a.reputation.standing(SHOUT, agent(b)).owed
        assert b.ledger.balances.due_mc(a.peer) == 2 * (6 + 3), "who is checked is paid"

    play(story)


def test_who_says_that_it_always_answers_alike_is_found_at_once() -> None:
    worker = TextAgent(lie, examples=examples(), deterministic=True)

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        await work(a, b, 2)
        assert a.spots.of(SHOUT, agent(b)).overclaims
        assert a.reputation.is_blocked(SHOUT, agent(b))

    play(story)


def test_an_honest_agent_gains_and_loses_nothing_by_its_own_examples() -> None:
    worker = TextAgent(examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        await work(a, b, 12)
        seen = a.spots.of(SHOUT, agent(b))
        assert (seen.asked, seen.came_right, seen.overclaims) == (6, 6, False)
        assert set(await learned(a, b)) == {"served"}
        standing = a.reputation.standing(SHOUT, agent(b))
        assert (standing.good_mu, standing.bad_mu) == (0, 0)

    play(story)


def test_who_claims_what_is_true_may_err() -> None:
    worker = TextAgent(lie, examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, config(), ada=[], bob=[worker])
        claim(b, right=1)
        await known(a, b)
        await work(a, b, 12)
        seen = a.spots.of(SHOUT, agent(b))
        assert (seen.asked, seen.came_right, seen.overclaims) == (6, 0, False)
        assert "overclaimed" not in await learned(a, b)

    play(story)


@pytest.mark.parametrize(
    ("share", "jobs", "calls", "count"),
    [(0.0, 12, 1, 0), (0.25, 12, 1, 3), (0.1, 3, 9, 2), (0.03, 33, 1, 0), (0.03, 34, 1, 1)],
    ids=["off", "each fourth call", "of maps too", "not yet", "by then"],
)
def test_no_more_is_spent_than_the_share(
    share: float, jobs: int, calls: int, count: int
) -> None:
    worker = TextAgent(examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker, spot_share=share)
        await work(a, b, jobs, calls=calls)
        assert len(asked(a)) == count
        assert b.ledger.balances.due_mc(a.peer) == 2 * (jobs * calls + count)

    play(story)


def test_a_restart_asks_and_pays_for_nothing_twice() -> None:
    worker = TextAgent(answers_after(20.0), examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        await work(a, b)
        job = await a.submit(shouting(), inputs("a"), Terms())
        await a.wait(job)
        await until(lambda: bool(asked(a)), within_s=400.0)
        await until(lambda: worker.running == 1)
        mesh.crash("ada")
        a = await mesh.restart("ada")
        await known(a, b)
        await until(lambda: a.spots.of(SHOUT, agent(b)).asked == 1, within_s=120.0)
        assert len(worker.calls) == 3, "two jobs and a check"
        await until(lambda: b.ledger.balances.due_mc(a.peer) == 6)
        await work(a, b)
        assert asked(a) == [], "what was saved up is forgotten, and what was spent isn't owed"
        mesh.crash("ada")
        a = await mesh.restart("ada")
        assert a.spots.of(SHOUT, agent(b)).asked == 1

    play(story)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_crash_about_the_beginning_of_a_check_loses_it_at_most(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = TextAgent(lie, examples=examples(), deterministic=True)
    monkeypatch.setattr(spot_checks, "_WITHIN_S", 60.0)  # the crash is armed before it

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        await a.wait(await a.submit(shouting(2), inputs("a", "b"), Terms()))
        died = trio.Event()
        mesh.crash_at("ada", read_crash_point(f"{side}:job.planned"), died.set)
        with trio.fail_after(90.0):
            await died.wait()
        a = await mesh.restart("ada")
        await known(a, b)
        await until(lambda: not list(a.spots.rows.under_way()))
        left = side == "after"
        assert len(worker.calls) == 2 + left
        assert a.spots.of(SHOUT, agent(b)).asked == left
        assert (await learned(a, b)).count("overclaimed") == left
        await until(lambda: b.ledger.balances.due_mc(a.peer) == 2 * (2 + left))

    play(story)


# --- others' examples --------------------------------------------------------------------

NORMALISED = Likeness("normalised")


async def neighbours(mesh: SimMesh, *others: TextAgent, believed: int) -> list[Node]:
    """Start Ada's node, Bob's with examples that is believed, and others that have none."""
    bob = TextAgent(examples=examples(), like=NORMALISED, price_mc=9)
    hosted = {f"n{place}": [other] for place, other in enumerate(others)}
    nodes = await start(mesh, config(), ada=[], bob=[bob], **hosted)
    a, b, *_ = nodes
    for _ in range(believed):
        noted = a.reputation.note(SHOUT, agent(b), "check_passed")
        await a._ports.store.commit(*noted.writes)
        a.reputation.learned(noted)
    return nodes


def test_others_examples_are_asked_of_those_who_have_none() -> None:
    eve = TextAgent(lie, like=NORMALISED)

    async def story(mesh: SimMesh) -> None:
        a, b, e = await neighbours(mesh, eve, believed=30)
        await work(a, e, 4)
        seen = a.spots.of(SHOUT, agent(e))
        assert (seen.others, seen.unlike) == (2, 2)
        assert (await learned(a, e)).count("unlike") == 2
        assert a.reputation.standing(SHOUT, agent(e)).bad_mu < 700_000, "it is weak"
        assert (a.spots.rows.of(SHOUT, agent(b)).gainsaid) == 2
        await work(a, e, 4)
        assert a.spots.of(SHOUT, agent(e)).others == 2, "nobody bears Bob out"

    play(story)


def test_to_know_a_published_answer_is_no_merit() -> None:
    carl = TextAgent(like=NORMALISED)

    async def story(mesh: SimMesh) -> None:
        a, b, c = await neighbours(mesh, carl, believed=30)
        await work(a, c, 12)
        seen = a.spots.of(SHOUT, agent(c))
        assert (seen.others, seen.unlike) == (4, 0), "each is asked once"
        assert sorted(carl.calls) == sorted([*WORDS, *["a"] * 12])
        assert set(await learned(a, c)) == {"served"}
        assert a.spots.rows.of(SHOUT, agent(b)).alike == 4

    play(story)


@pytest.mark.parametrize(
    ("believed", "like"),
    [(1, NORMALISED), (30, None)],
    ids=["its owner isn't believed", "it doesn't say what is alike"],
)
def test_else_nothing_is_asked(believed: int, like: Likeness | None) -> None:
    eve = TextAgent(lie, like=like)

    async def story(mesh: SimMesh) -> None:
        a, _, e = await neighbours(mesh, eve, believed=believed)
        await work(a, e, 4)
        assert asked(a) == []

    play(story)


# --- what a contractor sees --------------------------------------------------------------


def test_a_check_looks_like_any_task() -> None:
    worker = TextAgent(examples=examples())

    async def story(mesh: SimMesh) -> None:
        a, b = await claiming(mesh, worker)
        usual = [await a.submit(shouting(), inputs(w), Terms()) for w in ("a", "b")]
        states = [await a.wait(job) for job in usual]
        await until(lambda: bool(told(a, "spots.seen")), within_s=400.0)
        (check,) = asked(a)
        state = await a.wait(str(check["job"]))
        awards = [
            unit.attempts[0].award for s in (states[-1], state) for unit in s.units.values()
        ]
        assert shape(awards[0], states[-1]) == shape(awards[1], state)
        await trio.sleep(5.0)  # acceptances go out a moment later
        said = [await acceptances(b, one) for one in (states[-1], state)]
        assert shape(said[0][0], states[-1]) == shape(said[1][0], state)

    play(story)
