"""A file of outcomes, one in a line, so that many seeds go on from where they stopped.

Its first line says what was played and by which code: outcomes of another scenario, or of
other code, don't belong to each other and are refused.  Each further line is written as its
seed ends; a last one that was only half written is dropped.  What was not played to its end
(a process was killed, a limit was reached) is not kept: it is played again.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from meshnode.errors import ConfigError
from simulations.outcome import Outcome
from simulations.runs.takes import code_hash, scenario_hash
from simulations.scenario import Scenario

_BEGIN: Final = b'{"scenario":'
_BLOCK_BYTES = 1 << 16


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """The first line.

    Attributes:
        scenario: Its name, for people.
        scenario_hash: See :func:`simulations.runs.takes.scenario_hash`.
        code_hash: See :func:`simulations.runs.takes.code_hash`.
        version: The package's version and commit, for people.
    """

    scenario: str
    scenario_hash: str
    code_hash: str
    version: str


class Results:
    """See the module; a context manager that holds the file's lock."""

    def __init__(self, path: Path, scenario: Scenario, *, version: str) -> None:
        """Open ``path``, or make it.

        Raises:
            ConfigError: It can't be, another run has it, or it holds something else.
        """
        self._path = path
        self._heading = Heading(
            scenario=scenario.name,
            scenario_hash=scenario_hash(scenario),
            code_hash=code_hash(),
            version=version,
        )
        self._file = self._open()
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield what the file holds.

        Raises:
            ConfigError: A line is none of ours.
        """
        with self._path.open("rb") as file:
            next(file, None)
            for number, line in enumerate(file, start=2):
                try:
                    yield msgspec.json.decode(line, type=Outcome)
                except msgspec.DecodeError as exc:
                    raise self._refused(f"line {number} is no outcome: {exc}") from exc

    def add(self, outcome: Outcome) -> None:
        """Keep ``outcome``, if it was played to its end."""
        if outcome.digest:
            self._write(msgspec.json.encode(outcome))

    # --- inside ---

    def _open(self) -> BinaryIO:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("ab+")
        except OSError as exc:
            raise ConfigError(
                f"{self._path} can't be written: {exc.strerror}", hint="name another file"
            ) from exc
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            file.close()
            raise self._refused("another run writes it", hint="wait for that one") from exc
        return file

    def _check(self) -> None:
        """See that the file is ours, and end it where its last whole line ends."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n"):
            if first[: len(_BEGIN)] != _BEGIN[: len(first)]:
                raise self._refused("it holds no outcomes of a simulation")
            self._file.truncate(0)
            self._write(msgspec.json.encode(self._heading))
            return
        try:
            found = msgspec.json.decode(first, type=Heading)
        except msgspec.DecodeError as exc:
            raise self._refused("it holds no outcomes of a simulation") from exc
        self._compare(found)
        self._drop_half_a_line()

    def _compare(self, found: Heading) -> None:
        mine = self._heading
        if found.scenario_hash != mine.scenario_hash:
            changed = "another form of it" if found.scenario == mine.scenario else mine.scenario
            raise self._refused(
                f"it holds outcomes of {found.scenario!r}, and {changed!r} is to be played"
            )
        if found.code_hash != mine.code_hash:
            raise self._refused(
                f"its outcomes are of other code: {found.version}, and this is {mine.version}"
                f" (hashes {found.code_hash[:12]} and {mine.code_hash[:12]})"
            )

    def _drop_half_a_line(self) -> None:
        """Find the last line's end from behind, and cut what follows."""
        size = self._file.seek(0, os.SEEK_END)
        while size:
            begin = max(0, size - _BLOCK_BYTES)
            self._file.seek(begin)
            at = self._file.read(size - begin).rfind(b"\n")
            if at >= 0:
                self._file.truncate(begin + at + 1)
                return
            size = begin

    def _write(self, line: bytes) -> None:
        self._file.write(line + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _refused(self, why: str, *, hint: str = "") -> ConfigError:
        return ConfigError(
            f"{self._path} can't be gone on with: {why}",
            hint=hint or "name another file, or remove this one",
        )
