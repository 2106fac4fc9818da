"""Where peers are: the delays between real places, and what their access carries.

A delay is a floor and a random part on top of it, never below the floor.  Between two
places both come from measurements of one month (``data/round_trips.csv``; where they are
from is told in ``data/README.md``): the medians and 95th percentiles of 465 round trips.
The random part is lognormal, for queues make a delay long and never short.  Its spread is
our assumption (:data:`SPREAD`); its size and the floor follow from it: they are chosen so
that a round trip, which is two delays, has the median and the 95th percentile measured.
What happens to one message does not depend on the one before, as it does on a real path;
a lane keeps the order, so a late one holds up those behind it, as in TCP.

A peer's place and access are drawn once, by its PeerId and the seed, so that a peer that
comes back is where it was, and an added peer moves nobody.

Neither relays nor hole punching exist here, as our transport has none: a peer that does
not listen is reached over the connections that it opened, or not at all.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp, inf
from random import Random
from typing import Final

#: The standard deviation of the logarithm of a delay's random part: our assumption.  With
#: 1 a delay's random part is five times its median in one case of twenty.
SPREAD: Final = 1.0
# Of the sum of two such parts whose median is 1 each, which is a round trip's random part
# (drawn 400,000 times; the sum of two lognormals has no closed form): its median, and how
# far above that its 95th percentile is.
_SUM_MEDIAN: Final = 2.445
_SUM_TAIL: Final = 6.203

#: Round trips between two peers of one place, ms: our assumption, as the data have none.
_WITHIN_MEDIAN_MS: Final = 1.0
_WITHIN_P95_MS: Final = 2.0

_MBIT_BYTES: Final = 125_000.0


@dataclass(frozen=True, slots=True)
class Access:
    """How a peer is connected to its place.

    Attributes:
        name: For people.
        up_bytes_per_s: What leaves the peer, over all its connections.
        down_bytes_per_s: What reaches it, over all its connections.
        floor_s: What it adds to every delay, each way, seconds.
        tail_s: The median of the random part that it adds, seconds.
    """

    name: str
    up_bytes_per_s: float = inf
    down_bytes_per_s: float = inf
    floor_s: float = 0.0
    tail_s: float = 0.0


#: 100 Mbit/s down and 20 up: what the FCC has called broadband since 2024 (Section 706
#: Report, FCC 24-27).  Its delays are our assumption: 12 ms of each round trip.
HOME: Final = Access("home", 20 * _MBIT_BYTES, 100 * _MBIT_BYTES, 0.005, 0.001)
#: 1 Gbit/s down and 500 Mbit/s up: the same report's long-term goal, which offices with
#: fibre have today.  Its delays are our assumption.
OFFICE: Final = Access("office", 500 * _MBIT_BYTES, 1000 * _MBIT_BYTES, 0.001, 0.000_2)
#: 10 Gbit/s each way: our assumption.  No delay of its own: it is where the data are from.
DATA_CENTRE: Final = Access("data centre", 10_000 * _MBIT_BYTES, 10_000 * _MBIT_BYTES)
#: What a peer without a geography has: nothing but the weather limits it.
UNLIMITED: Final = Access("unlimited")


@dataclass(frozen=True, slots=True)
class Delay:
    """One way from one place to another.

    Attributes:
        floor_s: Never less than this, seconds.
        tail_s: The median of the random part on top of it, seconds.
    """

    floor_s: float
    tail_s: float

    def through(self, *accesses: Access) -> "Delay":
        """Return it with what the accesses at its ends add.

        The medians of the random parts are added and drawn as one: our assumption.
        """
        floor_s = self.floor_s + sum(access.floor_s for access in accesses)
        return Delay(floor_s, self.tail_s + sum(access.tail_s for access in accesses))


#: Between peers that are nowhere in particular.
NOWHERE: Final = Delay(0.0, 0.0)


def delay_of(median_ms: float, p95_ms: float) -> Delay:
    """Return the delay of which two make a round trip with this median and percentile."""
    tail_ms = max(p95_ms - median_ms, 0.0) / _SUM_TAIL
    floor_ms = max(median_ms - tail_ms * _SUM_MEDIAN, 0.0) / 2
    return Delay(floor_ms / 1000, tail_ms / 1000)


def draw_tail_s(rng: Random, tail_s: float) -> float:
    """Draw the random part of a delay, seconds."""
    return tail_s * exp(rng.gauss(0.0, SPREAD))


@dataclass(frozen=True, slots=True)
class Home:
    """Where one peer is, and how it is connected there."""

    place: str
    access: Access


@dataclass(frozen=True, slots=True)
class Geography:
    """Where peers are, as one value; the default is all places alike, in data centres.

    Attributes:
        places: Where a peer can be; none named means every place of the data.
        weights: How often each of ``places``, against the others; none means alike.
        accesses: How a peer can be connected.
        access_weights: How often each of ``accesses``; none means alike.
        homes: Peers whose place is not drawn, with that place.
    """

    places: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    accesses: tuple[Access, ...] = (DATA_CENTRE,)
    access_weights: tuple[float, ...] = ()
    homes: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could only fail in the middle of a run."""
        known = continents()
        named = (*self.places, *(place for _, place in self.homes))
        strangers = sorted({place for place in named if place not in known})
        if strangers:
            raise ValueError(f"no figures for {', '.join(strangers)}: see data/places.csv")
        if self.weights and len(self.weights) != len(self.places or known):
            raise ValueError("as many weights as places, or none")
        if self.access_weights and len(self.access_weights) != len(self.accesses):
            raise ValueError("as many access_weights as accesses, or none")

    def home(self, peer: str, salt: int) -> Home:
        """Return where ``peer`` is in the run whose chance is ``salt``."""
        rng = Random(f"{salt}/home/{peer}")
        places = self.places or tuple(continents())
        place = rng.choices(places, weights=self.weights or None)[0]
        access = rng.choices(self.accesses, weights=self.access_weights or None)[0]
        return Home(dict(self.homes).get(peer, place), access)

    def delay(self, one: Home, other: Home) -> Delay:
        """Return the delay from ``one`` to ``other``, the access at both ends included."""
        return _delays()[one.place, other.place].through(one.access, other.access)


# --- the data -----------------------------------------------------------------------


@cache
def continents() -> Mapping[str, str]:
    """Return the continent of every place, in the order of their names."""
    return {row["place"]: row["continent"] for row in _rows("places.csv")}


@cache
def round_trips_ms() -> Mapping[tuple[str, str], tuple[float, float]]:
    """Return the median and 95th percentile of every pair, in the data's order, ms."""
    return {
        (row["one"], row["other"]): (float(row["median_ms"]), float(row["p95_ms"]))
        for row in _rows("round_trips.csv")
    }


@cache
def _delays() -> Mapping[tuple[str, str], Delay]:
    delays = {
        (place, place): delay_of(_WITHIN_MEDIAN_MS, _WITHIN_P95_MS) for place in continents()
    }
    for (one, other), measured in round_trips_ms().items():
        delays[one, other] = delays[other, one] = delay_of(*measured)
    return delays


def _rows(name: str) -> list[dict[str, str]]:
    text = files("simulations").joinpath("data", name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
