"""What a node does with the simulated DHT: publish, list, look up, keep its place.

Step by step what ``adapters/kad_directory.py`` does, each as one
:class:`~simulations.kademlia_walk.Walk`: which peers, how many at once, when it is
enough, what is tried a second time, and what is left when the time is used up.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final, TypeVar

import trio

from simulations.directory import Validate
from simulations.kademlia_node import KadNode, Kept, Population
from simulations.kademlia_walk import Late, Walk

T = TypeVar("T")

_RETRY_JITTER: Final = (0.5, 1.5)


class Operations:
    """The operations of all nodes of one DHT."""

    def __init__(self, population: Population, rng: Random, validate: Validate) -> None:
        self._population = population
        self._rules = population.rules
        self._rng = rng
        self._validate = validate

    def maintain(self, node: KadNode) -> tuple[Walk, int]:
        """Look up the node's own key, so that it knows its neighbours and they know it."""
        walk = Walk(self._population, node)
        found: list[int] = []

        def attempt(_: int) -> bool:
            walk.join(node.via)
            found.extend(walk.nearest(node.key))
            return True

        self._try(attempt)
        node.expire()
        return walk, len(found)

    def publish(self, node: KadNode, record: bytes, names: Sequence[str]) -> tuple[Walk, int]:
        """Store a record and announce names; return how many peers took the record."""
        rules, walk = self._rules, Walk(self._population, node)
        sequence, held = self._validate(node.peer, record), node.held(node.peer)
        if sequence is None or (held is not None and held.sequence > sequence):
            return walk, 0
        if len(names) > rules.names_max:
            names = sorted(names, key=lambda name: "@" not in name)[: rules.names_max]
        kept = Kept(record, sequence, trio.current_time() + rules.record_life_s)
        node.keep(node.peer, kept)
        taken: dict[int, None] = {}

        def attempt(number: int) -> bool:
            self._begin(walk, node, number)
            peers = walk.nearest(self._population.record_key(node.peer))[: rules.replicas]
            self._store(walk, node, kept, peers, taken)
            if taken:
                lost = {key: None for key in peers if key not in taken}
                self._announce_all(walk, node, names, peers, lost)
            return bool(taken)

        self._try(attempt)
        return walk, len(taken)

    def providers(self, node: KadNode, name: str, count_max: int) -> tuple[Walk, Sequence[str]]:
        """Look for peers listed under ``name``; return those found."""
        count_max = min(count_max, self._rules.providers_max)
        found = dict.fromkeys(node.listed(name))

        def take(_: int, listed: Sequence[str] | None) -> bool:
            found.update(dict.fromkeys(listed or ()))
            return len(found) >= count_max

        def ask(other: KadNode) -> Sequence[str]:
            return other.providers(node, name)

        target = self._population.name_key(name)
        walk = self._look(node, target, ask, take, lambda: bool(found))
        return walk, list(found)[:count_max]

    def record(self, node: KadNode, peer: str) -> tuple[Walk, bytes | None]:
        """Look for the freshest record of ``peer``; return it, or None."""
        held = node.held(peer)
        judged: dict[bytes, int | None] = {}  # most answers are the same bytes
        found: list[tuple[int, bytes]] = []
        if held is not None and (sequence := self._validate(peer, held.record)) is not None:
            found.append((sequence, held.record))
        if peer == node.peer:
            return Walk(self._population, node), found[0][1] if found else None
        answers = 0

        def take(_: int, record: bytes | None) -> bool:
            nonlocal answers
            if record is not None:
                if record not in judged:
                    judged[record] = self._validate(peer, record)
                sequence = judged[record]
                if sequence is not None:
                    found.append((sequence, record))
                    answers += 1
            return answers >= self._rules.quorum

        def ask(other: KadNode) -> bytes | None:
            return other.record(node, peer)

        target = self._population.record_key(peer)
        walk = self._look(node, target, ask, take, lambda: bool(found))
        return walk, max(found)[1] if found else None

    # --- parts --------------------------------------------------------------------

    def _look(
        self,
        node: KadNode,
        target: int,
        ask: Callable[[KadNode], T],
        take: Callable[[int, T | None], bool],
        is_enough: Callable[[], bool],
    ) -> Walk:
        """Ask the peers nearest to ``target``, and again if nothing was found."""
        walk = Walk(self._population, node)

        def attempt(number: int) -> bool:
            self._begin(walk, node, number)
            walk.each(walk.nearest(target), self._rules.request_trips, ask, take)
            return is_enough()

        self._try(attempt)
        return walk

    def _try(self, attempt: Callable[[int], bool]) -> None:
        """Try until it succeeds, as often as the rules have it, or time is used up."""
        try:
            for number in range(self._rules.attempts):
                if attempt(number):
                    return
        except Late:
            return  # what was done until then is done

    def _begin(self, walk: Walk, node: KadNode, attempt: int) -> None:
        if attempt:
            walk.wait(self._rules.retry_s * self._rng.uniform(*_RETRY_JITTER))
        walk.join(node.via)

    def _store(
        self,
        walk: Walk,
        node: KadNode,
        kept: Kept,
        peers: Sequence[int],
        taken: dict[int, None],
    ) -> None:
        def ask(other: KadNode) -> bool:
            return other.take_record(node.peer, kept)

        def take(key: int, done: bool | None) -> bool:  # noqa: FBT001 - an answer
            if done:
                taken[key] = None
            return False

        walk.each(peers, self._rules.request_trips, ask, take)

    def _announce_all(
        self,
        walk: Walk,
        node: KadNode,
        names: Sequence[str],
        near_record: Sequence[int],
        lost: dict[int, None],
    ) -> None:
        """Announce every name, all at once, each at the peers nearest to it."""
        # With fewer peers than one bucket holds, the nearest are the same for all.
        everyone = near_record if len(near_record) < self._rules.bucket_max else None
        start_s = end_s = walk.now_s
        for name in dict.fromkeys(names):
            walk.now_s = start_s
            with suppress(Late):
                self._announce(walk, node, name, everyone, lost)
            end_s = max(end_s, walk.now_s)
        walk.now_s = end_s

    def _announce(
        self,
        walk: Walk,
        node: KadNode,
        name: str,
        everyone: Sequence[int] | None,
        lost: dict[int, None],
    ) -> None:
        rules, expires_s = self._rules, trio.current_time() + self._rules.provider_life_s
        node.take_provider(node.peer, name, expires_s)

        def ask(other: KadNode) -> bool:
            other.take_provider(node.peer, name, expires_s)
            return True

        def take(key: int, sent: bool | None) -> bool:  # noqa: FBT001 - an answer
            if not sent:
                lost[key] = None
            return False

        peers = everyone
        if peers is None:
            peers = walk.nearest(self._population.name_key(name))[: rules.replicas]
        walk.each([k for k in peers if k not in lost], rules.announce_trips, ask, take)
