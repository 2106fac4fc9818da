"""Whom a broker in a simulated market takes: policies behind one small interface.

A policy sees what a broker sees and nothing else: candidates with what they declare, the
broker's own load, and later what became of its awards.  Whether an answer that was
accepted is right it hears only when the broker does.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, Literal, Protocol

import msgspec
from msgspec.structs import replace

from meshnode.domain.crowding import limit_ms
from meshnode.domain.matching import Candidate, first, lead
from meshnode.domain.queues import Queues

#: What a broker comes to know of an award: paid for; what came back was refused; its
#: contractor failed, and said so; it was never heard of; it had no room; it would have
#: waited too long; the answer was accepted, and is found out to be wrong only now.
Outcome = Literal["accepted", "rejected", "failed", "no_answer", "busy", "crowded", "noticed"]


class Evidence(msgspec.Struct, frozen=True):
    """What one broker learns about one agent.

    Attributes:
        broker: Index of who learns it.
        candidate: The contractor, as it was when it was chosen.
        capability: Index of what it was to do.
        outcome: What became of it.
        at_s: When it is learned, seconds.
        took_s: From the award to the answer, seconds.
        run_s: Of that, the run, as the answer says; 0 if there was none.
        ahead: This broker's units there when it was awarded.
        queue_ms: How long it would have waited, where that was too long.
    """

    broker: int
    candidate: Candidate
    capability: int
    outcome: Outcome
    at_s: float
    took_s: float
    run_s: float
    ahead: int
    queue_ms: int = 0


class Choice(msgspec.Struct, frozen=True):
    """A task for which somebody is to be chosen.

    Attributes:
        broker: Index of whose task it is.
        capability: Index of what it needs.
        key: The task's name, the same for all attempts.
        load: Agent id -> this broker's units outstanding there.
        now_s: Seconds.
        turned: How often it was refused because it would have waited too long.
    """

    broker: int
    capability: int
    key: str
    load: Mapping[str, int]
    now_s: float
    turned: int = 0


class Chosen(msgspec.Struct, frozen=True):
    """Who gets a task.

    Attributes:
        candidate: One of those who were to choose among.
        wait_max_ms: How long the award may wait there; 0 for any time.
    """

    candidate: Candidate
    wait_max_ms: int = 0


class Policy(Protocol):
    """Chooses contractors for every broker of a market; each broker's view is its own."""

    @property
    def name(self) -> str:
        """For tables."""

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        """Return one of ``candidates``, none of them without room; None to wait."""

    def learn(self, evidence: Evidence) -> None:
        """Take in what became of an award."""


class ByFinish:
    """As a broker of today: who would be finished first, price turned into time.

    What it learned of waiting behind others (:mod:`meshnode.domain.queues`) counts in, and
    an award waits no longer than another would be worth (:mod:`meshnode.domain.crowding`).
    """

    name = "by_finish"

    def __init__(self, rng: Random) -> None:
        del rng  # nothing is left to chance
        self._queues: dict[int, Queues] = {}

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        """See :meth:`Policy.choose`."""
        queues = self._queues.setdefault(choice.broker, Queues())
        seen, now_s = queues.agents, choice.now_s
        known = [
            replace(card, queue_ms=queues.wait_ms(card.agent_id, now_s=now_s))
            if card.agent_id in seen
            else card
            for card in candidates
        ]
        best, ahead_ms = lead(known, key=choice.key, calls=1, load=choice.load)
        if ahead_ms is None or best.agent_id in choice.load:
            return Chosen(best)
        return Chosen(best, limit_ms(ahead_ms, best.queue_ms, turned=choice.turned))

    def learn(self, evidence: Evidence) -> None:
        """Learn how long it waited; trouble is in the candidates already."""
        queues = self._queues.setdefault(evidence.broker, Queues())
        if evidence.outcome == "crowded":
            queues.told(
                evidence.candidate.agent_id, wait_ms=evidence.queue_ms, now_s=evidence.at_s
            )
        elif evidence.outcome in {"accepted", "rejected"}:
            run_ms = round(evidence.run_s * 1000)
            queues.saw(
                evidence.candidate.agent_id,
                took_ms=round(evidence.took_s * 1000),
                run_ms=run_ms,
                ahead_ms=evidence.ahead * run_ms,
                now_s=evidence.at_s,
            )


class ByTurnaround:
    """As :class:`ByFinish`, but by what this broker has seen itself, where it has.

    An agent says how long it runs; how long one waits for it only its brokers know.  So
    each keeps a running mean of the time from award to answer, and takes who had no room,
    or gave no answer, for slow.  What it saw is forgotten after a while: else who was busy
    once would never be asked again.
    """

    name = "by_turnaround"

    #: Weight of the newest answer in the mean.
    NEWEST: Final = 0.3
    #: What was seen counts for so long, seconds.
    KEPT_S: Final = 60.0
    #: Who had no room is taken for at least so slow.
    FULL_MS: Final = 20_000

    def __init__(self, rng: Random) -> None:
        del rng  # nothing is left to chance
        # Broker -> peer -> as it was seen there, until when; the oldest first.
        self._seen: dict[int, dict[str, tuple[Candidate, float]]] = {}

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        """See :meth:`Policy.choose`."""
        seen = self._seen.setdefault(choice.broker, {})
        while seen and next(iter(seen.values()))[1] < choice.now_s:
            del seen[next(iter(seen))]
        known = [
            seen[c.peer][0] if c.peer in seen and not c.troubled else c for c in candidates
        ]
        best = first(known, key=choice.key, calls=1, load=choice.load)
        return Chosen(next(c for c in candidates if c.peer == best.peer))

    def learn(self, evidence: Evidence) -> None:
        """Take in how long an award took."""
        if evidence.outcome == "noticed":
            return
        seen, card = self._seen[evidence.broker], evidence.candidate
        took_ms = int(evidence.took_s * 1000)
        before = seen.pop(card.peer, None)
        before_ms = before[0].latency_ms if before else took_ms
        if evidence.outcome in {"busy", "no_answer"}:
            latency_ms = max(self.FULL_MS, took_ms, before_ms)
        else:
            latency_ms = max(1, int(before_ms + self.NEWEST * (took_ms - before_ms)))
        until_s = evidence.at_s + self.KEPT_S
        seen[card.peer] = (replace(card, latency_ms=latency_ms, alive=True), until_s)


class AtRandom:
    """Anyone: what every other policy has to beat."""

    name = "at_random"

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, choice: Choice, candidates: Sequence[Candidate]) -> Chosen | None:
        """See :meth:`Policy.choose`."""
        del choice
        return Chosen(candidates[int(self._rng.random() * len(candidates))])

    def learn(self, evidence: Evidence) -> None:
        """Remember nothing."""


#: Makes the policy of one run.
PolicyMaker = Callable[[Random], Policy]

POLICIES: Final[Mapping[str, PolicyMaker]] = {
    policy.name: policy for policy in (ByFinish, ByTurnaround, AtRandom)
}
