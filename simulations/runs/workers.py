"""Play takes on many cores: processes of our own, each with one take at a time.

A pool of the standard library breaks as a whole when one of its processes is killed, and
can't end a single task.  Here whoever dies, hangs or runs out of memory costs the take that
it played, which is told as a failure, and another process goes on.

Workers are programs of their own and not forks: nothing of the parent decides what they do.
They don't hear Ctrl-C; the parent ends them.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import IO, Final, Protocol

import msgspec

from simulations.outcome import Outcome
from simulations.runs.messages import DECODER, Ended, Progressed
from simulations.runs.takes import Take, play_take, unplayed

#: How long a take may last, unless it is told otherwise, seconds of real time.
LIMIT_S: Final = 3600.0
_LAST_WORDS_BYTES: Final = 4000
_END_S: Final = 5.0
_INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)


class Told(Protocol):
    """Is told how far a take is."""

    def __call__(self, seed: int, done_s: float, all_s: float, /) -> None:
        """Hear of it; virtual time of the load, seconds."""


def play_takes(
    takes: Iterable[Take], *, workers: int, told: Told, limit_s: float = LIMIT_S
) -> Generator[Outcome]:
    """Play ``takes`` in processes, and yield what came of each, as they end.

    Close the generator, or let it end, and no process is left.

    Args:
        takes: What is played, in this order.
        workers: Processes; 0 for one on each core.
        told: Hears how far they are.
        limit_s: A take that lasts longer is ended, and has failed.
    """
    todo = iter(takes)
    crew: list[_Worker] = []
    try:
        while True:
            busy = {worker.told: worker for worker in crew if worker.take is not None}
            while len(busy) < (workers or cores()) and (take := next(todo, None)):
                worker = _idle(crew)
                worker.begin(take, limit_s)
                busy[worker.told] = worker
            if not busy:
                return
            until_s = min(worker.until_s for worker in busy.values())
            heard = wait(list(busy), timeout=max(0.0, until_s - time.monotonic()))
            for pipe, worker in busy.items():
                outcome = _heard(worker, told, limit_s, has_said=pipe in heard)
                if outcome is not None:
                    worker.take = None
                    yield outcome
    finally:
        for worker in crew:
            worker.end()


def _idle(crew: "list[_Worker]") -> "_Worker":
    """Return one that has nothing to do, a new one if need be.

    Ctrl-C waits: between its start and its place in the list a process would be forgotten.
    """
    for worker in crew:
        if worker.is_alive and worker.take is None:
            return worker
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        crew.append(_Worker())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return crew[-1]


def play_here(
    takes: Iterable[Take], *, told: Told, limit_s: float = LIMIT_S
) -> Iterator[Outcome]:
    """Play ``takes`` one after another in this process.

    The limit holds where the take gets on: one that hangs outside of virtual time is not
    ended here.
    """
    for take in takes:
        until_s = time.monotonic() + limit_s

        def progress(
            done_s: float, all_s: float, seed: int = take.seed, until_s: float = until_s
        ) -> None:
            told(seed, done_s, all_s)
            if time.monotonic() > until_s:
                raise TimeoutError(_too_long(limit_s))

        yield play_take(take, progress)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _heard(worker: "_Worker", told: Told, limit_s: float, *, has_said: bool) -> Outcome | None:
    """Hear ``worker``, or end it if it took too long; return what came of its take, at last."""
    take = worker.take
    assert take is not None
    if has_said:
        match worker.hear():
            case Progressed(done_s, all_s):
                told(take.seed, done_s, all_s)
            case Ended(outcome):
                return outcome
            case str(why):
                return unplayed(take, why)
    if time.monotonic() >= worker.until_s:
        worker.end()
        return unplayed(take, _too_long(limit_s))
    return None


def _too_long(limit_s: float) -> str:
    return f"it was ended after {limit_s:g} s of real time, which is its limit (--limit)"


class _Worker:
    """One process.

    Attributes:
        told: Where it is heard.
        take: What it plays, if it plays.
        until_s: When that is ended.
        is_alive: Whether it can be given another.
    """

    take: Take | None = None
    until_s: float = 0.0

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "simulations.runs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,  # Ctrl-C is for the parent, which ends this one
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._takes = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self.told = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        self.is_alive = True

    def begin(self, take: Take, limit_s: float) -> None:
        """Give it a take."""
        self.take, self.until_s = take, time.monotonic() + limit_s
        with suppress(BrokenPipeError):  # it has died: hearing it says of what
            self._takes.send_bytes(msgspec.msgpack.encode(take))

    def hear(self) -> Progressed | Ended | str:
        """Return what it says, or of what it died."""
        try:
            message: Progressed | Ended = DECODER.decode(self.told.recv_bytes())
        except (EOFError, OSError):  # between two messages, or in the middle of one
            return self._autopsy()
        return message

    def _autopsy(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        code = self._process.poll()
        self._errors.seek(0)
        said = self._errors.read()[-_LAST_WORDS_BYTES:].decode(errors="replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "")
        self.end()
        if code == -signal.SIGKILL:
            return "its process was killed (SIGKILL): by somebody, or for want of memory"
        how = "says nothing more" if code is None else f"ended with status {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return f"its process {how}" + (f": {last}" if last else "")

    def end(self) -> None:
        """End it, whatever it does."""
        if self.is_alive:
            self.is_alive = False
            self._process.kill()
            self._process.wait()
            self._takes.close()
            self.told.close()
            self._errors.close()
