"""Which weather holds between whom, worked out once for each pair that meets.

A message must not pay for geography: what the places and accesses of two peers do to the
weather between them is one more :class:`~simulations.weather.Weather`, made when they
first meet and kept until somebody changes the weather.
"""

from dataclasses import replace
from math import inf
from random import Random

from simulations.geography import NOWHERE, UNLIMITED, Access, Geography, Home
from simulations.weather import Weather


class Pipe:
    """One end of a peer's access: what passes it, passes in turn.

    So connections that are busy at once share it piece by piece, and a small message
    waits behind the pieces before it.

    Attributes:
        bytes_per_s: How fast.
    """

    __slots__ = ("_free_s", "bytes_per_s")

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_s = 0.0

    def pass_s(self, now_s: float, size_bytes: int) -> float:
        """Return when the last of ``size_bytes``, which come now, is through."""
        self._free_s = max(now_s, self._free_s) + size_bytes / self.bytes_per_s
        return self._free_s


class Climate:
    """The weather of a whole network, and what it makes of each pair's."""

    def __init__(self, weather: Weather, rng: Random) -> None:
        """Let ``weather`` hold everywhere.

        Args:
            weather: See :class:`~simulations.weather.Weather`.
            rng: Fixes where peers live.  Nothing is drawn from it: a geography must not
                shift what else the seed decides.
        """
        twin = Random()
        twin.setstate(rng.getstate())
        self._salt = twin.getrandbits(64)
        self._weather = weather
        self._special: dict[tuple[str, str], Weather] = {}
        self._known: dict[tuple[str, str], Weather] = {}
        self._homes: dict[tuple[Geography, str], Home] = {}
        self._accesses: dict[str, Access] = {}
        self._pipes: dict[str, tuple[Pipe, Pipe]] = {}
        self._is_plain = weather.geography is None

    def change(self, weather: Weather, *between: str) -> None:
        """Let ``weather`` hold everywhere, or both ways between two peers."""
        if between:
            one, other = between
            self._special[one, other] = self._special[other, one] = weather
        else:
            self._weather = weather
        self._adjust()

    def connect(self, peer: str, access: Access) -> None:
        """Let ``peer`` have ``access`` from now on, whatever the geography says."""
        self._accesses[peer] = access
        self._adjust()

    def weather(self, one: str, other: str) -> Weather:
        """Return the weather from ``one`` to ``other``, places and accesses included."""
        if self._is_plain:
            return self._weather  # the same for all: nothing is kept for a million pairs
        weather = self._known.get((one, other))
        if weather is None:
            weather = self._work_out(one, other)
            self._known[one, other] = weather
        return weather

    def home(self, peer: str) -> Home | None:
        """Return where ``peer`` is, or None if it is nowhere in particular."""
        geography = self._weather.geography
        return None if geography is None else self._home(geography, peer)

    def up(self, peer: str) -> Pipe | None:
        """Return what all that leaves ``peer`` goes through, or None for no limit."""
        pipe = self._pipes_of(peer)[0]
        return pipe if pipe.bytes_per_s < inf else None

    def down(self, peer: str) -> Pipe | None:
        """Return what all that reaches ``peer`` goes through, or None for no limit."""
        pipe = self._pipes_of(peer)[1]
        return pipe if pipe.bytes_per_s < inf else None

    def _adjust(self) -> None:
        plain = self._weather.geography is None
        self._is_plain = plain and not (self._special or self._accesses)
        self._known.clear()
        self._adjust_pipes()

    def _work_out(self, one: str, other: str) -> Weather:
        weather = self._special.get((one, other), self._weather)
        if weather.geography is None:
            ends = tuple(self._accesses.get(peer, UNLIMITED) for peer in (one, other))
            delay = NOWHERE.through(*ends)
        else:
            delay = weather.geography.delay(
                self._home(weather.geography, one), self._home(weather.geography, other)
            )
        if delay == NOWHERE:
            return weather
        return replace(
            weather,
            latency_s=weather.latency_s + delay.floor_s,
            tail_s=weather.tail_s + delay.tail_s,
        )

    def _home(self, geography: Geography, peer: str) -> Home:
        home = self._homes.get((geography, peer))
        if home is None:
            home = self._homes[geography, peer] = geography.home(peer, self._salt)
        access = self._accesses.get(peer)
        return home if access is None else replace(home, access=access)

    def _pipes_of(self, peer: str) -> tuple[Pipe, Pipe]:
        if peer not in self._pipes:
            access = self._access(peer)
            self._pipes[peer] = Pipe(access.up_bytes_per_s), Pipe(access.down_bytes_per_s)
        return self._pipes[peer]

    def _adjust_pipes(self) -> None:
        for peer, (up, down) in self._pipes.items():
            access = self._access(peer)
            up.bytes_per_s, down.bytes_per_s = access.up_bytes_per_s, access.down_bytes_per_s

    def _access(self, peer: str) -> Access:
        home = self.home(peer)
        return home.access if home else self._accesses.get(peer, UNLIMITED)
