"""Who exchanges catalogues with whom.

A node chooses three eighths of ``neighbours_max`` itself, at random among those it
knows (a seed first, and whoever is connected while it knows nobody), and stays with
them while they last.  The other places are for those who chose it, which it learns
from their digests.  Both ends of such an edge push to each other, so the graph is
undirected, and a random graph in which everyone chooses three others is connected.
Whoever finds no free place at the other end still compares, both ways, with those it
chose; and once in a while everyone compares with a stranger, so that two halves of a
mesh which had lost each other find together again.

An honest node verifies what it passes on, so a forged record is its bringer's fault:
such a peer is not spoken with for a while.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

import trio

from meshnode.config import DirectoryConfig
from meshnode.errors import Busy, StreamLost, Unreachable
from meshnode.ports import Emit
from meshnode.services.records import Intake
from meshnode.services.sessions import RequestFailed, RequestTimeout, Sessions
from protocol.errors import RemoteProtocolError

#: Of ``neighbours_max``, how many this node chooses itself.
_CHOSEN_SHARE: Final = 3 / 8
_DIAL_S: Final = 5.0
_JITTER: Final = (0.75, 1.25)
#: Digests missed after which somebody who chose us is taken to have gone elsewhere.
_INTERVALS_SILENT_MAX: Final = 4
#: Not spoken with: who broke the rules.  Not chosen: who doesn't know the methods, and
#: who was lost a moment ago.  All in seconds.
_SHUN_S: Final = 600.0
_MUTE_S: Final = 60.0
_PAUSE_S: Final = 1.0
#: Peers of which it is remembered what they were sent of this node's own record.
_TOLD_MAX: Final = 4_096
#: A neighbour that is lost sooner than this is one that hangs up, seconds.
_BRIEF_S: Final = 5.0


@dataclass(eq=False, slots=True)
class Neighbour:
    """One edge.

    Attributes:
        peer: The other end.
        since_s: When it became one, on Trio's clock.
        heard_s: When it last compared, on Trio's clock.
        chosen: This node chose it.
        owed: Whose records it is to be sent, in that order.
        woken: Something is owed.
        promoted: It was chosen.
        scope: Ends what runs for it.
    """

    peer: str
    since_s: float
    heard_s: float
    chosen: bool = False
    owed: dict[str, None] = field(default_factory=dict)
    woken: trio.Event = field(default_factory=trio.Event)
    promoted: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def owe(self, peer: str) -> None:
        """Have the record of ``peer`` sent."""
        self.owed[peer] = None
        self.woken.set()


#: What runs for a neighbour, until its scope is cancelled.
Tend = Callable[[Neighbour], Awaitable[None]]


class Neighbours:
    """The edges of this node."""

    def __init__(
        self,
        intake: Intake,
        sessions: Sessions,
        config: DirectoryConfig,
        *,
        rng: Random,
        emit: Emit,
        seeds: Sequence[str] = (),
    ) -> None:
        self._intake = intake
        self._catalogue = intake.catalogue
        self._own = intake.catalogue.own
        self._sessions = sessions
        self._config = config
        self._rng = rng
        self._emit = emit
        self._seeds = [seed for seed in seeds if seed != self._own]
        self._chosen_max = max(1, round(config.neighbours_max * _CHOSEN_SHARE))
        self._inbound_max = max(1, config.neighbours_max - self._chosen_max)
        self._all: dict[str, Neighbour] = {}
        self._shunned_until_s: dict[str, float] = {}
        self._avoided_until_s: dict[str, float] = {}
        self._told: dict[str, int] = {}
        self._restless = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._tend: Tend | None = None

    def start(self, nursery: trio.Nursery, tend: Tend) -> None:
        """Find neighbours, and run ``tend`` for each, in ``nursery``."""
        self._nursery, self._tend = nursery, tend
        self._sessions.on_change(self._session_changed)
        nursery.start_soon(self._keep)

    def all(self) -> Sequence[Neighbour]:
        """Return the neighbours, in the order in which they came."""
        return tuple(self._all.values())

    def get(self, peer: str) -> Neighbour | None:
        """Return the neighbour of that name."""
        return self._all.get(peer)

    def interval_s(self) -> float:
        """Return how long to wait until the next comparison, jittered."""
        return self._config.digest_interval_s * self._rng.uniform(*_JITTER)

    def look_around(self) -> None:
        """Choose more neighbours, if some are missing: somebody new is known."""
        if self._lacking():
            self._restless.set()

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened:
            self._avoided_until_s.pop(peer, None)
            self.look_around()
        else:
            self._lost(peer, "the session ended")

    def _lacking(self) -> int:
        return self._chosen_max - sum(neighbour.chosen for neighbour in self._all.values())

    # --- choosing ---

    async def _keep(self) -> None:
        """Choose others whenever some are missing."""
        waited = False
        while True:
            self._restless = trio.Event()
            self._leave_the_silent()
            # Who couldn't be dialled is tried again at intervals only.
            await self._choose_missing(also_demoted=waited)
            with trio.move_on_after(self._wait_s()) as waiting:
                await self._restless.wait()
            waited = waiting.cancelled_caught

    def _wait_s(self) -> float:
        """Return when to look again: sooner if somebody may be chosen again before."""
        wait_s = self.interval_s()
        if self._lacking() > 0 and self._avoided_until_s:
            again_s = min(self._avoided_until_s.values()) - trio.current_time()
            wait_s = min(wait_s, max(_PAUSE_S, again_s))
        return wait_s

    def _leave_the_silent(self) -> None:
        now_s = trio.current_time()
        limit_s = _INTERVALS_SILENT_MAX * self._config.digest_interval_s
        for neighbour in self.all():
            if not neighbour.chosen and neighbour.heard_s + limit_s < now_s:
                self.part(neighbour.peer, "it compares no more")
        for avoided in (self._shunned_until_s, self._avoided_until_s):
            for peer in [peer for peer, until_s in avoided.items() if until_s <= now_s]:
                del avoided[peer]

    async def _choose_missing(self, *, also_demoted: bool) -> None:
        if self._lacking() <= 0:
            return
        for peer in self._candidates(also_demoted=also_demoted):
            if await self.reach(peer):
                self._choose(peer)
            if self._lacking() <= 0:
                return

    def _candidates(self, *, also_demoted: bool) -> list[str]:
        """Return whom to choose: a seed, anyone known, anyone connected."""
        connected = list(self._sessions.connected())
        known = self._known(also_demoted=also_demoted)
        seeds = list(self._seeds)
        for group in (seeds, known, connected):
            self._rng.shuffle(group)
        # One seed is enough: what hangs on seeds alone falls apart with them.
        order = dict.fromkeys((*seeds[:1], *known, *connected, *seeds))
        chosen = {neighbour.peer for neighbour in self._all.values() if neighbour.chosen}
        return [peer for peer in order if peer not in chosen and not self._is_avoided(peer)]

    def _known(self, *, also_demoted: bool) -> list[str]:
        up = set(self._sessions.connected())
        return [
            record.peer
            for record in self._catalogue.records(now_ms=self._intake.now_ms())
            if record.peer != self._own
            and (record.addresses or record.peer in up)
            and (also_demoted or not self._catalogue.is_demoted(record.peer))
        ]

    def stranger(self) -> str | None:
        """Return somebody who is no neighbour, at random; demoted or not."""
        known = dict.fromkeys((*self._known(also_demoted=True), *self._seeds))
        strangers = [p for p in known if p not in self._all and not self._is_avoided(p)]
        return self._rng.choice(strangers) if strangers else None

    async def reach(self, peer: str) -> bool:
        """Tell whether there is a session with ``peer``, or one could be opened."""
        record = self._catalogue.record(peer, now_ms=self._intake.now_ms())
        try:
            with trio.fail_after(_DIAL_S):
                await self._sessions.connect(peer, addresses=record.addresses if record else ())
        except (Unreachable, StreamLost, trio.TooSlowError) as exc:
            self._catalogue.demote(peer)
            self._emit("directory.dial_failed", peer=peer, why=str(exc) or "too slow")
            return False
        return True

    def _choose(self, peer: str) -> None:
        # While it was dialled the session may have ended again.
        if self._is_avoided(peer) or peer not in self._sessions.connected():
            return
        neighbour = self._all.get(peer) or self._meet(peer)
        neighbour.chosen = True
        neighbour.promoted.set()
        self._introduce(neighbour)

    def _meet(self, peer: str) -> Neighbour:
        assert self._nursery is not None
        assert self._tend is not None
        now_s = trio.current_time()
        neighbour = Neighbour(peer, since_s=now_s, heard_s=now_s)
        self._all[peer] = neighbour
        self._nursery.start_soon(self._tend, neighbour)
        self._emit("directory.neighbour", peer=peer)
        return neighbour

    def welcome(self, peer: str) -> None:
        """Note that ``peer`` chose this node, if there is a place for it."""
        neighbour = self._all.get(peer)
        if neighbour is not None:
            neighbour.heard_s = trio.current_time()
        elif sum(not other.chosen for other in self._all.values()) < self._inbound_max:
            self._introduce(self._meet(peer))

    def _introduce(self, neighbour: Neighbour) -> None:
        """Have a new neighbour sent this node's own record, unless it has been.

        Who comes back after a broken connection has it; who has forgotten it, because it
        was started again, asks those whom it chooses itself for all that there is.
        """
        if self._told.get(neighbour.peer) != self.own_sequence():
            neighbour.owe(self._own)

    def told(self, peer: str, sequence: int) -> None:
        """Note that ``peer`` was sent this node's own record of ``sequence``; 0 is none."""
        if not sequence:
            return
        self._told.pop(peer, None)
        self._told[peer] = sequence
        if len(self._told) > _TOLD_MAX:
            del self._told[next(iter(self._told))]

    def own_sequence(self) -> int:
        """Return that of this node's own record; 0 before there is one."""
        own = self._catalogue.record(self._own, now_ms=self._intake.now_ms())
        return own.sequence if own is not None else 0

    # --- parting ---

    def part(self, peer: str, why: str) -> None:
        """Let go of a neighbour; nothing happens if it is none."""
        neighbour = self._all.pop(peer, None)
        if neighbour is None:
            return
        neighbour.scope.cancel()
        self._emit("directory.parted", peer=peer, why=why)
        self.look_around()

    def _lost(self, peer: str, why: str) -> None:
        """Part, and don't choose ``peer`` at once again.

        One that hangs up on every session would keep this node busy with dialling.
        """
        neighbour = self._all.get(peer)
        if neighbour is not None:
            brief = trio.current_time() < neighbour.since_s + _BRIEF_S
            self._avoid(peer, self._config.digest_interval_s if brief else _PAUSE_S)
            self.part(peer, why)

    def shun(self, peer: str, why: str) -> None:
        """Have nothing to do with ``peer``, which broke the rules, for a while."""
        self._shunned_until_s[peer] = trio.current_time() + _SHUN_S
        self._emit("directory.shunned", peer=peer, why=why)
        self.part(peer, why)

    def _avoid(self, peer: str, time_s: float) -> None:
        """Don't choose ``peer`` for so long."""
        until_s = trio.current_time() + time_s
        self._avoided_until_s[peer] = max(until_s, self._avoided_until_s.get(peer, 0.0))

    def admit(self, peer: str) -> None:
        """Let a request of ``peer`` in.

        Raises:
            Busy: It has broken the rules, or nothing runs here yet.
        """
        left_s = self._shunned_until_s.get(peer, 0.0) - trio.current_time()
        if left_s > 0 or self._nursery is None:
            raise Busy(
                "the exchange of catalogues", retry_after_ms=max(50, round(left_s * 1000))
            )
        self._avoided_until_s.pop(peer, None)

    def _is_avoided(self, peer: str) -> bool:
        now_s = trio.current_time()
        return (
            self._shunned_until_s.get(peer, 0.0) > now_s
            or self._avoided_until_s.get(peer, 0.0) > now_s
        )

    @contextmanager
    def blaming(self, peer: str) -> Iterator[None]:
        """Draw the consequences of what goes wrong with ``peer``."""
        try:
            yield
        except Busy as exc:
            self._emit("directory.put_off", peer=peer, why=str(exc))
        except RequestFailed as exc:
            self._avoid(peer, _MUTE_S)
            self.part(peer, str(exc))
        except RemoteProtocolError as exc:
            self.shun(peer, str(exc))
        except (Unreachable, StreamLost, RequestTimeout) as exc:
            self._lost(peer, str(exc))
