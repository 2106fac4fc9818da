"""From a goal in plain words to sub-tasks and edges; no language model.

1. The goal is cut at every word that may join two clauses, and the cutting is chosen
   whose clauses are best served, each by the agent whose description is nearest in
   meaning and words.
2. Edges come from types (an input that only another's output satisfies) and from words
   ("it", "then", "the summary").  Two clauses about one source get no edge.

Pure: meanings come in as vectors, see :func:`texts_of`.  What the words of English are
used for is in :mod:`meshnode.domain.planning_words`.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from meshnode.domain.planning_words import (
    Part,
    Pointing,
    bare_request,
    begins_with_verb,
    parts,
    pointing,
    similar,
    stems,
    whole_of,
    without_things,
)

#: Gives the vector, of length 1, of each text.
Vectors = Mapping[str, Sequence[float]]

PARTS_MAX: Final = 40
#: Parts of the goal that one clause may be joined of.
_JOINED_MAX: Final = 5

#: Weights and bounds below were chosen on the development set of ``meshnode bench plan``.
_WEIGHT_WORDS: Final = 0.45
_WEIGHT_EXAMPLE: Final = 0.9
_SERVED_MIN: Final = 0.36
_CLAUSE_COST: Final = 0.30
_NO_VERB_COST: Final = 0.10
_EDGE_MIN: Final = 0.75
_NEAREST_MAX: Final = 3
_WORD_PLACES: Final = 512


@dataclass(frozen=True, slots=True)
class Offer:
    """What one capability is advertised as.

    Attributes:
        capability: ``text.summarization@1``.
        description: In words.
        examples: Texts of example inputs.
        input_schema: JSON Schema of the input, an object.
        output_schema: JSON Schema of the output.
        price_mc: Of one call, the cheapest.
        latency_ms: Of one call.
    """

    capability: str
    description: str
    examples: Sequence[str]
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    price_mc: int = 0
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing that the goal asks for.

    Attributes:
        text: As the goal says it.
        link: How it is joined to what stands before: ``""``, ``","``, ``"and"``, ``"then"``.
        offer: What serves it, or None.
        score: How well, 0 to about 1.
        nearest: The nearest capabilities, the best first.
    """

    text: str
    link: str
    offer: Offer | None
    score: float
    nearest: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Outline:
    """What was understood.

    Attributes:
        clauses: In order.
        steps: What is to be done; several clauses may be one step, and types may add one.
        words: The clause of each step.
        edges: Pairs of indices into ``steps``, from producer to consumer.
    """

    clauses: Sequence[Clause]
    steps: Sequence[Offer]
    words: Sequence[str]
    edges: Sequence[tuple[int, int]]

    @property
    def unplaced(self) -> list[Clause]:
        """Clauses that nothing serves."""
        return [clause for clause in self.clauses if clause.offer is None]


def texts_of(goal: str, offers: Sequence[Offer]) -> list[str]:
    """Return the texts whose vectors :func:`outline` wants."""
    pieces = parts(goal)[:PARTS_MAX]
    clauses = {_joined(pieces, start, end) for start, end in _spans(len(pieces))}
    clauses |= {without_things(text) for text in clauses}
    said = [text for offer in offers for text in (*_said(offer), *offer.examples)]
    return [*sorted(clauses), *said]


def _spans(count: int) -> Iterable[tuple[int, int]]:
    for start in range(count):
        for end in range(start + 1, min(count, start + _JOINED_MAX) + 1):
            yield start, end


def _joined(pieces: Sequence[Part], start: int, end: int) -> str:
    text = pieces[start].text
    for piece in pieces[start + 1 : end]:
        text += (", " if piece.link in (",", "") else f" {piece.link} ") + piece.text
    return bare_request(text)


def _said(offer: Offer) -> tuple[str, ...]:
    """Return what an agent says of itself, as texts to compare with."""
    name = _words_of(offer.capability)
    return (f"{name}: {offer.description}", offer.description or name, name)


def _words_of(capability: str) -> str:
    return capability.partition("@")[0].replace(".", " ").replace("_", " ")


def word_vectors(texts: Iterable[str]) -> dict[str, list[float]]:
    """Return vectors made of words alone, for where there is no model of meaning.

    Stems are hashed into a few hundred places; texts that share words are near.
    """
    found: dict[str, list[float]] = {}
    for text in texts:
        vector = [0.0] * _WORD_PLACES
        for one in stems(text):
            for start in range(max(1, len(one) - 3)):
                vector[zlib.crc32(one[start : start + 4].encode()) % _WORD_PLACES] += 1.0
        size = math.sqrt(_dot(vector, vector)) or 1.0
        found[text] = [part / size for part in vector]
    return found


# --- which agent ---------------------------------------------------------------------


class _Matcher:
    """Scores clauses against offers."""

    def __init__(self, offers: Sequence[Offer], vectors: Vectors) -> None:
        self.offers = offers
        self._vectors = vectors
        self._stems = [
            (
                frozenset(stems(_words_of(o.capability))),
                frozenset(stems(o.description)),
                frozenset(s for e in o.examples for s in stems(e)),
            )
            for o in offers
        ]
        seen = Counter(s for names, said, _ in self._stems for s in names | said)
        self._rarity = {
            s: math.log((1 + len(offers)) / (0.5 + count)) for s, count in seen.items()
        }
        self._unknown = math.log(2 * (1 + len(offers)))
        self.score = lru_cache(maxsize=None)(self._score)

    def _score(self, text: str) -> tuple[tuple[float, int], ...]:
        """Return (score, index of offer), the best first."""
        mine = self._vectors[text]
        spoken = frozenset(stems(text))
        found = []
        for index, offer in enumerate(self.offers):
            near = [max(0.0, _dot(mine, self._vectors[said])) for said in _said(offer)]
            meaning = 0.5 * max(near) + 0.5 * sum(near) / len(near)
            shown = [_dot(mine, self._vectors[text]) for text in offer.examples]
            meaning = max([meaning, *(_WEIGHT_EXAMPLE * each for each in shown)])
            shared = self._shared(spoken, index)
            found.append((meaning + _WEIGHT_WORDS * shared, index))
        return tuple(sorted(found, key=lambda each: (-each[0], each[1])))

    def _shared(self, spoken: frozenset[str], index: int) -> float:
        """Return how much of what is rare in ``spoken`` the offer says too, 0 to 1."""
        names, said, shown = self._stems[index]
        total = got = 0.0
        for one in spoken:
            weight = self._rarity.get(one, 0.4 * self._unknown)
            total += weight
            if similar([one], list(names)):
                got += weight
            elif similar([one], list(said)):
                got += 0.7 * weight
            elif one in shown:
                got += 0.2 * weight
        return got / total if total else 0.0


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(map(float.__mul__, a, b))


def _cut(pieces: Sequence[Part], matcher: _Matcher) -> list[Clause]:
    """Return the clauses of the best cutting."""
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-math.inf, 0)] * len(pieces)
    for end in range(1, len(pieces) + 1):
        for start in range(max(0, end - _JOINED_MAX), end):
            worth = best[start][0] + _worth(pieces, start, end, matcher)
            if worth > best[end][0]:
                best[end] = (worth, start)
    cuts, end = [], len(pieces)
    while end:
        cuts.append((best[end][1], end))
        end = best[end][1]
    clauses: list[Clause] = []
    for start, end in reversed(cuts):
        clauses.append(_clause(pieces, (start, end), matcher, clauses))
    return clauses


def _worth(pieces: Sequence[Part], start: int, end: int, matcher: _Matcher) -> float:
    text = _joined(pieces, start, end)
    score = matcher.score(text)[0][0]
    cost = _CLAUSE_COST
    if start and not begins_with_verb(pieces[start].text):
        cost += _NO_VERB_COST
    # A break inside a clause that a verb follows is rarely inside.
    inside = sum(begins_with_verb(piece.text) for piece in pieces[start + 1 : end])
    return max(score, _SERVED_MIN) - cost - 0.5 * _CLAUSE_COST * inside


def _clause(
    pieces: Sequence[Part],
    span: tuple[int, int],
    matcher: _Matcher,
    before: Sequence[Clause],
) -> Clause:
    text = _joined(pieces, *span)
    ranked = matcher.score(text)
    offers = matcher.offers
    if _is_about_result(text, offers[ranked[0][1]], before):
        # "read the translation aloud": the thing has its maker; what is to be done with it?
        ranked = (
            tuple(
                (score, index)
                for score, index in matcher.score(without_things(text))
                if index != ranked[0][1]
            )
            or ranked
        )
    score, index = ranked[0]
    nearest = [(offers[i].capability, round(s, 3)) for s, i in ranked[:_NEAREST_MAX]]
    offer = offers[index] if score >= _SERVED_MIN else None
    return Clause(text, pieces[span[0]].link, offer, round(score, 3), nearest)


def _is_about_result(text: str, offer: Offer, before: Sequence[Clause]) -> bool:
    """Tell whether ``text`` names what an earlier clause makes, rather than the making."""
    if not any(clause.offer is offer for clause in before):
        return False
    made = _made(offer)
    verb = stems(text)[:1]
    return similar(sorted(pointing(text).nouns), made) and not similar(verb, made)


# --- edges ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Step:
    offer: Offer
    said: Pointing
    link: str
    text: str


def outline(goal: str, offers: Sequence[Offer], vectors: Vectors) -> Outline:
    """Return what ``goal`` asks for, and how it hangs together.

    Args:
        goal: In English.
        offers: What the mesh has on offer, one for each capability.
        vectors: Of every text that :func:`texts_of` names.
    """
    pieces = parts(goal)[:PARTS_MAX]
    if not pieces or not offers:
        return Outline([], [], [], [])
    clauses = _cut(pieces, _Matcher(offers, vectors))
    steps: list[_Step] = []
    for clause in clauses:
        if clause.offer is None:
            continue
        if steps and steps[-1].offer is clause.offer:
            continue  # said in two pieces
        said = pointing(clause.text)
        maker = _maker_of(whole_of(clause.text), clause.offer, steps, offers)
        if maker is not None:
            steps.append(_Step(maker, said, clause.link, clause.text))
        steps.append(_Step(clause.offer, said, clause.link, clause.text))
    inserted = _demanded(steps, offers)
    edges = _edges(steps, inserted)
    return Outline(clauses, [s.offer for s in steps], [s.text for s in steps], edges)


def _maker_of(
    thing: str, consumer: Offer, steps: Sequence[_Step], offers: Sequence[Offer]
) -> Offer | None:
    """Return who makes ``thing``, if that is one agent that is not among the steps yet."""
    if not thing:
        return None
    makers = [o for o in offers if o is not consumer and similar([thing], _made(o))]
    done = any(step.offer in makers for step in steps)
    return makers[0] if len(makers) == 1 and not done else None


def fields_of(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the fields of an object; what is no object is one field without a name."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {"": schema}
    return {name: part for name, part in properties.items() if isinstance(part, dict)}


def required_of(offer: Offer) -> dict[str, Mapping[str, Any]]:
    """Return the fields of the input that must be given.

    Of alternatives (a prompt or messages), the first.  Where the schema names none, those
    without a default: whoever wrote it forgot to say, or means all of them.
    """
    schema = offer.input_schema
    fields = fields_of(schema)
    names = [*_names(schema.get("required"))]
    for choice in ("anyOf", "oneOf"):
        named = (_names(one.get("required")) for one in _objects(schema.get(choice)))
        names += next((found for found in named if found), [])
    if not names and "required" not in schema:
        names = [name for name, part in fields.items() if "default" not in part]
    return {name: fields[name] for name in names if name in fields}


def _names(value: object) -> list[str]:
    return [n for n in value if isinstance(n, str)] if isinstance(value, list) else []


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [o for o in value if isinstance(o, dict)] if isinstance(value, list) else []


def kind_of(schema: Mapping[str, Any]) -> str:
    """Return the JSON type that ``schema`` asks for, or nothing if it names none or several."""
    kind = schema.get("type", "")
    return kind if isinstance(kind, str) else ""


def _demanded(steps: list[_Step], offers: Sequence[Offer]) -> set[int]:
    """Put in what types demand: a step needs an object that only another's output is."""
    inserted: set[int] = set()
    index = 0
    while index < len(steps):
        step = steps[index]
        for name, schema in required_of(step.offer).items():
            if kind_of(schema) != "object":
                continue
            if any(_gives(other.offer, name, "object") for other in steps):
                continue
            makers = [o for o in offers if _gives(o, name, "object") and o is not step.offer]
            if len(makers) == 1:
                said = pointing(step.text)
                steps.insert(index, _Step(makers[0], said, step.link, step.text))
                inserted.add(index)
                index += 1
        index += 1
    return inserted


def _gives(offer: Offer, name: str, kind: str) -> bool:
    return any(
        n == name and kind_of(schema) == kind
        for n, schema in fields_of(offer.output_schema).items()
    )


def _edges(steps: Sequence[_Step], inserted: set[int]) -> list[tuple[int, int]]:
    edges: list[tuple[int, int]] = []
    for index, step in enumerate(steps):
        fits = {p: _fit(steps[p].offer, step.offer) for p in range(index)}
        possible = [p for p in fits if fits[p] > 0]
        if step.said.everything and possible:
            consumed = {producer for producer, _ in edges}
            edges += [(p, index) for p in possible if p not in consumed]
            continue
        scored = [
            (fits[p] + _wording(steps, p, index) + (0.5 if p in inserted else 0.0), p)
            for p in possible
        ]
        if scored:
            score, producer = max(scored)
            if score >= _EDGE_MIN:
                edges.append((producer, index))
    return edges


_TEXT_NAMES: Final = frozenset({"text", "document", "content", "input", "passage", "body", ""})


def pair_fit(producer: Offer, consumer: Offer) -> list[tuple[float, str, str]]:
    """Return (how well, input field, output field) of each pair that could be an edge."""
    found: list[tuple[float, str, str]] = []
    for name, wanted in required_of(consumer).items():
        for given_name, given in fields_of(producer.output_schema).items():
            kinds = kind_of(given), kind_of(wanted)
            if kinds[0] != kinds[1]:
                continue
            if given_name == name:
                fit = 0.9
            elif kinds[0] == "string":
                fit = 0.4 if name in _TEXT_NAMES else 0.15
            else:
                fit = 0.3 if kinds[0] == "array" else 0.1
            found.append((fit, name, given_name))
    return found


def _fit(producer: Offer, consumer: Offer) -> float:
    """Return how well an output of one can be an input of the other, 0 (not) to 1."""
    return max((fit for fit, _, _ in pair_fit(producer, consumer)), default=0.0)


def _wording(steps: Sequence[_Step], producer: int, consumer: int) -> float:
    """Return how much the words say that ``consumer`` works on what ``producer`` made."""
    step, before = steps[consumer], steps[producer]
    made = _made(before.offer)
    named = similar(sorted(step.said.nouns), made)
    score = 0.1 if producer == consumer - 1 else 0.0
    if named:
        score += 0.8
    elif step.said.nouns & before.said.nouns:
        return score - 0.8  # both are about one thing, and this doesn't make it
    elif step.said.nouns and not step.said.pronoun:
        score -= 0.3  # it is about a thing of its own
    if step.link == "then":
        score += 0.4
    if step.said.pronoun:
        score += 0.4
    elif step.said.of_it:
        score += 0.1
    if not _could_share(before.offer, step.offer):
        score += 0.4
    return score


def _could_share(producer: Offer, consumer: Offer) -> bool:
    """Tell whether what ``producer`` was given could be given to ``consumer`` too."""
    given = required_of(producer)
    return any(
        name in given and kind_of(given[name]) == kind_of(schema)
        for name, schema in required_of(consumer).items()
    )


def _made(offer: Offer) -> list[str]:
    """Return the stems of what an agent makes: its outputs, and what its doing is called."""
    fields = [name for name in fields_of(offer.output_schema) if name not in _TEXT_NAMES]
    last = offer.capability.partition("@")[0].rpartition(".")[2]
    return [one for name in (*fields, last) for one in stems(name)]
