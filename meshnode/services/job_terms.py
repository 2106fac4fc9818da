"""What whoever submits a job says of it beside the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshnode.domain.facts import Again
from protocol.limits import REPLANS_MAX


@dataclass(frozen=True, slots=True)
class Terms:
    """What a job may take.

    Attributes:
        budget_mc: Millicredits; 0 lets only free work be done.
        deadline_s: From now.
        idempotency_key: The same key gives the same job; empty for none.
        traceparent: W3C trace context, or empty.
        asked: Fingerprint of what the graph and its inputs were made from, or empty: asked
            again with the same key, it may have become another graph meanwhile.
        resumes: The job that this one goes on with, or empty.
        again: Its sub-tasks that had been begun there.
        hedges_pct: Of a hundred units so many, and one at least, may be given to a second
            contractor too when the first is slow; 0 for none.
        standbys: PeerIds of nodes that go on with the job when this one is gone, or how
            many are to be chosen; none unless said.
        replans_max: So often, and three times at most, may a sub-task that can't be done as
            planned go on with what the graph names instead, or with another version of its
            capability; 0 for never.
    """

    budget_mc: int = 1_000_000
    deadline_s: float = 600.0
    idempotency_key: str = ""
    traceparent: str = ""
    asked: str = ""
    resumes: str = ""
    again: Mapping[str, Again] = field(default_factory=dict)
    hedges_pct: int = 10
    standbys: int | tuple[str, ...] = ()
    replans_max: int = REPLANS_MAX
