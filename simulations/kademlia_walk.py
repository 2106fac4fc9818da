"""One operation of one node, as a walk over the nodes' tables that adds up its time.

A walk sends no messages.  It looks up in the tables what each node would have answered,
lets the tables learn what the requests would have taught them, and adds up what all
that would have taken, round trip by round trip; the caller then sleeps that long, once.
So an operation costs a fraction of a millisecond, and everything in it sees the DHT as
it was when the operation began.

The steps are those of ``PeerRouting.find_closest_peers_network`` of py-libp2p 0.8.1 and
of ``KadDirectory._each`` of our adapter, with what they do when a peer is gone: one that
refuses the connection is dropped from the asker's table, one that says nothing for
three seconds stays in it.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import TypeVar

from simulations.kademlia_node import KadNode, Population
from simulations.kademlia_table import nearest

T = TypeVar("T")


class Late(Exception):
    """The operation has used up its time."""


class Walk:
    """What one operation did.

    Attributes:
        now_s: What it took so far, seconds.
        rounds: How many times a lookup waited for answers before it asked again: hops.
        finds: Requests for the nearest peers.
        requests: All other requests.
        unanswered: Those of both kinds that nobody answered.
    """

    __slots__ = (
        "_lanes", "_node", "_population", "_rules", "finds", "now_s", "requests", "rounds",
        "unanswered",
    )  # fmt: skip

    def __init__(self, population: Population, node: KadNode) -> None:
        self.now_s = 0.0
        self.rounds = self.finds = self.requests = self.unanswered = 0
        self._population = population
        self._rules = population.rules
        self._node = node
        # When each peer is free: the adapter has one request at a time to a peer.
        self._lanes: dict[int, float] = {}

    def wait(self, seconds: float) -> None:
        """Let time pass.

        Raises:
            Late: It was too much.
        """
        self.now_s += seconds
        if self.now_s > self._rules.operation_s:
            self.now_s = self._rules.operation_s
            raise Late

    def join(self, keys: Iterable[int]) -> None:
        """Know ``keys`` again, those that are there or seem to be.

        Raises:
            Late: The operation's time was used up.
        """
        slowest_s = 0.0
        for key in keys:
            if not self._node.seems_linked(key):
                other, took_s = self._reach(key)
                slowest_s = max(slowest_s, took_s)
                if other is None:
                    continue
            self._node.hear_of(key)
        self.wait(slowest_s)

    def nearest(self, target: int) -> list[int]:
        """Look up the peers nearest to ``target``: whoever is named, asked or not.

        Raises:
            Late: The operation's time was used up.
        """
        rules, node = self._rules, self._node
        found = node.table.nearest(target, rules.bucket_max)
        if len(found) < rules.seeds_min:
            found = nearest({*found, *node.known}, target, rules.bucket_max)
        asked: set[int] = set()
        for _ in range(rules.rounds_max):
            batch = [key for key in found if key not in asked][: rules.alpha]
            if not batch:
                break
            self.rounds += 1
            asked.update(batch)
            named = self._ask_round(batch, target)
            if named:
                merged = nearest({*found, *named}, target, rules.bucket_max)
                if merged == found:
                    break
                found = merged
        return found

    def each(
        self,
        keys: Iterable[int],
        trips: float,
        ask: Callable[[KadNode], T],
        take: Callable[[int, T | None], bool],
    ) -> None:
        """Ask peers, some at once, until an answer is enough or nobody is left.

        Args:
            keys: Whom to ask, in order.
            trips: Round trips of one request.
            ask: What a node answers, and what that does to it.
            take: Told of each answer, None if there was none; says whether it is enough.

        Raises:
            Late: The operation's time was used up.
        """
        waiting, start_s = list(reversed(list(keys))), self.now_s
        running: list[tuple[float, int, int, T | None]] = []
        while True:
            while waiting and len(running) < self._rules.parallel_max:
                key = waiting.pop()
                end_s, answer = self._in_lane(key, trips, ask)
                heappush(running, (end_s, -len(waiting), key, answer))  # the earlier first
            if not running:
                return
            end_s, _, key, answer = heappop(running)
            self.now_s = max(start_s, end_s)
            self.wait(0.0)
            if take(key, answer):
                return

    # --- single requests ----------------------------------------------------------

    def _ask_round(self, batch: Sequence[int], target: int) -> dict[int, None]:
        """Ask all of ``batch`` for the nearest they know; return whom they named."""
        node = self._node
        ended: list[tuple[float, int, int, KadNode | None]] = []
        self.finds += len(batch)
        node.meet_all(batch)
        for order, key in enumerate(batch):
            other, took_s = self._call(key, self._rules.request_trips)
            ended.append((took_s, order, key, other))
        # In the order in which they end: who refuses is forgotten before the others name
        # it again, and so it stays in the table.
        ended.sort(key=lambda end: end[:2])
        named: dict[int, None] = {}
        for took_s, _, key, other in ended:
            if other is not None:
                told = other.nearest(node, target)
                named.update(dict.fromkeys(told))
                node.hear_of_all(told)
            elif took_s < self._rules.request_s:
                node.table.forget(key)
        named.pop(node.key, None)
        self.wait(ended[-1][0])
        return named

    def _in_lane(
        self, key: int, trips: float, ask: Callable[[KadNode], T]
    ) -> tuple[float, T | None]:
        """Ask ``key`` when it is free; return when that is over, and the answer."""
        limit_s = self.now_s + self._rules.request_s
        begin_s = max(self.now_s, self._lanes.get(key, 0.0))
        if begin_s >= limit_s:
            return limit_s, None
        self.requests += 1
        other, took_s = self._call(key, trips)
        answer = None if other is None else ask(other)
        self._lanes[key] = min(begin_s + took_s, limit_s)
        return self._lanes[key], answer if begin_s + took_s < limit_s else None

    def _call(self, key: int, trips: float) -> tuple[KadNode | None, float]:
        """Send a request; return who answers it, and after how many seconds.

        Nobody after less than ``request_s`` is a refusal, after as long a silence.
        """
        node, population, limit_s = self._node, self._population, self._rules.request_s
        other, took_s = self._reach(key)
        if other is None:
            self.unanswered += 1
            return None, took_s
        other.contacted_by(node)
        took_s += trips * population.trip_s(node.peer, other.peer)
        if took_s >= limit_s:
            self.unanswered += 1
            return None, limit_s
        return other, took_s

    def _reach(self, key: int) -> tuple[KadNode | None, float]:
        """Connect to a peer unless there is a connection; return it, and how long it took."""
        node, rules, population = self._node, self._rules, self._population
        other = population.nodes.get(key)
        if key in population.silent or (
            other is not None and not population.joins(node, other)
        ):
            return None, rules.request_s
        if other is None or not other.server:  # the connection, or the protocol, is refused
            trip_s = population.trip_s(node.peer, population.name(key))
            return None, min(trip_s, rules.request_s / 2)
        if node.is_linked(other):
            return other, 0.0
        node.link(other)
        return other, rules.dial_trips * population.trip_s(node.peer, other.peer)
