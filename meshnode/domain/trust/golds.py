"""When a gold task goes out: one whose answer the buyer knows, and that looks like any other.

Golds are what makes the rest hold: replicas that lie together agree, golds don't.  A tenth of
the tasks has one for the first choice, for ever; half of them while it is on probation; always
when it was taken alone as often as one may be (*clearing*).  Where nobody is strong, one goes
to the best known candidate: an *introduction*.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import (
    Imported,
    credibility,
    is_blocked,
    is_strong,
    on_probation,
)
from meshnode.domain.trust.evidence import Standing
from meshnode.domain.trust.rules import RULES, Rules

if TYPE_CHECKING:
    from random import Random


def must_clear(standing: Standing, rules: Rules = RULES) -> bool:
    """Tell whether the agent was taken alone so often that a gold is due."""
    return standing.exposed >= rules.exposure_max


def gold_is_due(
    standing: Standing,
    imported: Imported,
    rng: "Random",
    *,
    second: bool = False,
    alarmed: bool = False,
    rules: Rules = RULES,
) -> bool:
    """Tell, by chance where none must be, whether an agent that is to be asked gets a gold.

    Args:
        standing: As this node sees it.
        imported: What others say.
        rng: Chance.
        second: It is the second choice, which may be asked as a replica.
        alarmed: See :class:`Alarm`.
        rules: See there.
    """
    if standing.equivocated:
        return False
    share = rules.gold_second if second else rules.gold
    if rng.random() < share * (rules.alarm_golds if alarmed else 1):
        return True
    if second:
        return False
    if must_clear(standing, rules):
        return True
    return on_probation(standing, imported, rules) and rng.random() < rules.gold_probation


def introduction(
    candidates: Sequence[tuple[Standing, Imported]], rules: Rules = RULES
) -> int | None:
    """Return who gets a gold because nobody is strong: the most credible; None if somebody is.

    Args:
        candidates: In the order of preference, which breaks ties.
        rules: See there.
    """
    best, found = -1.0, None
    for place, (standing, imported) in enumerate(candidates):
        if is_strong(standing, imported, rules):
            return None
        chance = credibility(standing, imported, rules)
        if chance > best and not is_blocked(standing, imported, rules):
            best, found = chance, place
    return found


def golds_due(
    book: Book, ranked: Sequence[str], rng: "Random", *, alarmed: bool = False
) -> list[str]:
    """Return which of the agents that a task would be given to get a gold.

    The first two are looked at, and where nobody is strong the most credible of all.

    Args:
        book: Of the capability.
        ranked: Ids, in the order of preference.
        rng: Chance.
        alarmed: See :class:`Alarm`.
    """
    known = [(book.standing(agent), book.imported(agent)) for agent in ranked]
    due: list[str] = []
    for place, agent in enumerate(ranked[:2]):
        standing, imported = known[place]
        if gold_is_due(
            standing, imported, rng, second=place == 1, alarmed=alarmed, rules=book.rules
        ):
            due.append(agent)
    introduced = introduction(known, book.rules)
    if introduced is not None and ranked[introduced] not in due:
        due.append(ranked[introduced])
    return due


class Alarm:
    """Raised when several agents that were believed are proven wrong within a few tasks.

    A cartel that turns does so together.  While it lasts nobody is taken alone, and golds are
    more frequent.  Counted in this buyer's tasks, as evidence is.
    """

    def __init__(self, rules: Rules = RULES) -> None:
        self._rules = rules
        self._wrong: list[tuple[int, str]] = []  # task, agent; the oldest first
        self._until = -1

    def proven_wrong(self, agent: str, before: float, *, task: int) -> None:
        """Note that an agent was proven wrong.

        Args:
            agent: Its id.
            before: Its credibility until then.
            task: Number of this buyer's task, counting up.
        """
        if before < self._rules.strong:
            return
        since = task - self._rules.alarm_tasks
        self._wrong = [row for row in self._wrong if row[0] > since]
        self._wrong.append((task, agent))
        if self._rules.alarm and len({one for _, one in self._wrong}) >= self._rules.alarm:
            self._until = task + self._rules.alarm_tasks

    def is_raised(self, task: int) -> bool:
        """Tell whether it is, at a task."""
        return task <= self._until
