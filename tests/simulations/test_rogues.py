"""Nodes with other code do what they say; honest ones get along with them as far as they do.

What is not prevented today is claimed too: a test that begins to fail there is good news.
"""

import re
from typing import Literal

import msgspec
import pytest
import trio

from meshnode.domain.watching import RUNS_MIN, told
from meshnode.errors import InputInvalid
from meshnode.services.bodies import ACCEPTANCE, AWARD
from meshnode.services.directory import validate_record
from meshnode.services.events import Onlooker
from protocol.catalogue import PUSH
from protocol.graph import Source, SubTask, TaskGraph
from protocol.session import PROTOCOL
from simulations.adversaries import Liar, Slow
from simulations.agents import ECHO, UPPER, Act, Temper
from simulations.directory import SimDirectory
from simulations.eclipse import Eclipse
from simulations.mesh import CONFIG, NETWORK
from simulations.nuisances import Flooder, Replayer
from simulations.rogues import (
    Baiter,
    Boaster,
    Conduct,
    Dropper,
    Forger,
    PriceFixer,
    Repudiator,
    Welsher,
)
from simulations.roles import ROLES, Part, Whitewasher, deal, enter, read_part
from simulations.ruses import Ruse
from simulations.stage import Stage
from simulations.weather import CALM
from simulations.world import World, run
from tests.simulations.mischief import CHEAP, DEAR, ask, done_by, known, play


async def rivals(stage: Stage, conduct: Conduct) -> None:
    """Start a broker, a cheap node of that conduct, and an honest dear one."""
    stage.add(name="broker")
    stage.add([Act(UPPER, CHEAP)], name="bad", conduct=conduct)
    stage.add([Act(UPPER, DEAR)], name="good")
    await known(stage)


# --- brokers that don't pay --------------------------------------------------------------


def test_who_gives_no_receipt_has_its_cap_for_nothing_and_no_more() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker", conduct=Welsher())
        stage.add([Act(UPPER, DEAR)], name="n")
        await known(stage)
        ends = [await ask(stage, deadline_s=30.0) for _ in range(7)]
        stage.mesh.crash("n0")
        await stage.mesh.restart("n0")
        await known(stage)
        ends.append(await ask(stage, deadline_s=30.0))
        # A stranger may have 1,000 mc out.
        assert [bool(end.right) for end in ends] == [True] * 5 + [False] * 3
        assert all(end.cost_mc == 200 for end in ends[:5])
        await stage.rest(10.0)
        assert await stage.node("n0").contractor.receipts() == []
        troubles = await stage.troubles()
        assert len([t for t in troubles if "was never given its receipt" in t]) == 5
        # Others are served all the same.
        (other,) = stage.add(name="other")
        await known(stage)
        assert (await ask(stage, by=other)).right

    play(story)


def test_a_repudiator_tells_both_stories() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker", conduct=Repudiator())
        stage.add([Act(UPPER, DEAR)], name="n")
        await known(stage)
        end = await ask(stage)
        assert end.right
        assert end.cost_mc == 200
        await stage.rest(10.0)
        tallies = await stage.node("n0").tallies.tallies(0)
        (tally,) = [t for (_, capability), t in tallies.items() if capability == "text.upper@1"]
        assert (tally.finished, tally.rejected, tally.earned_mc) == (1, 1, 0)
        told = [t for t in await stage.troubles() if "hold different receipts" in t]
        assert len(told) == 1

    play(story)


# --- contractors that don't keep their word ----------------------------------------------


def test_who_drops_an_award_is_waited_for_and_replaced() -> None:
    async def story(stage: Stage) -> None:
        await rivals(stage, Dropper())
        end = await ask(stage, deadline_s=120.0)
        assert end.right
        assert await done_by(stage, end) == ["bad0", "good0"]
        # Today a broker waits for the whole time of the award, 5 s and 30 s of slack, and
        # 15 s for the answer: no sign of life is asked for.
        assert 45 < end.took_s < 60
        await stage.settle()

    play(story)


@pytest.mark.parametrize("reason", ["busy", "offer_expired", "terms"])
def test_who_keeps_no_proposal_costs_a_moment(
    reason: Literal["busy", "offer_expired", "terms"],
) -> None:
    async def story(stage: Stage) -> None:
        await rivals(stage, Baiter(reason=reason))
        end = await ask(stage)
        assert end.right
        assert await done_by(stage, end) == ["bad0", "good0"]
        assert end.took_s < 3.0
        assert await done_by(stage, await ask(stage)) == ["bad0", "good0"], "nobody learns"
        await stage.settle()

    play(story)


def test_baiters_alone_starve_a_job_and_it_ends_all_the_same() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([UPPER], n=3, name="bad", conduct=Baiter())
        await known(stage)
        end = await ask(stage, deadline_s=900.0)
        assert (end.state, end.code) == ("failed", "node.busy")
        await stage.settle()

    play(story)


def test_who_boasts_is_believed_until_enough_was_seen() -> None:
    slow = Slow(more_s=3.0).of(Act(UPPER, Temper(price_mc=2)))

    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([slow], name="bad", conduct=Boaster())
        stage.add([UPPER], name="good")
        await known(stage)
        node = stage.node("broker0")
        onlooker = Onlooker()
        node.events.add(onlooker)
        for _ in range(RUNS_MIN):
            assert await done_by(stage, await ask(stage)) == ["bad0"]
        for _ in range(2):
            assert await done_by(stage, await ask(stage)) == ["good0"]
            await trio.sleep(700.0)  # every offer has lapsed, and it makes the same again
        boast = stage.node("bad0").host.capabilities()[0]
        seen = node.market.watched(stage.node("bad0").peer, boast)
        assert seen.overclaims
        assert seen.n == RUNS_MIN
        assert told(seen).startswith("claims 1 ms, says it ran 3")
        heard = [one for one in await onlooker.several() if one.name == "claims.exceeded"]
        assert [one.fields["n"] for one in heard] == [RUNS_MIN]
        await stage.settle()

    play(story)


LARGE = "so it is " * 4_000  # more than a message holds


def test_forged_bytes_are_refused_and_the_work_is_done_elsewhere() -> None:
    async def story(stage: Stage) -> None:
        await rivals(stage, Forger())
        end = await ask(stage, LARGE)
        assert end.right
        assert await done_by(stage, end) == ["bad0", "good0"]
        await stage.settle()

    play(story)


def test_forged_bytes_between_contractors_are_refused_too() -> None:
    graph = TaskGraph(
        name="twice",
        subtasks=[
            SubTask(
                id="first",
                capability="text.upper@1",
                inputs={"text": Source(kind="input", name="text")},
            ),
            SubTask(
                id="second",
                capability="text.echo@1",
                inputs={"text": Source(kind="task", name="first", pointer="/text")},
            ),
        ],
        outputs={"result": Source(kind="task", name="second", pointer="")},
    )

    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([Act(UPPER, CHEAP)], name="bad", conduct=Forger(spares_brokers=True))
        stage.add([Act(ECHO, DEAR)], name="good")
        await known(stage)
        end = await stage.submit(graph, {"text": LARGE}, by="broker0")
        assert end.result == {"text": LARGE.upper()}
        assert await done_by(stage, end) == ["bad0", "good0", "good0"]
        await stage.settle()

    play(story)


# --- prices ------------------------------------------------------------------------------


def test_a_cartel_raises_its_prices_at_once_and_loses_to_who_stays_out() -> None:
    cartel = PriceFixer(floor_mc=500, at_s=30.0)

    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([Act(UPPER, CHEAP)], n=2, name="member", conduct=cartel)
        await known(stage)
        assert (await ask(stage)).cost_mc == 0
        await trio.sleep_until(32.0)
        assert (await ask(stage)).cost_mc == 0, "a standing offer binds whoever made it"
        await trio.sleep_until(700.0)
        refused = await ask(stage, budget_mc=499)
        assert (refused.state, refused.code) == ("failed", "budget.exceeded")
        assert (await ask(stage)).cost_mc == 500
        stage.add([Act(UPPER, DEAR)], name="outside")
        await known(stage)
        assert (await ask(stage)).cost_mc == DEAR.price_mc
        await stage.settle()

    play(story)


def test_a_price_that_is_raised_during_the_work_is_not_charged() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        act = Act(UPPER, Temper(latency_s=(4.0, 4.0), price_mc=7))
        stage.add([act], name="n", conduct=PriceFixer(floor_mc=500, at_s=12.0))
        await known(stage)
        end = await ask(stage)
        assert end.begun_s < 12.0 < end.ended_s
        assert end.right
        assert end.cost_mc == 7
        await stage.settle()

    play(story)


# --- nuisances ---------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["cfps", "sessions", "records"])
def test_a_flood_is_put_off_and_others_are_served(
    what: Literal["cfps", "sessions", "records"],
) -> None:
    flood = Flooder(what=what, per_s=1_600, from_s=10.0, for_s=5.0)

    async def story(stage: Stage) -> None:
        stage.add([UPPER], name="n")
        stage.add(name="broker")
        stage.add(name="flooder", conduct=flood)
        await known(stage)
        await trio.sleep_until(12.0)
        ends = [await ask(stage) for _ in range(3)]
        assert all(end.right and end.took_s < 2.0 for end in ends)
        asked = sum(t.asked for t in (await stage.node("n0").tallies.tallies(0)).values())
        if what == "cfps":
            flooded_s = min(5.0, trio.current_time() - 10.0)
            assert 700 * flooded_s > 512 + 128 * flooded_s + 20 > asked > 512
        if what == "sessions":
            held = stage.world.network.transport(stage.mesh.peer("n0")).running
            flooder = stage.mesh.peer("flooder0")
            assert held[PROTOCOL, flooder] <= 4, "of 800 a second"
        await trio.sleep_until(25.0)
        await stage.settle()

    play(story)


def test_nothing_comes_of_old_messages() -> None:
    async def story(stage: Stage) -> None:
        heard: list[tuple[str, str, str]] = []

        def listen(name: str, happening: object) -> None:
            kind, fields = happening.name, happening.fields  # type: ignore[attr-defined]
            if kind.startswith("replay."):
                heard.append((kind, fields["method"], str(fields.get("why", ""))))

        stage.mesh.observers.append(listen)
        stage.add(name="broker")
        stage.add([Act(UPPER, CHEAP)], name="echoing", conduct=Replayer())
        stage.add([Act(UPPER, DEAR)], name="n")
        await known(stage)
        for i in range(5):
            assert (await ask(stage, f"text {i}")).right
        await trio.sleep(60.0)
        taken = {method for kind, method, _ in heard if kind == "replay.taken"}
        assert taken <= {PUSH}, "an old record is answered, and loses against the newer"
        refused = {method for kind, method, _ in heard if kind == "replay.refused"}
        assert {AWARD, ACCEPTANCE} <= refused
        await stage.settle()

    play(story)


# --- names -------------------------------------------------------------------------------


def test_a_whitewasher_is_new_again_and_again() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        stage.add([Act(UPPER, DEAR)], name="n")
        enter(stage, [Act(UPPER, CHEAP)], Liar(), Whitewasher(every_s=40.0), name="w")
        await known(stage)
        names: list[str] = []
        for _ in range(4):
            end = await ask(stage)
            assert end.right is False, "nothing is held against a new name"
            names += await done_by(stage, end)
            await trio.sleep(40.0)
        assert len(set(names)) == 4
        assert [m.name for m in stage.mesh.members.values() if m.retired] == names
        await stage.settle()

    play(story)


# --- eclipse -----------------------------------------------------------------------------


def eclipsed(*, catalogue: bool, honest_mc: int) -> tuple[str, bool | None]:
    """Return how a job ended whose broker looks for providers while the DHT is eclipsed."""
    found: list[tuple[str, bool | None]] = []
    directory = msgspec.structs.replace(CONFIG.directory, catalogue=catalogue)
    config = msgspec.structs.replace(CONFIG, directory=directory)

    async def scenario(world: World) -> None:
        honest = SimDirectory(
            world.random("directory"), validate_record(NETWORK, world.clock())
        )
        sky = Eclipse(honest, world.random("eclipse"))
        stage = Stage(world, weather=CALM, directory=sky, config=config)
        stage.add(name="broker")
        stage.add([Act(UPPER, Temper(price_mc=honest_mc))], name="n")
        (liar,) = stage.add([Liar().of(Act(UPPER, Temper(price_mc=100)))], name="bad")
        await stage.ready()
        sky.accomplices.append(stage.mesh.peer(liar))
        await trio.sleep(40.0)
        end = await ask(stage)
        found.append((end.state, end.right))

    run(scenario, seed=1, limit_s=600)
    return found[0]


def test_who_finds_others_by_the_dht_alone_finds_accomplices_alone() -> None:
    assert eclipsed(catalogue=False, honest_mc=200) == ("completed", False)
    assert eclipsed(catalogue=False, honest_mc=0) == ("completed", False)


def test_who_exchanges_catalogues_finds_the_honest_all_the_same() -> None:
    assert eclipsed(catalogue=True, honest_mc=0) == ("completed", True)


# --- roles -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROLES)
def test_every_role_says_what_it_gains(name: str) -> None:
    doc = ROLES[name].__doc__ or ""
    assert name == "honest" or re.search(r"\bgains?\b", doc)
    assert read_part({"role": name}) == Part(name, ROLES[name](), 1.0)


def test_a_role_is_read_with_its_knobs() -> None:
    part = read_part({"role": "flooder", "share": 0.25, "what": "records", "per_s": 9})
    assert part == Part("flooder", Flooder(what="records", per_s=9), 0.25)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "there is no role ''"),
        ({"role": "saint"}, "there is no role 'saint'"),
        ({"role": "liar", "share": 1.5}, "a share of 1.5"),
        ({"role": "liar", "share": "half"}, "a share of 'half'"),
        ({"role": "erring", "chance": 2}, "role erring: Expected `float` <= 1"),
        ({"role": "liar", "loud": True}, "role liar: Object contains unknown field `loud`"),
        ({"role": "exit_scam", "after_calls": -1}, "role exit_scam"),
        ({"role": "flooder", "what": "letters"}, "role flooder: Invalid enum value 'letters'"),
    ],
)
def test_what_is_no_role_is_refused(table: dict[str, object], why: str) -> None:
    with pytest.raises(InputInvalid, match=re.escape(why)):
        read_part(table)


def test_parts_are_dealt_by_their_shares() -> None:
    parts = [
        read_part({"role": "liar", "share": 0.2}),
        read_part({"role": "slow", "share": 0.5}),
    ]
    dealt = deal(parts, 10, World.chance(1, "deal"))
    assert sorted(part.name for part in dealt) == ["honest"] * 3 + ["liar"] * 2 + ["slow"] * 5
    assert dealt == deal(parts, 10, World.chance(1, "deal"))
    assert dealt != deal(parts, 10, World.chance(2, "deal"))


@pytest.mark.parametrize("name", ROLES)
def test_a_mesh_lives_with_one_of_each_role(name: str) -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        enter(stage, [Act(UPPER, Temper(price_mc=300))], read_part({"role": name}).role)
        stage.add([UPPER], name="good")
        await known(stage)
        assert (await ask(stage)).right
        assert not stage.mesh.failures
        assert not stage.watch.troubles

    play(story)


def test_roles_are_put_together() -> None:
    async def story(stage: Stage) -> None:
        stage.add(name="broker")
        (name,) = enter(stage, [UPPER], Liar(), Ruse(), Baiter(), name="x")
        with pytest.raises(InputInvalid):
            enter(stage, [UPPER], Baiter(), Dropper())
        await known(stage)
        end = await ask(stage, deadline_s=5.0)
        assert (await done_by(stage, end))[0] == name

    play(story)
