"""Panels: who is asked when answers differ and none is likely enough, and what follows.

The last rung of what makes an answer sure, after checks and other answers.  A panel is asked
only of what would end ``contested`` otherwise; it may make an answer ``agreed``, if that is as
likely then as the job asks for (:mod:`.sittings`), and never ``verified``.

Judges are believed (as far as who anchors an answer must be), at other peers than who made the
answers and than each other, and of other model families: of those that were probed, or else
declared, since nobody lies to be left out.

Nobody is taught anything by it, and nobody loses pay.  A vote among answers is evidence of how
likely each is right; a panel is what some models like.  Were its losers unpaid or believed
less, whoever seats a friendly panel could have answers for nothing, and a cartel of judges
could ruin others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from meshnode.domain.facts import Judged, Vote
from meshnode.domain.families import UNKNOWN
from meshnode.domain.sittings import VOTES_MIN, WORDS, Seat, Sitting, weighed
from meshnode.domain.trust.posterior import Voter, posteriors
from meshnode.domain.trust.rules import RULES, Rules
from protocol.errors import Malformed
from protocol.graph import Source, TaskGraph
from protocol.limits import JUDGES_MAX

if TYPE_CHECKING:
    from random import Random

#: Each judge is asked so often: with the answers in either order.
ORDERS: Final = 2
#: A panel has so long, milliseconds, and isn't called where less than the second is left.
PANEL_MS: Final = 120_000
PANEL_MS_MIN: Final = 5_000
#: What a judge is shown, bytes of JSON at most.
SHOWN_BYTES_MAX: Final = 64 * 1024
_READERS: Final = frozenset(Source(kind="value").readers)
_VERIFIER: Final = "verifier"
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Judge:
    """Who could be asked.

    Attributes:
        agent: ``peer/name``.
        credibility: From 0 to 1.
        price_mc: Of one question.
        families: Of its model: as probed, and as declared; none for what is no model.
        last: It is asked only where others are too few.
    """

    agent: str
    credibility: float
    price_mc: int
    families: frozenset[str] = frozenset()
    last: bool = False

    @property
    def peer(self) -> str:
        """Whose it is."""
        return self.agent.partition("/")[0]


def seated(
    judges: Sequence[Judge],
    makers: Mapping[str, Collection[str]],
    *,
    free_mc: int,
    rng: "Random",
    rules: Rules = RULES,
) -> list[Seat]:
    """Return the panel, or nobody where too few are to be had.

    Who is asked last completes one that is too small without it, and enlarges none.

    Args:
        judges: Ordered by id: chance is drawn in that order.
        makers: Peer of who made an answer -> its model families.
        free_mc: What may be spent on it.
        rng: Chance decides between those that are as good.
        rules: See there.
    """
    theirs = {family for families in makers.values() for family in families}
    fit = [
        one
        for one in judges
        if one.credibility >= rules.strong
        and one.peer not in makers
        and not theirs & one.families
    ]
    rng.shuffle(fit)
    fit.sort(key=lambda one: (-one.credibility, one.price_mc))
    chosen: list[Judge] = []
    for last, alike in ((False, False), (False, True), (True, False), (True, True)):
        seats_max = VOTES_MIN if last else JUDGES_MAX
        for one in fit:  # of families of their own, then of any
            known = {family for other in chosen for family in other.families}
            here = one.peer in {other.peer for other in chosen}
            cost_mc = ORDERS * sum(other.price_mc for other in (*chosen, one))
            room = len(chosen) < seats_max and cost_mc <= free_mc and one.last == last
            if room and not here and (alike or not known & one.families):
                chosen.append(one)
    if len(chosen) < VOTES_MIN:
        return []
    return [
        Seat(
            agent=one.agent,
            credibility_ppm=int(one.credibility * _MILLION),
            family=" ".join(sorted(one.families)),
            cap_mc=ORDERS * one.price_mc,
        )
        for one in chosen
    ]


def may_read(graph: TaskGraph, peer: str) -> bool:
    """Tell whether a judge at ``peer`` may read what a job is about.

    Any source may have become a part of the answers: where one has readers of its own, they
    must name the judge, or ``verifier``.
    """
    sources = [source for task in graph.subtasks for source in task.inputs.values()]
    return all(
        set(source.readers) == _READERS or {peer, _VERIFIER} & set(source.readers)
        for source in (*sources, *graph.outputs.values())
    )


def rivals(judged: Judged, rules: Rules = RULES) -> tuple[list[int], list[int]]:
    """Return the two groups that a panel chooses between, and how likely each is, millionths.

    The chosen one's, and the most likely of the others.
    """
    names = sorted({vote.group for vote in judged.votes})
    groups = [[voter(vote) for vote in judged.votes if vote.group == name] for name in names]
    chances = posteriors(groups, rules, voices_min=VOTES_MIN)
    chance_ppm = {
        name: round(chance * _MILLION) for name, chance in zip(names, chances, strict=True)
    }
    best = next(vote.group for vote in judged.votes if vote.attempt == judged.chosen)
    rival = max((name for name in names if name != best), key=lambda name: chance_ppm[name])
    return [best, rival], [chance_ppm[best], chance_ppm[rival]]


def voter(vote: Vote) -> Voter:
    """Return who gave an answer, as the journal has it."""
    return Voter(vote.agent, vote.credibility_ppm / _MILLION, vote.family)


def called(judged: Judged, sitting: Sitting) -> Judged:
    """Return a judgement that nothing decides, as one that waits for a panel."""
    votes = [replace(vote, verdict="") for vote in judged.votes]
    return replace(
        judged, outcome="", chosen=-1, wanted=len(votes), ask=[], votes=votes, sitting=sitting
    )


def heard(judged: Judged, sitting: Sitting, theta_ppm: int, rules: Rules = RULES) -> Judged:
    """Return what a judgement that waited for a panel is now.

    Args:
        judged: See :func:`called`.
        sitting: With what the judges said.
        theta_ppm: How likely an answer must be to be taken.
        rules: See there.
    """
    side, posterior_ppm = sitting.favours, judged.posterior_ppm
    best = 0
    if side >= 0:
        chances_ppm = weighed(sitting, rules)
        best = max((side, 1 - side), key=lambda place: chances_ppm[place])
        posterior_ppm = chances_ppm[best]
    group = sitting.groups[best]
    taken = best == side and posterior_ppm >= theta_ppm
    return replace(
        judged,
        outcome="agreed" if taken else "contested",
        posterior_ppm=posterior_ppm,
        chosen=min(vote.attempt for vote in judged.votes if vote.group == group),
        wanted=0,
        votes=[
            replace(vote, verdict="agreed" if taken and vote.group == group else "contested")
            for vote in judged.votes
        ],
        sitting=sitting,
    )


# --- of others' journals ---


def check_called(fact: Judged) -> None:
    """Hold the call of a panel against the answers that it is about.

    Raises:
        Malformed: It is no panel of theirs.
    """
    sitting = fact.sitting
    assert sitting is not None, "asked of panels only"
    groups = {vote.group for vote in fact.votes}
    two = len(sitting.groups) == len(set(sitting.groups)) == len(sitting.chances_ppm) == ORDERS
    if not two or not set(sitting.groups) <= groups:
        raise Malformed("a panel is asked of two of the answers")
    if min(sitting.chances_ppm) < 0 or sum(sitting.chances_ppm) > _MILLION:
        raise Malformed("chances of two answers that are none")
    peers = [seat.agent.partition("/")[0] for seat in sitting.seats]
    makers = {vote.agent.partition("/")[0] for vote in fact.votes}
    if not VOTES_MIN <= len(peers) <= JUDGES_MAX or len(set(peers)) < len(peers):
        raise Malformed(f"a panel has {VOTES_MIN} to {JUDGES_MAX} judges, each of another peer")
    if makers & set(peers):
        raise Malformed("a judge of its own answer")
    theirs = {vote.family for vote in fact.votes} - {"", UNKNOWN}
    if any(theirs & set(seat.family.split()) for seat in sitting.seats):
        raise Malformed("a judge of the model family of one of the answers")
    if any(seat.said or seat.jobs or seat.paid_mc or seat.cap_mc < 0 for seat in sitting.seats):
        raise Malformed("a panel that has spoken before it was asked")


def check_heard(called_for: Judged, fact: Judged) -> None:
    """Hold what a panel came to against its call.

    Raises:
        Malformed: It is another panel, was paid more than was promised, or said otherwise.
    """
    before, after = called_for.sitting, fact.sitting
    if before is None or after is None:
        raise Malformed("a panel that was not called, or not heard")
    unheard = replace(
        after, seats=[replace(seat, said=[], jobs=[], paid_mc=0) for seat in after.seats]
    )
    if unheard != before:
        raise Malformed("another panel was heard than was called")
    for seat in after.seats:
        _check_seat(seat)
    group = next(vote.group for vote in fact.votes if vote.attempt == fact.chosen)
    if fact.outcome == "agreed":
        favoured = after.groups[after.favours] if after.favours >= 0 else -1
        if group != favoured:
            raise Malformed("agreed on, and the panel wasn't for it")
        if fact.posterior_ppm > sum(after.chances_ppm):
            raise Malformed("a panel made likely that neither answer is wrong")
    for vote in fact.votes:
        agreed = fact.outcome == "agreed" and vote.group == group
        if vote.verdict != ("agreed" if agreed else "contested"):
            raise Malformed(f"a panel has answer {vote.attempt} {vote.verdict}")


def _check_seat(seat: Seat) -> None:
    if not 0 <= seat.paid_mc <= seat.cap_mc:
        raise Malformed(f"{seat.agent[:80]} was paid more than was promised")
    if len(seat.said) not in {0, ORDERS} or not set(seat.said) <= {"", *WORDS}:
        raise Malformed(f"{seat.agent[:80]} said what nobody asked")
