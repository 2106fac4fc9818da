"""The two sides of a simulated market at work: what each one holds and knows.

They are told the time and never schedule anything; :mod:`simulations.market_loop` does.
"""

from collections import deque
from collections.abc import Container, Iterator
from random import Random
from typing import Final, Literal

from meshnode.domain.crowding import wait_ms
from meshnode.domain.matching import Candidate
from meshnode.domain.units import CROWDED
from simulations.market_agents import Conduct, Trader
from simulations.market_arrivals import Arrival
from simulations.market_choice import Chosen

#: An agent's offer is renewed about so often: a broker's idea of its latency is as old.
OFFER_S: Final = 480.0
#: A peer that gave no answer is the last choice for this long, seconds (services/market.py).
TROUBLE_S: Final = 30.0
#: Weight of the newest run in an agent's own mean of its latency, as at a node.
_NEWEST: Final = 0.2

#: No room for another award.
BUSY: Final = "node.busy"

Fate = Literal["right", "wrong", "error", "hang"]


class Broker:
    """A broker as its next decision finds it.

    Attributes:
        number: Index.
        load: Agent id -> its own units outstanding there.
        subsets: Capability -> whom it looks at, in its own order, as far as it ever looked.
        sessions: Peers that it has an open session with, the latest used last.
        paid_mc: For accepted results.
    """

    __slots__ = ("_trouble_s", "load", "number", "paid_mc", "sessions", "subsets")

    def __init__(self, number: int) -> None:
        self.number = number
        self.load: dict[str, int] = {}
        self.subsets: dict[int, list[Contractor]] = {}
        self.sessions: dict[str, None] = {}
        self.paid_mc = 0
        self._trouble_s: dict[str, float] = {}  # peer -> until when, the soonest first

    def connect(self, peer: str, *, sessions_max: int) -> bool:
        """Use the session with ``peer``; tell whether it had to be opened first."""
        sessions = self.sessions
        if peer in sessions:
            del sessions[peer]
            sessions[peer] = None
            return False
        sessions[peer] = None
        if len(sessions) > sessions_max:
            del sessions[next(iter(sessions))]
        return True

    def distrust(self, peer: str, now_s: float) -> None:
        """Take ``peer`` only if there is nobody else, for a while."""
        self._trouble_s.pop(peer, None)
        self._trouble_s[peer] = now_s + TROUBLE_S

    def troubled(self, now_s: float) -> Container[str]:
        """Return who is the last choice now."""
        until_s = self._trouble_s
        while until_s:
            soonest = next(iter(until_s))
            if until_s[soonest] > now_s:
                break
            del until_s[soonest]
        return until_s

    def release(self, agent_id: str) -> None:
        """Count a unit there no longer."""
        left = self.load[agent_id] - 1
        if left:
            self.load[agent_id] = left
        else:
            del self.load[agent_id]


class Task:
    """One single-call sub-task, from its arrival to its end.

    Attributes:
        number: In order of arrival.
        broker: Whose it is.
        capability: What it needs.
        arrived_s: When it came.
        deadline_s: When it has failed.
        tries: Attempts at which a contractor failed.
        idle: Attempts that nobody took up.
        turned: Of those, the ones that would have waited too long.
        executions: Runs that were begun for it.
        failed: Peer that failed -> whether it isn't asked again at all.
        attempt: The one that is out.
        over: It has ended.
    """

    __slots__ = (
        "arrived_s",
        "attempt",
        "broker",
        "capability",
        "deadline_s",
        "executions",
        "failed",
        "idle",
        "number",
        "over",
        "tries",
        "turned",
    )

    def __init__(
        self, number: int, broker: Broker, arrival: Arrival, deadline_s: float
    ) -> None:
        self.number = number
        self.broker = broker
        self.capability = arrival.capability
        self.arrived_s = arrival.at_s
        self.deadline_s = deadline_s
        self.tries = 0
        self.idle = 0
        self.turned = 0
        self.executions = 0
        self.failed: dict[str, bool] = {}
        self.attempt: Attempt | None = None
        self.over = False


class Attempt:
    """One award.

    Attributes:
        task: What for.
        contractor: Who was awarded.
        candidate: It as the broker saw it: peer, price.
        awarded_s: When it was sent.
        received_s: When it arrived.
        begun_s: When it was begun; -1 until then.
        state: Where it is at its contractor.
        fate: What its run comes to.
        ahead: Units of the same broker that were there before it.
        wait_max_ms: How long it may wait there; 0 for any time.
        queue_ms: How long it would have waited, where it was refused.
        run_s: How long its run takes.
    """

    __slots__ = (
        "ahead",
        "awarded_s",
        "begun_s",
        "candidate",
        "contractor",
        "fate",
        "queue_ms",
        "received_s",
        "run_s",
        "state",
        "task",
        "wait_max_ms",
    )

    def __init__(
        self, task: Task, contractor: "Contractor", chosen: Chosen, awarded_s: float
    ) -> None:
        self.task = task
        self.contractor = contractor
        self.candidate = chosen.candidate
        self.wait_max_ms = chosen.wait_max_ms
        self.queue_ms = 0
        self.awarded_s = awarded_s
        self.received_s = 0.0
        self.begun_s = -1.0
        self.state: Literal["sent", "waiting", "running", "mute", "over"] = "sent"
        self.fate: Fate = "right"
        self.ahead = 0
        self.run_s = 0.0


class Contractor:
    """An agent at work.

    Attributes:
        trader: How it was made.
        number: Index.
        peer: PeerId that it has now.
        cards: As brokers see it, without and with a session.
        troubled_cards: The same, for those whom it gave no answer.
        earned_mc: Under all its keys.
        executions: Runs begun.
        utilisation: Of its slots in the last window that was closed, 0 to 1.
        births: Keys it has had before.
    """

    __slots__ = (
        "_awards_max",
        "_blamed",
        "_busy_slot_s",
        "_capability_name",
        "_held",
        "_mean_ms",
        "_queue",
        "_running",
        "_since_s",
        "births",
        "cards",
        "earned_mc",
        "executions",
        "number",
        "peer",
        "trader",
        "troubled_cards",
        "utilisation",
    )

    def __init__(
        self, number: int, trader: Trader, *, capability_name: str, awards_max: int
    ) -> None:
        self.number = number
        self.trader = trader
        self.peer = f"agent-{number}"
        self.earned_mc = 0
        self.executions = 0
        self.utilisation = 0.0
        self.births = 0
        self._capability_name = capability_name
        self._awards_max = awards_max
        self._blamed = 0
        self._held = 0
        self._running = 0
        self._queue: deque[Attempt] = deque()
        self._mean_ms = trader.mean_s * 1000
        self._busy_slot_s = 0.0
        self._since_s = 0.0
        self.renew()

    # --- what it declares ---

    def renew(self) -> None:
        """Declare its latency anew: its own mean, or what it would like it to be."""
        self.cards, self.troubled_cards = (
            tuple(self._card(troubled=troubled, alive=alive) for alive in (False, True))
            for troubled in (False, True)
        )

    def _card(self, *, troubled: bool, alive: bool) -> Candidate:
        trader = self.trader
        return Candidate(
            peer=self.peer,
            agent="worker",
            capability=self._capability_name,
            price_mc=trader.price_mc,
            latency_ms=max(1, int(self._mean_ms * trader.behaviour.claimed_share)),
            concurrency=trader.concurrency,
            alive=alive,
            troubled=troubled,
        )

    def blame(self) -> bool:
        """A broker holds something against it; tell whether it takes a new key for that."""
        self._blamed += 1
        if self._blamed != self.trader.behaviour.reborn_after:
            return False
        self._blamed = 0
        self.births += 1
        self.peer = f"agent-{self.number}.{self.births}"
        self.renew()
        return True

    # --- awards ---

    def take(self, attempt: Attempt, now_s: float, rng: Random) -> str:
        """Take an award; return nothing, or the code by which it is refused."""
        if self._held >= self._awards_max:
            attempt.state = "over"
            return BUSY
        if attempt.wait_max_ms and (wait_ms := self.wait_ms) > attempt.wait_max_ms:
            attempt.state, attempt.queue_ms = "over", wait_ms
            return CROWDED
        self._held += 1
        attempt.received_s = now_s
        silent_chance = self.trader.behaviour.at(now_s).silent_chance
        if silent_chance and rng.random() < silent_chance:
            attempt.state = "mute"
        else:
            attempt.state = "waiting"
            self._queue.append(attempt)
        return ""

    @property
    def wait_ms(self) -> int:
        """How long an award that came now would wait for a slot, as far as it knows."""
        return wait_ms(
            self._running + len(self._queue),
            concurrency=self.trader.concurrency,
            latency_ms=int(self._mean_ms),
        )

    def begin(self, now_s: float) -> Iterator[Attempt]:
        """Return what begins now, since there is a slot for it."""
        while self._queue and self._running < self.trader.concurrency:
            attempt = self._queue.popleft()
            self._integrate(now_s)
            self._running += 1
            self.executions += 1
            attempt.state = "running"
            attempt.begun_s = now_s
            yield attempt

    def draw(self, attempt: Attempt, now_s: float, rng: Random) -> float:
        """Draw what a run comes to, and return how long that takes, seconds."""
        conduct = self.trader.behaviour.at(now_s)
        shortest_s, longest_s = self.trader.latency_s
        length_s = shortest_s + (longest_s - shortest_s) * rng.random()
        if conduct.slow_chance and rng.random() < conduct.slow_chance:
            length_s *= conduct.slow_factor
        attempt.fate = _fate(conduct, rng.random())
        if attempt.fate == "hang" or length_s > self.trader.timeout_s:
            attempt.fate = "hang"
            return self.trader.timeout_s
        return length_s

    def leave(self, attempt: Attempt, now_s: float, *, completed: bool = False) -> None:
        """Hold an award no longer, wherever it is; a run that was completed is measured."""
        self._held -= 1
        if attempt.state == "running":
            self._integrate(now_s)
            self._running -= 1
            if completed and attempt.fate in {"right", "wrong"}:
                self._mean_ms += _NEWEST * ((now_s - attempt.begun_s) * 1000 - self._mean_ms)
        elif attempt.state == "waiting":
            self._queue.remove(attempt)
        attempt.state = "over"

    # --- figures ---

    def _integrate(self, now_s: float) -> None:
        self._busy_slot_s += self._running * (now_s - self._since_s)
        self._since_s = now_s

    def close_window(self, now_s: float, length_s: float) -> tuple[float, float]:
        """Return how busy it was in the window that ends, and in the one before, 0 to 1."""
        self._integrate(now_s)
        before = self.utilisation
        self.utilisation = self._busy_slot_s / (self.trader.concurrency * length_s)
        self._busy_slot_s = 0.0
        return self.utilisation, before


def _fate(conduct: Conduct, draw: float) -> Fate:
    if draw < conduct.error_chance:
        return "error"
    draw -= conduct.error_chance
    if draw < conduct.wrong_chance:
        return "wrong"
    draw -= conduct.wrong_chance
    return "hang" if draw < conduct.hang_chance else "right"
