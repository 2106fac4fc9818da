"""Which example of a record an agent is asked for, and what it is held against.

One of its own, as long as its record claims that they come out as they say; or one of another's
record, where the two can be compared and the other is believed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from meshnode.domain.declared import grouping
from meshnode.domain.offered import usable_samples
from meshnode.domain.spot_checks import Owner, Spotted, comparable, spotted
from meshnode.domain.values import parse
from meshnode.ports import JsonValue
from meshnode.services.context import Context
from meshnode.services.market import Market
from meshnode.services.reputation import Reputation
from meshnode.services.spot_rows import Out, SpotRows
from protocol.keys import digest
from protocol.likeness import EXACT, Likeness
from protocol.records import Capability, Sample

_NAME_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Example:
    """An example that an agent is asked for.

    Attributes:
        owner: Whose record has it.
        sample: It.
        like: When an answer says the same.
    """

    owner: str
    sample: Sample
    like: Likeness

    @property
    def name(self) -> bytes:
        """What tells it from others."""
        return _name_of(self.sample)

    @property
    def value(self) -> dict[str, JsonValue]:
        """The input."""
        value = parse(self.sample.input)
        assert isinstance(value, dict)
        return value

    @property
    def output(self) -> JsonValue:
        """What its owner says comes out."""
        return parse(self.sample.output)


class Examples:
    """See the module."""

    def __init__(
        self, context: Context, *, market: Market, reputation: Reputation, rows: SpotRows
    ) -> None:
        self._peer = context.peer
        self._clock = context.clock
        self._rng = context.rng
        self._market = market
        self._reputation = reputation
        self._rows = rows

    def seen(self, capability: str, agent: str) -> Spotted:
        """Return what was seen of an agent's examples, beside what it claims now."""
        row = self._rows.of(capability, agent)
        claimed = self.claimed(capability, agent) if row.own else None
        seen = spotted(row.own, claimed, now_ms=self._clock.now_ms())
        return msgspec.structs.replace(seen, others=row.others, unlike=row.unlike)

    def claimed(self, capability: str, agent: str) -> Capability | None:
        """Return what an agent's record says of it."""
        peer, _, name = agent.partition("/")
        offer = self._market.capability(peer, name, capability)
        return offer if offer is not None and offer.name == capability else None

    def choose(self, capability: str, agent: str) -> Example | None:
        """Return the example that an agent is asked for: its own, or another's as often.

        Who did one of its own otherwise than it says is asked for those alone until it is
        known whether that was chance.
        """
        claimed = self.claimed(capability, agent)
        if claimed is None:
            return None
        own: list[Example] = []
        if claimed.measured.holds(now_ms=self._clock.now_ms()) and claimed.measured.right:
            like = grouping(EXACT, [claimed.like])
            own = [Example(agent, sample, like) for sample in _usable(claimed)]
        if own and self.seen(capability, agent).is_open:
            return self._rng.choice(own)
        others = self._others(capability, agent, claimed)
        both = [some for some in (own, others) if some]
        return self._rng.choice(self._rng.choice(both)) if both else None

    def _others(self, capability: str, agent: str, claimed: Capability) -> list[Example]:
        """Return others' examples that an agent wasn't asked for, and can be held against."""
        known = {sample.input for sample in claimed.examples}
        seen, peer = self._rows.of(capability, agent).seen, agent.partition("/")[0]
        found: list[Example] = []
        for owner, offer in sorted(self._market.declared(capability).items()):
            like = comparable(claimed, offer)
            if like is None or owner.partition("/")[0] == peer:
                continue
            if not self.owner(capability, owner).is_heard(self._reputation.rules):
                continue
            found += [
                Example(owner, sample, like)
                for sample in _usable(offer)
                if sample.input not in known and _name_of(sample) not in seen
            ]
        return found

    def owner(self, capability: str, agent: str) -> Owner:
        """Return how an agent stands as one whose examples are asked of others.

        Of this node's own agents its owner says what is right, as with golds.
        """
        row, rules = self._rows.of(capability, agent), self._reputation.rules
        is_own = agent.partition("/")[0] == self._peer
        believed = self._reputation.book(capability).own_credibility(agent)
        return Owner(
            agent,
            rules.credibility_max if is_own else believed,
            alike=row.alike,
            gainsaid=row.gainsaid,
            overclaims=self.seen(capability, agent).overclaims,
        )

    def again(self, capability: str, agent: str, out: Out | None) -> Example | None:
        """Return what an agent was asked for, if that still stands in its owner's record."""
        if out is None:
            return None
        claimed, offer = self.claimed(capability, agent), self.claimed(capability, out.owner)
        if claimed is None or offer is None:
            return None
        own = out.owner == agent
        like = grouping(EXACT, [claimed.like]) if own else comparable(claimed, offer)
        sample = next((one for one in _usable(offer) if _name_of(one) == out.example), None)
        return Example(out.owner, sample, like) if sample and like else None


def _usable(offer: Capability) -> Sequence[Sample]:
    """Return the examples that are JSON, and whose inputs are objects, as every task's are."""
    return [sample for sample in usable_samples(offer) if sample.input.startswith(b"{")]


def _name_of(sample: Sample) -> bytes:
    return digest(sample.input + b"\0" + sample.output)[:_NAME_BYTES]
