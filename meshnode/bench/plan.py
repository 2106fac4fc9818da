"""G1 and G2: does the planner find the capabilities and the graph that a request needs?

``G1``: share of requests whose set of capabilities is exact (none, where nothing can
serve it).  ``G2``: share whose edges are exact too.  Two sets ship with the package:
``dev`` is what the planner's weights were chosen on; ``held`` (other agents, other
subjects, other wording) was not looked at for that.  Unseen files are measured with
``--requests FILE --agents FILE``.

Requests are JSON lines ``{"request", "capabilities", "edges"}``, edges as pairs from
producer to consumer; agents a JSON list of ``{"capability", "description", "examples",
"input_schema", "output_schema"}``.  A capability's version may be left out.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshnode.bench.figures import Figure, Told
from meshnode.domain.planning import Offer, Outline, outline, texts_of, word_vectors
from meshnode.domain.planning_examples import example_words
from meshnode.errors import AgentError, ConfigError

GOAL_CAPABILITIES: Final = 0.80
GOAL_GRAPH: Final = 0.75
_SETS: Final = Path(__file__).parent / "planning"
_ABOUT: Final = {
    "dev": "development set",
    "held": "held-out set: other agents, subjects and wording",
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request and what it needs."""

    text: str
    capabilities: frozenset[str]
    edges: frozenset[tuple[str, str]]


@dataclass(slots=True)
class Tally:
    """How many were right.

    Attributes:
        count: Requests.
        capabilities: Of them, with the exact set.
        graphs: Of them, with the exact edges too.
        wrong: What was wanted and found, of the others.
    """

    count: int = 0
    capabilities: int = 0
    graphs: int = 0
    wrong: list[str] = field(default_factory=list)


def run(
    told: Told, *, quick: bool, requests: str = "", agents: str = "", verbose: bool = False
) -> list[Figure]:
    """Measure.

    Args:
        told: Called with what is being measured.
        quick: Makes no difference: it takes seconds.
        requests: File of requests in place of the sets that ship.
        agents: File of the agents that those are about.
        verbose: Tell each request that was planned otherwise, and how.

    Raises:
        ConfigError: A file can't be read, or isn't of its form; says where.
    """
    del quick
    if bool(requests) != bool(agents):
        raise ConfigError("--requests and --agents go together", hint="give both files")
    files = (
        {"": (Path(requests), Path(agents))}
        if requests
        else {
            name: (_SETS / f"{name}_requests.jsonl", _SETS / f"{name}_agents.json")
            for name in _ABOUT
        }
    )
    figures: list[Figure] = []
    for name, (asked, offered) in files.items():
        told(f"reading {asked.name}")
        offers, wanted = read_agents(offered), read_requests(asked)
        tally, by_meaning = measure(wanted, offers, told)
        note = _ABOUT.get(name, f"{asked.name}, {offered.name}")
        note += f", {len(offers)} agents" + ("" if by_meaning else ", by words alone")
        suffix = f".{name}" if name else ""
        for figure, right, goal in (
            ("G1", tally.capabilities, GOAL_CAPABILITIES),
            ("G2", tally.graphs, GOAL_GRAPH),
        ):
            share = right / tally.count if tally.count else 0.0
            figures.append(
                Figure(
                    id=figure + suffix, value=share, unit="share exact", goal=goal,
                    at_least=True, n=tally.count, note=note,
                )
            )  # fmt: skip
        if verbose:
            for line in tally.wrong:
                told(line)
    return figures


def measure(
    requests: Sequence[Request], offers: Sequence[Offer], told: Told
) -> tuple[Tally, bool]:
    """Plan every request; tell too whether meanings were compared, or words alone."""
    vectors: dict[str, Sequence[float]] = {}
    encode, by_meaning = _encoder()
    tally = Tally()
    for number, request in enumerate(requests, 1):
        told(f"request {number} of {len(requests)}")
        new = [text for text in texts_of(request.text, offers) if text not in vectors]
        vectors |= encode(new)
        found = outline(request.text, offers, vectors)
        _count(tally, request, found)
    return tally, by_meaning


def _count(tally: Tally, request: Request, found: Outline) -> None:
    names = [_plain(offer.capability) for offer in found.steps]
    edges = frozenset((names[a], names[b]) for a, b in found.edges)
    same = frozenset(names) == request.capabilities
    tally.count += 1
    tally.capabilities += same
    tally.graphs += same and edges == request.edges
    if not same or edges != request.edges:
        tally.wrong.append(
            f"{request.text!r}: wanted {sorted(request.capabilities)} {sorted(request.edges)},"
            f" found {sorted(set(names))} {sorted(edges)}"
        )


def _encoder() -> tuple[Callable[[Iterable[str]], Mapping[str, Sequence[float]]], bool]:
    try:
        from meshnode.adapters.agents.embeddings import load_minilm

        model = load_minilm()
    except (AgentError, ImportError):
        return word_vectors, False

    def encode(texts: Iterable[str]) -> Mapping[str, Sequence[float]]:
        listed = list(texts)
        rows = model.encode(listed)
        return {t: [float(x) for x in row] for t, row in zip(listed, rows, strict=True)}

    return encode, True


# --- files ---------------------------------------------------------------------------


def _plain(capability: str) -> str:
    return capability.partition("@")[0]


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}", hint="check its name") from error


def read_agents(path: Path) -> list[Offer]:
    """Return the agents in the file at ``path``.

    Raises:
        ConfigError: It isn't a list of agents; names the first that isn't one.
    """
    try:
        listed = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}", hint="a list of agents") from error
    if not isinstance(listed, list):
        raise ConfigError(f"{path} is no list", hint="of agents, each an object")
    return [_agent(one, f"{path}, agent {number}") for number, one in enumerate(listed, 1)]


def _agent(value: Any, where: str) -> Offer:  # noqa: ANN401 - whatever stands in the file
    try:
        return Offer(
            capability=str(value["capability"]),
            description=str(value.get("description", "")),
            examples=[example_words(example) for example in value.get("examples") or []],
            input_schema=_table(value, "input_schema"),
            output_schema=_table(value, "output_schema"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{where} is no agent: {type(error).__name__} {error}",
            hint="capability, description, examples, input_schema, output_schema",
        ) from error


def _table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = value.get(name) or {}
    if not isinstance(table, dict):
        raise TypeError(f"{name} is no object")
    return table


def read_requests(path: Path) -> list[Request]:
    """Return the requests in the file at ``path``.

    Raises:
        ConfigError: A line is no request; names it.
    """
    found: list[Request] = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            found.append(
                Request(
                    text=value["request"],
                    capabilities=frozenset(map(_plain, value["capabilities"])),
                    edges=frozenset((_plain(a), _plain(b)) for a, b in value["edges"]),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}, line {number} is no request: {type(error).__name__} {error}",
                hint='{"request": …, "capabilities": […], "edges": [[…, …]]}',
            ) from error
    return found
