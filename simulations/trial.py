"""One test of a user's, played in a world of its own.

The plugin (:mod:`simulations.pytest_plugin`) is loaded in every run of pytest in which
meshnode is installed and must cost nothing there; what a test that has a ``mesh`` needs
begins here.
"""

import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import unwrap
from pathlib import Path
from typing import Final, Unpack

import trio
from typing_extensions import override

from simulations.answers import Answers, NotRecorded
from simulations.stage import Broken, Offer, Place, Stage, fresh_names
from simulations.weather import Weather
from simulations.world import World, run

#: What the test is: an async function, with its fixtures as arguments.
Test = Callable[..., Awaitable[object]]


#: How often somebody looks whether anything waits for the real world, seconds.
_LOOK_S: Final = 1.0


class RealTime(AssertionError):
    """Something waits for the real world, for which virtual time can't wait."""


class NotYet(AttributeError):
    """A mesh was asked for something before its time had begun."""


class Rehearsal(Stage):
    """A stage that fixtures are given before its world exists.

    They may add nodes, which start when the test does.
    """

    def __init__(self, *, nodes: int, weather: Weather, answers: Answers) -> None:
        """Make a stage with ``nodes`` plain nodes, to come."""
        self._setting = (weather, answers)
        self._to_come: dict[str, tuple[Sequence[Offer], Place]] = {}
        self._began = False
        if nodes:
            self.add(n=nodes)

    def __getattr__(self, name: str) -> object:
        """Refuse what takes a world."""
        if name.startswith("__") or self.__dict__.get("_began", True):
            raise AttributeError(name)
        raise NotYet(
            "a mesh begins with its test: before that, in a fixture, mesh.add(…) is all"
        )

    @override
    def add(
        self,
        agents: Iterable[Offer] = (),
        *,
        n: int = 1,
        name: str = "n",
        **place: Unpack[Place],
    ) -> list[str]:
        """See :meth:`Stage.add`."""
        if self._began:
            return super().add(agents, n=n, name=name, **place)
        offers = list(agents)
        names = fresh_names(name, n, self._to_come)
        self._to_come.update(dict.fromkeys(names, (offers, place)))
        return names

    async def begin(self, world: World) -> None:
        """Exist in ``world``, with the nodes that were added already."""
        weather, answers = self._setting
        self._began = True
        super().__init__(world, weather=weather, answers=answers)
        for one, (offers, place) in self._to_come.items():
            self.start(one, offers, place)
        await self.ready()


@dataclass(frozen=True, slots=True)
class Terms:
    """How a test is played.

    Attributes:
        seed: Of its world.
        command: What plays it again.
        nodes: How many plain nodes there are from the start.
        weather: When nothing is wrong.
        limit_s: The longest that it may take, seconds of virtual time.
        settles: Whether everything is checked when it has passed.
        root: What the paths of recorded answers are relative to.
        records: Whether real agents are asked for answers that nobody has recorded.
        lines_max: How many lines of the trace are kept, the last.
    """

    seed: int
    command: str
    nodes: int
    weather: Weather
    limit_s: float
    settles: bool
    root: Path
    records: bool
    lines_max: int


class Trial:
    """A test and its stage.

    Attributes:
        test: What is played.
        stage: What it is given as ``mesh``.
        command: What plays it again.
        lines: The end of its trace, when it is over.
        raised: What agents raised in it.
    """

    def __init__(self, test: Test, terms: Terms) -> None:
        """Make the stage; its time has not begun."""
        self.test = test
        self._terms = terms
        self._answers = Answers(
            terms.root, records=terms.records, command=f"{terms.command} --record-answers"
        )
        self.command = terms.command
        self.lines: Sequence[str] = ()
        self.raised: Sequence[str] = ()
        self._verdict: Exception | None = None  # what is wrong beside the test's own words
        self.stage = Rehearsal(
            nodes=terms.nodes,
            weather=terms.weather,
            answers=self._answers,
        )

    def play(self, **arguments: object) -> None:
        """Play the test with ``arguments`` to its end, and check what it leaves behind.

        Raises:
            NotRecorded: A recorded agent had no answer.
            RealTime: Something waited for the real world.
            TooSlowError: It did not end in time.
            Broken: It passed, but something that must hold does not.
        """
        __tracebackhide__ = True
        terms = self._terms

        async def scenario(world: World) -> None:
            try:
                await self._perform(world, arguments)
            finally:
                self.lines = world.trace.lines()
                self.raised = self.stage.guests.raised

        try:
            run(scenario, seed=terms.seed, lines_max=terms.lines_max, replay=terms.command)
        except ExceptionGroup as exc:
            raise _only(exc) from None
        except Exception as exc:
            if isinstance(exc, trio.TooSlowError) and isinstance(self._verdict, RealTime):
                # The thread was not back when virtual time was over: years in a moment.
                exc = self._verdict
            if exc is self._verdict:  # no line of the test's own: what led there tells nothing
                raise exc.with_traceback(None) from exc.__cause__
            raise

    async def _perform(self, world: World, arguments: Mapping[str, object]) -> None:
        terms, answers, where = self._terms, self._answers, ""
        await self.stage.begin(world)
        with trio.move_on_after(terms.limit_s) as scope:
            answers.on_trouble = scope.cancel
            world.nursery.start_soon(self._mind_reality, scope)
            try:
                await self.test(**arguments)
            except trio.Cancelled as exc:
                where = _where(exc, self.test)
                raise
            except Exception:
                if not answers.troubles and self._verdict is None:
                    raise
        if self._verdict is not None:
            pass
        elif answers.troubles:
            self._verdict = NotRecorded("\n".join(dict.fromkeys(answers.troubles)))
        elif scope.cancelled_caught:
            self._verdict = trio.TooSlowError(
                f"the test has not ended within {terms.limit_s:g} s of virtual time"
                f" (@pytest.mark.mesh(limit_s=…) gives it another limit); {where}"
            )
        elif terms.settles:
            try:
                await self.stage.settle()
            except Broken as exc:
                self._verdict = exc
        if self._verdict is not None:
            raise self._verdict

    async def _mind_reality(self, scope: trio.CancelScope) -> None:
        """End a test in which something waits for what virtual time can't wait for."""
        while True:
            await trio.sleep(_LOOK_S)
            if _awaits_reality():
                break
        where = ", ".join(self.stage.working()) or "the test"
        self._verdict = RealTime(
            f"a socket, a process or a thread is waited for (by {where}), which takes real"
            " time, and virtual time has passed meanwhile; answers of what is outside can be"
            " recorded: docs/testing.md"
        )
        scope.cancel()


def _only(group: Exception) -> Exception:
    """Return what ``group`` holds if that is one exception, with the notes of the group."""
    if not isinstance(group, ExceptionGroup) or len(group.exceptions) > 1:
        return group
    inner: Exception = group.exceptions[0]
    for note in getattr(group, "__notes__", ()):
        inner.add_note(note)
    return _only(inner)


def _awaits_reality() -> bool:
    io = trio.lowlevel.current_statistics().io_statistics
    counters = ("tasks_waiting_read", "tasks_waiting_write", "tasks_waiting")
    waiting = sum(getattr(io, name, 0) for name in counters)
    # One waits always: Trio, for whoever wakes it from another thread.
    return waiting > 1 or trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0


def _where(exc: BaseException, test: Test) -> str:
    """Return which line of the test's file it was that waited."""
    file = unwrap(test).__code__.co_filename
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if f.filename == file]
    if not frames:
        return "it waits somewhere"
    return f"it waits in line {frames[-1].lineno}: {frames[-1].line}"
