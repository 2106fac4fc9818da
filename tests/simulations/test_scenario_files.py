"""A scenario's file says what it means, or is told what is wrong and where."""

import math
from pathlib import Path

import pytest

from meshnode.errors import ConfigError
from simulations import scenarios
from simulations.agents import Temper
from simulations.scenario import Scenario, parse_scenario
from simulations.weather import Weather

HEAD = 'name = "x"\nstory = "Given one."\n'

WRONG = {
    "name = ": "is not TOML",
    "nodes = 3": "name is missing",
    HEAD + "nods = 3": "there is no key 'nods'; did you mean 'nodes'?",
    HEAD + "quality = 3": "there is no key 'quality'; there are name, story, nodes",
    HEAD + "[[agents]]\nskill = 'upper'\n[[agents]]\nskil = 'sum'": (
        "[[agents]] no. 2: there is no key 'skil'; did you mean 'skill'?"
    ),
    HEAD + "[[agents]]\nskill = 'upper'\ntemper = { slow_chanc = 1 }": (
        "[[agents]] no. 1, temper: there is no key 'slow_chanc'; did you mean 'slow_chance'?"
    ),
    HEAD + "[weather]\nlatency = 0.1": (
        "weather: there is no key 'latency'; did you mean 'latency_s'?"
    ),
    HEAD + "[weather]\nlatency_s = 'long'": "weather, latency_s: expected a number, got text",
    HEAD + "[churn]\nback = 1": "churn: there is no key 'back'; did you mean 'back_s'?",
    HEAD + "[churn]\nspared = 1.5": "churn, spared: expected a whole number, got a number",
    HEAD + "nodes = 'many'": "nodes: expected a whole number, got text",
    HEAD + "weather = 3": "weather: expected a table, got a whole number",
    HEAD + "faults = 3": "faults: expected a list, got a whole number",
    HEAD + "catalogue = 'no'": "catalogue: expected true or false, got text",
    HEAD + "directory = 'dns'": "directory: say one of kademlia, lossy, perfect",
    HEAD + "[[faults]]\nat_s = 1\nkind = 'fire'": (
        "[[faults]] no. 1, kind: say one of break, burst, crash, crash_at, disk, freeze"
    ),
    HEAD + "[[faults]]\nat_s = 1\nkind = 'crash'": "befalls nobody: say who or share",
    HEAD + "[[faults]]\nat_s = 1\nkind = 'crash'\nwho = ['n20']": (
        "faults: there is no node 'n20': they are n0 to n19"
    ),
    HEAD + "[[faults]]\nat_s = 1\nkind = 'crash_at'\nwho = ['n2']\npoint = 'after:lunch'": (
        "faults: there is no crash point at 'lunch' (there are job.planned, "
    ),
    HEAD + "[[faults]]\nat_s = 1\nkind = 'crash'\nwho = ['n2']\npoint = 'after:job.done'": (
        "faults: crash at 1 s has no point: say crash_at"
    ),
    HEAD + "[[agents]]\nskill = 'fly'": (
        "agents: there is no skill 'fly'; there are echo, upper, join, sum"
    ),
    HEAD + "[[load]]\nskill = 'fly'": "load: there is no skill 'fly'; there are echo",
    HEAD + "[[agents]]\nskill = 'sum'\nrole = 'thief'": (
        "agents: there is no role 'thief'; there are babbler, baiter, boaster, camouflaged"
    ),
    HEAD + "[[agents]]\nskill = 'sum'\nrole = 'slow'\nknobs = {cunning = 1}": (
        "agents: role slow: Object contains unknown field `cunning`; there are its knobs: m"
    ),
    HEAD + "nodes = 0": "nodes is 0",
    HEAD + "minutes = 0": "minutes is 0",
}


@pytest.mark.parametrize("text", WRONG, ids=WRONG.get)
def test_what_is_wrong_is_told_with_its_place(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text, where="mine.toml")
    assert str(caught.value).startswith("mine.toml")
    assert WRONG[text] in str(caught.value)


def test_a_file_can_say_all_that_a_scenario_can() -> None:
    text = """
    [weather]
    latency_s = 1
    bandwidth_bytes_per_s = inf
    [[agents]]
    skill = "upper"
    temper = { latency_s = [0.1, 2], price_mc = 7 }
    """
    scenario = parse_scenario(HEAD + text, where="here")
    assert scenario.weather == Weather(latency_s=1.0, bandwidth_bytes_per_s=math.inf)
    assert scenario.agents[0].temper == Temper(latency_s=(0.1, 2.0), price_mc=7)
    assert parse_scenario(HEAD, where="here") == Scenario(name="x", story="Given one.")


@pytest.mark.parametrize(
    "path", sorted(Path(str(scenarios.__file__)).parent.glob("*.toml")), ids=lambda p: p.stem
)
def test_the_files_that_come_with_it_are_right(path: Path) -> None:
    parse_scenario(path.read_text("utf-8"), where=path.name)
