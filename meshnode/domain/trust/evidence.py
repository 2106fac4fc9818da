"""What one buyer has seen of one agent in one capability: a list that only grows, folded.

The list is the truth, the :class:`Standing` is worth what its fold is: it holds whole
numbers and is changed by :meth:`Standing.learn` alone, in the order of the list, so a node
that starts again stands where it stood, to the bit.

Truth and availability are kept apart: one that is often away may be right whenever it is
there, and one that answers at once may lie.

Forgetting is paced by evidence, not by the clock: ``x ← x · (1 − f · w)`` for new evidence
of ``w`` units, with ``f`` such that evidence counts half after 50 units (half-life).  An
agent that is asked a thousand times a day and one that is asked twice are forgotten at the
pace at which they are known.  On top of that evidence fades on days on which nothing is
learned, with a half-life of 30 of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from meshnode.domain.trust.rules import DAY_MS, RULES, UNIT_MU, Kind, Rules, mu


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """One thing that was learned.

    Attributes:
        kind: What.
        at_ms: When, Unix time.
        source: Hash of the receipt, gold task or proof behind it; empty for none.
    """

    kind: Kind
    at_ms: int = 0
    source: bytes = b""


@dataclass(slots=True)
class Standing:
    """The fold of the evidence; amounts in millionths of a unit.

    Attributes:
        good_mu: For its being right; *a* in the formulas, with ``prior_mu``.
        bad_mu: Against; *b*.
        prior_mu: For it before anything was seen: membership, an invite.  It is forgotten
            with evidence, and no day makes it fade.
        weak_mu: Accepted and never checked; *w*.
        up_mu: Answered in time.
        down_mu: Didn't.
        owed: Gold tasks that it must pass before it is taken alone again.
        exposed: Taken alone since it passed a gold task.
        day: Of the last event, days since 1970.
        events: How many were folded.
        equivocated: It signed two statements that contradict each other.
    """

    good_mu: int = 0
    bad_mu: int = 0
    prior_mu: int = 0
    weak_mu: int = 0
    up_mu: int = 0
    down_mu: int = 0
    owed: int = 0
    exposed: int = 0
    day: int = 0
    events: int = 0
    equivocated: bool = False

    @property
    def for_mu(self) -> int:
        """All that speaks for it: *a*."""
        return self.good_mu + self.prior_mu

    @property
    def units(self) -> float:
        """Evidence of its being right or wrong: *a* + *b*."""
        return (self.good_mu + self.prior_mu + self.bad_mu) / UNIT_MU

    def learn(self, event: Evidence, rules: Rules = RULES) -> None:
        """Fold in the next event."""
        day = event.at_ms // DAY_MS
        if day > self.day:
            if self.events and day > self.day + 1:
                self.fade(day - self.day - 1, rules)
            self.day = day
        self.events += 1
        effect = rules.effects.get(event.kind)
        if effect is None:
            self._learn_else(event.kind, rules)
            return
        keep_mu, good_keep_mu = effect.keep_mu, effect.good_keep_mu
        self.good_mu = self.good_mu * good_keep_mu // UNIT_MU + effect.good_mu
        self.bad_mu = self.bad_mu * keep_mu // UNIT_MU + effect.bad_mu
        if self.prior_mu:
            self.prior_mu = self.prior_mu * good_keep_mu // UNIT_MU
        if effect.gold:
            self.exposed = 0
            self.owed = max(0, self.owed - 1)
        elif effect.wrong:
            self.owed = rules.golds_owed

    def _learn_else(self, kind: Kind, rules: Rules) -> None:
        """What says nothing, or not enough, of its being right."""
        keep_mu = UNIT_MU - rules.forgotten_mu
        match kind:
            case "accepted" | "accepted_alone":
                self.weak_mu = self.weak_mu * keep_mu // UNIT_MU + UNIT_MU
                self.exposed += kind == "accepted_alone"
            case "served" | "absent":
                served = kind == "served"
                self.up_mu = self.up_mu * keep_mu // UNIT_MU + served * UNIT_MU
                self.down_mu = self.down_mu * keep_mu // UNIT_MU + (not served) * UNIT_MU
            case "vouched" | "member":
                # It begins there at least: who is better known gains nothing.
                start_mu = mu(rules.vouched if kind == "vouched" else rules.member)
                self.prior_mu = max(self.prior_mu, start_mu - self.good_mu)
            case "equivocated":
                self.equivocated = True
            case _:
                raise AssertionError(f"{kind} has an effect of its own")

    def at(self, now_ms: int, rules: Rules = RULES) -> "Standing":
        """Return it as it stands at a time after the last event: idle days fade it.

        The fold itself is not changed: looking is no evidence.
        """
        idle = now_ms // DAY_MS - self.day - 1
        if idle <= 0 or not self.events:
            return self
        seen = self.copy()
        seen.day += idle
        seen.fade(idle, rules)
        return seen

    def copy(self) -> "Standing":
        """Return one that may be changed by itself."""
        return replace(self)

    def fade(self, idle_days: int, rules: Rules) -> None:
        """Let days pass on which nothing was learned."""
        self.good_mu = rules.faded(self.good_mu, idle_days)
        self.bad_mu = rules.faded(self.bad_mu, idle_days)
        self.weak_mu = rules.faded(self.weak_mu, idle_days)
        self.up_mu = rules.faded(self.up_mu, idle_days)
        self.down_mu = rules.faded(self.down_mu, idle_days)


def fold(events: Iterable[Evidence], rules: Rules = RULES) -> Standing:
    """Return what the events make of an agent, in their order."""
    standing = Standing()
    for event in events:
        standing.learn(event, rules)
    return standing
