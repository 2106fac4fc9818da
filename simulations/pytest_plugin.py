"""The pytest plugin: many-node meshes in users' own tests (docs/testing.md).

::

    async def test_a_crash_loses_no_job(mesh):
        mesh.add(agents=[reverse], n=50)
        mesh.later(1.0, mesh.crash, "n7")
        end = await mesh.submit("text.reversal@1", {"text": "hsem"})
        assert end.result == "mesh"

pytest loads this module wherever meshnode is installed, for people too who only run a
node.  So it imports nothing that pytest hasn't, until a test asks for a mesh.

The test itself is run by :mod:`simulations.world`, with its own Trio and its own clock.
Plugins that run async tests (pytest-trio, pytest-asyncio, anyio) get it as a plain function
and have nothing to do.
"""

import inspect
import os
import shlex
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Final, TypedDict, cast

import pytest

if TYPE_CHECKING:
    from simulations.stage import Stage
    from simulations.trial import Trial
    from simulations.weather import Weather

__all__ = ["mesh", "mesh_seed"]


class Options(TypedDict):
    """What the marker may say.

    Attributes:
        seed: Of the mesh.
        seeds: How many seeds the test is played with, from ``seed`` on.
        nodes: How many plain nodes there are from the start.
        weather: When nothing is wrong: a preset's name, or a ``Weather``.
        limit_s: The longest that the test may take, seconds of virtual time.
        settle: Whether all is checked when the test has passed.
    """

    seed: int
    seeds: int
    nodes: int
    weather: "str | Weather"
    limit_s: float
    settle: bool


#: What holds where no marker says otherwise.
DEFAULT: Final[Options] = {
    "seed": 0,
    "seeds": 1,
    "nodes": 0,
    "weather": "mild",
    "limit_s": 3600.0,
    "settle": True,
}
_MARKER: Final = (
    "mesh("
    + ", ".join(f"{name}={value!r}" for name, value in DEFAULT.items())
    + "): what the `mesh` of an async test is like (meshnode)"
)
#: The fixture through which every mesh gets its seed: who has it in reach has a mesh.
_SEED: Final = "mesh_seed"
_TRIAL: "Final[pytest.StashKey[Trial]]" = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the options."""
    group = parser.getgroup("mesh", "simulated meshes (meshnode)")
    group.addoption(
        "--mesh-seed", type=int, metavar="S", help="play tests that have a mesh with this seed"
    )
    group.addoption(
        "--mesh-trace",
        type=int,
        default=0,
        metavar="N",
        help="of those that fail, show the last N lines of what happened",
    )
    group.addoption(
        "--record-answers",
        action="store_true",
        help="ask the real agents behind recorded(…) for the answers that are not there yet",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


# --- what a test is given -----------------------------------------------------------


@pytest.fixture
def mesh_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's mesh."""
    return _seeds(request.node)[0]


@pytest.fixture
def mesh(request: pytest.FixtureRequest, mesh_seed: int) -> Iterator["Stage"]:
    """A simulated mesh (:class:`simulations.stage.Stage`), in virtual time."""
    from simulations.trial import Terms, Trial
    from simulations.wires import named_weather

    item = request.node
    if not inspect.iscoroutinefunction(item.obj):
        pytest.fail(f"a test that has a mesh is 'async def {item.originalname}'", pytrace=False)
    options = _options(item)
    weather = options["weather"]
    if isinstance(weather, str):
        try:
            weather = named_weather(weather)
        except LookupError as exc:
            raise pytest.fail.Exception(str(exc), pytrace=False) from None
    terms = Terms(
        seed=mesh_seed,
        command=_command(item, mesh_seed),
        nodes=options["nodes"],
        weather=weather,
        limit_s=options["limit_s"],
        settles=options["settle"],
        root=item.config.rootpath,
        records=item.config.getoption("--record-answers"),
        lines_max=item.config.getoption("--mesh-trace"),
    )
    trial = Trial(item.obj, terms)
    item.stash[_TRIAL] = trial
    yield trial.stage
    # pytest keeps its items to the end, and a mesh is large.
    del item.stash[_TRIAL]


def _options(item: pytest.Item) -> Options:
    """Return what the markers of ``item`` say; a nearer one has the last word."""
    options = dict(DEFAULT)
    for marker in reversed(list(item.iter_markers("mesh"))):
        if marker.args or marker.kwargs.keys() - options.keys():
            pytest.fail(
                f"mesh{(*marker.args, *marker.kwargs)} of {item.name}: the marker takes"
                f" {', '.join(f'{name}=…' for name in options)}",
                pytrace=False,
            )
        options |= marker.kwargs
    return cast("Options", options)


def _seeds(item: pytest.Item) -> list[int]:
    """Return what ``item`` is played with: what the command line says, or its markers."""
    wanted: int | None = item.config.getoption("--mesh-seed")
    if wanted is not None:
        return [wanted]
    options = _options(item)
    return list(range(options["seed"], options["seed"] + options["seeds"]))


def _command(item: pytest.Item, seed: int) -> str:
    """Return the command that plays ``item`` again, from where pytest was started."""
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    name = "::".join((path, *item.nodeid.split("::")[1:]))
    return f"pytest {shlex.quote(name)} --mesh-seed={seed}"


# --- how it is played ---------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # before fixtures with parameters are looked for
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play a test once for each of its seeds."""
    if _SEED not in metafunc.fixturenames:
        return
    _leave_out_backends(metafunc)
    if _options(metafunc.definition)["seeds"] > 1:
        seeds = _seeds(metafunc.definition)
        metafunc.parametrize(_SEED, seeds, ids=[f"seed{seed}" for seed in seeds])


def _leave_out_backends(metafunc: pytest.Metafunc) -> None:
    """Keep anyio's automatic mode from playing the test once for each of its loops."""
    backend, reached = "anyio_backend", metafunc._arg2fixturedefs
    asked = metafunc.definition.get_closest_marker("anyio") is not None
    needed = any(backend in definitions[-1].argnames for definitions in reached.values())
    if backend in metafunc.fixturenames and not asked and not needed:
        metafunc.fixturenames.remove(backend)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse fixtures that need a loop before the world has one."""
    if not isinstance(item, pytest.Function) or _SEED not in item.fixturenames:
        return
    reached = item._fixtureinfo.name2fixturedefs
    for name in item.fixturenames:
        if any(_needs_a_loop(definition.func) for definition in reached.get(name, ())[-1:]):
            pytest.fail(
                f"{item.originalname} has a mesh, whose time begins with the test, and the"
                f" fixture {name!r} needs an event loop before that: make it a plain function,"
                " or await it in the test",
                pytrace=False,
            )


def _needs_a_loop(function: object) -> bool:
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    return is_async or hasattr(function, "_force_trio_fixture")  # pytest-trio's own


@pytest.hookimpl(wrapper=True, trylast=True)  # the last to say what is called
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Play a test that has a mesh; to everybody after us it is a plain function."""
    __tracebackhide__ = True
    trial = pyfuncitem.stash.get(_TRIAL, None)
    if trial is None:
        return (yield)
    pyfuncitem.obj = trial.play
    try:
        return (yield)
    finally:
        pyfuncitem.obj = trial.test  # what a failure's traceback is cut at


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say how a failure is seen again."""
    report = yield
    trial = item.stash.get(_TRIAL, None)
    if trial is not None and report.failed:
        if trial.raised:
            report.sections.append(("what agents raised", "\n".join(trial.raised)))
        if trial.lines:
            report.sections.append(("mesh trace", "\n".join(trial.lines)))
        if trial.command not in report.longreprtext:
            report.sections.append(("mesh", f"replay: {trial.command}"))
    return report
