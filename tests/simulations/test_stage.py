"""What scenarios and users' tests are written with."""

import gc
from typing import TYPE_CHECKING

import pytest
import trio

import simulations.world
from meshnode.node import Node
from meshnode.services.broker import Broker
from meshnode.services.records import OwnRecord
from simulations.agents import ECHO, UPPER, Act, Temper
from simulations.mesh import Down
from simulations.stage import Broken, Stage
from simulations.world import World, run

if TYPE_CHECKING:
    from meshnode.ports import JsonValue


def test_a_job_is_done_although_nodes_crash_and_all_is_checked() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        names = mesh.add(agents=[UPPER], n=6)
        asker = mesh.add()[0]
        await mesh.ready()
        await trio.sleep(2)
        for name in names[:3]:
            mesh.crash(name, for_s=20)
        end = await mesh.submit("text.upper@1", {"text": "so it is"}, by=asker)
        assert (end.state, end.result) == ("completed", {"text": "SO IT IS"})
        await mesh.settle()
        assert mesh.up() == [*names, asker]

    run(story, seed=3)


def test_names_go_on_counting() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        assert mesh.add(n=2) == ["n0", "n1"]
        assert mesh.add(n=2) == ["n2", "n3"]
        await mesh.ready()
        assert mesh.add(name="desk") == ["desk0"]
        assert mesh.add() == ["n4"]
        await mesh.ready()
        assert mesh.up() == ["n0", "n1", "n2", "n3", "desk0", "n4"]

    run(story, seed=1)


def test_a_job_whose_broker_is_down_is_taken_when_it_is_back() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=2)
        await mesh.ready()
        mesh.crash("n1", for_s=10)
        end = await mesh.submit("text.echo@1", {"text": "x"}, by="n1")
        assert end.state == "completed"
        assert 10 < end.took_s < 15
        await mesh.settle()

    run(story, seed=1)


def test_a_job_that_nobody_can_do_ends_as_refused_and_says_why() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=2)
        end = await mesh.submit("text.upper@1", {"text": "x"}, deadline_s=20)
        assert (end.state, end.outputs) == ("refused", None)
        assert "text.upper" in end.text
        await mesh.settle()

    run(story, seed=1)


@pytest.mark.parametrize("resumes", [True, False])
def test_a_job_whose_broker_is_away_past_its_deadline_has_to_end_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, *, resumes: bool
) -> None:
    async def forgets(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[Act(ECHO, Temper(latency_s=(10.0, 10.0)))])
        mesh.add()
        await mesh.ready()
        mesh.later(2.0, lambda: mesh.crash("n1", for_s=120.0))
        end = await mesh.submit("text.echo@1", {"text": "x"}, by="n1", deadline_s=20.0)
        assert end.state == "lost"
        if not resumes:
            monkeypatch.setattr(Broker, "_resume", forgets)
        if resumes:
            await mesh.settle()
        else:
            with pytest.raises(Broken, match="it has no end, and its broker is back"):
                await mesh.settle()

    run(story, seed=1)


def test_a_job_that_never_ends_is_lost_and_found_out() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=2)
        await mesh.ready()
        mesh.crash("n1")
        world.nursery.start_soon(crash_again_and_again, mesh)
        end = await mesh.submit("text.echo@1", {"text": "x"}, by="n1", deadline_s=10)
        assert end.state == "refused", "nobody ever took it"
        assert "n1 is down" in end.text

    async def crash_again_and_again(mesh: Stage) -> None:
        while True:
            await trio.sleep(0.1)
            mesh.crash("n1")

    run(story, seed=1)


def test_who_is_cut_off_and_frozen_is_healed_by_settling() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        names = mesh.add(agents=[ECHO], n=4)
        await mesh.ready()
        mesh.partition(names[:2])
        mesh.freeze(names[3])
        await trio.sleep(30)
        assert not world.network.passes(mesh.mesh.peer("n0"), mesh.mesh.peer("n2"))
        assert world.network.passes(mesh.mesh.peer("n0"), mesh.mesh.peer("n1"))
        await mesh.settle()
        for one, other in (("n0", "n2"), ("n2", "n3")):
            await mesh.node(one).sessions.connect(mesh.mesh.peer(other))

    run(story, seed=1)


def test_what_goes_wrong_for_a_time_is_over_after_it() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=3)
        await mesh.ready()
        mesh.partition(["n0"], ["n1"], for_s=5)
        mesh.freeze("n2", for_s=5)
        await trio.sleep(4.9)
        assert not world.network.passes(mesh.mesh.peer("n0"), mesh.mesh.peer("n1"))
        await trio.sleep(0.2)
        assert world.network.passes(mesh.mesh.peer("n0"), mesh.mesh.peer("n1"))
        await mesh.node("n0").sessions.connect(mesh.mesh.peer("n2"))

    run(story, seed=1)


def test_an_agent_that_answers_wrongly_is_seen_by_who_knows_better() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=1)
        wanted: dict[str, JsonValue] = {"result": {"text": "Y"}}
        end = await mesh.submit("text.echo@1", {"text": "x"}, wanted=wanted)
        assert end.right is False
        end = await mesh.submit("text.echo@1", {"text": "Y"}, wanted=wanted)
        assert end.right is True

    run(story, seed=1)


def test_settling_tells_all_that_must_not_be() -> None:
    async def told(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[ECHO], n=2)
        await mesh.ready()
        with mesh.book.open("n0", "job/a/0/0"):
            await mesh.settle(rest_s=10)

    with pytest.raises(Broken, match=r"n0 still runs job/a/0/0"):
        run(told, seed=1)


def test_a_stage_without_nodes_says_so() -> None:
    async def story(world: World) -> None:
        with pytest.raises(Down, match="add one"):
            await Stage(world).submit("text.echo@1", {"text": "x"})

    run(story, seed=1)


def test_a_node_at_work_does_not_sign_a_record_for_every_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signed: list[str] = []
    sign = OwnRecord.sign

    async def counted(self: OwnRecord, *told: object) -> bytes:
        signed.append("record")
        return await sign(self, *told)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(OwnRecord, "sign", counted)

    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[Act(ECHO, Temper(latency_s=(0.5, 0.6)))], n=2)
        await mesh.ready()
        for i in range(40):
            await mesh.submit("text.echo@1", {"text": f"x{i}"})
            await trio.sleep(1)
        assert len(mesh.ends) == 40
        assert len(signed) <= 6, "two at the start, two for the first measurement, some slack"

    run(story, seed=1)


def test_what_ended_nodes_leave_is_collected_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulations.world, "_GC_ENDED", 4)
    alive: list[int] = []

    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[UPPER], n=2)
        await mesh.ready()
        for _ in range(12):
            mesh.crash("n1")
            await trio.sleep(1)
            await mesh.mesh.restart("n1")
            await trio.sleep(1)
        alive.append(sum(isinstance(one, Broker) for one in gc.get_objects()))

    run(story, seed=1)
    assert alive[0] <= 2 + 4 + 1, "those that run, and what a few have left"


def test_nothing_holds_a_node_that_has_ended_while_its_place_waits_for_it() -> None:
    async def story(world: World) -> None:
        mesh = Stage(world)
        mesh.add(agents=[UPPER], n=3)
        await mesh.ready()
        await mesh.submit("text.upper@1", {"text": "x"}, by="n0")
        for name in ("n1", "n2"):
            mesh.crash(name)
            await trio.sleep(1)
            await mesh.mesh.restart(name)
            await trio.sleep(1)
            mesh.crash(name)
        await trio.sleep(60)
        gc.collect()
        nodes = [one for one in gc.get_objects() if isinstance(one, Node)]
        assert nodes == [mesh.node("n0")]

    run(story, seed=1)
