"""What a job goes through when it gets another broker, as facts in its journal.

The new broker begins a segment of its own, shows by what right, and closes what only the
old one could have gone on with: calls whose proposals were for the old one.  Awards that
are out stay out: whoever has one answers the new broker that sends it again.

Specified in protocol/spec/80-journal.md, "Event kinds", and 85-failover.md.
"""

from typing import Final

from meshnode.domain.facts import Elected, Failed, Planned
from meshnode.domain.job import JobState
from protocol.charter import Charter, read_certificate
from protocol.errors import Malformed
from protocol.journal import Segment

#: Why an attempt ends that was called and not awarded when its job changed hands.
CHANGED: Final = "broker.changed"


def left_behind(state: JobState) -> list[Failed]:
    """Return the end of every attempt that a later broker can't award."""
    return [
        Failed(
            unit=unit.name,
            attempt=attempt.number,
            peer="",
            code=CHANGED,
            text="the proposals were for the broker before",
            blame="broker",
        )
        for unit, attempt in state.open_attempts()
        if not attempt.award
    ]


def check_elected(fact: Elected, segment: Segment, plan: Planned, *, at_ms: int) -> None:
    """Hold a broker's certificate against the segment that it writes.

    Args:
        fact: What it says.
        segment: Where it says it.
        plan: The job's.
        at_ms: When, Unix time.

    Raises:
        RemoteProtocolError: The certificate doesn't hold, or not for this.
    """
    won = read_certificate(fact.certificate, network=segment.network, now_ms=at_ms)
    charter = won.chartered.charter
    said = (fact.epoch, fact.broker, fact.charter)
    if not (
        (won.epoch, won.broker, won.chartered.name)
        == said
        == (segment.epoch, segment.writer, segment.charter)
    ):
        raise Malformed("its certificate is for another epoch, broker or charter")
    if charter.job != segment.job:
        raise Malformed("its charter is of another job")
    check_plan(plan, charter)


def check_plan(plan: Planned, charter: Charter) -> None:
    """Hold a job's plan against its charter: who goes on with it pays for its owner.

    Raises:
        Malformed: It is another's, or may cost more.
    """
    if plan.owner != charter.owner:
        raise Malformed("the plan is of another owner than the charter")
    if plan.budget_mc > charter.budget.cost_mc:
        raise Malformed("the plan may cost more than the charter")
