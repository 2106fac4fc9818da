"""What others' receipts say of agents, weighed by how far each of them is trusted to tell.

A receipt counts when both sides signed, and what was accepted was paid: others' mere words
weigh nothing.  A rater's receipts about one agent are folded like one's own evidence; that is
its *testimony*.  Rater k has the weight

    ω = flow / reference · [C_k ≥ 0.8] · clip((agreement − 0.3) / 0.5, 0, 1)

(:mod:`~meshnode.domain.trust.graph`), with C_k from this node's own evidence and agreement
1 − 2 · mean |q_k − q_me| over the agents that both know, 0.8 where those are fewer than two.
Of one agent j this node takes

    A = Σ ω · a_kj,   B = Σ ω · b_kj      with a_kj + b_kj ≤ 0.75 (the inviter's: 12)

and A + B ≤ 12: each limit scales both, so that what is said stays as it was, and only how much
it counts is bounded, whatever is imported.  Who is trusted through a rater that tells of j
itself is not heard about j: x names behind one trusted node say no more than that one.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from meshnode.domain.trust.credibility import Imported
from meshnode.domain.trust.evidence import Evidence, Standing
from meshnode.domain.trust.graph import Flows
from meshnode.domain.trust.rules import RULES, UNIT_MU, Kind, Rules, mu
from protocol.receipts import Acceptance, Receipt, Verdict, check_receipt

#: Agreement where two nodes have too little in common to tell.
_AGREEMENT_GUESS: Final = 0.8
_AGREEMENT_MIN: Final = 0.3
_AGREEMENT_SPAN: Final = 0.5
#: Agents in common from which agreement is measured.
_COMMON_MIN: Final = 2
#: Units that a rater must know of an agent to be compared, and this node of it.
_THEIRS_MIN_MU: Final = UNIT_MU
_OWN_MIN_MU: Final = 2 * UNIT_MU

_KINDS: Final[dict[Verdict, Kind]] = {
    "verified": "check_passed",
    "agreed": "agreed",
    "rejected": "check_failed",
}


class Tally(NamedTuple):
    """What a rater's receipts about one agent come to; millionths of a unit."""

    good_mu: int
    bad_mu: int


#: No rater is trusted through another.
_NO_BRANCHES: Final[Mapping[str, str]] = MappingProxyType({})

_NOTHING_TOLD: Final[Mapping[str, Tally]] = MappingProxyType({})
#: Rater -> agent -> what it testifies, of one capability.
Testimonies = Mapping[str, Mapping[str, Tally]]


class Envelopes(NamedTuple):
    """The four messages of a finished contract, as they were signed."""

    award: bytes
    result: bytes
    receipt: bytes
    acceptance: bytes


class Deal(msgspec.Struct, frozen=True, gc=False):
    """One finished contract between two others, as its receipts prove it.

    Attributes:
        buyer: Who awarded it, and now tells of it.
        agent: Who did it.
        verdict: What the buyer found.
        at_ms: When it was accepted, Unix time.
        both_signed: The award is signed by the buyer and the receipt for it by the agent's
            node, each over the other's hash.
        settled: What it cost was paid, as its acceptance says; or it was rejected, and what
            proves that is there.
    """

    buyer: str
    agent: str
    verdict: Verdict
    at_ms: int
    both_signed: bool
    settled: bool


def deal_of(envelopes: Envelopes, *, network: str, supported: bool = False) -> Deal:
    """Return what a finished contract's four envelopes prove.

    An acceptance by a later broker of the job is not counted: that it was that broker's to
    give is for a certificate to show, which isn't among them.

    Args:
        envelopes: Award, result, and both halves of the receipt.
        network: Network id.
        supported: Where it was rejected: this node has seen what proves that.

    Raises:
        RemoteProtocolError: They prove nothing.
    """
    awarded, _, receipt, accepted = check_receipt(*envelopes, network=network)
    rejected = accepted.verdict == "rejected"
    return Deal(
        buyer=accepted.h.issuer,
        agent=f"{awarded.h.audience}/{receipt.agent}",
        verdict=accepted.verdict,
        at_ms=accepted.h.issued_ms,
        both_signed=accepted.h.issuer == awarded.h.issuer,
        settled=supported if rejected else True,
    )


def told_deal(receipt: Receipt, acceptance: Acceptance) -> Deal:
    """Return what the two halves of a receipt prove, once they are checked.

    Both sides have signed the award's hash, which is what the award itself would show, and
    the award has more in it than others may read.  What proves a rejection isn't among
    them, so a rejection doesn't count.
    """
    return Deal(
        buyer=acceptance.h.issuer,
        agent=f"{receipt.h.issuer}/{receipt.agent}",
        verdict=acceptance.verdict,
        at_ms=acceptance.h.issued_ms,
        both_signed=True,
        settled=acceptance.verdict != "rejected",
    )


def witnessed(deals: Iterable[Deal], rules: Rules = RULES) -> dict[str, dict[str, Tally]]:
    """Return what deals come to, in their order: by buyer, then by agent.

    Args:
        deals: Of one capability; those that weigh nothing may be among them.
        rules: See there.
    """
    standings: dict[str, dict[str, Standing]] = {}
    for deal in deals:
        kind = _KINDS.get(deal.verdict)
        if kind is None or not (deal.both_signed and deal.settled):
            continue
        standing = standings.setdefault(deal.buyer, {}).setdefault(deal.agent, Standing())
        standing.learn(Evidence(kind, deal.at_ms), rules)
    return {
        buyer: {agent: Tally(one.good_mu, one.bad_mu) for agent, one in known.items()}
        for buyer, known in standings.items()
    }


def agreement(
    theirs: Mapping[str, Tally], own: Mapping[str, Standing], rules: Rules = RULES
) -> float:
    """Return how far a rater sees agents as this node does, from −1 to 1.

    Compared are the agents of which the rater has a unit of evidence and this node has two.
    """
    apart, common = 0.0, 0
    for agent in sorted(theirs):
        tally, standing = theirs[agent], own.get(agent)
        if standing is None or tally.good_mu + tally.bad_mu < _THEIRS_MIN_MU:
            continue
        if standing.for_mu + standing.bad_mu < _OWN_MIN_MU:
            continue
        common += 1
        said = _quality(tally.good_mu, tally.bad_mu, rules)
        apart += abs(said - _quality(standing.for_mu, standing.bad_mu, rules))
    return 1.0 - 2.0 * apart / common if common >= _COMMON_MIN else _AGREEMENT_GUESS


def rater_weights(
    flows: Flows,
    credible: Mapping[str, float],
    agreements: Mapping[str, float],
    rules: Rules = RULES,
) -> dict[str, float]:
    """Return ω of each rater that has any, from 0 to 1, by id.

    Args:
        flows: From this node.
        credible: Rater -> its credibility at its own work, by this node's own evidence alone:
            where what is imported counts too, a group that praises itself becomes credible
            by that, and is heard the more.
        agreements: Rater -> :func:`agreement`.
        rules: See there.
    """
    weights = {}
    for rater in sorted(agreements):
        if credible.get(rater, 0.0) < rules.rater_credible:
            continue
        agreed = (agreements[rater] - _AGREEMENT_MIN) / _AGREEMENT_SPAN
        weight = flows.weight(rater) * min(max(agreed, 0.0), 1.0)
        if weight > 0.0:
            weights[rater] = weight
    return weights


class Share(NamedTuple):
    """What one rater adds to what is imported of an agent; millionths of a unit."""

    rater: str
    weight: float
    good_mu: int
    bad_mu: int


def shares(
    agent: str,
    testimonies: Testimonies,
    weights: Mapping[str, float],
    *,
    before: Mapping[str, str] = _NO_BRANCHES,
    inviter: str = "",
    rules: Rules = RULES,
) -> list[Share]:
    """Return what each rater adds for one agent, before the limit of all together."""
    found = []
    for rater in sorted(weights):
        tally = testimonies.get(rater, {}).get(agent)
        if tally is not None and _is_heard(rater, agent, testimonies, weights, before):
            most_mu = mu(rules.inviter_max if rater == inviter else rules.rater_max)
            scale = weights[rater] * _scale(tally.good_mu + tally.bad_mu, most_mu)
            good_mu, bad_mu = int(tally.good_mu * scale), int(tally.bad_mu * scale)
            found.append(Share(rater, weights[rater], good_mu, bad_mu))
    return found


def imported(
    testimonies: Testimonies,
    weights: Mapping[str, float],
    *,
    before: Mapping[str, str] = _NO_BRANCHES,
    inviter: str = "",
    rules: Rules = RULES,
) -> dict[str, Imported]:
    """Return A and B of every agent that a rater with weight tells of.

    Nobody's word counts about itself.

    Args:
        testimonies: Of one capability.
        weights: Of the raters.
        before: Of the flows that the weights came of.
        inviter: Who invited this node; empty for nobody.
        rules: See there.
    """
    good: dict[str, int] = {}
    bad: dict[str, int] = {}
    for rater in sorted(weights):
        most_mu = mu(rules.inviter_max if rater == inviter else rules.rater_max)
        weight = weights[rater]
        for agent, (good_mu, bad_mu) in testimonies.get(rater, {}).items():
            if not _is_heard(rater, agent, testimonies, weights, before):
                continue
            scale = weight * _scale(good_mu + bad_mu, most_mu)
            good[agent] = good.get(agent, 0) + int(good_mu * scale)
            bad[agent] = bad.get(agent, 0) + int(bad_mu * scale)
    limit_mu = mu(rules.import_max)
    return {agent: _limited(good[agent], bad[agent], limit_mu) for agent in sorted(good)}


def _is_heard(
    rater: str,
    agent: str,
    testimonies: Testimonies,
    weights: Mapping[str, float],
    before: Mapping[str, str],
) -> bool:
    """Tell whether it counts about an agent: not its own, and nobody nearer tells of it."""
    if agent.partition("/")[0] == rater:  # an agent's id is peer/name
        return False
    nearer = before.get(rater)
    while nearer is not None:
        if nearer in weights and agent in testimonies.get(nearer, _NOTHING_TOLD):
            return False
        nearer = before.get(nearer)
    return True


def _scale(total_mu: int, most_mu: int) -> float:
    return 1.0 if total_mu <= most_mu else most_mu / total_mu


def _limited(good_mu: int, bad_mu: int, limit_mu: int) -> Imported:
    total_mu = good_mu + bad_mu
    if total_mu <= limit_mu:
        return Imported(good_mu, bad_mu)
    return Imported(good_mu * limit_mu // total_mu, bad_mu * limit_mu // total_mu)


def _quality(good_mu: int, bad_mu: int, rules: Rules) -> float:
    good, bad = good_mu / UNIT_MU + 1.0, bad_mu / UNIT_MU + rules.doubt
    return good / (good + bad)
