"""The pytest plugin, on suites of users' tests that a second pytest runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

import pytest

import simulations.trial  # noqa: F401 - once for all runs: each drops what it imports itself
from meshnode import public  # noqa: F401 - the same

AGENT = """
import pytest, trio
from meshnode import agent

@agent("text.reversal@1")
def reverse(text: str) -> str:
    '''Return a text backwards.'''
    return text[::-1]
"""
STORY = """
async def test_a_job(mesh):
    mesh.add(agents=[reverse], n=3)
    end = await mesh.submit("text.reversal@1", {"text": "hsem"})
    assert end.result == "mesh"

class TestClass:
    @pytest.mark.parametrize("word", ["one", "two"])
    async def test_method(self, word, mesh, tmp_path, monkeypatch):
        mesh.add(n=2)
        await trio.sleep(1000)
        assert tmp_path.is_dir() and len(mesh.up()) == 2

@pytest.mark.mesh(seeds=2, seed=5)
async def test_seeds(mesh, mesh_seed):
    assert mesh.world.seed == mesh_seed

def test_without_a_mesh():
    pass
"""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pytest's summaries be those that users see: in CI they repeat every message."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


def play(pytester: pytest.Pytester, test: str, *options: str) -> pytest.RunResult:
    """Run a suite with one file, in this process."""
    pytester.makepyfile(test_it=AGENT + test)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def errors(result: pytest.RunResult) -> str:
    """Return what failures say, on one line."""
    return " ".join(re.sub(r"^E  ", "", line) for line in result.outlines)


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "no:trio", "-p", "no:anyio"),
        ("-o", "trio_mode=true"),
        ("-o", "anyio_mode=auto"),
        ("-o", "anyio_mode=auto", "-o", "trio_mode=true"),
        ("--strict-markers", "--import-mode=importlib", "-W", "error"),
    ],
    ids=" ".join,
)
def test_a_test_is_played_once_whoever_runs_async_tests_otherwise(
    pytester: pytest.Pytester, options: Sequence[str]
) -> None:
    result = play(pytester, STORY, "-v", *options)
    result.assert_outcomes(passed=6)
    assert {line.split()[0] for line in result.outlines if "PASSED" in line} == {
        "test_it.py::test_a_job",
        "test_it.py::TestClass::test_method[one]",
        "test_it.py::TestClass::test_method[two]",
        "test_it.py::test_seeds[seed5]",
        "test_it.py::test_seeds[seed6]",
        "test_it.py::test_without_a_mesh",
    }


def test_workers_play_it_too(pytester: pytest.Pytester) -> None:
    play(pytester, STORY, "-n", "1").assert_outcomes(passed=6)


def test_an_async_test_without_a_mesh_is_left_to_others(pytester: pytest.Pytester) -> None:
    test = "async def test_it(autojump_clock):\n    await trio.sleep(1)"
    play(pytester, test, "-o", "trio_mode=true").assert_outcomes(passed=1)


def test_a_fixture_called_mesh_of_the_users_own_is_left_alone(
    pytester: pytest.Pytester,
) -> None:
    test = """
@pytest.fixture
def mesh():
    return "net"

def test_it(mesh):
    assert mesh == "net"
"""
    play(pytester, test).assert_outcomes(passed=1)


FAILS = """
@pytest.mark.mesh(seeds=3)
async def test_fails(mesh, mesh_seed):
    mesh.add(n=2)
    await mesh.ready()
    assert mesh_seed != 2
"""


def test_a_failure_names_the_command_that_replays_it(pytester: pytest.Pytester) -> None:
    result = play(pytester, FAILS)
    result.assert_outcomes(passed=2, failed=1)
    (replay,) = [line for line in result.outlines if "replay: " in line]
    program, *arguments = shlex.split(replay.partition("replay: ")[2])
    assert (program, *arguments) == ("pytest", "test_it.py::test_fails[seed2]", "--mesh-seed=2")
    again = pytester.runpytest_inprocess(*arguments)
    again.assert_outcomes(failed=1)
    seen = re.compile(r"seed 2, trace [0-9a-f]{16}")
    assert seen.findall(errors(again)) == seen.findall(errors(result)) != []


def test_a_run_is_the_same_in_every_process(pytester: pytest.Pytester) -> None:
    test = STORY.replace("    end = ", "    mesh.later(0.1, mesh.crash, 'n0')\n    end = ")
    test = test.replace('== "mesh"', '== "mesh"\n    assert 0, mesh.world.trace.digest()')
    here = play(pytester, test, "-k", "test_a_job")
    digest = re.search(r"AssertionError: ([0-9a-f]{64})", errors(here))
    assert digest is not None
    others = [f"no:{name}" for name in ("trio", "anyio", "hypothesispytest", "xdist")]
    for hash_seed, options in ((1, []), (2, [arg for name in others for arg in ("-p", name)])):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-k", "test_a_job", *options],
            cwd=pytester.path,
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert digest[1] in done.stdout


def test_a_failure_without_a_traceback_names_it_too(pytester: pytest.Pytester) -> None:
    test = "async def test_it(mesh):\n    pytest.fail('no', pytrace=False)"
    assert errors(play(pytester, test)).count("pytest test_it.py::test_it --mesh-seed=0") == 1


def test_the_command_names_the_file_from_where_pytest_was_started(
    pytester: pytest.Pytester,
) -> None:
    pytester.mkdir("deep")
    pytester.makeini("[pytest]")
    pytester.makepyfile(**{"deep/test_it": AGENT + FAILS})
    pytester.chdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pytester.path / "deep")
        result = pytester.runpytest_inprocess()
    assert "replay: pytest 'test_it.py::test_fails[seed2]'" in errors(result)


def test_a_seed_of_the_command_line_takes_the_place_of_all_others(
    pytester: pytest.Pytester,
) -> None:
    test = """
@pytest.mark.mesh(seed=3)
async def test_one(mesh):
    assert mesh.world.seed == 9

@pytest.mark.mesh(seeds=4)
async def test_several(mesh):
    assert mesh.world.seed == 9
"""
    play(pytester, test, "--mesh-seed=9").assert_outcomes(passed=2)


def test_a_trace_is_shown_where_it_was_asked_for(pytester: pytest.Pytester) -> None:
    test = "async def test_it(mesh):\n    mesh.world.trace.note('a wonder')\n    assert 0"
    assert "a wonder" not in play(pytester, test, "--tb=short").stdout.str()
    shown = play(pytester, test, "--tb=short", "--mesh-trace=5").stdout.str()
    assert "mesh trace" in shown
    assert "a wonder" in shown


def test_markers_add_up_and_the_nearest_has_the_last_word(pytester: pytest.Pytester) -> None:
    test = """
from simulations.weather import CALM

pytestmark = pytest.mark.mesh(nodes=2, seed=4, weather=CALM)

@pytest.mark.mesh(seed=8)
class TestIt:
    @pytest.mark.mesh(nodes=3)
    async def test_it(self, mesh):
        assert (mesh.world.seed, mesh.up()) == (8, ["n0", "n1", "n2"])
        assert mesh.mesh.fair is CALM

    @pytest.mark.mesh(weather="calm")
    async def test_by_name(self, mesh):
        assert mesh.mesh.fair is CALM
"""
    play(pytester, test).assert_outcomes(passed=2)


def test_a_fixture_may_add_nodes_before_time_begins(pytester: pytest.Pytester) -> None:
    test = """
@pytest.fixture
def four(mesh):
    assert mesh.add(agents=[reverse], n=4) == ["n1", "n2", "n3", "n4"]
    return mesh

@pytest.mark.mesh(nodes=1)
async def test_it(four):
    assert four.up() == ["n0", "n1", "n2", "n3", "n4"]
    assert four.add() == ["n5"]
    assert (await four.submit("text.reversal@1", {"text": "ab"})).result == "ba"

class TestThatOverrides:
    @pytest.fixture
    def mesh(self, mesh):
        mesh.add(name="seed")
        return mesh

    async def test_it(self, mesh):
        assert mesh.up() == ["seed0"]
"""
    play(pytester, test).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("def test_it(mesh): pass", "a test that has a mesh is 'async def test_it'"),
        (
            "@pytest.fixture\nasync def db(): pass\nasync def test_it(mesh, db): pass",
            "the fixture 'db' needs an event loop",
        ),
        (
            "@pytest.fixture\nasync def db(): yield\nasync def test_it(db, mesh): pass",
            "the fixture 'db' needs an event loop",
        ),
        ("async def test_it(mesh, nursery): pass", "the fixture 'nursery' needs an event loop"),
        (
            "@pytest.mark.mesh(weather='bad')\nasync def test_it(mesh): pass",
            "there is no weather 'bad'; there are calm, lan, mild, rough, world",
        ),
        (
            "@pytest.mark.mesh(sed=1)\nasync def test_it(mesh): pass",
            "mesh('sed',) of test_it: the marker takes seed=…, seeds=…",
        ),
        (
            "@pytest.mark.mesh(7)\nasync def test_it(mesh): pass",
            "mesh(7,) of test_it: the marker takes seed=…, seeds=…",
        ),
        (
            "@pytest.fixture\ndef bad(mesh): mesh.crash('n0')\nasync def test_it(bad): pass",
            "a mesh begins with its test: before that, in a fixture, mesh.add(…) is all",
        ),
        (
            "async def test_it(mesh): mesh.add(); mesh.crash('n0')",
            "n0 isn't up yet: await mesh.ready()",
        ),
        ("async def test_it(mesh): mesh.freeze('n0')", "n0 is nobody"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(
    pytester: pytest.Pytester, test: str, told: str
) -> None:
    result = play(pytester, test, "-o", "trio_mode=true")
    assert result.ret
    assert told in errors(result)


BROKEN = """
@pytest.mark.mesh(settle=%s, nodes=1)
async def test_it(mesh):
    mesh.watch.troubles.append("the sky is green")
"""


def test_what_must_hold_is_checked_at_the_end(pytester: pytest.Pytester) -> None:
    result = play(pytester, BROKEN % True)
    result.assert_outcomes(failed=1)
    assert "Broken: what must hold does not:       the sky is green" in errors(result)
    assert "replay: pytest test_it.py::test_it --mesh-seed=0" in errors(result)
    assert "trio/_core" not in result.stdout.str(), "a traceback through Trio tells nothing"
    play(pytester, BROKEN % False).assert_outcomes(passed=1)


def test_what_waits_for_ever_ends_and_says_where_it_waits(pytester: pytest.Pytester) -> None:
    test = """
@pytest.mark.mesh(limit_s=50, nodes=2)
async def test_it(mesh):
    await trio.sleep_forever()

async def test_a_limit_of_its_own(mesh):
    with trio.fail_after(1):
        await trio.sleep_forever()
"""
    result = play(pytester, test)
    result.assert_outcomes(failed=2)
    told = errors(result).partition("short test summary")[0]
    first, _, second = told.partition("test_a_limit_of_its_own")
    assert "TooSlowError: the test has not ended within 50 s of virtual time" in first
    assert "await trio.sleep_forever()" in first
    assert "the test has not ended" not in second


OUTSIDE = """
import socket
from trio.lowlevel import spawn_system_task as spawn
from trio.to_thread import run_sync as in_thread

@agent("text.outside@1")
async def ask_outside(text: str) -> str:
    one, other = socket.socketpair()
    with one, other:
        %s
    return text

async def answer(other):
    await trio.sleep(20)
    other.send(b"x")

def too_late():
    raise RuntimeError

async def test_it(mesh):
    mesh.add(agents=[ask_outside], n=2)
    mesh.later(30, too_late)
    await mesh.submit("text.outside@1", {"text": "a"})
"""


@pytest.mark.parametrize(
    "wait",
    [
        "await trio.lowlevel.wait_readable(one)",
        # A thread can't be cancelled: it ends when it is answered.
        "spawn(answer, other); await in_thread(one.recv, 1)",
    ],
    ids=["socket", "thread"],
)
def test_what_waits_for_the_real_world_is_told(pytester: pytest.Pytester, wait: str) -> None:
    result = play(pytester, OUTSIDE % wait)
    result.assert_outcomes(failed=1)
    assert "RealTime: a socket, a process or a thread is waited for (by n" in errors(result)


def test_what_an_agent_raised_is_shown_with_its_line(pytester: pytest.Pytester) -> None:
    test = """
@agent("text.failure@1")
def fail(text: str) -> str:
    return text + 1  # which is a mistake

async def test_it(mesh):
    mesh.add(agents=[fail], n=2)
    end = await mesh.submit("text.failure@1", {"text": "a"})
    assert end.state == "completed"
"""
    shown = play(pytester, test).stdout.str()
    assert "- what agents raised -" in shown
    assert "fail at n" in shown
    assert "return text + 1  # which is a mistake" in shown
    assert "TypeError: can only concatenate str" in shown
    assert "direct cause" not in shown, "what was made of it is no news"


def test_what_fails_beside_the_test_is_told_by_itself(pytester: pytest.Pytester) -> None:
    test = """
async def test_later(mesh):
    mesh.later(1, mesh.crash, "n9")
    await trio.sleep(10)

def upper(text): return text.upper()

async def test_no_agent(mesh):
    mesh.add(agents=[upper])
    await mesh.ready()

async def test_none_made(mesh):
    mesh.add(agents=[lambda: None])
    await mesh.ready()

async def test_several(mesh):
    async with trio.open_nursery() as nursery:
        async def fail(): assert False, "this and that"
        nursery.start_soon(fail)
        nursery.start_soon(fail)
"""
    result = play(pytester, test, "--tb=short")
    result.assert_outcomes(failed=4)
    told = errors(result)
    assert "Down: n9 is nobody" in told
    assert told.count("is no agent, and makes none: decorate it with @agent(…)") >= 2
    assert told.count("Exception Group Traceback") == 1
    assert told.count("--mesh-seed=0") == 4


def test_a_time_limit_of_real_time_ends_a_test_and_the_next_one_runs(
    pytester: pytest.Pytester,
) -> None:
    test = """
@pytest.mark.timeout(1)
async def test_never_yields(mesh):
    while True:
        pass

async def test_next(mesh):
    mesh.add(n=2)
"""
    result = play(pytester, test)
    result.assert_outcomes(failed=1, passed=1)
    assert "replay: pytest test_it.py::test_never_yields --mesh-seed=0" in errors(result)


def test_a_mesh_is_not_kept_when_its_test_has_ended(pytester: pytest.Pytester) -> None:
    test = """
import gc, weakref

seen = []

async def test_one(mesh):
    seen.append(weakref.ref(mesh))

def test_it_is_gone():
    gc.collect()
    assert seen[0]() is None
"""
    play(pytester, test).assert_outcomes(passed=2)


HEAVY = ("trio", "msgspec", "meshnode", "protocol", "simulations.world", "outcome")


def test_it_costs_nothing_where_nobody_asks_for_a_mesh(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"import sys\n\ndef test_it():\n    loaded = {{*sys.modules}} & {{*{HEAVY}}}\n"
        "    assert 'simulations.pytest_plugin' in sys.modules\n    assert loaded == set()\n"
    )
    others = [f"no:{name}" for name in ("trio", "anyio", "hypothesispytest", "xdist")]
    options = [option for name in others for option in ("-p", name)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
