"""What whoever submits a job says of it beside the work."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from meshnode.domain.facts import InputRef, Planned
from meshnode.domain.plan_parts import Again, GoldPlan
from meshnode.domain.trust.acceptance import theta_of
from meshnode.errors import InputInvalid
from protocol.limits import BATCHES_MAX, HOPS_MAX, NUMBER_MAX, REPLANS_MAX

_DEADLINE_S_MAX: Final = 7 * 24 * 3600.0
_KEY_SIZE_MAX: Final = 200
#: Less sure than a coin nobody wants to be.
_THETA_MIN: Final = 0.5
_MILLION: Final = 1_000_000


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
        depth_max: Brokers below each other, this node among them, eight at most.
        fan_out_max: Awards that the contractor of one may have others do, with all that
            these have others do.
        subtasks_max: The same of all the job's awards together; 0 lets nobody hand
            anything on.
        tokens_max: Model tokens that may be used for it, further down too; 0 for any number.
        patience_s: So long is a node waited for when all that could do a sub-task are away.
        by_letter_s: What nobody is there for within that goes by letter to a node that takes
            orders so, and has so long for it; 0 for never.
        under: Hash of the award that the job is a part of: its own awards count too then.
        assurance: How sure answers are to be that no check proves: ``economy`` (0.90),
            ``assured`` (0.98), or a probability below 1; others are asked until one is.
            Empty takes what comes.
        lends_golds: What is proven of it may be given to other agents later, to see whether
            they know it (:mod:`meshnode.services.golds`): they see its inputs then.
        only: Agents, ``peer/name``, that may do it; anyone if none is named.  They aren't
            told.
        gold: What is known of the right answers, of a gold task; None for any other.
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
    depth_max: int = 3
    fan_out_max: int = 8
    subtasks_max: int = 0
    tokens_max: int = 0
    patience_s: float = 20.0
    by_letter_s: float = 0.0
    under: bytes = b""
    assurance: str | float = ""
    lends_golds: bool = False
    only: tuple[str, ...] = ()
    gold: GoldPlan | None = None

    @property
    def theta_ppm(self) -> int:
        """The least probability of an answer that is taken, millionths; 0 for any.

        Raises:
            InputInvalid: The assurance is none.
        """
        if self.assurance in ("", "none"):
            return 0
        try:
            theta = theta_of(self.assurance)
        except ValueError:
            theta = 0.0
        if not _THETA_MIN <= theta < 1.0:
            raise InputInvalid(
                f"an assurance of {self.assurance!r}",
                hint="economy, assured, none, or a probability from 0.5 on, below 1",
            )
        return round(theta * _MILLION)


def planned(
    terms: Terms, *, owner: str, graph: bytes, inputs: dict[str, InputRef], now_ms: int
) -> Planned:
    """Return the first event of a job on ``terms``; its epoch is 0.

    Args:
        terms: See there.
        owner: PeerId.
        graph: Encoded.
        inputs: By name.
        now_ms: Unix time.
    """
    return Planned(
        owner=owner,
        graph=graph,
        inputs=inputs,
        budget_mc=terms.budget_mc,
        deadline_ms=now_ms + int(terms.deadline_s * 1000),
        idempotency_key=terms.idempotency_key,
        epoch=0,
        traceparent=terms.traceparent,
        resumes=terms.resumes,
        again=dict(terms.again),
        hedges_pct=terms.hedges_pct,
        replans_max=terms.replans_max,
        hops=terms.depth_max,
        subtasks=terms.subtasks_max,
        fan_out=terms.fan_out_max,
        tokens=terms.tokens_max,
        under=terms.under,
        patience_ms=int(terms.patience_s * 1000),
        by_letter_ms=int(terms.by_letter_s * 1000),
        only=list(terms.only),
        gold=terms.gold,
        lends_golds=terms.lends_golds,
        theta_ppm=terms.theta_ppm,
    )


def check_terms(terms: Terms) -> None:
    """Refuse terms that are out of range.

    Raises:
        InputInvalid: Names what is, and what may be.
    """
    if terms.budget_mc < 0:
        raise InputInvalid(f"a budget of {terms.budget_mc} mc", hint="0 or more")
    if not 0 < terms.deadline_s <= _DEADLINE_S_MAX:
        raise InputInvalid(
            f"a deadline of {terms.deadline_s:g} s", hint="more than 0, and up to 7 days"
        )
    if not 0 <= terms.patience_s <= _DEADLINE_S_MAX:
        raise InputInvalid(f"a patience of {terms.patience_s:g} s", hint="up to 7 days")
    _check_letters(terms)
    terms.theta_ppm  # noqa: B018 - refuses
    if not 0 <= terms.hedges_pct <= 100:  # noqa: PLR2004 - per cent
        raise InputInvalid(f"hedges of {terms.hedges_pct} %", hint="0 to 100")
    if not 0 <= terms.replans_max <= REPLANS_MAX:
        raise InputInvalid(f"{terms.replans_max} replans", hint=f"0 to {REPLANS_MAX}")
    if len(terms.idempotency_key) > _KEY_SIZE_MAX:
        raise InputInvalid(f"an idempotency key of over {_KEY_SIZE_MAX} characters")
    if not 1 <= terms.depth_max <= HOPS_MAX:
        raise InputInvalid(f"a depth of {terms.depth_max}", hint=f"1 to {HOPS_MAX}")
    for name, value, most in (
        ("fan_out_max", terms.fan_out_max, BATCHES_MAX),
        ("subtasks_max", terms.subtasks_max, BATCHES_MAX),
        ("tokens_max", terms.tokens_max, NUMBER_MAX),  # 0 for no limit
    ):
        if not 0 <= value <= most:
            raise InputInvalid(f"{name} of {value}", hint=f"0 to {most}")


def _check_letters(terms: Terms) -> None:
    if not 0 <= terms.by_letter_s <= terms.deadline_s:
        raise InputInvalid(
            f"{terms.by_letter_s:g} s for what goes by letter",
            hint=f"up to the deadline, {terms.deadline_s:g} s",
        )
    if terms.by_letter_s and terms.standbys:
        raise InputInvalid(
            "a job with standbys gives nothing by letter",
            hint="what comes back could be read by this node only: leave one of them out",
        )
