"""Can a finished job's story be believed, from nothing but its exported journal?

:func:`verify_provenance` proves what bytes alone can prove: who signed what, in which
order, that every award, result and payment fits the one before it, and that each
award's inputs are the outputs of the producers that the graph names.  It folds the
journal with the code that ran the job, and asks :func:`~meshnode.domain.bindings.bind`
again at each award where its inputs had to come from.

What it can't prove is truth: that a clock was right, that a slice of a job input was
cut where the plan says (the bytes aren't in the journal), or that an output is good.

Specified in protocol/spec/80-journal.md, "What a journal proves".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from meshnode.domain.audit import Audit
from meshnode.domain.facts import ArtifactRef
from meshnode.domain.units import Unit
from meshnode.errors import InputInvalid
from protocol.errors import BadSignature, Malformed, RemoteProtocolError
from protocol.journal import ReadSegment, read_export


@dataclass(frozen=True, slots=True)
class Row:
    """One unit of the job: who did it, and what came of it.

    Attributes:
        unit: ``subtask/batch``.
        subtask: Its sub-task's id.
        batch: Number of the batch.
        items: Agent calls in it.
        capability: Full name, or what was asked for when nobody was awarded.
        agent: The contractor's agent.
        peer: The contractor, or empty.
        state: ``completed`` once its output was accepted.
        verdict: Of the check, or empty.
        check: Kind of the check behind the verdict.
        ms: From the first call or award to the end.
        cost_mc: Paid.
        output: SHA-256 of the output, or empty.
        attempts: Tries that it took.
    """

    unit: str
    subtask: str
    batch: int
    items: int
    capability: str
    agent: str
    peer: str
    state: Literal["completed", "failed", "waiting"]
    verdict: str
    check: str
    ms: int
    cost_mc: int
    output: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a journal proves.

    Attributes:
        job: Job id.
        network: Network id.
        owner: PeerId of whose job it is.
        brokers: Writers of its segments, in order.
        state: ``completed``, ``failed`` or ``cancelled``.
        code: Why, unless completed.
        text: The same, for people.
        started_ms: Unix time of the plan, by the broker's clock.
        ended_ms: Unix time of the end.
        budget_mc: What could be spent.
        cost_mc: What was.
        events: How many.
        signatures: Distinct signed things whose signature was checked.
        rows: One for each unit, in the order in which they came to be.
        outputs: Name -> the value that the job returned.
    """

    job: str
    network: str
    owner: str
    brokers: tuple[str, ...]
    state: str
    code: str
    text: str
    started_ms: int
    ended_ms: int
    budget_mc: int
    cost_mc: int
    events: int
    signatures: int
    rows: tuple[Row, ...]
    outputs: dict[str, ArtifactRef]


def verify_provenance(data: bytes) -> Provenance:
    """Return what the exported journal ``data`` proves.

    Raises:
        BadSignature: A signature doesn't hold; says at which event.
        RemoteProtocolError: Anything else doesn't; says at which event, and what.
    """
    segments = read_export(data)
    audit = Audit(segments[0].header)
    for segment in segments:
        audit.go_on(segment.header)
        for event in segment.events:
            try:
                audit.take(event)
            except (RemoteProtocolError, InputInvalid) as exc:
                text = f"event {event.seq} ({event.kind[:40]}): {exc}"
                if isinstance(exc, BadSignature):
                    raise BadSignature(text) from exc
                raise Malformed(text) from exc
    audit.end(segments[-1].head)
    return _summary(audit, segments)


def _summary(audit: Audit, segments: Sequence[ReadSegment]) -> Provenance:
    state, plan = audit.state, audit.state.required_plan
    done = state.done
    assert done is not None
    return Provenance(
        job=state.job,
        network=segments[0].header.network,
        owner=plan.owner,
        brokers=tuple(segment.header.writer for segment in segments),
        state=done.state,
        code=done.code,
        text=done.text,
        started_ms=state.planned_ms,
        ended_ms=state.ended_ms,
        budget_mc=plan.budget_mc,
        cost_mc=state.spent_mc,
        events=state.seq,
        signatures=len(audit.envelopes) + len(segments),
        rows=tuple(_row(audit, unit) for unit in state.units.values()),
        outputs=dict(done.outputs),
    )


def _row(audit: Audit, unit: Unit) -> Row:
    last = unit.accepted or (unit.attempts[-1] if unit.attempts else None)
    award = audit.awards[unit.name, last.number][0] if last and last.award else None
    found = last.verdict if last else None
    return Row(
        unit=unit.name,
        subtask=unit.subtask,
        batch=unit.batch,
        items=unit.calls,
        capability=award.capability if award else audit.state.tasks[unit.subtask].capability,
        agent=award.agent if award else "",
        peer=last.peer if last else "",
        state="completed" if unit.accepted else "failed" if last else "waiting",
        verdict=found.verdict if found else "",
        check=found.check if found else "",
        ms=max(0, unit.ended_ms - unit.started_ms),
        cost_mc=(last.paid_mc or 0) if last else 0,
        output=last.delivered.output if last and last.delivered else b"",
        attempts=len(unit.attempts),
    )
