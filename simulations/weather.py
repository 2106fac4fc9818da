"""How bad the links are, as one value."""

from dataclasses import dataclass
from math import inf
from random import Random


@dataclass(frozen=True, slots=True)
class Weather:
    """What befalls bytes and dials between two peers; the default is mild.

    Chances are 0 to 1.  Nothing here loses bytes silently: as on a real transport,
    a loss that can't be mended breaks the connection.

    Attributes:
        latency_s: Fixed part of a one-way delay, seconds.
        jitter_s: Upper end of its uniform random part, seconds.
        spike_chance: Chance that a delay is longer by ``spike_s``.
        spike_s: A long delay, seconds.
        bandwidth_bytes_per_s: How fast bytes leave, per connection and direction.
        window_bytes: Bytes of one stream that may be unread before ``send`` waits.
        break_chance: Chance that a ``send`` breaks the connection instead.
        dial_failure_chance: Chance that a dial fails although the peer is there.
        dial_limit_s: How long a dial or a new stream waits for an answer, seconds.
        split_chance: Chance that ``receive`` returns only some of what is there, so
            that nobody comes to believe that a receive matches a send.
        cut_limit_s: How long a connection outlives a cut between its ends, seconds.
    """

    latency_s: float = 0.02
    jitter_s: float = 0.01
    spike_chance: float = 0.0
    spike_s: float = 1.0
    bandwidth_bytes_per_s: float = inf
    window_bytes: int = 256 * 1024
    break_chance: float = 0.0
    dial_failure_chance: float = 0.0
    dial_limit_s: float = 5.0
    split_chance: float = 0.01
    cut_limit_s: float = 20.0

    def delay_s(self, rng: Random) -> float:
        """Draw a one-way delay, seconds."""
        delay_s = self.latency_s
        if self.jitter_s:
            delay_s += rng.random() * self.jitter_s
        if self.spike_chance and rng.random() < self.spike_chance:
            delay_s += self.spike_s
        return delay_s


#: No delay and no fault: what a unit test wants.
CALM = Weather(latency_s=0.0, jitter_s=0.0, split_chance=0.0)
