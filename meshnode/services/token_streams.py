"""What agents stream while they work, as the broker of their award hears it.

Streamed text is for the eye: the output is what counts, and comes with the result.  But
whoever looks on must not see one text run into another, so every piece says where it
belongs: to which *run* (one writing of the text, by one attempt), and at which offset.

A contractor tells with each progress the hash of all that it streamed.  A broker whose
session broke hears again what it has heard already; by offset and hash it knows that, and
passes on only what is new.  If the hash is another, the agent was begun again (its node
was restarted, say) and writes another text: that is another run, and told as such.

Progress is described in protocol/spec/60-contracts.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from protocol.errors import Malformed
from protocol.messages import Progress

#: Of one run so much is kept for those who come later, characters.
KEPT_CHARS_MAX: Final = 16_384
#: One piece of what is kept, characters: telemetry shows no longer text.
_PIECE_CHARS: Final = 1_024
_RUN_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of streamed text, perhaps an empty one, with its place.

    Attributes:
        unit: Of the job.
        attempt: Which try at it.
        run: Names one writing of the text; pieces of two runs don't belong together.
        offset: Characters of the run before this piece; where that is more than was told
            before, something is missing between.
        text: The piece.
        items_done: Calls of the unit that are finished.
        restarted: The first piece of a run that isn't the first, as far as is known here:
            text of this unit that was told before counts no more.
    """

    unit: str
    attempt: int
    run: str
    offset: int
    text: str
    items_done: int
    restarted: bool = False


class TokenStream:
    """What one attempt streams, through broken sessions and restarts of its contractor."""

    def __init__(self, unit: str, attempt: int, *, again: bool) -> None:
        """Begin.

        Args:
            unit: Of the job.
            attempt: Which try at it.
            again: Text of this unit may have been told before.
        """
        self._unit = unit
        self._attempt = attempt
        self._again = again
        self._run = ""
        self._begin = 0  # offset of what is kept
        self._kept = ""
        self._seq = 0
        self._items_done = 0
        self._hash = sha256()
        self._is_whole = True  # the hash is that of all of the run

    @property
    def _end(self) -> int:
        return self._begin + len(self._kept)

    def take(self, progress: Progress) -> Piece:
        """Return what is new in ``progress``.

        Raises:
            Malformed: It brings more text than it says was streamed.
        """
        start = progress.offset - len(progress.text)
        if start < 0:
            raise Malformed("a progress has more text than was streamed")
        restarted = False
        if not self._run or not self._goes_on(progress, start):
            restarted = bool(self._end) or self._again
            self._run = progress.h.id.hex()[:_RUN_CHARS]
            self._begin, self._kept, self._again = start, "", False
            self._hash, self._is_whole = sha256(), start == 0
        elif start > self._end:  # it streamed more meanwhile than it keeps
            self._begin, self._kept, self._is_whole = start, "", False
        offset = self._end
        text = progress.text[offset - start :]
        self._hash.update(text.encode())
        self._kept += text
        if (surplus := len(self._kept) - KEPT_CHARS_MAX) > 0:
            self._begin, self._kept = self._begin + surplus, self._kept[surplus:]
        self._seq, self._items_done = progress.seq, progress.items_done
        return self._piece(offset, text, restarted=restarted)

    def _goes_on(self, progress: Progress, start: int) -> bool:
        """Tell whether ``progress`` is of the run that was heard so far."""
        if progress.offset < self._end:
            return False
        if start > self._end or not progress.checkpoint or not self._is_whole:
            return progress.seq > self._seq  # a contractor counts from 1 when it begins again
        told = self._hash.copy()
        told.update(progress.text[self._end - start :].encode())
        return told.digest() == progress.checkpoint

    def so_far(self) -> Iterator[Piece]:
        """Yield what is kept of the run, for whoever comes now."""
        for at in range(0, len(self._kept), _PIECE_CHARS):
            yield self._piece(self._begin + at, self._kept[at : at + _PIECE_CHARS])

    def _piece(self, offset: int, text: str, *, restarted: bool = False) -> Piece:
        return Piece(
            unit=self._unit,
            attempt=self._attempt,
            run=self._run,
            offset=offset,
            text=text,
            items_done=self._items_done,
            restarted=restarted,
        )
