"""The numbers that trust is reckoned with, as one value.

Every function beside this takes a :class:`Rules`, so that a simulation can look for better
ones on some attacks and report them on others.  The defaults are what a node uses.

Evidence is counted in *units*: one answer that was seen to be right or wrong.  What is kept
is whole millionths of a unit (``_mu``), so that a fold of the same events gives the same
bits on every machine and a standing can be signed; chances are floats.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple, get_args

#: One unit of evidence, in millionths.
UNIT_MU: Final = 1_000_000
DAY_MS: Final = 24 * 3_600_000

#: What can be learned of an agent:
#:
#: ``gold_passed``, ``gold_failed``: a task whose answer the buyer knew before;
#: ``check_passed``, ``check_failed``: a deterministic check of an answer (tests, schema with
#: recompute, a citation that was found, a hash);
#: ``agreed``, ``agreed_in_family``: it gave the accepted answer, which was probable enough
#: without it, with others of its model family alone in the second case;
#: ``accepted``, ``accepted_alone``: its answer was taken and never checked, in the second
#: case on its own word;
#: ``caught``: an accepted answer was shown to be wrong later;
#: ``outvoted``: it gave another answer than one that was very probable without it;
#: ``overclaimed``: it did an example of its own record otherwise than that says, and by what
#: was seen of these before that can't be chance;
#: ``unlike``: it answered a published example otherwise than its owner, who is believed;
#: ``served``, ``absent``: it answered in time, or was awarded a task and didn't;
#: ``vouched``, ``member``: it was invited by somebody trusted, or is in the same private mesh;
#: ``equivocated``: it signed two statements that contradict each other.
Kind = Literal[
    "gold_passed",
    "gold_failed",
    "check_passed",
    "check_failed",
    "agreed",
    "agreed_in_family",
    "accepted",
    "accepted_alone",
    "caught",
    "outvoted",
    "overclaimed",
    "unlike",
    "served",
    "absent",
    "vouched",
    "member",
    "equivocated",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Effect(NamedTuple):
    """What one piece of evidence of a kind does.

    Attributes:
        good_mu: Added to what speaks for it.
        bad_mu: Added to what speaks against it.
        keep_mu: What is kept of a unit of either from before, in millionths.
        good_keep_mu: The same for what speaks for it: less where it was proven wrong.
        wrong: It was proven wrong: see :attr:`Rules.golds_owed`.
        gold: A gold task was passed.
    """

    good_mu: int
    bad_mu: int
    keep_mu: int
    good_keep_mu: int
    wrong: bool = False
    gold: bool = False


@dataclass(frozen=True)
class Rules:
    """See the module.  Amounts are units of evidence, chances are from 0 to 1.

    Attributes:
        half_life: Units after which evidence counts half.
        half_life_days: Idle days after which it does.
        agreed: Units for agreeing.
        agreed_in_family: The same where only its own model family agreed.
        outvoted: Units against, for losing a vote.
        cut: What is left of the good after it was proven wrong.
        golds_owed: Gold tasks to pass after that before it is taken alone again.
        vouched: Units that somebody begins with who was vouched for.
        member: The same in a private mesh: a credibility of 0.8.
        doubt: Of the prior, units against; newcomers stand at 1 / (1 + doubt).
        credibility_max: Nobody is believed more.
        weak_share: Units of one that was accepted unchecked, in the order of candidates.
        weak_max: All of them together.
        up, down: Of the prior of availability, units.
        gamma: Chance that another voter only says what the first says.
        gamma_family: The same for one of a model family that has spoken already.
        rho: Chance that two wrong answers are the same.
        voters_max: Executions of one task.
        voters_sure_max: The same where it is to be very sure: see :meth:`answers_max`.
        sure: From so much assurance on a task is to be very sure: several are asked anyway.
        learn_agreed: Least posterior without the voter, to learn that it agreed.
        learn_outvoted: The same, to learn that it was outvoted.
        strong: Credibility of one that anchors an answer.
        blocked: Credibility below which one that did wrong gets no paid work.
        blocked_bad: Units against it that make this so.
        probation: Units of evidence until it may be taken alone.
        spot: Over a + A, the chance that one that could be taken alone is replicated.
        exposure_max: Taken alone so many times between two golds, then one is due.
        gold: Share of tasks with a gold for the first choice.
        gold_second: The same for the second choice.
        gold_probation: Chance of a gold for one on probation.
        dissent: Replicas more that a wrong answer costs, as expected when ranking.
        share_max: Of the open value with one agent.
        share_weak_max: The same for one that is not strong.
        newcomers: Share of tasks that begin with a newcomer.
        beside: Share of tasks that are to be very sure in which one is asked first beside
            the first choice; where one answer may do, it would cost another.
        alarm: Credible agents proven wrong within :attr:`alarm_tasks` that raise an alarm.
        alarm_tasks: Tasks that an alarm looks back on, and that it lasts.
        alarm_golds: Golds become so many times as frequent in it.
        belied: What one unit against that this node saw takes from others' praise:
            A / (1 + belied · b).
        restart: Chance that a walk in the trust graph ends at a node.
        hops_max: Of such a walk.
        edge_bad: Units for that one unit against takes away from an edge.
        reference_rank: The flow of the rater at this rank is worth a full weight.
        rater_credible: Least credibility of a rater.
        rater_max: Units of one rater for one agent.
        inviter_max: The same of the inviter.
        import_max: Units of all raters together for one agent.
    """

    half_life: float = 50.0
    half_life_days: int = 30
    agreed: float = 0.7
    agreed_in_family: float = 0.35
    outvoted: float = 0.34
    cut: float = 0.5
    golds_owed: int = 3
    vouched: float = 8.0
    member: float = 5.0
    doubt: float = 1.5
    credibility_max: float = 0.98
    weak_share: float = 0.2
    weak_max: float = 2.0
    up: float = 2.0
    down: float = 0.5
    gamma: float = 0.10
    gamma_family: float = 0.5
    rho: float = 0.6
    voters_max: int = 5
    voters_sure_max: int = 7
    sure: float = 0.95
    learn_agreed: float = 0.8
    learn_outvoted: float = 0.9
    strong: float = 0.8
    blocked: float = 0.4
    blocked_bad: float = 0.5
    probation: float = 2.0
    spot: float = 1.0
    exposure_max: int = 3
    gold: float = 0.10
    gold_second: float = 0.0
    gold_probation: float = 0.5
    dissent: float = 1.5
    share_max: float = 0.30
    share_weak_max: float = 0.10
    newcomers: float = 0.07
    beside: float = 0.1
    alarm: int = 2
    alarm_tasks: int = 10
    alarm_golds: int = 3
    belied: float = 1.0
    restart: float = 0.5
    hops_max: int = 6
    edge_bad: float = 3.0
    reference_rank: int = 8
    rater_credible: float = 0.8
    rater_max: float = 0.75
    inviter_max: float = 12.0
    import_max: float = 12.0

    def answers_max(self, theta: float) -> int:
        """Return how many may be asked for one task that is to be right so surely."""
        return self.voters_sure_max if theta >= self.sure else self.voters_max

    @cached_property
    def forgotten_mu(self) -> int:
        """Of a unit, what one unit of new evidence makes forget, millionths."""
        kept: float = 0.5 ** (1.0 / self.half_life)
        return round(UNIT_MU * (1.0 - kept))

    @cached_property
    def effects(self) -> dict[Kind, Effect]:
        """What each kind of evidence of who is right does; others aren't in it."""
        right = self._effect(good=1.0)
        wrong = self._effect(bad=1.0, cut=self.cut)._replace(wrong=True)
        return {
            "gold_passed": right._replace(gold=True),
            "check_passed": right,
            "agreed": self._effect(good=self.agreed),
            "agreed_in_family": self._effect(good=self.agreed_in_family),
            "gold_failed": wrong,
            "check_failed": wrong,
            "caught": wrong,
            "outvoted": self._effect(bad=self.outvoted),
            "overclaimed": wrong,
            "unlike": self._effect(bad=self.outvoted),
        }

    def _effect(self, *, good: float = 0.0, bad: float = 0.0, cut: float = 1.0) -> Effect:
        """Return one that forgets in proportion to what is learned.

        So no evidence for an agent can lower its credibility, whatever is known already.
        """
        keep_mu = UNIT_MU - round(self.forgotten_mu * (good + bad))
        return Effect(mu(good), mu(bad), keep_mu, round(keep_mu * cut))

    @cached_property
    def day_mu(self) -> tuple[int, ...]:
        """What so many idle days leave of a unit, below a half-life; millionths."""
        days = self.half_life_days
        return tuple(round(UNIT_MU * 0.5 ** (day / days)) for day in range(days))

    def faded(self, amount_mu: int, idle_days: int) -> int:
        """Return what idle days leave of an amount."""
        halvings, days = divmod(idle_days, self.half_life_days)
        return (amount_mu >> halvings) * self.day_mu[days] // UNIT_MU


def mu(units: float) -> int:
    """Return units of evidence as millionths."""
    return round(units * UNIT_MU)


#: What a node uses.
RULES: Final = Rules()
