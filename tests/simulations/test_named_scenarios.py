"""What scenarios there are is what files there are."""

from collections import deque
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import msgspec
import pytest

from meshnode.errors import ConfigError
from meshnode.services.crash_points import JOB_LABELS, read_crash_point
from simulations import faults, scenarios
from simulations.player import play
from simulations.scenario import Trouble
from simulations.scenarios import first_sentence, named, names, scenario_at

if TYPE_CHECKING:
    from simulations.mesh import SimMesh


@pytest.mark.parametrize("name", names())
def test_a_scenario_can_be_played_and_tells_its_story(name: str) -> None:
    scenario = named(name)
    assert "given" in scenario.story.lower()
    assert len(first_sentence(scenario.story)) < 100
    assert named(name.replace("-", "_")) == scenario


#: Played with many seeds elsewhere, or too long to be played whole with every commit.
ELSEWHERE = {"rough-weather", "thousand-nodes", "day-of-churn"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in names() if name not in ELSEWHERE])
def test_what_a_story_claims_holds(name: str) -> None:
    outcome = play(named(name), seed=0)
    assert outcome.passed, (outcome.replay, outcome.troubles)


@pytest.mark.timeout(300)
def test_a_thousand_nodes_are_a_hundred_for_a_tenth_of_the_time_here() -> None:
    full = named("thousand-nodes")
    loads = tuple(msgspec.structs.replace(load, jobs_max=5, brokers=10) for load in full.load)
    expect = msgspec.structs.replace(full.expect, jobs_min=10)
    few = msgspec.structs.replace(full, nodes=100, minutes=6, load=loads, expect=expect)
    outcome = play(few, seed=0)
    assert outcome.passed, outcome.troubles
    assert outcome.figures["awards"] >= 100
    assert len({dot.up for dot in outcome.dots} | {w.up < 100 for w in outcome.windows}) == 2


@pytest.mark.timeout(300)
def test_a_day_of_churn_is_an_hour_of_forty_nodes_here() -> None:
    full = named("day-of-churn")
    loads = tuple(
        msgspec.structs.replace(load, per_minute=0.5, brokers=8) for load in full.load
    )
    expect = msgspec.structs.replace(full.expect, jobs_min=40)
    few = msgspec.structs.replace(full, nodes=40, minutes=60, load=loads, expect=expect)
    meshes: list[SimMesh] = []
    outcome = play(few, seed=0, shown=lambda stage: meshes.append(stage.mesh))
    assert outcome.passed, outcome.troubles
    lives = [member.lives for member in meshes[0].members.values()]
    assert lives[0] == 1, "the first one stays"
    assert max(lives) >= 3, "the others go again and again"
    assert sum(lives) > 1.5 * len(lives)
    ups = [window.up for window in outcome.windows]
    assert ups[0] > 35
    assert min(ups) < 32, "two thirds of them are there, in the long run"


def test_a_written_crash_point_is_reached_and_a_drawn_one_is_another_each_time() -> None:
    shares: dict[faults.Kind, int] = {"crash_at": 1}
    drawn = faults.draw_faults(Random(3), ["a", "b"], count=60, within_s=9, shares=shares)
    assert {fault.kind for fault in drawn} == {"crash_at"}
    points = {read_crash_point(fault.point) for fault in drawn}
    assert len({point.label for point in points}) > len(JOB_LABELS) / 2
    assert {point.number for point in points} == {1, 2, 3}

    trouble = Trouble(at_s=5, kind="crash_at", share=1.0, for_s=3, point="after:award.taken")
    story = msgspec.structs.replace(
        named("crash-points"), nodes=5, minutes=1, mishaps=None, faults=(trouble,)
    )
    lines = deque[str](maxlen=100_000)
    outcome = play(story, seed=2, lines=lines)
    assert outcome.passed, outcome.troubles
    died = [line for line in lines if "dies after:award.taken#1" in line]
    assert len(died) == 3, "each contractor at its first award, and never again"


def test_who_looks_on_changes_nothing() -> None:
    story = msgspec.structs.replace(named("crash-points"), minutes=1)
    told: list[float] = []
    watched = play(story, seed=1, progress=lambda passed_s, _: told.append(passed_s))
    assert told == sorted(told)
    assert len(told) > 100
    assert watched.digest == play(story, seed=1).digest


def test_modules_and_files_are_found() -> None:
    assert {"flash-crowd", "slow-network"} <= set(names())
    assert "five-nodes" not in names(), "it is none of ours to play"
    assert named("Flash Crowd") == named("flash-crowd")


def test_an_unknown_name_is_told_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match="no scenario 'flash-cowd'") as caught:
        named("flash-cowd")
    assert caught.value.hint == "did you mean flash-crowd or flood?"
    with pytest.raises(ConfigError) as caught:
        named("xyz")
    assert caught.value.hint == f"there are: {', '.join(names())}"


def test_a_file_beside_the_modules_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_own.toml").write_text('name = "mine"\nstory = "Given one."\n')
    monkeypatch.setattr(scenarios, "__path__", [*scenarios.__path__, str(tmp_path)])
    assert "my-own" in names()
    assert named("my-own").name == "mine"


def test_a_users_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml can't be read: No such file"):
        scenario_at(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        scenario_at(tmp_path / "bytes.toml")


@pytest.mark.parametrize(
    ("story", "sentence"),
    [
        ("One.", "One."),
        ("At 0.5 s it\nbegins. Then it ends.", "At 0.5 s it begins."),
        ("no end", "no end"),
        ("", ""),
    ],
)
def test_the_first_sentence_is_the_first(story: str, sentence: str) -> None:
    assert first_sentence(story) == sentence
