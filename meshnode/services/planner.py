"""The planner at work: what the mesh advertises, what words mean, what a plan would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import trio

from meshnode.domain.plan_graphs import Assembled, assemble, split_matter
from meshnode.domain.planning import Offer, Outline, outline, texts_of, word_vectors
from meshnode.domain.planning_examples import example_words
from meshnode.domain.values import fingerprint, parse
from meshnode.errors import AgentError, CannotPlan, InputInvalid, NoProvider
from meshnode.ports import Embedder, Emit, JsonValue, WallClock
from meshnode.services.looking import Finder
from protocol.records import Capability

GOAL_CHARACTERS_MAX: Final = 20_000
_EXAMPLES_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What was made of a goal.

    Attributes:
        goal: As it was given.
        outline: What was understood.
        assembled: The graph, its inputs, what is missing, and what it will take.
        by_meaning: Whether a model compared meanings, or only words were.
        asked: Fingerprint of goal, files and inputs: the same whatever was made of them.
    """

    goal: str
    outline: Outline
    assembled: Assembled
    by_meaning: bool
    asked: str


class Planner:
    """Plans goals of this node's users.

    Args:
        finder: Who knows the records.
        embedder: The model of meaning, or None to go by words alone.
        emit: Telemetry.
        clock: What claims lapse by.
    """

    def __init__(
        self, finder: Finder, *, embedder: Embedder | None, emit: Emit, clock: WallClock
    ) -> None:
        self._finder = finder
        self._clock = clock
        self._embedder = embedder
        self._emit = emit

    def offers(self) -> list[Offer]:
        """Return one offer for each capability that is advertised: the cheapest's terms."""
        known: dict[str, list[Capability]] = {}
        for record in self._finder.known():
            for capability in record.capabilities:
                known.setdefault(capability.name, []).append(capability)
        now_ms = self._clock.now_ms()
        return [_offer(known[name], now_ms) for name in sorted(known)]

    async def plan(
        self,
        goal: str,
        *,
        files: Sequence[Mapping[str, JsonValue]] = (),
        inputs: Mapping[str, JsonValue] | None = None,
        partial: bool = False,
    ) -> Plan:
        """Turn ``goal`` into a graph; spends nothing.

        Args:
            goal: In English.
            files: ``{"path", "text"}`` of each file that it is about.
            inputs: Values for what can't be inferred, by the name of the field.
            partial: Plan what can be placed, and leave out the rest.

        Raises:
            InputInvalid: The goal is empty or too long.
            NoProvider: Nothing here serves it; names the nearest capabilities.
            CannotPlan: A part of it can't be placed, and ``partial`` isn't asked for.
            GraphError: What came out can't run.
        """
        asked, matter = split_matter(goal)
        if not asked.strip():
            raise InputInvalid("the goal is empty", hint="say what is to be done")
        if len(asked) > GOAL_CHARACTERS_MAX:
            raise InputInvalid(
                f"the goal has more than {GOAL_CHARACTERS_MAX} characters",
                hint="give the text as a file",
            )
        offers = self.offers()
        if not offers:
            raise NoProvider(
                "no agent is known here yet",
                hint="join a mesh (`meshnode up --join`), or host an agent",
            )
        vectors, by_meaning = await self._vectors(texts_of(asked, offers))
        found = await trio.to_thread.run_sync(outline, asked, offers, vectors)
        _refuse(goal, found, partial=partial)
        assembled = assemble(
            found, matter=matter, files=files, given=inputs or {}, name=_title(asked)
        )
        self._emit(
            "plan.made", steps=len(found.steps), edges=len(found.edges), by_meaning=by_meaning
        )
        wish: dict[str, JsonValue] = {
            "goal": goal,
            "files": [dict(file) for file in files],
            "inputs": dict(inputs or {}),
            "partial": partial,
        }
        return Plan(goal, found, assembled, by_meaning, fingerprint(wish))

    async def near(self, text: str, *, count_max: int = 10) -> list[tuple[str, float]]:
        """Return the capabilities nearest to ``text``, with how near, the best first."""
        offers = self.offers()
        said = [f"{offer.capability}: {offer.description}" for offer in offers]
        vectors, _ = await self._vectors([text, *said])
        mine = vectors[text]
        scored = [
            (sum(a * b for a, b in zip(mine, vectors[words], strict=True)), offer.capability)
            for words, offer in zip(said, offers, strict=True)
        ]
        scored.sort(key=lambda each: (-each[0], each[1]))
        return [(capability, round(score, 3)) for score, capability in scored[:count_max]]

    async def _vectors(self, texts: Sequence[str]) -> tuple[dict[str, Sequence[float]], bool]:
        wanted = list(dict.fromkeys(texts))
        if self._embedder is not None:
            try:
                vectors = await self._embedder.embed(wanted)
            except AgentError as exc:
                self._emit("plan.by_words", why=exc.line())
            else:
                return dict(zip(wanted, vectors, strict=True)), True
        await trio.lowlevel.checkpoint()
        return {**word_vectors(wanted)}, False


def _offer(providers: Sequence[Capability], now_ms: int) -> Offer:
    cheapest = min(providers, key=lambda each: (each.price_mc, each.agent))
    claims = [each.measured for each in providers if each.measured.holds(now_ms=now_ms)]
    measured = [claim.latency_ms for claim in claims if claim.latency_ms]
    return Offer(
        capability=cheapest.name,
        description=cheapest.description,
        examples=[
            example_words(parse(sample.input)) for sample in cheapest.examples[:_EXAMPLES_MAX]
        ],
        input_schema=_object(cheapest.input_schema),
        output_schema=_object(cheapest.output_schema),
        price_mc=cheapest.price_mc,
        latency_ms=int(median(measured)) if measured else 0,
    )


def _object(schema: bytes) -> dict[str, JsonValue]:
    value = parse(schema)
    return value if isinstance(value, dict) else {}


def _title(goal: str) -> str:
    return " ".join(goal.split())[:60]


def _refuse(goal: str, found: Outline, *, partial: bool) -> None:
    unplaced = found.unplaced
    if not found.steps:
        near = dict.fromkeys(name for clause in found.clauses for name, _ in clause.nearest)
        raise NoProvider(
            f"nothing here can serve {_title(goal)!r}",
            hint=f"the nearest on offer are: {', '.join([*near][:5])}"
            if near
            else "say what is to be done",
        )
    if unplaced and not partial:
        parts = "; ".join(repr(clause.text) for clause in unplaced)
        near = dict.fromkeys(name for clause in unplaced for name, _ in clause.nearest)
        raise CannotPlan(
            f"nothing here can serve this part of the goal: {parts}",
            hint=f"the nearest on offer are: {', '.join([*near][:5])};"
            " say it in other words, or ask for the rest alone (--partial)",
        )
