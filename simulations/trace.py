"""What happened in a run, as lines and as one hash: equal hashes, equal runs.

A long run has millions of lines, so only the hash is always kept (it costs about
a microsecond a line) and the last lines when somebody asks for them.  Every line
carries the virtual time, so that an event that only moved shows too.
"""

from collections import deque
from collections.abc import Sequence
from hashlib import sha256

import trio


class Trace:
    """The lines of one run, hashed as they come."""

    __slots__ = ("_hash", "_lines")

    def __init__(self, *, lines_max: int = 0) -> None:
        """Keep the last ``lines_max`` lines beside the hash."""
        self._hash = sha256()
        self._lines: deque[str] | None = deque(maxlen=lines_max) if lines_max else None

    def note(self, line: str) -> None:
        """Add ``line``, with the time now."""
        stamped = f"{trio.current_time():.6f} {line}\n"
        self._hash.update(stamped.encode())
        if self._lines is not None:
            self._lines.append(stamped)

    def digest(self) -> str:
        """Return the SHA-256 of all lines so far, in hex."""
        return self._hash.hexdigest()

    def lines(self) -> Sequence[str]:
        """Return the lines that were kept, without their line ends."""
        return tuple(line[:-1] for line in self._lines or ())
