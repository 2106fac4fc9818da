"""A market as a heap of events: many brokers, many agents, one clock, no tasks of Trio's.

Real nodes in virtual time (:mod:`simulations.mesh`) take milliseconds of work for a
sub-task; for a million of them among ten thousand agents there is this.  It decides by
the same pure functions as a broker (who has room, in which order, when to try again and
whom not), and everything around them is reduced to what moves a market:

* Every task is a job of one single call.  An agent is its node; its record is known to
  all, and a broker looks at a subset of its own of those who offer what it needs.
* A broker sees what a broker sees: declared prices, the latency that an agent says it has
  (as old as its offer), its own load, who failed it lately, whom it has a session with.
* Awards go out under standing offers.  They wait at their contractor for a slot, in the
  order they came; beyond its limit, or the time that they may wait, they are refused.
* What travels or is written down first takes time, drawn for each message and commit.
* A failed attempt is followed by another, after the pauses of a broker, at somebody else
  if there is anybody; a task ends with its deadline at the latest, and its award is
  cancelled.
* Acceptance is paid, and nothing else is.

Left out: graphs and batches, CFPs, lost messages and nodes that die (an agent that never
answers is the nearest to one), quotas, budgets, signatures, sizes of data.  A contractor's
limit on one award's time counts when the award is begun, not while it waits.

``tests/simulations/test_market_and_mesh.py`` holds it against real nodes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Final

from meshnode.config import HostConfig
from meshnode.domain.attempts import DISQUALIFYING, IDLE_MAX, UNTRIED, pause_ms
from meshnode.domain.crowding import SUBSET, subset
from meshnode.domain.matching import Candidate, has_room
from meshnode.domain.units import CROWDED
from simulations.market_agents import Trader
from simulations.market_arrivals import Arrival
from simulations.market_choice import Choice, Chosen, Evidence, Outcome, Policy
from simulations.market_figures import Counter
from simulations.market_ledger import Ledger, Payment
from simulations.market_parties import BUSY, OFFER_S, Attempt, Broker, Contractor, Task

#: A broker looks again after this if nobody had room, seconds (services/job_runner.py).
_POLL_S: Final = 1.0
#: An award may take so much longer than its agent allows itself (services/contracts.py).
_SLACK_S: Final = 30.0
#: After that, the broker waits so much longer for an answer (services/awards.py).
_ANSWER_S: Final = 15.0

_CODES: Final = {"error": "agent.failed", "hang": "agent.timeout"}
_OUTCOMES: Final[dict[str, Outcome]] = {
    BUSY: "busy",
    CROWDED: "crowded",
    "output.rejected": "rejected",
    "session.timeout": "no_answer",
}


@dataclass(frozen=True, slots=True)
class Delays:
    """What takes time beside the work itself; each is drawn uniformly.

    Attributes:
        wire_s: One way, shortest and longest.
        commit_s: One group commit of a disk.
        dial_trips: Round trips to open a session.
        planning: Commits before the first award of a task leaves; a later one takes one.
        taking: Commits at the contractor before the work begins.
        finishing: Commits there before the result leaves.
        settling: Commits at the broker until the result counts.
    """

    wire_s: tuple[float, float] = (0.02, 0.03)
    commit_s: tuple[float, float] = (0.001, 0.008)
    dial_trips: int = 2
    planning: int = 2
    taking: int = 1
    finishing: int = 1
    settling: int = 1

    def draw(self, rng: Random, *, wires: int, commits: int) -> float:
        """Return what so many messages and commits one after the other take, seconds."""
        total_s = 0.0
        shortest_s, longest_s = self.wire_s
        for _ in range(wires):
            total_s += shortest_s + (longest_s - shortest_s) * rng.random()
        shortest_s, longest_s = self.commit_s
        for _ in range(commits):
            total_s += shortest_s + (longest_s - shortest_s) * rng.random()
        return total_s


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for everybody in a market.

    Attributes:
        candidates: Without its own work, that a broker looks at of those who offer what it
            needs; drawn once, with others as it needs them.
        attempts_max: Awards of a task at which a contractor may fail.
        deadline_s: From a task's arrival.
        caught_chance: Of a wrong result being found out before it is accepted.
        noticed_chance: Of one that was accepted being found out later.
        notice_s: How much later, on the mean.
        awards_max: That one contractor holds, waiting ones included (config.HostConfig).
        sessions_max: That one broker keeps open; the one used longest ago is closed.
        window_s: Length of the spans of time that figures are given for.
        delays: What takes time beside the work.
    """

    candidates: int = SUBSET
    attempts_max: int = 4
    deadline_s: float = 120.0
    caught_chance: float = 0.0
    noticed_chance: float = 0.3
    notice_s: float = 30.0
    awards_max: int = HostConfig().awards_max
    sessions_max: int = 256
    window_s: float = 10.0
    delays: Delays = field(default_factory=Delays)


class Market:
    """One market, from its first arrival to the end of its last task.

    Args:
        traders: Agents; an agent's place is its index.
        brokers: How many.
        rules: What holds for all.
        policy: Who chooses.
        seed: Fixes everything that the policy doesn't draw.

    Attributes:
        counter: What came of it.
        ledger: What was paid.
        brokers: By index.
        contractors: By index.
        now_s: The time.
    """

    def __init__(
        self,
        traders: Sequence[Trader],
        *,
        brokers: int,
        rules: Rules,
        policy: Policy,
        seed: str,
    ) -> None:
        self.counter = Counter()
        self.ledger = Ledger()
        self.brokers = [Broker(number) for number in range(brokers)]
        self.contractors = [
            Contractor(
                number,
                trader,
                capability_name=f"work.c{trader.capability}@1",
                awards_max=rules.awards_max,
            )
            for number, trader in enumerate(traders)
        ]
        self.now_s = 0.0
        self._rules = rules
        self._policy = policy
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = count()  # breaks ties, so that events are never compared
        self._offering: dict[int, list[Contractor]] = {}
        offering = Random(f"{seed}/offering")
        for contractor in self.contractors:
            self._offering.setdefault(contractor.trader.capability, []).append(contractor)
            renewed_s = OFFER_S * (0.5 + 0.5 * offering.random())
            self._at(renewed_s, self._renew, contractor)
        self._by_peer = {contractor.peer: contractor for contractor in self.contractors}
        self._open: OrderedDict[int, Task] = OrderedDict()  # by number: by deadline, too
        self._expires = False  # the next deadline is in the heap
        self._hash = sha256()
        self._sampling = Random(f"{seed}/sampling")
        self._running = Random(f"{seed}/running")
        self._delaying = Random(f"{seed}/delaying")
        self._checking = Random(f"{seed}/checking")

    # --- the loop ---

    def run(
        self, arrivals: Iterable[Arrival], *, on_window: Callable[[], None] = lambda: None
    ) -> None:
        """Let tasks arrive, and go on until each has ended.

        Args:
            arrivals: In order of time.
            on_window: Called whenever a window has ended.
        """
        coming = iter(arrivals)
        arrival = next(coming, None)
        self._at(self._rules.window_s, self._close_window, on_window)
        heap = self._heap
        while arrival is not None or self._open:
            if arrival is not None and arrival.at_s <= heap[0][0]:
                self.now_s = arrival.at_s
                self._arrive(arrival)
                arrival = next(coming, None)
            else:
                self.now_s, _, call, what = heappop(heap)
                call(what)
        self._close(on_window)

    def digest(self) -> str:
        """Return the SHA-256 of what happened, in hex."""
        return self._hash.hexdigest()

    def _at(self, due_s: float, call: Callable[[Any], None], what: object) -> None:
        heappush(self._heap, (due_s, next(self._order), call, what))

    def _note(self, what: bytes, task: Task, contractor: int) -> None:
        """Put into the digest that this happened now."""
        line = b"%d %b %d %d\n" % (int(self.now_s * 1e6), what, task.number, contractor)
        self._hash.update(line)

    def _close_window(self, on_window: Callable[[], None]) -> None:
        self._close(on_window)
        self._at(self.now_s + self._rules.window_s, self._close_window, on_window)

    def _close(self, on_window: Callable[[], None]) -> None:
        ended_s = self.counter.windows[-1].end_s if self.counter.windows else 0.0
        if self.now_s > ended_s:
            self.counter.close_window(
                self.contractors, now_s=self.now_s, length_s=self.now_s - ended_s
            )
            on_window()

    # --- tasks ---

    def _arrive(self, arrival: Arrival) -> None:
        number = self.counter.arrived
        self.counter.arrived += 1
        deadline_s = self.now_s + self._rules.deadline_s
        broker = self.brokers[arrival.broker]
        task = Task(number, broker, arrival, deadline_s)
        self._open[number] = task
        if not self._expires:
            self._expires = True
            self._at(deadline_s, self._expire, None)
        self._place(task)

    def _expire(self, _: None) -> None:
        """End the tasks whose time is up; look again when that of the next one is.

        All have the same time, so the first to come is the first to go.
        """
        self._expires = False
        while self._open:
            task = next(iter(self._open.values()))
            if task.deadline_s > self.now_s:
                self._expires = True
                self._at(task.deadline_s, self._expire, None)
                return
            self._withdraw(task)
            self._fail(task, "deadline")

    def _end(self, task: Task) -> None:
        task.over = True
        del self._open[task.number]

    def _fail(self, task: Task, code: str) -> None:
        self._end(task)
        self.counter.fail(code)
        self._note(code.encode(), task, -1)

    def _place(self, task: Task) -> None:
        """Award a task to somebody, or see to it later."""
        if task.over:
            return
        broker = task.broker
        candidates = self._candidates(task, broker)
        chosen = None
        if candidates:
            choice = Choice(
                broker.number,
                task.capability,
                f"task-{task.number}",
                broker.load,
                self.now_s,
                task.turned,
            )
            chosen = self._policy.choose(choice, candidates)
        elif all(task.failed.get(each.peer) for each in broker.subsets[task.capability]):
            self._fail(task, "providers.failed")
            return
        if chosen is None:
            self._at(self.now_s + _POLL_S, self._place, task)
        else:
            self._award(task, chosen)

    def _candidates(self, task: Task, broker: Broker) -> list[Candidate]:
        """Return who could do it: has room, and hasn't failed at it unless all others have."""
        load, failed = broker.load, task.failed
        wanted = self._rules.candidates + len(failed)
        cards = subset(self._cards(task.capability, broker), load=load, count=wanted)
        if failed:
            cards = [card for card in cards if not failed.get(card.peer)]
            cards = [card for card in cards if card.peer not in failed] or cards
        # Who has nothing of this broker's has room; few of those drawn have.
        return [card for card in cards if card.agent_id not in load or has_room(card, load)]

    def _cards(self, capability: int, broker: Broker) -> Iterator[Candidate]:
        """Go through all who offer it, in the broker's own order, drawn as far as is needed."""
        sessions, troubled = broker.sessions, broker.troubled(self.now_s)
        drawn = broker.subsets.setdefault(capability, [])
        for number in count():
            if number == len(drawn) and not self._draw(capability, drawn):
                return
            each = drawn[number]
            cards = each.troubled_cards if each.peer in troubled else each.cards
            yield cards[each.peer in sessions]

    def _draw(self, capability: int, drawn: list[Contractor]) -> bool:
        """Draw some more than were ``drawn``; tell whether there are any."""
        offering = self._offering.get(capability, [])
        wanted = min(self._rules.candidates, len(offering) - len(drawn))
        more = self._sampling.sample(offering, min(len(offering), len(drawn) + wanted))
        drawn += [one for one in more if one not in drawn][:wanted]
        return wanted > 0

    # --- awards ---

    def _award(self, task: Task, chosen: Chosen) -> None:
        candidate = chosen.candidate
        contractor = self._by_peer[candidate.peer]
        broker, delays = task.broker, self._rules.delays
        attempt = task.attempt = Attempt(task, contractor, chosen, self.now_s)
        load, agent_id = broker.load, candidate.agent_id
        attempt.ahead = load.get(agent_id, 0)
        load[agent_id] = attempt.ahead + 1
        is_new = broker.connect(candidate.peer, sessions_max=self._rules.sessions_max)
        is_first = task.tries + task.idle == 0
        delay_s = delays.draw(
            self._delaying,
            wires=1 + (2 * delays.dial_trips if is_new else 0),
            commits=delays.taking + (delays.planning if is_first else 1),
        )
        self._note(b"award", task, contractor.number)
        self._at(self.now_s + delay_s, self._receive, attempt)

    def _receive(self, attempt: Attempt) -> None:
        """An award arrives; one that was cancelled meanwhile isn't begun."""
        if attempt.state == "over":
            return
        contractor = attempt.contractor
        if refused := contractor.take(attempt, self.now_s, self._running):
            self._send(attempt, refused, commits=0)
        elif attempt.state == "mute":
            limit_s = contractor.trader.timeout_s + _SLACK_S + _ANSWER_S
            self._at(attempt.awarded_s + limit_s, self._give_up, attempt)
        else:
            self._begin(contractor)

    def _begin(self, contractor: Contractor) -> None:
        """Begin what waits, as far as there are slots."""
        for attempt in contractor.begin(self.now_s):
            attempt.task.executions += 1
            self.counter.begun(self.now_s - attempt.received_s)
            length_s = contractor.draw(attempt, self.now_s, self._running)
            left_s = attempt.received_s + contractor.trader.timeout_s + _SLACK_S - self.now_s
            if length_s > left_s:
                attempt.fate, length_s = "hang", max(0.0, left_s)
            attempt.run_s = length_s
            self._at(self.now_s + length_s, self._finish, attempt)

    def _finish(self, attempt: Attempt) -> None:
        """A run ends."""
        if attempt.state == "over":
            return  # it was cancelled
        attempt.contractor.leave(attempt, self.now_s, completed=True)
        self._begin(attempt.contractor)
        self._send(attempt, _CODES.get(attempt.fate, ""), commits=self._rules.delays.finishing)

    def _send(self, attempt: Attempt, code: str, *, commits: int) -> None:
        """Answer the broker, who acts on it once it is written down."""
        commits += self._rules.delays.settling
        delay_s = self._rules.delays.draw(self._delaying, wires=1, commits=commits)
        self._at(self.now_s + delay_s, self._hear, (attempt, code))

    def _hear(self, answer: tuple[Attempt, str]) -> None:
        """The broker hears what became of an award."""
        attempt, code = answer
        task = attempt.task
        if task.attempt is not attempt:
            return  # too late: it was cancelled
        is_wrong = attempt.fate == "wrong" and not code
        if is_wrong and self._checking.random() < self._rules.caught_chance:
            code = "output.rejected"
        self._release(attempt)
        if code:
            self._missed(attempt, code)
        else:
            self._accept(attempt, is_wrong=is_wrong)

    def _release(self, attempt: Attempt) -> None:
        attempt.task.attempt = None
        attempt.task.broker.release(attempt.candidate.agent_id)

    def _accept(self, attempt: Attempt, *, is_wrong: bool) -> None:
        task, contractor = attempt.task, attempt.contractor
        price_mc = attempt.candidate.price_mc
        self._end(task)
        task.broker.paid_mc += price_mc
        contractor.earned_mc += price_mc
        self.ledger.add(Payment(task.number, task.broker.number, contractor.number, price_mc))
        self.counter.accept(task, self.now_s, price_mc, wrong=is_wrong)
        self._note(b"wrong" if is_wrong else b"right", task, contractor.number)
        self._learn(attempt, "accepted")
        if is_wrong and self._checking.random() < self._rules.noticed_chance:
            later_s = self._checking.expovariate(1 / self._rules.notice_s)
            self._at(self.now_s + later_s, self._notice, attempt)

    def _notice(self, attempt: Attempt) -> None:
        """The broker finds out that it paid for a wrong answer."""
        self._blame(attempt.contractor, attempt.candidate.peer)
        self._learn(attempt, "noticed")

    def _give_up(self, attempt: Attempt) -> None:
        """The broker has waited long enough for an answer, and withdraws the award."""
        task = attempt.task
        if task.attempt is attempt:
            task.broker.distrust(attempt.candidate.peer, self.now_s)
            self._withdraw(task)
            self._missed(attempt, "session.timeout")

    def _withdraw(self, task: Task) -> None:
        """Cancel the award that is out, if any; its contractor hears of it a little later."""
        attempt = task.attempt
        if attempt is not None:
            self._release(attempt)
            delay_s = self._rules.delays.draw(self._delaying, wires=1, commits=0)
            self._at(self.now_s + delay_s, self._cancel, attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.state == "sent":
            attempt.state = "over"
        elif attempt.state != "over":
            attempt.contractor.leave(attempt, self.now_s)
            self._begin(attempt.contractor)

    def _missed(self, attempt: Attempt, code: str) -> None:
        """An attempt came to nothing: try again, if that is allowed, after a pause."""
        task, peer = attempt.task, attempt.candidate.peer
        is_try, is_unfit = code not in UNTRIED, code in DISQUALIFYING
        is_turned = code == CROWDED
        task.tries += is_try
        task.idle += not is_try
        task.turned += is_turned
        if not is_turned:
            task.failed[peer] = task.failed.get(peer, False) or is_unfit
        self._note(code.encode(), task, attempt.contractor.number)
        if is_unfit:
            self._blame(attempt.contractor, peer)
        self._learn(attempt, _OUTCOMES.get(code, "failed"))
        if task.tries >= self._rules.attempts_max or task.idle > IDLE_MAX:
            self._fail(task, code)
            return
        pause_s = 0.0 if is_turned else pause_ms(task.tries, tried=is_try) / 1000
        self._at(self.now_s + pause_s, self._place, task)

    # --- what is known of whom ---

    def _renew(self, contractor: Contractor) -> None:
        """An agent's offer is renewed: all brokers see the latency that it has now."""
        contractor.renew()
        self._at(self.now_s + OFFER_S, self._renew, contractor)

    def _blame(self, contractor: Contractor, peer: str) -> None:
        """Hold something against an agent, if it still is who it was."""
        if contractor.peer == peer and contractor.blame():
            self._by_peer[contractor.peer] = contractor

    def _learn(self, attempt: Attempt, outcome: Outcome) -> None:
        task, took_s = attempt.task, self.now_s - attempt.awarded_s
        self._policy.learn(
            Evidence(
                task.broker.number,
                attempt.candidate,
                task.capability,
                outcome,
                self.now_s,
                took_s,
                attempt.run_s,
                attempt.ahead,
                attempt.queue_ms,
            )
        )
