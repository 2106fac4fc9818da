"""How much a broker has out at contractors that don't let it have more.

A contractor caps what a buyer may have of work that it hasn't accepted
(:mod:`meshnode.domain.trust.buyers`), and the cap is the contractor's to know.  So a broker
asks for what it wants until it is refused, and knows then: what it had out there, less what
was refused, is what it may have.  That is its window, in units.  The cap grows by a quarter
of what is settled, and so does the window, by a quarter of a unit with each receipt: a job of
thousands of units meets a handful of refusals and not one for each unit.

One unit may always be asked for, or nobody would hear of it when more may be had again.
"""

from typing import Final

from meshnode.domain.trust.buyers import FIRST_MC, SETTLED_SHARE

#: Most that one award to somebody who may not know this broker should cost, millicredits: a
#: few of them fit into what a stranger may have out by default.
BATCH_MC: Final = FIRST_MC // 4
#: A window of so many units is none: no agent has so many out from one broker.
_OPEN_UNITS: Final = 512


class Windows:
    """Those of one broker, by PeerId."""

    def __init__(self) -> None:
        self._quarters: dict[str, int] = {}  # of a unit

    def units_max(self, peer: str) -> int:
        """Return what may be out at ``peer``; 0 where it never said."""
        return self._quarters.get(peer, 0) // SETTLED_SHARE

    def tighten(self, peer: str, units: int) -> None:
        """Note that ``peer`` refused one beside so many that it has."""
        quarters = max(1, units) * SETTLED_SHARE
        self._quarters[peer] = min(quarters, self._quarters.get(peer, quarters))

    def widen(self, peer: str) -> bool:
        """Note that a receipt has come to ``peer``; tell whether it has a window."""
        quarters = self._quarters.pop(peer, 0)
        if 0 < quarters < _OPEN_UNITS * SETTLED_SHARE:
            self._quarters[peer] = quarters + 1
        return quarters > 0
