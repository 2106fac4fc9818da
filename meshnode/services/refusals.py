"""Contractors that refuse this broker for reasons of their own, and until when.

Whose owner won't have it call now is no candidate until that may help.  Who lets it have only
so much out that isn't accepted stays one, and is awarded no more than that at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from meshnode.domain.attempts import CODES, Barred
from meshnode.domain.ledger import CREDIT
from meshnode.domain.trust.buyers import UNSETTLED
from meshnode.domain.windows import Windows
from meshnode.services.context import Context
from protocol.messages import Refuse
from protocol.records import NodeRecord

#: Whose owner refuses this node is no candidate until that may help, seconds: so long if
#: it doesn't say when, and at most; owners change their minds.
_BARRED_S: Final = 60.0
_BARRED_S_MAX: Final = 300.0
#: Of what a refusal says, characters.
_TEXT_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class _Bar:
    """Who refuses this node; a newer record than that of then says that things changed."""

    barred: Barred
    until_s: float  # on Trio's clock
    sequence: int


class Refusals:
    """See the module."""

    def __init__(
        self,
        context: Context,
        *,
        known: Callable[[], Sequence[NodeRecord]],
        tell: Callable[[], None],
    ) -> None:
        """Look at ``known`` records; ``tell`` when somebody may be asked again."""
        self._context = context
        self._known = known
        self._tell = tell
        self._barred: dict[str, _Bar] = {}
        self._windows = Windows()

    def refused(self, peer: str, refuse: Refuse) -> None:
        """Leave ``peer`` alone for a while, if its owner won't have this node call now."""
        if refuse.reason not in CODES:
            return
        wait_s = refuse.retry_after_ms / 1000
        back_ms = self._context.clock.now_ms() + refuse.retry_after_ms if wait_s else 0
        barred = Barred(peer, refuse.reason, refuse.text[:_TEXT_MAX], back_ms)
        until_s = trio.current_time() + min(wait_s or _BARRED_S, _BARRED_S_MAX)
        records = [record.sequence for record in self._known() if record.peer == peer]
        self._barred[peer] = _Bar(barred, until_s, max(records, default=0))
        self._context.emit("market.barred", peer=peer, reason=refuse.reason, why=refuse.text)

    def paid(self, peer: str) -> None:
        """Call on ``peer`` again, if it refused for what this node owed it."""
        if self._unbar(peer, CREDIT):
            self._tell()

    def tighten(self, peer: str, units: int) -> None:
        """Have no more than ``units`` out at ``peer``: that is what it lets this node have."""
        self._windows.tighten(peer, units)
        self._context.emit("market.tightened", peer=peer, units=units)

    def settled(self, peer: str) -> None:
        """Note that a receipt has come to ``peer``: it may let this node have more."""
        widened = self._windows.widen(peer)
        if self._unbar(peer, UNSETTLED) or widened:
            self._tell()

    def units_max(self, peer: str) -> int:
        """Return how many units ``peer`` lets this node have out; 0 where it never said."""
        return self._windows.units_max(peer)

    def bar(self, record: NodeRecord) -> Barred | None:
        """Return why whose record that is gets no work now, if that is so."""
        bar = self._barred.get(record.peer)
        if bar is None:
            return None
        if trio.current_time() < bar.until_s and record.sequence <= bar.sequence:
            return bar.barred
        del self._barred[record.peer]
        return None

    def _unbar(self, peer: str, reason: str) -> bool:
        """Call on ``peer`` again, if it refused for that reason; tell whether it did."""
        bar = self._barred.get(peer)
        if bar is None or bar.barred.reason != reason:
            return False
        del self._barred[peer]
        return True
