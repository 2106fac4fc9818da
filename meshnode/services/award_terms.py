"""Whether an award is within what this node said: its proposal, its offer, or its prices now.

An award is held against the signed terms that come with it.  An order, which comes by
letter, has none: it is held against what the agent is and costs when it would be begun.
"""

from meshnode.domain.admission import No
from meshnode.errors import MeshError
from meshnode.services.agents import AgentHost
from meshnode.services.bodies import AwardBody
from meshnode.services.context import Context
from meshnode.services.letters import Letters
from protocol.keys import digest
from protocol.messages import Award, Proposal, StandingOffer, read_message
from protocol.signing import peek


class AwardTerms:
    """See the module."""

    def __init__(self, context: Context, *, host: AgentHost, letters: Letters) -> None:
        self._signer = context.signer
        self._clock = context.clock
        self._host = host
        self._letters = letters

    def broken(self, body: AwardBody, award: Award, broker: str) -> No | None:
        """Return how an award breaks the terms that are with it, if it does.

        Raises:
            RemoteProtocolError: They are none.
        """
        try:
            self._check(body, award, broker)
        except _TermsError as exc:
            return No(exc.reason, str(exc))
        return None

    def broken_by_order(self, award: Award) -> No | None:
        """Return why an order can't be begun as it is, if that is so."""
        spec = self._host.specs().get(award.agent)
        if self._clock.now_ms() >= award.h.expires_ms:
            return No("deadline", "it was to be begun earlier")
        if spec is None or spec.capability != award.capability:
            return No("not_offered", f"there is no such agent {award.agent[:64]!r} any more")
        if not award.each and award.items != 1:
            return No("terms", "a single call has one item")
        if award.price_cap_mc < spec.price_mc * award.items:
            return No("price", f"it costs {spec.price_mc * award.items} mc now")
        return None

    def _check(self, body: AwardBody, award: Award, broker: str) -> None:
        """Hold an award against the proposal or standing offer that this node signed."""
        if not award.lease_ms:
            raise _TermsError("terms", "an award without a lease comes in a letter")
        terms = self._bound(body, award)
        if (terms.h.issuer, terms.h.audience) != (self._signer.peer, broker):
            raise _TermsError("terms", "the proposal is not this node's to this broker")
        if self._clock.now_ms() >= terms.h.expires_ms:
            raise _TermsError("offer_expired", "the proposal has expired")
        if (terms.agent, terms.capability) != (award.agent, award.capability):
            raise _TermsError("terms", "agent or capability differ from the proposal")
        if not award.each and award.items != 1:
            raise _TermsError("terms", "a single call has one item")
        if award.price_cap_mc < terms.price_mc * award.items:
            raise _TermsError("price", "the price cap is below the proposal")
        if award.agent not in self._host.specs():
            raise _TermsError("not_offered", f"there is no agent {award.agent!r} any more")
        if award.h.deadline_ms <= self._letters.peer_now_ms(broker):
            raise _TermsError("deadline", "its deadline has passed")

    def _bound(self, body: AwardBody, award: Award) -> Proposal | StandingOffer:
        """Return what ``award`` binds, signature checked."""
        network = self._signer.network
        if digest(body.proposal) != award.proposal:
            raise _TermsError("terms", "it binds another proposal than the one that is with it")
        if peek(body.proposal).t == Proposal.TYPE:
            proposal = read_message(body.proposal, Proposal, network=network)
            if proposal.cfp != award.cfp:
                raise _TermsError("terms", "it binds another CFP than the proposal")
            if award.items > proposal.items:
                raise _TermsError("terms", f"{award.items} items are more than were called for")
            return proposal
        offer = read_message(body.proposal, StandingOffer, network=network)
        if award.items > offer.items_max or award.cfp:
            raise _TermsError("terms", f"{award.items} items are more than was offered")
        return offer


class _TermsError(MeshError):
    """An award that isn't within what was proposed."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
