"""What asking an agent for published examples shows: its own record's, and others'.

A record says how many of its examples come out as they say.  Its agent knows them, so a cheat
has them ready, and to answer them right shows nothing.  To answer them wrongly shows something:
the record claims more than the agent does.  It *overclaims* where that can't be chance: at the
first one if the record says that the same input always gives the same output, else when what
was seen and what is claimed would differ so much in one of twenty honest agents at most.

An example of another's record is a vote that its owner cast in public, and what an agent
answers to it is another (:mod:`meshnode.domain.trust.acceptance`).  Everybody can read those,
too, so to agree teaches nothing of who was asked; to disagree with what is very probable
without it counts as a lost vote does.  Which owners may vote is decided here.

Pure: outcomes in, findings out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Final

import msgspec

from meshnode.domain.trust.acceptance import Terms, decide, lessons
from meshnode.domain.trust.posterior import Voter
from meshnode.domain.trust.rules import RULES, Rules
from protocol.likeness import EXACT, Likeness
from protocol.records import Capability

#: Outcomes of its own examples that are looked back on, and for how long they count.
OUTCOMES_MAX: Final = 16
OUTCOME_LIFETIME_MS: Final = 30 * 24 * 3_600_000
#: An honest agent whose answers vary is found to overclaim with this chance at most.
_CHANCE: Final = 0.05
#: Of an owner's examples, so many more may be answered otherwise than alike by others.
_GAINSAID_MAX: Final = 2


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How an agent did one of its own examples.

    Attributes:
        at_ms: When, Unix time.
        right: It came out as its record says.
    """

    at_ms: int
    right: bool


class Spotted(msgspec.Struct, frozen=True):
    """What was seen of an agent's examples, beside what it claims now.

    Attributes:
        tried: Of its examples, by its record; 0 if it claims nothing that counts.
        right: Of those came out as they say, by its record.
        asked: How often it was asked for one from here.
        came_right: Of those came out so.
        others: How often it was asked for an example of another's record.
        unlike: Of those it answered otherwise, where that counted.
        overclaims: What it claims of its examples can't be, but for chance.
    """

    tried: int = 0
    right: int = 0
    asked: int = 0
    came_right: int = 0
    others: int = 0
    unlike: int = 0
    overclaims: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it did an example otherwise than it says, and that may have been chance."""
        return self.came_right < self.asked and not self.overclaims


def spotted(own: Sequence[Outcome], claimed: Capability | None, *, now_ms: int) -> Spotted:
    """Hold how an agent did its own examples against what it claims of them now.

    Args:
        own: In any order.
        claimed: Its record's word; None where there is none.
        now_ms: Unix time.
    """
    fresh = [one.right for one in own if now_ms < one.at_ms + OUTCOME_LIFETIME_MS]
    seen = Spotted(asked=len(fresh), came_right=sum(fresh))
    if claimed is None or not claimed.measured.holds(now_ms=now_ms):
        return seen
    measured = claimed.measured
    wrong = len(fresh) - sum(fresh)
    if claimed.deterministic and measured.right == measured.tried > 0:
        overclaims = wrong > 0
    else:
        overclaims = (
            wrong > 0
            and chance_of(sum(fresh), len(fresh), measured.right, measured.tried) < _CHANCE
        )
    return msgspec.structs.replace(
        seen, tried=measured.tried, right=measured.right, overclaims=overclaims
    )


def chance_of(right: int, asked: int, claimed_right: int, claimed_tried: int) -> float:
    """Return the chance that so few came right, if what is claimed is true of the same agent.

    By Fisher's exact test: of all that came right here and there together, how few may fall
    to those that were asked here.

    Args:
        right: Of those asked here.
        asked: From here.
        claimed_right: By the record.
        claimed_tried: By the record.
    """
    both = right + claimed_right
    ways = sum(
        comb(asked, here) * comb(claimed_tried, both - here) for here in range(right + 1)
    )
    return ways / comb(asked + claimed_tried, both)


def told(seen: Spotted) -> str:
    """Return a line for people; empty where nothing was asked."""
    parts: list[str] = []
    if seen.asked:
        claims = f"{seen.right} of {seen.tried}" if seen.tried else "nothing"
        parts.append(
            f"claims {claims} of its examples right, {seen.came_right} of {seen.asked} seen"
        )
    if seen.others:
        parts.append(f"{seen.unlike} of {seen.others} examples of others answered otherwise")
    return "; ".join(parts) + ("; it overclaims" if seen.overclaims else "")


# --- others' examples --------------------------------------------------------------------


def comparable(one: Capability, other: Capability) -> Likeness | None:
    """Return by what two agents' answers are compared; None if that would show nothing.

    They must take and give the same by their schemas.  Where many answers are right, an
    example is one of them: so both must say the same of when two answers say the same, or be
    plain code that always answers alike.
    """
    same = (
        one.name == other.name
        and one.input_schema == other.input_schema
        and one.output_schema == other.output_schema
    )
    if not same or one.like != other.like:
        return None
    if one.like is not None:
        return None if one.like.kind == "embedding" else one.like
    plain = not (one.model_family or other.model_family)
    return EXACT if plain and one.deterministic and other.deterministic else None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose record has the example.

    Attributes:
        agent: ``peer/name``.
        credibility: By what this node saw itself.
        alike: How often others answered its examples as it says.
        gainsaid: How often otherwise.
        overclaims: It doesn't do its own as it says.
    """

    agent: str
    credibility: float
    alike: int = 0
    gainsaid: int = 0
    overclaims: bool = False

    def is_heard(self, rules: Rules = RULES) -> bool:
        """Tell whether its examples are asked of others.

        Whoever publishes wrong examples would have all others be wrong: so not of one whose
        examples are gainsaid oftener than they are confirmed.
        """
        return (
            self.credibility >= rules.strong
            and not self.overclaims
            and self.gainsaid < self.alike + _GAINSAID_MAX
        )


def is_belied(owner: Owner, agent: str, credibility: float, rules: Rules = RULES) -> bool:
    """Tell whether an agent that answered ``owner``'s example otherwise has lost a vote.

    Args:
        owner: It is heard.
        agent: Who was asked.
        credibility: Its own.
        rules: See there.
    """
    groups = [[Voter(owner.agent, owner.credibility)], [Voter(agent, credibility)]]
    decision = decide(groups, [], Terms(rules.learn_outvoted), rules)
    found = lessons(groups, decision, rules)
    return any(one.agent == agent and one.kind == "outvoted" for one in found)


# --- what may be spent -------------------------------------------------------------------


@dataclass(slots=True)
class Purse:
    """What may be spent on looking, saved up from work that was to be done anyway.

    Attributes:
        calls: Saved up.
        mc: Likewise, millicredits.
        earned_calls: All that ever were, spent or not.
        earned_mc: Likewise.
    """

    calls: float = 0.0
    mc: float = 0.0
    earned_calls: float = 0.0
    earned_mc: float = 0.0

    def earn(self, calls: float, mc: float, *, calls_max: float) -> None:
        """Save up, so many calls at most: who does much work isn't to check in bursts.

        Money is saved up for as many calls at what the work cost on the average, and no more:
        else years of work with nobody to check would pay for one call at any price.

        Args:
            calls: More than 0.
            mc: What they cost.
            calls_max: How many are saved up.
        """
        self.earned_calls += calls
        self.earned_mc += mc
        self.calls = min(self.calls + calls, calls_max)
        self.mc = min(self.mc + mc, calls_max * self.earned_mc / self.earned_calls)

    def affords(self, calls: int, mc: int) -> bool:
        """Tell whether that may be spent."""
        return self.calls >= calls and self.mc >= mc

    def pay(self, calls: int, mc: int) -> None:
        """Spend it."""
        self.calls -= calls
        self.mc -= mc
