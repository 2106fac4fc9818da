"""A network in memory, where every delay and every fault comes from one seed.

Time is Trio's clock: under :func:`simulations.world.run` a simulated minute takes
as long as the code in it.  What a real transport can do to a node, this one can do
on request: delay, break a connection (both sides notice, or one), crash a peer,
freeze it, cut the network in two (both ways, or one way).  What a real transport
never does, this one doesn't either: bytes of a stream are never lost, doubled or
swapped while the stream lives.

A frozen peer's tasks can't be stopped inside one process: they go on, but nothing
they send leaves and nothing reaches them until the thaw.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from random import Random

import trio

from meshnode.errors import StreamLost, Unreachable
from meshnode.ports import Handler
from simulations.alarms import sleep
from simulations.climate import Climate
from simulations.endings import Endings
from simulations.geography import Access, Home
from simulations.incoming import Incoming
from simulations.lanes import Host, Lane
from simulations.links import Link, SimStream
from simulations.silence import Ears
from simulations.timetable import Timetable
from simulations.trace import Trace
from simulations.weather import CALM, Weather

__all__ = ["CALM", "SimNetwork", "SimStream", "SimTransport", "Weather", "open_network"]


class SimNetwork:
    """Every peer's transport, the links between them, and what goes wrong with them.

    Attributes:
        trace: What happened.
        handler_failures: What escaped from stream handlers, beside ``StreamLost``:
            peer, protocol and exception.  A scenario should find it empty.
        timetable: For faults that are to happen later.
        minds_silence: Whether connections tell of a peer's silence, so that sessions need no
            heartbeats (:meth:`meshnode.ports.Stream.mind_silence`); for those made from now on.
    """

    def __init__(
        self, nursery: trio.Nursery, rng: Random, weather: Weather, trace: Trace
    ) -> None:
        """Use :func:`open_network`, which also runs the timetable."""
        self.trace = trace
        self.minds_silence = False
        self.timetable = Timetable()
        self.handler_failures: list[tuple[str, str, Exception]] = []
        self._nursery = nursery
        self._rng = rng
        self._climate = Climate(weather, rng)
        self._hosts: dict[str, SimTransport] = {}
        self._addresses: dict[str, SimTransport] = {}
        self._links: dict[Link, None] = {}
        self._endings = Endings(self._links, rng, self.timetable, trace, self._is_blocked)
        self._islands: tuple[frozenset[str], ...] = ()
        self._one_way: dict[tuple[str, str], None] = {}
        self._changed = trio.Event()

    # --- peers --------------------------------------------------------------------

    def transport(self, peer: str, *, listens: bool | None = None) -> "SimTransport":
        """Return the transport of ``peer``, a new one if it is new or has crashed.

        Args:
            peer: Its PeerId; any text.
            listens: Whether it can be dialled; a peer behind a NAT can't, and has no
                address to tell.  Its connections, which it dials, serve both ways.  None is
                as in its life before, and yes in its first.  Of no effect while it is up.
        """
        host = self._hosts.get(peer)
        if host is None or host.down:
            if listens is None:
                listens = host is None or host.listens
            address = host.address if host else f"/memory/{len(self._hosts) + 1}"
            self._hosts[peer] = host = SimTransport(self, peer, address, listens=listens)
            if listens:
                self._addresses[address] = host
            self.trace.note(f"{peer} up")
        return host

    def crash(self, peer: str, *, notice_s: float | None = 0.0) -> None:
        """End ``peer`` as a kill would; :meth:`transport` makes a new one.

        Its handlers are cancelled and its streams break.  Its own tasks, which the
        caller has to cancel, find that their transport is dead.

        Args:
            peer: Who ends.
            notice_s: When the others notice, in seconds; None for never (half-open).
        """
        host = self._hosts[peer]
        host.down = True
        self._addresses.pop(host.address, None)
        self.trace.note(f"{peer} down")
        for link in tuple(host.links.values()):
            self._endings.end(link, "the peer crashed", first=host, notice_s=notice_s)
        self._endings.forget(host)
        for scope in tuple(host.scopes):
            scope.cancel()
        host.serve_no_more()
        self._look_again()

    def freeze(self, peer: str) -> None:
        """Stop ``peer`` as SIGSTOP would: connected, but nothing comes in or goes out."""
        host = self._hosts[peer]
        if not host.frozen:
            host.frozen = True
            host.thawed = trio.Event()
            self.trace.note(f"{peer} frozen")
            self._obstacles_changed()

    def thaw(self, peer: str) -> None:
        """Let ``peer`` go on; what was held back arrives."""
        host = self._hosts[peer]
        if host.frozen:
            host.frozen = False
            host.thawed.set()
            self.trace.note(f"{peer} thawed")
            self._obstacles_changed()

    # --- links --------------------------------------------------------------------

    def set_weather(self, weather: Weather, *between: str) -> None:
        """Change the weather everywhere, or both ways between two peers.

        A stream keeps the window that it was opened with.
        """
        self._climate.change(weather, *between)
        self._adjust_lanes()

    def set_access(self, peer: str, access: Access) -> None:
        """Change what all connections of ``peer`` carry together, and what it adds."""
        self._climate.connect(peer, access)
        self._adjust_lanes()

    def weather(self, one: str, other: str) -> Weather:
        """Return the weather from ``one`` to ``other``, their places considered."""
        return self._climate.weather(one, other)

    def home(self, peer: str) -> Home | None:
        """Return where ``peer`` is, if the weather everywhere has a geography."""
        return self._climate.home(peer)

    def break_link(self, one: str, other: str, *, notice_s: float | None = 0.0) -> None:
        """Break the connection between two peers, if there is one.

        Args:
            one: Notices at once.
            other: Notices after ``notice_s`` seconds, or never if that is None: then
                it goes on believing in a connection on which nothing moves, until
                ``one`` dials it again.
            notice_s: See ``other``.
        """
        link = self._hosts[one].links.get(other)
        if link is not None:
            why = "the connection broke"
            self._endings.end(link, why, first=self._hosts[one], notice_s=notice_s)

    def partition(self, *islands: Iterable[str]) -> None:
        """Cut every path between different ``islands``; without arguments, heal.

        Who is on no island reaches everyone.  Connections across the cut stand
        still, and break when it lasts longer than the weather's ``cut_limit_s``.
        """
        self._islands = tuple(frozenset(island) for island in islands)
        self.trace.note(f"partition {[sorted(island) for island in self._islands]}")
        self._obstacles_changed()

    def cut_one_way(self, source: str, target: str) -> None:
        """Let nothing pass from ``source`` to ``target``; the other way is open."""
        self._one_way[source, target] = None
        self.trace.note(f"cut {source}>{target}")
        self._obstacles_changed()

    def mend_one_way(self, source: str, target: str) -> None:
        """Undo :meth:`cut_one_way`."""
        self._one_way.pop((source, target), None)
        self.trace.note(f"mended {source}>{target}")
        self._obstacles_changed()

    def mend_all(self) -> None:
        """Undo every :meth:`cut_one_way`."""
        for source, target in tuple(self._one_way):
            self.mend_one_way(source, target)

    def passes(self, source: str, target: str) -> bool:
        """Tell whether bytes get from ``source`` to ``target`` now, cuts considered."""
        if (source, target) in self._one_way:
            return False
        if not self._islands:
            return True
        here = [i for i, island in enumerate(self._islands) if source in island]
        there = [i for i, island in enumerate(self._islands) if target in island]
        return not here or not there or bool(set(here) & set(there))

    def answers(self, one: str, other: str) -> bool:
        """Tell whether ``other`` would answer ``one`` now, were it up."""
        there = self._hosts.get(other)
        if there is not None and there.frozen:
            return False
        if not self._one_way and not self._islands:  # as nearly always
            return True
        return self.passes(one, other) and self.passes(other, one)

    def connected(self, one: str, other: str) -> bool:
        """Tell whether ``one`` believes in a connection to ``other``."""
        return other in self._hosts[one].links

    # --- for transports -----------------------------------------------------------

    def start(self, run: Incoming) -> None:
        """Run a handler in the background."""
        self._nursery.start_soon(run.serve)

    def listener(self, peer: str, addresses: Iterable[str]) -> "SimTransport | None":
        """Return who answers as ``peer`` at one of ``addresses``."""
        found = (self._addresses.get(address) for address in addresses)
        return next((host for host in found if host and host.peer == peer), None)

    async def clear_path(self, one: Host, other: Host) -> bool:
        """Wait until bytes pass both ways; tell whether that came in time."""
        with trio.move_on_after(self.weather(one.peer, other.peer).dial_limit_s):
            while self._is_blocked(one, other) or self._is_blocked(other, one):
                await self._changed.wait()
            return True
        return False

    async def round_trip(self, one: str, other: str) -> None:
        """Take as long as a question from ``one`` to ``other`` with its answer."""
        delay_s = self.weather(one, other).delay_s(self._rng)
        await sleep(delay_s + self.weather(other, one).delay_s(self._rng))

    def hang_up(self, link: Link, host: "SimTransport") -> None:
        """Break ``link`` because ``host`` wants it; the other side hears of it later."""
        self._endings.hang_up(link, host)

    def dial_fails(self, one: str, other: str) -> bool:
        """Draw whether a dial fails."""
        chance = self.weather(one, other).dial_failure_chance
        return chance > 0 and self._rng.random() < chance

    def connect(self, dialler: "SimTransport", acceptor: "SimTransport") -> Link:
        """Return the link between two hosts, the one there is or a new one.

        Raises:
            Unreachable: One of them has crashed meanwhile.
        """
        if dialler.down or acceptor.down:
            raise Unreachable(acceptor.peer, "it went away during the dial")
        link = dialler.links.get(acceptor.peer)
        if link is not None:
            return link
        stale = acceptor.links.get(dialler.peer)
        if stale is not None and not self._endings.parting(stale):
            why = "a new connection took its place"
            self._endings.cut_off(stale, why, first=acceptor, notice_s=None)
        lanes = self._lanes(dialler, acceptor)
        ears = Ears() if self.minds_silence else None
        link = Link((dialler, acceptor), lanes, self._endings.lose, ears=ears)
        dialler.links[acceptor.peer] = acceptor.links[dialler.peer] = link
        self._links[link] = None
        dialler.known[acceptor.peer] = acceptor.addresses()
        acceptor.known[dialler.peer] = dialler.addresses()
        self.trace.note(f"{dialler.peer} connected {acceptor.peer}")
        return link

    def _lanes(self, one: Host, other: Host) -> dict[str, Lane]:
        lanes = {}
        for source, target in ((one, other), (other, one)):
            lane = Lane(
                f"{source.peer}>{target.peer}",
                self.weather(source.peer, target.peer),
                self._rng,
                self.timetable,
                self.trace,
            )
            self._adjust(lane, source.peer, target.peer)
            if self._is_blocked(source, target):
                lane.block()
            lanes[source.peer] = lane
        return lanes

    def _adjust_lanes(self) -> None:
        for link in self._links:
            for source in link.hosts:
                lane = link.lanes[source.peer]
                self._adjust(lane, source.peer, link.other(source).peer)

    def _adjust(self, lane: Lane, source: str, target: str) -> None:
        lane.weather = self.weather(source, target)
        lane.up, lane.down = self._climate.up(source), self._climate.down(target)

    def _is_blocked(self, source: Host, target: Host) -> bool:
        return source.frozen or target.frozen or not self.passes(source.peer, target.peer)

    def _obstacles_changed(self) -> None:
        """Block and unblock every lane as the cuts and the frozen peers have it."""
        self._look_again()
        for link in tuple(self._links):
            cut = False
            for source in link.hosts:
                target = link.other(source)
                lane = link.lanes[source.peer]
                cut = cut or not self.passes(source.peer, target.peer)
                if self._is_blocked(source, target):
                    if not lane.blocked:
                        lane.block()
                        link.falls_silent(target.peer)
                elif lane.blocked and not link.stalled:
                    lane.unblock()
            self._watch_cut(link, cut=cut)

    def _look_again(self) -> None:
        """Let those who wait for a clear path look for it."""
        self._changed.set()
        self._changed = trio.Event()

    def _watch_cut(self, link: Link, *, cut: bool) -> None:
        """Break ``link`` when it stays cut for too long."""
        if not cut:
            link.cut_since_s = inf
        elif link.cut_since_s == inf:
            now_s = trio.current_time()
            link.cut_since_s = now_s
            limit_s = link.lanes[link.hosts[0].peer].weather.cut_limit_s
            if limit_s < inf:
                self.timetable.at(now_s + limit_s, self._cut_too_long, link, now_s)

    def _cut_too_long(self, link: Link, since_s: float) -> None:
        if link.cut_since_s == since_s and link in self._links:
            self._endings.cut_off(
                link, "no path for too long", first=link.hosts[0], notice_s=0.0
            )


class SimTransport(Host):
    """One life of a peer on a :class:`SimNetwork`: its transport until it crashes.

    Attributes:
        down: It has crashed.
        listens: It can be dialled.
        address: Where it listens, if it does.
        known: Addresses of the peers it has met.
        scopes: Its running handlers.
        running: How many of them, by protocol and peer.
    """

    __slots__ = (
        "_handlers",
        "_network",
        "address",
        "down",
        "known",
        "listens",
        "running",
        "scopes",
    )

    def __init__(self, network: SimNetwork, peer: str, address: str, *, listens: bool) -> None:
        super().__init__(peer)
        self._network = network
        self.listens = listens
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self.address = address
        self.down = False
        self.known: dict[str, Sequence[str]] = {}
        self.scopes: dict[trio.CancelScope, None] = {}
        self.running: dict[tuple[str, str], int] = {}

    def addresses(self) -> Sequence[str]:
        """See :meth:`meshnode.ports.Transport.addresses`."""
        return (self.address,) if self.listens else ()

    def serve(self, protocol: str, handler: Handler, *, per_peer_max: int = 32) -> None:
        """See :meth:`meshnode.ports.Transport.serve`."""
        self._handlers[protocol] = (handler, per_peer_max)

    def serve_no_more(self) -> None:
        """Hold nothing of a node that has ended: its place is kept until it comes back."""
        self._handlers.clear()

    async def open(
        self, peer: str, protocol: str, *, addresses: Sequence[str] = ()
    ) -> SimStream:
        """See :meth:`meshnode.ports.Transport.open`."""
        link = self.links.get(peer)
        if link is None:
            link = await self._dial(peer, addresses)
        return await self._negotiate(link, protocol)

    async def disconnect(self, peer: str) -> None:
        """See :meth:`meshnode.ports.Transport.disconnect`."""
        await trio.lowlevel.checkpoint()
        link = self.links.get(peer)
        if link is not None:
            self._network.hang_up(link, self)

    async def _dial(self, peer: str, addresses: Sequence[str]) -> Link:
        network = self._network
        await network.round_trip(self.peer, peer)
        target = network.listener(peer, (*addresses, *self.known.get(peer, ())))
        if self.down or target is None or target is self:
            raise Unreachable(peer, "nobody answers as it at the addresses given")
        if network.dial_fails(self.peer, peer):
            raise Unreachable(peer, "the dial failed")
        if not await network.clear_path(self, target):
            raise Unreachable(peer, "the dial was not answered in time")
        return network.connect(self, target)

    async def _negotiate(self, link: Link, protocol: str) -> SimStream:
        network, target = self._network, link.other(self)
        assert isinstance(target, SimTransport)
        await network.round_trip(self.peer, target.peer)
        answers = await network.clear_path(self, target)
        if answers and self.links.get(target.peer) is link is not target.links.get(self.peer):
            # Half-open: the question went nowhere.
            limit_s = network.weather(self.peer, target.peer).dial_limit_s
            await link.lost(self.peer, limit_s)
            answers = False
            if self.links.get(target.peer) is link:
                link.leave(self, "nothing was answered")  # and the next question dials anew
        if self.links.get(target.peer) is not link:
            raise StreamLost(f"the connection to {target.peer} broke")
        if not answers or target.links.get(self.peer) is not link:
            raise StreamLost(f"{target.peer} does not answer")
        return target.accept(link, self, protocol)

    def accept(self, link: Link, opener: Host, protocol: str) -> SimStream:
        """Start the handler of ``protocol`` and return the opener's end."""
        if protocol not in self._handlers:
            raise StreamLost(f"{self.peer} does not speak {protocol}")
        handler, per_peer_max = self._handlers[protocol]
        near, far = link.pair(opener)
        key = (protocol, opener.peer)
        if self.running.get(key, 0) >= per_peer_max:
            far.reset("too many streams at once")
        else:
            self.running[key] = self.running.get(key, 0) + 1
            self._network.start(Incoming(self._network, self, protocol, handler, far))
        return near


@asynccontextmanager
async def open_network(
    rng: Random, *, weather: Weather | None = None, trace: Trace | None = None
) -> AsyncIterator[SimNetwork]:
    """Run a network for the length of the block; its handlers end with it.

    Args:
        rng: All chance of the network.
        weather: All links, until :meth:`SimNetwork.set_weather`; the default is mild.
        trace: Where to note what happens.
    """
    async with trio.open_nursery() as nursery:
        network = SimNetwork(nursery, rng, weather or Weather(), trace or Trace())
        nursery.start_soon(network.timetable.run)
        yield network
        nursery.cancel_scope.cancel()
