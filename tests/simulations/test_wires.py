"""What goes wrong between nodes, told by their names."""

import pytest
import trio

from simulations.stage import Stage
from simulations.weather import CALM, Weather
from simulations.wires import named_weather

pytestmark = pytest.mark.mesh(nodes=3, weather=CALM)


def weather(mesh: Stage, one: str, other: str) -> Weather:
    return mesh.world.network.weather(mesh.mesh.peer(one), mesh.mesh.peer(other))


def passes(mesh: Stage, one: str, other: str) -> bool:
    return mesh.world.network.passes(mesh.mesh.peer(one), mesh.mesh.peer(other))


async def test_everything_is_slow_for_a_while(mesh: Stage) -> None:
    mesh.network.slow(0.4, jitter_s=0.1, for_s=30)
    assert weather(mesh, "n0", "n1").latency_s == 0.4
    assert weather(mesh, "n0", "n1").jitter_s == 0.1
    await trio.sleep(29)
    assert weather(mesh, "n2", "n1").latency_s == 0.4
    await trio.sleep(2)
    assert weather(mesh, "n0", "n1") == CALM


async def test_one_link_is_slow_both_ways_and_no_other(mesh: Stage) -> None:
    mesh.network.slow(0.4, between=("n0", "n1"))
    assert weather(mesh, "n0", "n1").latency_s == weather(mesh, "n1", "n0").latency_s == 0.4
    assert weather(mesh, "n0", "n2") == CALM


async def test_a_slow_network_makes_jobs_late(mesh: Stage) -> None:
    mesh.add(name="desk")
    await mesh.ready()
    begun_s = trio.current_time()
    await mesh.node("desk0").directory.search("text", timeout_s=9)
    quick_s = trio.current_time() - begun_s
    mesh.network.slow(0.5)
    begun_s = trio.current_time()
    await mesh.world.network.round_trip(mesh.mesh.peer("desk0"), mesh.mesh.peer("n1"))
    assert trio.current_time() - begun_s == pytest.approx(1.0)
    assert quick_s < 1.0


async def test_changes_lie_on_top_of_each_other_and_end_in_any_order(mesh: Stage) -> None:
    mesh.network.slow(0.1, for_s=20)
    mesh.network.lossy(break_chance=0.5, dial_failure_chance=0.2, for_s=10)
    mesh.network.slow(0.3, between=("n0", "n1"), for_s=30)
    here, there = weather(mesh, "n0", "n1"), weather(mesh, "n0", "n2")
    assert (here.latency_s, here.break_chance, here.dial_failure_chance) == (0.3, 0.5, 0.2)
    assert (there.latency_s, there.break_chance) == (0.1, 0.5)
    await trio.sleep(15)
    here, there = weather(mesh, "n0", "n1"), weather(mesh, "n0", "n2")
    assert (here.latency_s, here.break_chance) == (0.3, 0.0)
    assert (there.latency_s, there.break_chance) == (0.1, 0.0)
    await trio.sleep(10)
    assert weather(mesh, "n0", "n1").latency_s == 0.3
    assert weather(mesh, "n0", "n2") == CALM
    await trio.sleep(10)
    assert weather(mesh, "n0", "n1") == CALM


async def test_a_cut_is_between_two_and_heals(mesh: Stage) -> None:
    mesh.network.cut("n0", "n1", for_s=10)
    assert not passes(mesh, "n0", "n1")
    assert not passes(mesh, "n1", "n0")
    assert passes(mesh, "n0", "n2")
    await trio.sleep(11)
    assert passes(mesh, "n0", "n1")
    mesh.network.cut("n0", "n1", one_way=True)
    assert not passes(mesh, "n0", "n1")
    assert passes(mesh, "n1", "n0")


@pytest.mark.parametrize("healed", ["mend", "heal"])
async def test_all_of_it_is_undone_at_once(mesh: Stage, healed: str) -> None:
    mesh.network.slow(0.4)
    mesh.network.lossy(break_chance=0.1, between=("n0", "n1"), for_s=5)
    mesh.network.cut("n0", "n2", for_s=5)
    if healed == "mend":
        mesh.network.mend()
    else:
        await mesh.heal()
    for _ in range(2):
        assert weather(mesh, "n0", "n1") == weather(mesh, "n0", "n2") == CALM
        assert passes(mesh, "n0", "n2")
        await trio.sleep(10)  # and what was to end by itself finds nothing to do


def test_presets_have_names() -> None:
    assert named_weather("calm") is CALM
    assert named_weather("mild") == Weather()
    with pytest.raises(
        LookupError,
        match="there is no weather 'awful'; there are calm, lan, mild, rough, world",
    ):
        named_weather("awful")
