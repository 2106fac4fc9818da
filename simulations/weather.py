"""How bad the links are, as one value.

A :class:`Weather` prints as what makes it again, so a run is told by its seed and its
weather.  Presets: :data:`CALM` for unit tests, :data:`LAN`, and :data:`WORLD`, where each
peer lives somewhere on Earth (:mod:`simulations.geography`).

What a lossy network does to packets, a transport mends or turns into a broken connection.
So a loss of 10 % is ``break_chance(0.10)``: of ten exchanges one loses its connection, and
whoever asked asks again on a new one.  In half of these cases the question had arrived:
asked again, it is a duplicate.  ``late_chance`` makes more of them (the question arrives
although its asker saw the connection break), and reorders: what was said on the old
connection arrives after what is said on the new one.  On one connection nothing is lost,
doubled or reordered, ever.
"""

from dataclasses import dataclass
from math import inf
from math import pow as power
from random import Random
from typing import Final

from simulations.geography import DATA_CENTRE, HOME, OFFICE, Geography, draw_tail_s


@dataclass(frozen=True, slots=True)
class Weather:
    """What befalls bytes and dials between two peers; the default is mild.

    Chances are 0 to 1.  Nothing here loses bytes silently: as on a real transport,
    a loss that can't be mended breaks the connection.

    Attributes:
        latency_s: Fixed part of a one-way delay, seconds.
        jitter_s: Upper end of its uniform random part, seconds.
        tail_s: Median of its lognormal random part, seconds; see
            :data:`simulations.geography.SPREAD`.
        spike_chance: Chance that a delay is longer by ``spike_s``.
        spike_s: A long delay, seconds.
        bandwidth_bytes_per_s: How fast bytes leave, per connection and direction.
        window_bytes: Bytes of one stream that may be unread before ``send`` waits.
        break_chance: Chance that a ``send`` breaks the connection; see
            :func:`break_chance`.
        late_chance: Chance that what is under way when a connection breaks (or its
            speaker crashes) still arrives, before the other side notices.
        late_s: How late it may be beyond what a delay is, at most, seconds.
        dial_failure_chance: Chance that a dial fails although the peer is there.
        dial_limit_s: How long a dial or a new stream waits for an answer, seconds.
        split_chance: Chance that ``receive`` returns only some of what is there, so
            that nobody comes to believe that a receive matches a send.
        cut_limit_s: How long a connection outlives a cut between its ends, seconds.
        ticks_per_s: Arrivals are late by up to a tick, so that many of them share one
            waking of the timetable's task.
        geography: Where peers are: its delays come on top of ``latency_s`` and the
            random parts, and its accesses bound what a peer's connections carry
            together.  None is nowhere in particular.
    """

    latency_s: float = 0.02
    jitter_s: float = 0.01
    tail_s: float = 0.0
    spike_chance: float = 0.0
    spike_s: float = 1.0
    bandwidth_bytes_per_s: float = inf
    window_bytes: int = 256 * 1024
    break_chance: float = 0.0
    late_chance: float = 0.0
    late_s: float = 0.2
    dial_failure_chance: float = 0.0
    dial_limit_s: float = 5.0
    split_chance: float = 0.01
    cut_limit_s: float = 20.0
    ticks_per_s: int = 1000
    geography: Geography | None = None

    def delay_s(self, rng: Random) -> float:
        """Draw a one-way delay, seconds."""
        delay_s = self.latency_s
        if self.jitter_s:
            delay_s += rng.random() * self.jitter_s
        if self.tail_s:
            delay_s += draw_tail_s(rng, self.tail_s)
        if self.spike_chance and rng.random() < self.spike_chance:
            delay_s += self.spike_s
        return delay_s

    def is_late(self, rng: Random) -> bool:
        """Draw whether what is under way at a break still arrives."""
        return self.late_chance > 0 and rng.random() < self.late_chance

    def stall_s(self, rng: Random) -> float:
        """Draw how late that is, seconds."""
        return rng.random() * self.late_s


def break_chance(lost_share: float, *, sends: int = 2) -> float:
    """Return the ``break_chance`` at which ``lost_share`` of all exchanges lose theirs.

    Args:
        lost_share: Of exchanges during which the connection breaks, 0 to 1.
        sends: How many sends an exchange has: two if a question and its answer are one
            each.
    """
    return 1 - power(1 - lost_share, 1 / sends)


#: No delay and no fault: what a unit test wants.
CALM: Final = Weather(latency_s=0.0, jitter_s=0.0, split_chance=0.0)

#: One switch between all: a round trip takes about 0.3 ms, and a connection carries
#: 1 Gbit/s.  Our assumptions.
LAN: Final = Weather(
    latency_s=0.0001,
    jitter_s=0.0,
    tail_s=0.000_02,
    bandwidth_bytes_per_s=125_000_000.0,
    ticks_per_s=100_000,
)

#: A bad line: of a hundred exchanges about ten lose their connection, and five questions
#: arrive twice (measured in tests/simulations/test_exchanges.py).
ROUGH: Final = Weather(break_chance=break_chance(0.10), late_chance=0.25, late_s=0.1)

#: Peers all over the world, every place alike; six of ten at home, three in an office, one
#: in a data centre: our assumptions.
WORLD: Final = Weather(
    latency_s=0.0,
    jitter_s=0.0,
    geography=Geography(accesses=(HOME, OFFICE, DATA_CENTRE), access_weights=(6.0, 3.0, 1.0)),
)
