"""``meshnode agents test``: does an agent do what its examples say?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.config import CONFIG_FILE
from meshnode.cli.options import Home, Json, home_of
from meshnode.cli.printing import console, plain, say_json

if TYPE_CHECKING:
    from meshnode.ports import Agent, Example, JsonValue
    from meshnode.services.agents import AgentHost

_SHOWN: Final = 300
SAME: Final = "same"
DIFFERENT: Final = "different"
FAILED: Final = "failed"


def run_examples(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of an agent of this home, or a specialist.")
    ],
    *,
    exact: Annotated[
        bool, typer.Option("--exact", help="Hold a model to the very words, too.")
    ] = False,
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Run an agent's examples here, and hold what comes back against what they say.

    Examples:
      meshnode agents test generation
      meshnode agents test summarization --json

    The agent runs in this process, whether a node runs or not, under the limits and
    schemas that a node holds it to.  Status 1 if an example fails, or comes out
    different; a model's words may differ, unless --exact.  `meshnode wrap --examples`
    gives a wrapped agent its examples.
    """
    import trio

    from meshnode.cli.failure import CommandFailed

    agent = find_agent(name, home_of(home))
    spec = agent.spec
    if not spec.examples:
        raise CommandFailed(
            f"agent {spec.name!r} has no examples",
            hint="give it some: wrap it again with --examples FILE",
            told="agent.no_examples",
        )
    lenient = bool(spec.model_family) and not exact
    rows = trio.run(_run_all, agent)
    passed = sum(_passes(row, lenient=lenient) for row in rows)
    if as_json:
        said = {"agent": spec.name, "capability": spec.capability, "passed": passed}
        say_json({**said, "examples": rows})
    else:
        _show(rows, lenient=lenient)
        print(f"{spec.name}: {passed} of {len(rows)} examples pass")
    if passed < len(rows):
        sys.exit(1)


def find_agent(name: str, home: Path) -> "Agent":
    """Return the agent of that name: of the home, or a specialist.

    Raises:
        CommandFailed: There is none; names those there are.
        ConfigError: A setting or an agent's file is wrong.
    """
    from meshnode.adapters.agents.registry import SPECIALISTS, create
    from meshnode.app import agents_of
    from meshnode.cli.failure import CommandFailed
    from meshnode.cli.settings import Given, settings

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `meshnode up` does
    found = home / CONFIG_FILE
    config = settings(Given(file=str(found) if found.is_file() else "", home=str(home)))
    hosted = {agent.spec.name: agent for agent in agents_of(config)}
    if name in hosted:
        return hosted[name]
    if name in SPECIALISTS:
        return create(name)
    known = ", ".join([*hosted] or ["none"])
    raise CommandFailed(
        f"there is no agent {name[:60]!r} in {home}",
        hint=f"there are: {known}; and the specialists: {', '.join(SPECIALISTS)}",
        told="node.not_found",
    )


async def _run_all(agent: "Agent") -> list[dict[str, Any]]:
    import trio

    from meshnode.services.agents import AgentHost

    host = AgentHost([agent], calls_max=1, emit=lambda *_, **__: None)
    try:
        return [await _run(host, agent, example) for example in agent.spec.examples]
    finally:
        with trio.CancelScope(shield=True):
            await host.aclose()


async def _run(host: "AgentHost", agent: "Agent", example: "Example") -> dict[str, Any]:
    import trio

    from meshnode.errors import MeshError
    from meshnode.ports import AgentCall

    row: dict[str, Any] = {"input": example.input, "expected": example.output}
    begun_s = trio.current_time()
    call = AgentCall("agents-test", begun_s + agent.spec.timeout_s)
    try:
        output = (await host.call(agent.spec.name, example.input, call)).value
    except MeshError as error:
        row |= {"outcome": FAILED, "error": error.line()}
    else:
        same = _equal(output, example.output)
        row |= {"outcome": SAME if same else DIFFERENT, "output": output}
    row["ms"] = round((trio.current_time() - begun_s) * 1000)
    return row


def _equal(one: "JsonValue", other: "JsonValue") -> bool:
    """Compare as JSON does: 1 and 1.0 are one number, and true is none."""
    from meshnode.domain.values import canonical

    return canonical(one) == canonical(other)


def _passes(row: dict[str, Any], *, lenient: bool) -> bool:
    return row["outcome"] == SAME or (lenient and row["outcome"] == DIFFERENT)


def _show(rows: list[dict[str, Any]], *, lenient: bool) -> None:
    import json

    out = console()
    for number, row in enumerate(rows, 1):
        told = "different words" if lenient and row["outcome"] == DIFFERENT else row["outcome"]
        out.print(f"example {number}: {told}, {row['ms']} ms", markup=False)
        lines = {"input": row["input"]}
        if row["outcome"] == DIFFERENT:
            lines["expected"] = row["expected"]
        lines["output"] = row.get("output")
        for title, value in lines.items():
            text = json.dumps(value, ensure_ascii=False)
            if title == "output" and row["outcome"] == FAILED:
                title, text = "error", row["error"]  # noqa: PLW2901 - in its place
            shown = plain(text, size_max=_SHOWN)
            out.print(f"  {title:9}{shown}", markup=False, soft_wrap=True)
