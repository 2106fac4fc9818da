"""An award while it is being done: how far it is, who watches it, and when it must stop."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec.structs import replace

from meshnode.domain.tokens import over_cap
from meshnode.domain.values import sendable
from protocol.keys import digest
from protocol.limits import PROGRESS_SIZE_MAX
from protocol.messages import Award, Metering

if TYPE_CHECKING:
    from meshnode.ports import Write
    from protocol.receipts import Spent

#: Text that is kept to be passed on, characters: with any encoding it fits a message.
_TEXT_MAX: Final = PROGRESS_SIZE_MAX // 4
#: A shorter lease would only keep this node busy with looking, seconds.
_LEASE_S_MIN: Final = 1.0


class Execution:
    """An award while it is being done.

    Attributes:
        name: Hash of the award's envelope.
        award: The message.
        deadline_s: When it is worthless, on Trio's clock.
        done: Set once nothing works on it any more.
        answer: What the broker is told in the end.
        items_done: Calls finished.
        progress_seq: Counts what was reported.
        keeps: What keeps its output: to be committed with its result.
        ended: How it ended, by the name that it is counted under.
        price_mc: What its result charges.
        below: What others did under it.
        metered: What its agent used for the items that are finished.
        again: It was begun before, and the node was started anew since.
        saved: Item -> what its agent saved of its work.
        is_over: Nothing works on it any more, and its result is being made.
    """

    def __init__(
        self, envelope: bytes, award: Award, *, now_ms: int, lease_s_max: float
    ) -> None:
        """Begin.

        Args:
            envelope: Of the award.
            award: In it.
            now_ms: Unix time by the clock of the one who set the deadline.
            lease_s_max: No lease holds longer here, whatever the award says.
        """
        self.name = digest(envelope)
        self.award = award
        self.deadline_s = trio.current_time() + (award.h.deadline_ms - now_ms) / 1000
        self.done = trio.Event()
        self.answer: bytes | None = None
        self.items_done = 0
        self.offset = 0
        self.progress_seq = 0
        self.keeps: list[Write] = []
        self.ended: Literal["finished", "failed", "cancelled"] = "failed"
        self.price_mc = 0
        self.below: list[Spent] = []
        self.metered = Metering()
        self.again = False
        self.saved: dict[int, bytes] = {}
        self.is_over = False
        self.received_s = trio.current_time()
        self.started_s = math.inf  # when the first call of its agent began
        self.scope = trio.CancelScope()
        self.stopped: tuple[str, str] | None = None
        self._lease_s = max(_LEASE_S_MIN, min(award.lease_ms / 1000, lease_s_max))
        if not award.lease_ms:  # an order: its deadline ends it
            self._lease_s = math.inf
        self._watchers = 0
        self._let_lease_run()
        self._tail = ""
        self._streamed = sha256()
        self._change = trio.Event()

    @property
    def broker(self) -> str:
        """PeerId of who awarded it."""
        return self.award.h.issuer

    def stop(self, code: str, reason: str) -> None:
        """End the run; what it was doing is cancelled."""
        self.stopped = self.stopped or (code, reason)
        self.scope.cancel()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The broker is there: the lease holds inside, and runs from the end on."""
        self._watchers += 1
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._let_lease_run()

    def _let_lease_run(self) -> None:
        """From now on the broker is gone: once the lease has run, so has the work."""
        self.scope.deadline = trio.current_time() + self._lease_s

    @property
    def ending(self) -> tuple[str, str]:
        """Why nothing came of it, as code and text, once its scope was cancelled."""
        if self.stopped is not None:
            return self.stopped
        if trio.current_time() >= self.scope.deadline:
            return "lease.lapsed", "its broker has been gone for the lease"
        return "cancelled", "this node is closing"

    def tell(self, *, text: str = "", items: int = 0) -> None:
        """Note progress; whoever is attached passes it on."""
        self.items_done += items
        self.offset += len(text)
        told = sendable(text)
        self._streamed.update(told.encode())
        self._tail = (self._tail + told)[-_TEXT_MAX:]
        self._changed()

    def meter(self, *, tokens_in: int, tokens_out: int) -> None:
        """Add what a call used to what was."""
        now = self.metered
        self.metered = replace(
            now, tokens_in=now.tokens_in + tokens_in, tokens_out=now.tokens_out + tokens_out
        )

    @property
    def tokens(self) -> int:
        """Model tokens that its agent used, as far as its calls are over."""
        return self.metered.tokens_in + self.metered.tokens_out

    @property
    def over_cap(self) -> str:
        """What is said of it if more tokens were used, here and below, than its award lets."""
        cap = self.award.h.budget.tokens
        count = self.tokens + sum(row.tokens for row in self.below)
        return over_cap(cap, count) if 0 < cap < count else ""

    @property
    def position(self) -> tuple[int, int]:
        """How far it is: items done, characters streamed."""
        return self.items_done, self.offset

    @property
    def checkpoint(self) -> bytes:
        """Hash of all that was streamed, or nothing if nothing was."""
        return self._streamed.digest() if self.offset else b""

    def text_since(self, offset: int) -> str:
        """Return what was streamed after ``offset``, or the end of it if that is much."""
        fresh = min(self.offset - offset, len(self._tail))
        return self._tail[len(self._tail) - fresh :]

    async def moved(self, position: tuple[int, int]) -> None:
        """Wait until it is further than ``position``, or done; any number may wait."""
        while self.position == position and not self.done.is_set():
            await self._change.wait()

    def finish(self) -> None:
        """Wake whoever is attached: the answer is there."""
        self.done.set()
        self._changed()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
