"""Answers of real agents, recorded once and played back in every run after that.

::

    SUMMARY = recorded(summary_agent, "tests/answers/summary.json")

A model on a server is slow, costs money and answers differently each time; and a call that
takes real time can't happen in virtual time, which would jump over it.  So the world stands
still while the real agent is asked, in a thread with a Trio loop of its own, and what it
said is kept: its chunks, its output, and how long it took, which then passes in virtual
time.  A run that records and one that plays back are the same run, to the hash of the trace.

An answer is found by its input.  The same input is asked again for other work, and may be
answered differently: so there is a list of answers for each, and each piece of work (its
idempotency key) has one of them, whoever does it and however often it is tried.
"""

import fcntl
import os
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final, cast

import msgspec
import outcome
import trio

from meshnode.domain.values import canonical, parse
from meshnode.errors import AgentError, AgentTimeout
from meshnode.ports import Agent, AgentCall, AgentSpec, Chunk, JsonValue, Output
from simulations.world import standing_still

#: Of an input that has no answer, how much is shown, characters.
_SHOWN_MAX: Final = 300
#: Variables of the environment whose values are written nowhere.
_SECRET: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE")
_SECRET_CHARS_MIN: Final = 8
#: A chunk, spread over four lines by an indenting encoder.
_CHUNK: Final = re.compile(r'\[\n\s+([0-9.]+),\n\s+("(?:[^"\\\n]|\\.)*")\n\s+\]')


class NotRecorded(AssertionError):
    """A recorded agent had no answer, and could not be given one; says why, and what to do."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent said once.

    Attributes:
        took_s: From question to output, seconds.
        output: What it returned.
        usage: Metering.
        chunks: What it streamed: when, seconds after the question, and the text.
    """

    took_s: float
    output: object
    usage: Mapping[str, int] = {}
    chunks: tuple[tuple[float, str], ...] = ()


class Question(msgspec.Struct):
    """An input, and its answers in the order in which they were asked for."""

    agent: str
    input: object
    answers: list[Answer]


class File(msgspec.Struct):
    """What is in a file of answers.

    Attributes:
        questions: In the order of agents and inputs.
        format: Of the file.
    """

    questions: list[Question] = []
    format: int = 1

    def answers(self, agent: str, value: JsonValue) -> list[Answer]:
        """Return the answers to ``value``, a list that can be added to."""
        wanted = canonical(value)
        for question in self.questions:
            if question.agent == agent and canonical(_json(question.input)) == wanted:
                return question.answers
        self.questions.append(Question(agent, parse(wanted), []))
        return self.questions[-1].answers


@dataclass(frozen=True, slots=True)
class Recorded:
    """An agent whose answers are in a file.

    In a mesh that is simulated it plays them back; in a real node it is the agent itself.
    """

    agent: Agent
    path: str

    @property
    def spec(self) -> AgentSpec:
        """See :class:`meshnode.ports.Agent`."""
        return self.agent.spec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`."""
        await self.agent.open()

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """See :meth:`meshnode.ports.Agent.run`."""
        async with aclosing(_pieces(self.agent, value, call)) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        await self.agent.aclose()


def recorded(agent: Agent, path: str | os.PathLike[str]) -> Agent:
    """Return ``agent`` with its answers in the JSON file ``path``.

    Args:
        agent: Any agent: a model on a server, an embedded one, a function.
        path: Relative to the folder that pytest's settings are in; made by recording.
    """
    return Recorded(agent, os.fspath(path))


class Answers:
    """The recorded answers of one run.

    Attributes:
        troubles: Why there was no answer, each time that there was none.
        on_trouble: Called then.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        records: bool = False,
        command: str = "pytest --record-answers",
    ) -> None:
        """Read nothing yet.

        Args:
            root: What paths are relative to; by default the current folder.
            records: Ask the real agent where there is no answer, and keep what it says.
            command: What records.
        """
        self.troubles: list[str] = []
        self.on_trouble: Callable[[], None] | None = None
        self._root = root or Path()
        self._records = records
        self._command = command
        self._files: dict[Path, File] = {}
        #: Input and agent -> works that had an answer to it, in their order.
        self._works: dict[tuple[Path, str, bytes], dict[str, None]] = {}

    def player(self, source: Recorded) -> Agent:
        """Return an agent that answers from the file of ``source``."""
        return _Player(source, self)

    def answer(self, source: Recorded, value: JsonValue, key: str) -> Answer:
        """Return what ``source`` says to ``value``; the world stands still meanwhile.

        Args:
            source: Who is asked.
            value: What.
            key: Idempotency key of the work: the same gets the same.

        Raises:
            AgentError: Nobody has recorded it, or it can't be recorded; ``troubles`` says why.
        """
        try:
            return self._find(source, value, key)
        except (NotRecorded, AgentError) as exc:
            # What the mesh makes of it is of no interest: the test can't mean anything now.
            self.troubles.append(str(exc))
            if self.on_trouble is not None:
                self.on_trouble()
            raise AgentError(f"{source.spec.name} has no answer in {source.path}") from exc

    def _find(self, source: Recorded, value: JsonValue, key: str) -> Answer:
        path, name = self._root / source.path, source.spec.name
        works = self._works.setdefault((path, name, canonical(value)), {})
        works.setdefault(key)
        turn = list(works).index(key)
        if path not in self._files:
            self._files[path] = _read(path)
        answers = self._files[path].answers(name, value)
        if turn < len(answers):
            return answers[turn]
        if not self._records:
            raise NotRecorded(self._missing(source, value, turn, len(answers)))
        answer = _ask(source.agent, value, key)
        self._files[path] = keep_answer(path, name, value, (turn, answer))
        return self._files[path].answers(name, value)[turn]

    def _missing(self, source: Recorded, value: JsonValue, turn: int, known: int) -> str:
        shown = canonical(value).decode()
        if len(shown) > _SHOWN_MAX:
            shown = f"{shown[:_SHOWN_MAX]}… ({len(shown)} characters)"
        which = f"no answer number {turn + 1} (it has {known})" if known else "no answer"
        return (
            f"{source.path} has {which} of {source.spec.name!r} to\n    {shown}\n"
            f"  to ask the real agent and keep what it says:\n    {self._command}"
        )


class _Player:
    """A recorded agent on a stage."""

    def __init__(self, source: Recorded, answers: Answers) -> None:
        self._source = source
        self._answers = answers

    @property
    def spec(self) -> AgentSpec:
        """See :class:`meshnode.ports.Agent`."""
        return self._source.spec

    async def open(self) -> None:
        """See :meth:`meshnode.ports.Agent.open`: nothing is needed to play back."""
        await trio.lowlevel.checkpoint()

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """See :meth:`meshnode.ports.Agent.run`."""
        answer = self._answers.answer(self._source, value, call.idempotency_key)
        begun_s = trio.current_time()
        for after_s, text in answer.chunks:
            await trio.sleep_until(begun_s + after_s)
            yield Chunk(text)
        await trio.sleep_until(begun_s + answer.took_s)
        yield Output(_json(answer.output), dict(answer.usage))

    async def aclose(self) -> None:
        """See :meth:`meshnode.ports.Agent.aclose`."""
        await trio.lowlevel.checkpoint()


# --- asking -----------------------------------------------------------------------


def _ask(agent: Agent, value: JsonValue, key: str) -> Answer:
    """Ask the real agent in real time.

    Raises:
        AgentError: As the agent does.
    """
    said: list[outcome.Outcome[Answer]] = []

    def ask() -> None:
        said.append(outcome.capture(trio.run, partial(_listen, agent, value, key)))

    # A daemon: whoever interrupts the test doesn't wait for the model.
    thread = Thread(target=ask, name=f"recording {agent.spec.name}", daemon=True)
    with standing_still():
        thread.start()
        thread.join()
    return said[0].unwrap()


async def _listen(agent: Agent, value: JsonValue, key: str) -> Answer:
    limit_s = agent.spec.timeout_s
    try:
        await agent.open()
        with trio.fail_after(limit_s):
            return await _collect(agent, value, key)
    except trio.TooSlowError as exc:
        raise AgentTimeout(f"{agent.spec.name} said nothing within {limit_s:g} s") from exc
    finally:
        await agent.aclose()


async def _collect(agent: Agent, value: JsonValue, key: str) -> Answer:
    begun_s = trio.current_time()
    chunks: list[tuple[float, str]] = []
    call = AgentCall(key, deadline_s=begun_s + agent.spec.timeout_s)
    async with aclosing(_pieces(agent, value, call)) as pieces:
        async for piece in pieces:
            after_s = round(trio.current_time() - begun_s, 3)
            if isinstance(piece, Output):
                output = parse(canonical(piece.value))
                return Answer(after_s, output, dict(sorted(piece.usage.items())), tuple(chunks))
            chunks.append((after_s, piece.text))
    raise AgentError(f"{agent.spec.name} ended without an output")


def _pieces(
    agent: Agent, value: JsonValue, call: AgentCall
) -> AsyncGenerator[Chunk | Output, None]:
    return cast("AsyncGenerator[Chunk | Output, None]", agent.run(value, call))


# --- the file ---------------------------------------------------------------------


def _read(path: Path) -> File:
    """Return what the file holds; nothing if there is none.

    Raises:
        NotRecorded: It is something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=File)
    except FileNotFoundError:
        return File()
    except msgspec.MsgspecError as exc:
        raise NotRecorded(f"{path} holds no recorded answers: {exc}") from exc


def keep_answer(path: Path, agent: str, value: JsonValue, answer: tuple[int, Answer]) -> File:
    """Write an answer with its turn into the file, and return all that is in it.

    Another process may have recorded the same turn meanwhile: then that answer stays, so
    that all runs have the same.

    Raises:
        NotRecorded: Question or answer holds a secret.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        held = _read(path)
        answers = held.answers(agent, value)
        if answer[0] >= len(answers):
            answers.append(answer[1])
            held.questions.sort(key=lambda q: (q.agent, canonical(_json(q.input))))
            text = _text(held)
            _refuse_secrets(text, agent)
            written = path.with_name(f".{path.name}.new")
            written.write_text(text, encoding="utf-8")
            written.replace(path)
    return held


def _text(held: File) -> str:
    """Return the file's text: the same for the same answers, and easy to read."""
    plain = msgspec.json.encode(held)
    return _CHUNK.sub(r"[\1, \2]", msgspec.json.format(plain, indent=2).decode()) + "\n"


def _refuse_secrets(text: str, agent: str) -> None:
    for name, secret in os.environ.items():
        if _SECRET.search(name) and len(secret) >= _SECRET_CHARS_MIN and secret in text:
            raise NotRecorded(
                f"what {agent!r} was asked or said holds the value of ${name}: not recorded"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``: tests may record side by side."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _json(value: object) -> JsonValue:
    """Return what came out of a JSON file, which is JSON."""
    return cast("JsonValue", value)
