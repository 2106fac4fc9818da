"""The market itself: rounds of tasks, what comes of them, and what the buyers hear later."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from simulations.trust.attacks import (
    NONE,
    RIGHT,
    Attack,
    Crowd,
    Errors,
    drawn,
    share_of,
)
from simulations.trust.policy import PolicyMaker, Setting, Settled

#: An accepted result that is wrong is noticed up to so many rounds later.
NOTICE_ROUNDS: Final = 10
#: Reports are exchanged every so many rounds.
GOSSIP_ROUNDS: Final = 10
#: Rounds of which the worst are looked for, and how much must be accepted in them.
WINDOW_ROUNDS: Final = 5
#: Windows before this round say how a market begins, not how bad it gets.
SETTLED_ROUND: Final = 20
_WINDOW_SHARE: Final = 0.2


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is played.

    Attributes:
        attack: What the cheats do.
        cheats: Share of the agents that cheat, 0 to 0.7; or, from 1 on, how many do.
        honest: Agents that don't; each is a buyer as well.
        rounds: How many.
        notice: Share of the wrong accepted results that are noticed.
        at_once: They are noticed at once.
        rho: Chance that two honest errors coincide.
        errors: Share of honest answers that are wrong.
        pool: Agents that a buyer looks at for a task.
        fresh: Buyers of each kind (invited, not invited) that come at ``arrive``.
        newcomers: Better agents that come at ``arrive``.
        arrive: A round.
        fresh_rounds: Tasks of each fresh buyer.
    """

    attack: Attack = NONE
    cheats: float = 0.0
    honest: int = 30
    rounds: int = 200
    notice: float = 0.3
    at_once: bool = False
    rho: float = 0.6
    errors: float = 0.04
    pool: int = 20
    fresh: int = 0
    newcomers: int = 0
    arrive: int = 100
    fresh_rounds: int = 20


class Tally(msgspec.Struct, kw_only=True):
    """What came of tasks, counted.

    Attributes:
        tasks: All.
        accepted: Of these.
        wrong: Of the accepted ones.
        unverified: Tasks that ended so.
        contested: Tasks that ended so.
        executions: Gold tasks with them.
        gold: Of these.
        paid: Prices of what was accepted, and of gold tasks.
    """

    tasks: int = 0
    accepted: int = 0
    wrong: int = 0
    unverified: int = 0
    contested: int = 0
    executions: int = 0
    gold: int = 0
    paid: float = 0.0

    @property
    def error(self) -> float:
        """Share of the accepted results that are wrong."""
        return self.wrong / max(1, self.accepted)

    @property
    def open_share(self) -> float:
        """Share of the tasks that were not accepted."""
        return (self.unverified + self.contested) / max(1, self.tasks)

    @property
    def executions_per_task(self) -> float:
        """Runs for each task, gold with them."""
        return self.executions / max(1, self.tasks)

    @property
    def paid_per_task(self) -> float:
        """In prices of an honest agent."""
        return self.paid / max(1, self.tasks)


class Course(msgspec.Struct, kw_only=True):
    """How a market went.

    Attributes:
        tally: Of the second half, without fresh buyers.
        begin: Of the first :data:`SETTLED_ROUND` rounds.
        worst: Largest share of wrong results in :data:`WINDOW_ROUNDS` rounds.
        invited: Fresh buyers with an inviter.
        uninvited: Those without.
        loss_max: Largest number of lies that one buyer accepted from one cheat after the
            attack's turn, by shares where several agreed.
        loss_mean: What a buyer lost to all cheats since then, in tasks.
        loot: Prices that cheats got for lies, over all rounds.
        waits: By newcomer: tasks that it had, and rounds, until its share was half its fair
            one; -1 twice if it never was.
        counts: By round: accepted, wrong.
    """

    tally: Tally = msgspec.field(default_factory=Tally)
    begin: Tally = msgspec.field(default_factory=Tally)
    worst: float = 0.0
    invited: Tally = msgspec.field(default_factory=Tally)
    uninvited: Tally = msgspec.field(default_factory=Tally)
    loss_max: float = 0.0
    loss_mean: float = 0.0
    loot: float = 0.0
    waits: list[tuple[int, int]] = msgspec.field(default_factory=list)
    counts: list[tuple[int, int]] = msgspec.field(default_factory=list)


@dataclass(slots=True)
class _Desk:
    """See :class:`simulations.trust.policy.Desk`; numbers of answers differ by task."""

    crowd: Crowd
    round_: int
    draw: float
    salt: int
    rng: Random
    asked: list[int] = field(default_factory=list)
    checked: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)

    def work(self, agent: int, /) -> int:
        self.asked.append(agent)
        return self.crowd.answer(agent, self.round_, self.draw) ^ self.salt

    def gold(self, agent: int, /) -> bool:
        self.checked.append(agent)
        is_right = self.crowd.answer(agent, self.round_, self.rng.random()) == RIGHT
        if not is_right:
            self.failed.append(agent)
        return is_right


def play(terms: Terms, maker: PolicyMaker, *, seed: int) -> Course:
    """Play a market; the same seed is the same course."""
    return _Market(terms, maker, seed).play()


class _Market:
    """A market at work."""

    def __init__(self, terms: Terms, maker: PolicyMaker, seed: int) -> None:
        self._terms = terms
        self._rng = Random(f"trust/{seed}/tasks")
        many = terms.cheats >= 1
        self._crowd = Crowd(
            terms.attack,
            Random(f"trust/{seed}/crowd"),
            honest=terms.honest,
            cheats=int(terms.cheats) if many else share_of(terms.cheats, terms.honest),
            newcomers=terms.newcomers,
            errors=Errors(terms.errors, terms.rho),
        )
        self._buyers = terms.honest + 2 * terms.fresh
        self._policy = maker(
            Setting(
                buyers=self._buyers,
                honest=terms.honest,
                agents=len(self._crowd),
                prices=self._crowd.prices,
                inviters=[self._inviter(buyer) for buyer in range(self._buyers)],
                rng=Random(f"trust/{seed}/policy"),
            )
        )
        self._later: dict[int, list[tuple[int, Sequence[int]]]] = {}
        self._course = Course(counts=[(0, 0)] * terms.rounds)
        self._losses: dict[tuple[int, int], float] = {}
        self._had: list[list[int]] = []  # by round: how often each newcomer was asked, and all

    def _inviter(self, buyer: int) -> int | None:
        """Everybody but the second half of the fresh buyers was invited by somebody honest."""
        if buyer >= self._terms.honest + self._terms.fresh:
            return None
        return self._rng.choice([one for one in range(self._terms.honest) if one != buyer])

    def play(self) -> Course:
        terms = self._terms
        for round_ in range(terms.rounds):
            if round_ and round_ % GOSSIP_ROUNDS == 0:
                self._policy.gossip(self._crowd.claims())
            for buyer, agents in self._later.pop(round_, ()):
                self._catch(buyer, agents)
            self._had.append([0] * (len(self._crowd.newcomers) + 1))
            there = range(len(self._crowd))
            if round_ < terms.arrive and self._crowd.newcomers:
                there = range(self._crowd.newcomers.start)
            for buyer in self._shopping(round_):
                self._buy(buyer, round_, there)
        self._close()
        return self._course

    def _shopping(self, round_: int) -> range:
        terms = self._terms
        is_time = terms.arrive <= round_ < terms.arrive + terms.fresh_rounds
        return range(self._buyers if is_time else terms.honest)

    def _buy(self, buyer: int, round_: int, there: Sequence[int]) -> None:
        rng = self._rng
        desk = _Desk(self._crowd, round_, rng.random(), salt=rng.getrandbits(20) << 12, rng=rng)
        pool = drawn(rng, there, self._terms.pool, but=buyer)
        settled = self._policy.settle(buyer, pool, desk)
        is_right = settled.answer ^ desk.salt == RIGHT
        for agent in desk.failed:
            self._rebirth(agent)
        for tally in self._tallies(buyer, round_):
            _count(tally, settled, desk, is_right=is_right)
        if buyer >= self._terms.honest:
            return
        if settled.end == "accepted":
            self._accepted(buyer, round_, settled, is_right=is_right)
        for agent in desk.asked:
            self._had[round_][-1] += 1
            if agent in self._crowd.newcomers:
                self._had[round_][agent - self._crowd.newcomers.start] += 1

    def _tallies(self, buyer: int, round_: int) -> list[Tally]:
        terms, course = self._terms, self._course
        if buyer >= terms.honest:
            is_invited = buyer < terms.honest + terms.fresh
            return [course.invited if is_invited else course.uninvited]
        tallies = [course.tally] if 2 * round_ >= terms.rounds else []
        return [*tallies, course.begin] if round_ < SETTLED_ROUND else tallies

    def _accepted(self, buyer: int, round_: int, settled: Settled, *, is_right: bool) -> None:
        accepted, wrong = self._course.counts[round_]
        self._course.counts[round_] = accepted + 1, wrong + (not is_right)
        if is_right:
            return
        for agent in settled.paid:
            if agent in self._crowd.cheats:
                self._course.loot += self._crowd.prices[agent]
                if round_ >= self._terms.attack.turns_at:
                    pair = buyer, agent
                    self._losses[pair] = self._losses.get(pair, 0) + 1 / len(settled.paid)
        if self._rng.random() < self._terms.notice:
            if self._terms.at_once:
                self._catch(buyer, settled.paid)
                return
            at = round_ + 1 + self._rng.randrange(NOTICE_ROUNDS)
            self._later.setdefault(at, []).append((buyer, settled.paid))

    def _catch(self, buyer: int, agents: Sequence[int]) -> None:
        self._policy.noticed(buyer, agents)
        for agent in agents:
            self._rebirth(agent)

    def _rebirth(self, agent: int) -> None:
        if self._terms.attack.reborn and agent in self._crowd.cheats:
            self._policy.reborn(agent)

    # --- in the end ---

    def _close(self) -> None:
        course, honest = self._course, self._terms.honest
        course.worst = _worst(course.counts, honest)
        course.loss_max = max(self._losses.values(), default=0.0)
        course.loss_mean = sum(self._losses.values()) / honest
        fair = 0.5 / (honest + len(self._crowd.newcomers))
        after = self._had[self._terms.arrive :]
        course.waits = [
            _wait([(row[at], row[-1]) for row in after], fair)
            for at in range(len(self._crowd.newcomers))
        ]


def _count(tally: Tally, settled: Settled, desk: _Desk, *, is_right: bool) -> None:
    tally.tasks += 1
    tally.executions += len(desk.asked) + len(desk.checked)
    tally.gold += len(desk.checked)
    tally.paid += sum(desk.crowd.prices[agent] for agent in desk.checked)
    match settled.end:
        case "accepted":
            tally.accepted += 1
            tally.wrong += not is_right
            tally.paid += sum(desk.crowd.prices[agent] for agent in settled.paid)
        case "unverified":
            tally.unverified += 1
        case "contested":
            tally.contested += 1


def _worst(counts: Sequence[tuple[int, int]], buyers: int) -> float:
    worst = 0.0
    for first in range(SETTLED_ROUND, len(counts) - WINDOW_ROUNDS + 1):
        window = counts[first : first + WINDOW_ROUNDS]
        accepted = sum(one for one, _ in window)
        if accepted >= _WINDOW_SHARE * buyers * WINDOW_ROUNDS:
            worst = max(worst, sum(wrong for _, wrong in window) / accepted)
    return worst


def _wait(rounds: Sequence[tuple[int, int]], fair: float) -> tuple[int, int]:
    """Return the tasks and rounds until ten rounds together held the fair share."""
    for last in range(10, len(rounds) + 1):
        window = rounds[last - 10 : last]
        if sum(one for one, _ in window) >= fair * sum(every for _, every in window):
            return sum(one for one, _ in rounds[:last]), last
    return -1, -1
