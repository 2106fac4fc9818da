"""What the API shows of a node, its jobs and what happens: plain values, no envelopes.

Pure functions from what the node holds to JSON.  Signed messages stay in the journal;
here stand the few facts of them that a person or a program looks at.  The shapes are
an interface: fields are added, never renamed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, cast

import msgspec

from meshnode.domain.costs import costs_of
from meshnode.domain.explaining import explain
from meshnode.domain.explaining_words import in_words
from meshnode.domain.facts import Fact
from meshnode.domain.graph_files import graph_to_value
from meshnode.domain.job import JobState
from meshnode.domain.spot_checks import Spotted
from meshnode.domain.spot_checks import told as told_of_examples
from meshnode.domain.unit_states import UnitState
from meshnode.domain.units import Unit
from meshnode.domain.values import parse
from meshnode.domain.watching import told
from meshnode.node import Happening, Node, Plan
from meshnode.ports import JsonValue
from protocol.graph import decode_graph
from protocol.journal import Event
from protocol.records import Capability, CapabilityName, Measured, NodeRecord
from protocol.signing import peek

View = dict[str, JsonValue]

#: Text of a fact or of telemetry that is shown, characters.
_TEXT_MAX: Final = 2_000
#: What telemetry shows of a list.
_LIST_MAX: Final = 32

#: Kind of event -> fields of its fact that are shown as they are.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "planned": ("owner", "budget_mc", "deadline_ms", "idempotency_key", "resumes"),
    "replanned": ("subtask", "was", "capability", "code", "considered"),
    "expanded": ("subtask", "sizes"),
    "called": ("unit", "attempt"),
    "proposed": ("unit", "attempt", "peer", "agent", "capability", "price_mc", "eta_ms"),
    "refused": ("unit", "attempt", "peer", "reason", "text"),
    "awarded": ("unit", "attempt", "peer", "price_cap_mc", "hedge"),
    "progressed": ("unit", "attempt", "items_done", "offset"),
    "delivered": ("unit", "attempt", "output", "size", "price_mc", "run_ms"),
    "verified": ("unit", "attempt", "verdict", "check"),
    "judged": (
        "unit",
        "outcome",
        "posterior_ppm",
        "chosen",
        "wanted",
        "votes",
        "why",
        "sitting",
    ),
    "charged": ("unit", "attempt", "paid_mc"),
    "failed": ("unit", "attempt", "peer", "code", "text", "blame"),
    "cancelled": ("reason", "text"),
    "elected": ("epoch", "broker"),
    "done": ("state", "code", "text"),
}


class _Named(msgspec.Struct, frozen=True):
    """Of an award: whom it is for."""

    agent: str
    capability: str


_NAMED: Final = msgspec.msgpack.Decoder(_Named)


def program_version() -> str:
    """Return the version of this program; ``unknown`` when it runs without being installed."""
    try:
        return version("meshnode")
    except PackageNotFoundError:
        return "unknown"


# --- agents -----------------------------------------------------------------------


def known_agents(node: Node, query: CapabilityName) -> list[View]:
    """Return the agents that ``node`` knows to offer ``query``; all if it names nothing."""
    alive = {node.peer, *node.sessions.connected()}
    return [
        agent_view(
            record,
            capability,
            seen_view(node, record.peer, capability),
            alive=record.peer in alive,
            now_ms=node.clock.now_ms(),
        )
        for record in node.known()
        for capability in record.capabilities
        if not query.path or query.covers(CapabilityName.parse(capability.name))
    ]


def agent_view(
    record: NodeRecord, capability: Capability, seen: View, *, alive: bool, now_ms: int
) -> View:
    """Return what is known of one agent: its record's word, what was seen, if it is there."""
    claim = capability.measured if capability.measured.holds(now_ms=now_ms) else Measured()
    return {
        "agent": f"{record.peer}/{capability.agent}",
        "peer": record.peer,
        "name": capability.agent,
        "capability": capability.name,
        "description": capability.description,
        "price_mc": capability.price_mc,
        "model_family": capability.model_family,
        "deterministic": capability.deterministic,
        "like": msgspec.to_builtins(capability.like),
        "checks": [*capability.checks],
        "input_schema": parse(capability.input_schema),
        "output_schema": parse(capability.output_schema),
        "examples": [
            {"input": parse(sample.input), "output": parse(sample.output)}
            for sample in capability.examples
        ],
        "alive": alive,
        "latency_ms": claim.latency_ms,
        "samples": claim.samples,
        "tokens_per_s": claim.tokens_per_s,
        "context_tokens": claim.context_tokens,
        "measured_ms": claim.at_ms,
        "examples_tried": claim.tried,
        "examples_right": claim.right,
        "seen": seen,
        "concurrency": capability.limits.concurrency,
    }


def seen_view(node: Node, peer: str, capability: Capability) -> View:
    """Return what ``node`` saw of an agent, beside what it claims: its pace, its examples."""
    seen = node.market.watched(peer, capability)
    asked = node.spots.of(capability.name, f"{peer}/{capability.agent}")
    lines = [line for line in (told(seen), told_of_examples(asked)) if line]
    return {
        "n": seen.n,
        "latency_ms": seen.seen_ms,
        "run_ms": seen.said_ms,
        "claimed_ms": seen.claimed_ms,
        "overclaims": seen.overclaims or asked.overclaims,
        "examples": examples_view(asked),
        "text": "; ".join(lines),
    }


def examples_view(asked: Spotted) -> View:
    """Return what came of asking an agent for examples, its own and others'."""
    return {
        "tried": asked.tried,
        "right": asked.right,
        "asked": asked.asked,
        "came_right": asked.came_right,
        "others": asked.others,
        "unlike": asked.unlike,
        "overclaims": asked.overclaims,
        "text": told_of_examples(asked),
    }


# --- plans ------------------------------------------------------------------------


def plan_view(plan: Plan) -> View:
    """Return what was made of a goal."""
    outline, made = plan.outline, plan.assembled
    steps: list[JsonValue] = [
        {
            "id": step,
            "capability": offer.capability,
            "clause": words,
            "after": [made.steps[p] for p, c in outline.edges if c == index],
        }
        for index, (step, offer, words) in enumerate(
            zip(made.steps, outline.steps, outline.words, strict=True)
        )
    ]
    return {
        "goal": plan.goal[:_TEXT_MAX],
        "asked": plan.asked,
        "by_meaning": plan.by_meaning,
        "clauses": [
            {
                "text": clause.text,
                "capability": clause.offer.capability if clause.offer else None,
                "score": clause.score,
                "nearest": [
                    {"capability": name, "score": near} for name, near in clause.nearest
                ],
            }
            for clause in outline.clauses
        ],
        "steps": steps,
        "missing": [
            {
                "step": want.step,
                "field": want.field,
                "description": want.description,
                "type": want.kind,
            }
            for want in made.missing
        ],
        "optional": [
            {"step": want.step, "field": want.field, "description": want.description}
            for want in made.optional
        ],
        "cost_mc": made.cost_mc,
        "time_ms": made.time_ms,
        "graph": graph_to_value(made.graph),
        "inputs": dict(made.inputs),
    }


# --- jobs -------------------------------------------------------------------------


def job_view(state: JobState, now_ms: int, *, durable: bool = True) -> View:
    """Return how a job stands: a row for each unit, or sub-task that isn't cut yet.

    Args:
        state: Of the job.
        now_ms: Unix time.
        durable: Whether all of it is written down; an end that isn't is none yet.
    """
    done = state.done if durable else None
    ended_ms = state.ended_ms if done else now_ms
    rows: list[JsonValue] = []
    for planned in state.graph.subtasks if state.graph else ():
        task = state.tasks[planned.id]
        names = state.expanded.get(task.id)
        if names is None:
            rows.append(_uncut(task.id, task.capability))
            continue
        for name in names:
            unit = state.units[name]
            rows.append(_unit_view(unit, task.capability, now_ms, ended=done is not None))
    failed = done is not None and done.state != "completed"
    return {
        "job": state.job,
        "name": state.graph.name if state.graph else "",
        "state": done.state if done else "running",
        "subtasks": rows,
        "owner": state.plan.owner if state.plan else "",
        "broker": state.elected.broker if state.elected else "",
        "epoch": state.elected.epoch if state.elected else 0,
        "replanned": [
            fact_view(patch.KIND, msgspec.to_builtins(patch)) for patch in state.patches
        ],
        "cost_mc": state.spent_mc,
        "budget_mc": state.required_plan.budget_mc,
        "tokens_used": state.tokens_used,
        "tokens_max": state.required_plan.tokens,
        "kept": state.kept(),
        "costs": _costs_view(state),
        "elapsed_s": max(0, ended_ms - state.planned_ms) / 1000,
        "error": {"code": done.code, "message": done.text} if done and failed else None,
    }


def _costs_view(state: JobState) -> View:
    """Return what the job has cost so far, by sub-task and by node."""
    costs = costs_of(state)
    return {
        "total": asdict(costs.total),
        "subtasks": {name: asdict(cost) for name, cost in costs.subtasks.items()},
        "nodes": {peer: asdict(cost) for peer, cost in costs.nodes.items()},
        "below": [msgspec.to_builtins(row) for row in costs.below],
    }


def _uncut(subtask: str, capability: str) -> View:
    """Return the row of a sub-task whose inputs aren't there yet."""
    return {
        "id": subtask,
        "subtask": subtask,
        "batch": None,
        "capability": capability,
        "agent": "",
        "node": "",
        "state": "waiting",
        "verdict": "",
        "check": "",
        "items": 0,
        "items_done": 0,
        "ms": 0,
        "cost_mc": 0,
        "output": None,
        "attempts": [],
    }


def _unit_view(unit: Unit, capability: str, now_ms: int, *, ended: bool) -> View:
    last = unit.accepted or (unit.attempts[-1] if unit.attempts else None)
    row = _uncut(unit.subtask, capability) | {
        "id": unit.name,
        "batch": unit.batch,
        "items": unit.calls,
        "state": _state(unit, ended=ended),
    }
    if last is None:
        return row
    named = _named(last.award) if last.award else None
    ended_ms = unit.ended_ms if unit.current is None else now_ms
    verdict = last.verdict
    return row | {
        "capability": named.capability if named else capability,
        "agent": named.agent if named else "",
        "node": last.peer,
        "verdict": verdict.verdict if verdict else "",
        "check": verdict.check if verdict else "",
        "items_done": last.items_done,
        "ms": max(0, ended_ms - unit.started_ms),
        "cost_mc": last.paid_mc or 0,
        "output": last.delivered.output.hex() if last.delivered else None,
        "attempts": _attempts(unit),
    }


def _attempts(unit: Unit) -> list[JsonValue]:
    """Return how the attempts that came to nothing ended."""
    return [
        {"node": error.peer or attempt.peer, "code": error.code, "text": error.text}
        for attempt in unit.attempts
        if (error := attempt.error) is not None
    ]


def _state(unit: Unit, *, ended: bool) -> UnitState:
    if unit.accepted is not None:
        return "completed"
    tried = unit.tried()  # two with a hedge: what tells most is said
    if not tried:
        return "failed" if ended and unit.attempts else "waiting"
    if any(attempt.delivered is not None for attempt in tried):
        return "checking"
    return "running" if any(attempt.award for attempt in tried) else "negotiating"


def _named(award: bytes) -> _Named:
    """Return whom an award of this node's own journal is for; its signature stands there."""
    return _NAMED.decode(peek(award).p)


def explanation_view(job: str, events: Sequence[Event], now_ms: int) -> View:
    """Return why a job went as it did: the facts, and ``words`` to be read by people."""
    told = explain(job, events, now_ms=now_ms)
    view: View = msgspec.to_builtins(told)
    words = msgspec.to_builtins(in_words(told))
    return {**view, "words": words}


# --- events -----------------------------------------------------------------------


def event_view(event: Event) -> View:
    """Return the summary of one event of a journal."""
    view: View = {"seq": event.seq, "at_ms": event.at_ms, "kind": event.kind}
    return view | fact_view(event.kind, event.data)


def fact_view(kind: str, data: Mapping[str, Any]) -> View:
    """Return what is shown of a fact: no envelopes, bytes as hex, text bounded."""
    view: View = {name: _plain(data[name]) for name in _SHOWN.get(kind, ()) if name in data}
    match kind:
        case "planned":
            graph = decode_graph(data["graph"])
            view["name"] = graph.name
            view["subtasks"] = [
                {"id": task.id, "capability": task.capability} for task in graph.subtasks
            ]
        case "called":
            view["peers"] = sorted(data["cfps"])
        case "awarded":
            named = _named(data["award"])
            view |= {"agent": named.agent, "capability": named.capability}
        case "verified":
            view["text"] = _plain(data.get("detail", ""))
        case "done":
            view["outputs"] = sorted(data.get("outputs", {}))
        case _:
            pass
    return view


def happening_view(happening: Happening) -> View:
    """Return one event of telemetry."""
    fields: View = {}
    for name, value in happening.fields.items():
        if isinstance(value, Fact):
            data = msgspec.to_builtins(value, builtin_types=(bytes,))
            fields |= fact_view(value.KIND, data)
        else:
            fields[name] = _plain(value)
    return {
        "number": happening.number,
        "at_ms": happening.at_ms,
        "event": happening.name,
        "fields": fields,
    }


def _plain(value: object) -> JsonValue:
    """Return ``value`` as JSON has it, bounded; what JSON can't say becomes text."""
    match value:
        case None | bool() | int():
            return cast("JsonValue", value)
        case float():
            return value if value - value == 0 else str(value)  # infinities are no JSON
        case bytes():
            return value.hex()[:_TEXT_MAX]
        case str():
            return value[:_TEXT_MAX]
        case Mapping():
            return {str(key)[:_TEXT_MAX]: _plain(part) for key, part in value.items()}
        case Sequence():
            return [_plain(part) for part in value[:_LIST_MAX]]
        case _:
            return str(value)[:_TEXT_MAX]
