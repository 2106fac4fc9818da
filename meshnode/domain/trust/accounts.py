"""What a credibility is made of, so that its owner can reckon it up by hand.

An account takes the fold apart: of everything that was learned, what is left of it today, by
kind of evidence; and what each rater adds.  It is made of the events and reads no standing, so
it is also the proof that the number follows from what is in the store.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from meshnode.domain.trust.credibility import (
    NOTHING,
    Imported,
    availability,
    credibility,
    heard_units,
    is_blocked,
)
from meshnode.domain.trust.evidence import Evidence, Standing
from meshnode.domain.trust.hearsay import Share
from meshnode.domain.trust.rules import DAY_MS, RULES, UNIT_MU, Kind, Rules, mu
from meshnode.domain.wording import count_of

_SAID: Final[dict[Kind, str]] = {
    "gold_passed": "gold tasks passed",
    "gold_failed": "gold tasks failed",
    "check_passed": "deterministic checks passed",
    "check_failed": "deterministic checks failed",
    "agreed": "agreed with an answer that was probable without it",
    "agreed_in_family": "agreed, with its own model family alone",
    "accepted": "accepted, with others",
    "accepted_alone": "accepted on its own word",
    "caught": "accepted and shown to be wrong later",
    "outvoted": "lost a vote against a very probable answer",
    "overclaimed": "did an example of its own record otherwise, and overclaims",
    "unlike": "answered an example of a believed agent's record otherwise",
    "served": "answered in time",
    "absent": "awarded and not answered",
    "vouched": "vouched for by who invited it, or whom it invited",
    "member": "member of the same private mesh",
    "equivocated": "signed two statements that contradict",
}


class Part(msgspec.Struct, frozen=True):
    """What all evidence of one kind is worth today; millionths of a unit.

    Attributes:
        kind: Which.
        count: How often.
        good_mu: For the agent's being right.
        bad_mu: Against.
    """

    kind: Kind
    count: int
    good_mu: int
    bad_mu: int


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What the beginning of a list came to, where that isn't kept piece by piece for ever.

    To go on from it gives the bits that the whole list gives.

    Attributes:
        standing: Its fold.
        counts: How often there was each kind.
        good: What is left of each kind, for; millionths of a unit.
        bad: Against.
    """

    standing: Standing
    counts: dict[Kind, int]
    good: dict[Kind, float]
    bad: dict[Kind, float]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an agent, and from what.

    Attributes:
        credibility: Chance that its next answer is right.
        availability: Chance that it answers in time.
        blocked: It gets no paid work.
        standing: The fold of the events, as of today.
        parts: Of that, by kind, in the order in which they were first learned; whole numbers
            are rounded, so their sum may be a few millionths off.
        imported: From others, all together.
        heard: Of that, by rater, before the limit of all together.
    """

    credibility: float
    availability: float
    blocked: bool
    standing: Standing
    parts: list[Part]
    imported: Imported
    heard: list[Share]


def account_of(
    events: Iterable[Evidence],
    heard: Sequence[Share] = (),
    imported: Imported = NOTHING,
    *,
    now_ms: int,
    carried: Carried | None = None,
    rules: Rules = RULES,
) -> Account:
    """Return the account of an agent.

    Args:
        events: In their order.
        heard: What each rater adds.
        imported: All of it, within its limit.
        now_ms: As of when, Unix time.
        carried: What came before the events.
        rules: See there.
    """
    tracked = _Tracked(rules, carried)
    for event in events:
        tracked.learn(event)
    standing = tracked.standing.at(now_ms, rules)
    tracked.fade(now_ms // DAY_MS)
    return Account(
        credibility=credibility(standing, imported, rules),
        availability=availability(standing, rules),
        blocked=is_blocked(standing, imported, rules),
        standing=standing,
        parts=tracked.parts(),
        imported=imported,
        heard=list(heard),
    )


def carry(
    events: Iterable[Evidence], carried: Carried | None = None, rules: Rules = RULES
) -> Carried:
    """Return what events came to, with what came before them."""
    tracked = _Tracked(rules, carried)
    for event in events:
        tracked.learn(event)
    return tracked.carried()


class _Tracked:
    """The fold again, kind by kind."""

    def __init__(self, rules: Rules, carried: Carried | None) -> None:
        self._rules = rules
        self.standing = carried.standing.copy() if carried else Standing()
        self._counts: dict[Kind, int] = dict(carried.counts) if carried else {}
        self._good: dict[Kind, float] = dict(carried.good) if carried else {}
        self._bad: dict[Kind, float] = dict(carried.bad) if carried else {}

    def carried(self) -> Carried:
        """Return what to go on from."""
        return Carried(
            standing=self.standing, counts=self._counts, good=self._good, bad=self._bad
        )

    def learn(self, event: Evidence) -> None:
        """Fold in the next event: what is new beyond what was kept is of its kind."""
        kind = event.kind
        self._counts[kind] = self._counts.get(kind, 0) + 1
        self.fade(event.at_ms // DAY_MS)
        prior_mu = self.standing.prior_mu
        self.standing.learn(event, self._rules)
        effect = self._rules.effects.get(kind)
        if effect is None:
            added_mu = self.standing.prior_mu - prior_mu
            self._good[kind] = self._good.get(kind, 0.0) + added_mu
            return
        self._good = {one: mu * effect.good_keep_mu / UNIT_MU for one, mu in self._good.items()}
        self._bad = {one: mu * effect.keep_mu / UNIT_MU for one, mu in self._bad.items()}
        self._good[kind] = self._good.get(kind, 0.0) + effect.good_mu
        self._bad[kind] = self._bad.get(kind, 0.0) + effect.bad_mu

    def fade(self, day: int) -> None:
        """Let idle days pass; what an agent began with doesn't fade."""
        idle = day - self.standing.day - 1
        if idle > 0 and self.standing.events:
            kept = self._rules.faded(UNIT_MU**2, idle) / UNIT_MU**2
            for amounts in (self._good, self._bad):
                for kind in amounts:
                    if kind not in {"vouched", "member"}:
                        amounts[kind] *= kept

    def parts(self) -> list[Part]:
        """Return what is left of each kind."""
        return [
            Part(kind, count, round(self._good.get(kind, 0.0)), round(self._bad.get(kind, 0.0)))
            for kind, count in self._counts.items()
        ]


def told(account: Account) -> list[str]:
    """Return the account as lines: the number, how it comes about, and its parts."""
    standing, imported = account.standing, account.imported
    lines = [
        f"credibility {account.credibility:.3f}, availability {account.availability:.3f}"
        + (", gets no paid work" if account.blocked else ""),
        f"units for: {_units(standing.for_mu)} seen here, {_heard(account)} heard",
        f"units against: {_units(standing.bad_mu)} seen here, {_units(imported.bad_mu)} heard",
    ]
    lines += [
        f"{part.count:6} × {_SAID[part.kind]}: +{_units(part.good_mu)} −{_units(part.bad_mu)}"
        for part in account.parts
    ]
    lines += [
        f"heard from {share.rater} (weight {share.weight:.2f}):"
        f" +{_units(share.good_mu)} −{_units(share.bad_mu)}"
        for share in account.heard
    ]
    if standing.owed:
        lines.append(
            f"owes {count_of(standing.owed, 'gold task')} before it is taken alone again"
        )
    if standing.exposed:
        lines.append(
            f"taken alone {count_of(standing.exposed, 'time')} since its last gold task"
        )
    return lines


def _units(amount_mu: int) -> str:
    return f"{amount_mu / UNIT_MU:.2f}"


def _heard(account: Account) -> str:
    """Say what others' praise comes to, and of how much where it was belied."""
    said_mu = account.imported.good_mu
    left_mu = mu(heard_units(account.standing, account.imported))
    return _units(left_mu) if left_mu == said_mu else f"{_units(left_mu)} of {_units(said_mu)}"
