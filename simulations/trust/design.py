"""This design as a policy of the market: the modules that a node uses, and nothing beside.

A buyer's book, whom it ranks first, which golds are due, what it accepts and what it learns of
that are those of ``meshnode.domain.trust``; here they are only called in the order in which a
broker does.  A buyer has ten tasks out at a time, its newest ones, so that the share of them
that one agent may have is in force.  Receipts are not made: an honest buyer's testimony is what
it saw, a cheat's is what it makes up, signed by its own; and an edge is worth what the
testimony says.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from meshnode.domain.trust.acceptance import Decision, Terms, decide, lessons, theta_of
from meshnode.domain.trust.allocation import Bidder, Job, rank, reserve
from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import is_spot_check
from meshnode.domain.trust.evidence import Evidence
from meshnode.domain.trust.golds import Alarm, gold_is_due, introduction
from meshnode.domain.trust.graph import TrustGraph, edge_units, flows
from meshnode.domain.trust.hearsay import Tally, agreement, imported, rater_weights
from meshnode.domain.trust.posterior import Voter
from meshnode.domain.trust.rules import RULES, Kind, Rules, mu
from simulations.trust.policy import Claims, Desk, End, Setting, Settled

#: What a right answer is worth, and a wrong one costs, in prices of an honest agent.
WORTH: Final = 10
_PRICE_MC: Final = 1_000
#: Tasks that a buyer has out at a time: its newest ones, for the share that one agent may have.
OPEN_TASKS: Final = 10


class Design:
    """See the module."""

    def __init__(self, setting: Setting, *, assurance: str, rules: Rules = RULES) -> None:
        self._setting = setting
        self._rules = rules
        self._names = [f"agent{number:03}" for number in range(setting.agents)]
        self._prices_mc = [round(_PRICE_MC * price) for price in setting.prices]
        self._job = Job(
            value_mc=round(WORTH * _PRICE_MC),
            loss_mc=round(WORTH * _PRICE_MC),
            theta=theta_of(assurance),
            replica_mc=_PRICE_MC,
        )
        self._buyers = [self._buyer(inviter) for inviter in setting.inviters]

    def _buyer(self, inviter: int | None) -> "_Buyer":
        buyer = _Buyer(self._rules, "" if inviter is None else self._names[inviter])
        if buyer.inviter:
            buyer.book.learn(buyer.inviter, Evidence("vouched"))
        return buyer

    # --- a task ---

    def settle(self, buyer: int, pool: Sequence[int], desk: Desk) -> Settled:
        """Rank, check by gold what is due, ask until sure or hopeless, learn."""
        one = self._buyers[buyer]
        one.task += 1
        agents = sorted(pool)
        bidders = [self._bidder(one, agent) for agent in agents]
        job = replace(self._job, open_mc=len(one.open) * self._job.value_mc)
        placed = rank(bidders, job, self._setting.rng, self._rules)
        if not placed:  # all are blocked: nobody is asked in vain
            return Settled("unverified", -1, ())
        first = placed[0].bidder
        others = reserve(bidders, first, job, self._setting.rng, self._rules)
        one.open.append(bidders[first].agent)
        self._golds(one, agents, [first, *others], desk)
        return self._asked(one, [agents[first], *(agents[place] for place in others)], desk)

    def _bidder(self, one: "_Buyer", agent: int) -> Bidder:
        name = self._names[agent]
        return Bidder(
            agent=name,
            price_mc=self._prices_mc[agent],
            latency_ms=0,
            standing=one.book.standing(name),
            imported=one.book.imported(name),
            open_mc=one.open.count(name) * self._job.value_mc,
        )

    def _golds(
        self, one: "_Buyer", agents: Sequence[int], order: Sequence[int], desk: Desk
    ) -> None:
        """Give the golds that are due to the first choice, the second, or an introduction."""
        due: list[int] = []
        known = []
        for place, number in enumerate(order):
            name = self._names[agents[number]]
            standing, said = one.book.standing(name), one.book.imported(name)
            known.append((standing, said))
            if place < 2 and gold_is_due(  # noqa: PLR2004 - the first two are looked at
                standing,
                said,
                self._setting.rng,
                second=place == 1,
                alarmed=one.alarm.is_raised(one.task),
                rules=self._rules,
            ):
                due.append(number)
        introduced = introduction(known, self._rules)
        if introduced is not None and order[introduced] not in due:
            due.append(order[introduced])
        for number in due:
            agent = agents[number]
            one.learn(self._names[agent], "gold_passed" if desk.gold(agent) else "gold_failed")

    def _asked(self, one: "_Buyer", order: Sequence[int], desk: Desk) -> Settled:
        """Ask one after another, as the production's decision says."""
        terms = self._terms(one, order)
        voters = {agent: self._voter(one, agent) for agent in order}
        groups: dict[int, list[Voter]] = {}
        asked: dict[int, list[int]] = {}
        for place, agent in enumerate(order):
            answer = desk.work(agent)
            one.learn(self._names[agent], "served")
            groups.setdefault(answer, []).append(voters[agent])
            asked.setdefault(answer, []).append(agent)
            left = [voters[other] for other in order[place + 1 :]]
            decision = decide(list(groups.values()), left, terms, self._rules)
            if not decision.asks:
                break
        else:
            raise AssertionError("nobody is left, and another answer is wanted")
        for lesson in lessons(list(groups.values()), decision, self._rules):
            one.learn(lesson.agent, lesson.kind)
        best = list(asked)[decision.best]
        return Settled(_end(decision), best, asked[best])

    def _terms(self, one: "_Buyer", order: Sequence[int]) -> Terms:
        name = self._names[order[0]]
        spotted = is_spot_check(
            one.book.standing(name), one.book.imported(name), self._setting.rng
        )
        alone = one.book.may_stand_alone(name) and not spotted
        return Terms(
            theta=self._job.theta,
            alone=alone and not one.alarm.is_raised(one.task),
            anchored=any(one.book.is_strong(self._names[agent]) for agent in order),
        )

    def _voter(self, one: "_Buyer", agent: int) -> Voter:
        return Voter(self._names[agent], one.book.credibility(self._names[agent]))

    # --- what is heard ---

    def noticed(self, buyer: int, agents: Sequence[int]) -> None:
        """Learn that they were wrong."""
        for agent in agents:
            self._buyers[buyer].learn(self._names[agent], "caught")

    def gossip(self, claims: Claims) -> None:
        """Weigh everybody's testimony anew, each buyer for itself."""
        told: dict[str, dict[str, Tally]] = {}
        for number, buyer in enumerate(self._buyers[: self._setting.honest]):
            told[self._names[number]] = {
                agent: Tally(standing.good_mu, standing.bad_mu)
                for agent, standing in buyer.book.standings.items()
            }
        for rater, agent, good, bad in claims:
            tally = Tally(mu(good), mu(bad))
            told.setdefault(self._names[rater], {})[self._names[agent]] = tally
        graph = TrustGraph()
        for name in sorted(told):
            graph.put(name, _edges(told[name], self._rules))
        for number, buyer in enumerate(self._buyers):
            me = self._names[number] if number < self._setting.honest else f"buyer{number}"
            self._hear(buyer, me, graph, told)

    def _hear(
        self, one: "_Buyer", me: str, graph: TrustGraph, told: dict[str, dict[str, Tally]]
    ) -> None:
        own = one.book.standings
        seen = {name: Tally(at.for_mu, at.bad_mu) for name, at in own.items()}
        graph.put(me, _edges(seen, self._rules))
        flow = flows(graph, me, self._rules)
        graph.put(me, _edges(told.get(me, {}), self._rules))
        raters = [rater for rater in told if rater != me and flow.weight(rater) > 0]
        weights = rater_weights(
            flow,
            {rater: one.book.own_credibility(rater) for rater in raters},
            {rater: agreement(told[rater], own, self._rules) for rater in raters},
            self._rules,
        )
        said = imported(
            told, weights, before=flow.before, inviter=one.inviter, rules=self._rules
        )
        one.book.take(said)

    def reborn(self, agent: int) -> None:
        """Give it another name."""
        self._names[agent] = f"{self._names[agent]}'"


class _Buyer:
    """What one buyer holds."""

    def __init__(self, rules: Rules, inviter: str) -> None:
        self.book = Book(rules)
        self.alarm = Alarm(rules)
        self.inviter = inviter
        self.open: deque[str] = deque(maxlen=OPEN_TASKS)  # who is first at each
        self.task = 0

    def learn(self, agent: str, kind: Kind) -> None:
        """Take in evidence; who was believed and is proven wrong may raise the alarm."""
        if kind in {"gold_failed", "caught"}:
            self.alarm.proven_wrong(agent, self.book.credibility(agent), task=self.task)
        self.book.learn(agent, Evidence(kind))


def _edges(told: dict[str, Tally], rules: Rules) -> dict[str, float]:
    return {agent: edge_units(*tally, rules) for agent, tally in told.items()}


def _end(decision: Decision) -> End:
    match decision.outcome:
        case "agreed" | "verified":
            return "accepted"
        case "contested":
            return "contested"
        case _:
            return "unverified"
