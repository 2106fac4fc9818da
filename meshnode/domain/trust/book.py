"""What one buyer knows of the agents of one capability: their evidence, and others' word.

The list of evidence is the caller's to keep; what is here is the fold of it, so a book that is
filled again from the list says the same.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from meshnode.domain.trust.credibility import (
    NOTHING,
    Imported,
    credibility,
    is_blocked,
    is_strong,
    may_stand_alone,
)
from meshnode.domain.trust.evidence import Evidence, Standing
from meshnode.domain.trust.rules import RULES, Rules

#: Of whom nothing is known; never changed.
_NOBODY: Final = Standing()


def _unknown(_: str) -> Standing:
    return _NOBODY


class Book:
    """See the module; agents by their ids.

    Attributes:
        rules: See there.
        newcomer: How an agent stands of whom nothing was seen: to look at, not to change.
    """

    def __init__(
        self, rules: Rules = RULES, newcomer: Callable[[str], Standing] = _unknown
    ) -> None:
        self.rules = rules
        self.newcomer = newcomer
        self._standings: dict[str, Standing] = {}
        self._imported: Mapping[str, Imported] = {}

    @classmethod
    def of(cls, events: Iterable[tuple[str, Evidence]], rules: Rules = RULES) -> "Book":
        """Return the book that a list of evidence makes, in its order."""
        book = cls(rules)
        for agent, event in events:
            book.learn(agent, event)
        return book

    def learn(self, agent: str, event: Evidence) -> Standing:
        """Fold in evidence; return how the agent stands now."""
        standing = self._standings.get(agent)
        if standing is None:
            standing = self._standings[agent] = Standing()
        standing.learn(event, self.rules)
        return standing

    def put(self, agent: str, standing: Standing) -> None:
        """Replace how an agent stands, where the caller folds its evidence."""
        self._standings[agent] = standing

    def take(self, imported: Mapping[str, Imported]) -> None:
        """Replace what others say of the agents."""
        self._imported = imported

    def standing(self, agent: str) -> Standing:
        """Return how an agent stands by this node's evidence: to look at, not to change."""
        standing = self._standings.get(agent)
        return self.newcomer(agent) if standing is None else standing

    @property
    def standings(self) -> Mapping[str, Standing]:
        """All agents that there is evidence of."""
        return self._standings

    def imported(self, agent: str) -> Imported:
        """Return what others say of an agent."""
        return self._imported.get(agent, NOTHING)

    def credibility(self, agent: str) -> float:
        """Return the chance that an agent's next answer is right."""
        return credibility(self.standing(agent), self.imported(agent), self.rules)

    def own_credibility(self, agent: str) -> float:
        """Return the same by this node's own evidence: whether an agent may be a rater."""
        return credibility(self.standing(agent), NOTHING, self.rules)

    def is_blocked(self, agent: str) -> bool:
        """Tell whether an agent gets no paid work."""
        return is_blocked(self.standing(agent), self.imported(agent), self.rules)

    def is_strong(self, agent: str) -> bool:
        """Tell whether an agent can anchor an answer."""
        return is_strong(self.standing(agent), self.imported(agent), self.rules)

    def may_stand_alone(self, agent: str) -> bool:
        """Tell whether an agent's answer may be taken with nobody else's."""
        return may_stand_alone(self.standing(agent), self.imported(agent), self.rules)
