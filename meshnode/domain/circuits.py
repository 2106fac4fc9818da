"""Which peers are worth giving work to after they failed: a circuit breaker for each.

A circuit is closed until its peer fails too often in a row.  Then it is open for a while,
longer each time: its peer is the last choice.  After that it is half open: one unit goes
there to see, and what comes of it closes the circuit or opens it for longer.

An open circuit is no ban: where nobody else offers what is wanted, a unit loses nothing by
a try, and the pauses between its attempts pace that.  Who is gone or deaf costs whole
seconds to find out, so one such failure opens the circuit; an agent that fails now and then
has failed at that unit, and only several such failures in a row say something of the peer.

Nothing here waits for a time to come: what a circuit is follows from when it is asked.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

#: So many failures in a row open a circuit, when none of them was grave.
FAILURES_MAX: Final = 3
#: A circuit that opens is open for this long, seconds; doubled each time in a row.
OPEN_S: Final = 30.0
OPEN_S_MAX: Final = 300.0
#: Of that, up to this share more, so that not all brokers try a peer at the same moment.
_SPREAD: Final = 0.2
#: Peers that are remembered; the longest untouched are forgotten first.
_PEERS_MAX: Final = 1_024


class CircuitState(Enum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


@dataclass(frozen=True, slots=True)
class _Circuit:
    """One that isn't as good as new.

    Attributes:
        failures: In a row, while closed.
        openings: In a row, the last success being before all of them.
        until_s: When the last of them is over; meaningless without any.
    """

    failures: int = 0
    openings: int = 0
    until_s: float = 0.0

    def state(self, now_s: float) -> CircuitState:
        if not self.openings:
            return CircuitState.CLOSED
        return CircuitState.OPEN if now_s < self.until_s else CircuitState.HALF_OPEN


class Circuits:
    """See the module; peers by their PeerId, times on a clock that never jumps."""

    def __init__(self) -> None:
        self._circuits: dict[str, _Circuit] = {}  # the longest untouched first

    def __len__(self) -> int:
        """Return how many are not as good as new."""
        return len(self._circuits)

    def state(self, peer: str, *, now_s: float) -> CircuitState:
        """Return where the circuit of ``peer`` stands."""
        circuit = self._circuits.get(peer)
        return CircuitState.CLOSED if circuit is None else circuit.state(now_s)

    def failed(self, peer: str, *, grave: bool, now_s: float, share: float) -> bool:
        """Note that ``peer`` failed; tell whether that opened its circuit.

        Args:
            peer: Who.
            grave: It couldn't be reached, broke the protocol, or wasn't done in time.
            now_s: When.
            share: From 0 to 1, by chance: how much of the spread is added.
        """
        circuit = self._circuits.pop(peer, _Circuit())
        before = circuit.state(now_s)
        failures = circuit.failures + 1
        opens = before is not CircuitState.OPEN and (
            grave or before is CircuitState.HALF_OPEN or failures >= FAILURES_MAX
        )
        # What was out at a peer fails together: that is one opening.
        openings = circuit.openings + opens
        until_s = circuit.until_s
        if opens or before is CircuitState.OPEN:
            open_s = min(OPEN_S * 2 ** min(openings - 1, 10), OPEN_S_MAX)
            until_s = max(until_s, now_s + open_s * (1 + _SPREAD * share))
        self._circuits[peer] = replace(
            circuit, failures=failures, openings=openings, until_s=until_s
        )
        if len(self._circuits) > _PEERS_MAX:
            del self._circuits[next(iter(self._circuits))]
        return opens

    def worked(self, peer: str) -> bool:
        """Note that ``peer`` did well; tell whether that closed its circuit."""
        circuit = self._circuits.pop(peer, None)
        return circuit is not None and circuit.openings > 0
