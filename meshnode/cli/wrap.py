"""``meshnode wrap``: make a model, a function or a command an agent of this machine's node."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.cli.asking import Where, answer_of
from meshnode.cli.options import Home, Json, home_of
from meshnode.cli.printing import console, plain, say_json

if TYPE_CHECKING:
    from meshnode.adapters.agents.agent_files import AgentFile
    from meshnode.adapters.agents.measuring import Measurement

Capability = Annotated[
    str, typer.Option(metavar="C", help="What it can do, such as text.summarization@1.")
]
Name = Annotated[str, typer.Option(metavar="NAME", help="Of the agent; made of what it does.")]
Description = Annotated[
    str, typer.Option(metavar="TEXT", help="One to three sentences; others find it by them.")
]
Price = Annotated[int, typer.Option(metavar="MC", min=0, help="Of one call, millicredits.")]
Concurrency = Annotated[
    int, typer.Option(metavar="N", min=0, help="Calls at once; 0 takes what was measured.")
]
BaseUrl = Annotated[
    str, typer.Option(metavar="URL", help="Of the server, such as http://127.0.0.1:11434/v1.")
]
Model = Annotated[str, typer.Option(metavar="NAME", help="As the server calls it.")]
KeyEnv = Annotated[
    str, typer.Option(metavar="VAR", help="Environment variable that holds the server's key.")
]
System = Annotated[
    str, typer.Option(metavar="TEXT", help="Said to the model before everything else.")
]
Allow = Annotated[
    list[str] | None,
    typer.Option(metavar="PARAM", help="A parameter that callers may set; may be repeated."),
]
SchemaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON Schema that its answers are held to.")
]
ExamplesFile = Annotated[
    Path | None,
    typer.Option("--examples", metavar="FILE", help="JSON list of {input, output}, 4 at most."),
]
NoMeasure = Annotated[bool, typer.Option("--no-measure", help="Don't ask the server now.")]


def openai(
    *,
    base_url: BaseUrl,
    model: Model,
    capability: Capability,
    name: Name = "",
    description: Description = "",
    price: Price = 0,
    key_env: KeyEnv = "",
    system: System = "",
    allow: Allow = None,
    schema: SchemaFile = None,
    examples: ExamplesFile = None,
    concurrency: Concurrency = 0,
    no_measure: NoMeasure = False,
    home: Home = "",
    as_json: Json = False,
) -> None:
    r"""Offer a model behind an OpenAI-compatible server to the mesh.

    Examples:
      meshnode wrap openai --base-url http://127.0.0.1:11434/v1 --model llama3.2 \
        --capability text.generation@1
      meshnode wrap openai --base-url https://api.example.org/v1 --model small \
        --key-env EXAMPLE_KEY --capability legal.clause_review@1 --price 20 \
        --description "Reviews the clauses of a contract for unusual terms."

    Ollama, vLLM, llama.cpp, LM Studio and hosted servers do.  The model is asked a few
    short questions to measure it; then HOME/agents/NAME.toml is written, and a node that
    runs hosts it at once.  The key stays in the environment of the node.  Callers may
    set max_tokens, temperature, stop and seed, or what --allow names.
    """
    from meshnode.adapters.agents.agent_files import AgentFile
    from meshnode.adapters.agents.upstream import PARAMETERS_ALLOWED

    file = AgentFile(
        kind="openai",
        name=name or _named(capability),
        capability=_versioned(capability),
        description=description,
        price_mc=price,
        base_url=base_url,
        model=model,
        key_env=key_env,
        system=system,
        parameters=allow or [*PARAMETERS_ALLOWED],
        output_schema=_schema(schema),
        examples=_examples(examples),
        concurrency_max=max(1, concurrency),
    )
    found = None
    if not no_measure:
        import msgspec

        from meshnode.adapters.system import SystemClock

        found = _measured(file)
        file = msgspec.structs.replace(
            file,
            measured_at_ms=SystemClock().now_ms(),
            measured_calls=found.calls,
            latency_ms=found.latency_ms,
            tokens_per_s=found.tokens_per_s,
            context_tokens=found.context_tokens,
            concurrency_max=concurrency or found.concurrency,
        )
    _wrap(file, home_of(home), found, as_json=as_json)


def function(
    target: Annotated[str, typer.Argument(metavar="MODULE:NAME", help="Made with @agent.")],
    *,
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Offer a Python function that was made an agent with @agent.

    Examples:
      meshnode wrap function my_agents:word_count

    The module is looked for in the current folder and where Python looks.
    """
    import sys

    from meshnode.adapters.agents.agent_files import AgentFile
    from meshnode.adapters.agents.function import load_function

    here = str(Path.cwd())
    sys.path.insert(0, here)
    spec = load_function(target).spec
    file = AgentFile(
        kind="function",
        target=target,
        path=here,
        name=spec.name,
        capability=spec.capability,
    )
    _wrap(file, home_of(home), None, as_json=as_json)


def command(
    argv: Annotated[list[str], typer.Argument(metavar="-- CMD ARGS", help="What is run.")],
    *,
    capability: Capability,
    input_schema: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON Schema of what it reads on stdin.")
    ],
    output_schema: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON Schema of what it writes on stdout.")
    ],
    name: Name = "",
    description: Description = "",
    examples: ExamplesFile = None,
    price: Price = 0,
    concurrency: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes at once.")
    ] = 1,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Run it in a sandbox, or not at all.")
    ] = False,
    read: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="May be read in the sandbox; may be repeated."),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="The sandbox has the network.")
    ] = False,
    home: Home = "",
    as_json: Json = False,
) -> None:
    r"""Offer a command: JSON on its stdin, JSON on its stdout, one process a call.

    Examples:
      meshnode wrap command --capability text.word_count@1 \
        --input-schema in.json --output-schema out.json -- python3 count.py
      meshnode wrap command --capability text.word_count@1 --sandbox --read /srv/count \
        --input-schema in.json --output-schema out.json -- python3 /srv/count/count.py

    In a sandbox it has no network, reads /usr and what --read names, writes nothing that
    stays, and is held to limits that its file may change; `meshnode sandbox` says whether
    there is one here.
    """
    import shutil

    from meshnode.adapters.agents.agent_files import AgentFile
    from meshnode.cli.failure import CommandFailed

    if shutil.which(argv[0]) is None:
        raise CommandFailed(
            f"{argv[0]!r} was not found", hint="is it installed, and executable?"
        )
    file = AgentFile(
        kind="command",
        name=name or _named(capability),
        capability=_versioned(capability),
        description=description,
        price_mc=price,
        command=[str(Path(shutil.which(argv[0]) or argv[0]).absolute()), *argv[1:]],
        input_schema=_schema(input_schema),
        output_schema=_schema(output_schema),
        examples=_examples(examples),
        concurrency_max=concurrency,
        sandbox=sandbox,
        sandbox_reads=[str(Path(folder).absolute()) for folder in read or ()],
        sandbox_network=network,
    )
    _wrap(file, home_of(home), None, as_json=as_json)


def unwrap(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the agent.")],
    *,
    home: Home = "",
    as_json: Json = False,
) -> None:
    """Offer an agent no longer; the reverse of `meshnode wrap`.

    Examples:
      meshnode unwrap generation
    """
    from meshnode.adapters.agents.agent_files import remove_agent_file
    from meshnode.cli.failure import CommandFailed

    folder = home_of(home)
    if not remove_agent_file(folder, name):
        raise CommandFailed(
            f"no agent {name[:60]!r} is wrapped in {folder}", hint="see its folder `agents`"
        )
    told = _tell_node(folder)
    if as_json:
        say_json({"unwrapped": name, "hosted": told})
    else:
        print(f"{name} is offered no longer" + ("" if told is not None else " (no node runs)"))


# --- pieces ---------------------------------------------------------------------------


def _named(capability: str) -> str:
    word = capability.partition("@")[0].rpartition(".")[2]
    return re.sub(r"[^a-z0-9_-]", "", word.lower())[:64] or "agent"


def _versioned(capability: str) -> str:
    return capability if "@" in capability else f"{capability}@1"


def _schema(path: Path | None) -> dict[str, Any]:
    from meshnode.cli.failure import CommandFailed
    from meshnode.domain.schemas import check_schema
    from meshnode.domain.values import canonical

    if path is None:
        return {}
    schema = _json(path)
    if not isinstance(schema, dict):
        raise CommandFailed(f"{path} holds no JSON Schema", hint='such as {"type": "object"}')
    check_schema(canonical(schema), where=str(path))
    return schema


def _examples(path: Path | None) -> list[dict[str, Any]]:
    from meshnode.cli.failure import CommandFailed
    from meshnode.domain.values import canonical
    from protocol.limits import EXAMPLE_SIZE_MAX, EXAMPLES_MAX

    if path is None:
        return []
    hint = 'such as [{"input": {"text": "a b"}, "output": 2}]'
    found = _json(path)
    if not isinstance(found, list) or not 0 < len(found) <= EXAMPLES_MAX:
        raise CommandFailed(f"{path} is no list of 1 to {EXAMPLES_MAX} examples", hint=hint)
    for number, example in enumerate(found, 1):
        if not isinstance(example, dict) or example.keys() != {"input", "output"}:
            raise CommandFailed(f"{path}: example {number} has no input and output", hint=hint)
        size = sum(len(canonical(value)) for value in example.values())
        if size > EXAMPLE_SIZE_MAX:
            raise CommandFailed(
                f"{path}: example {number} has {size} bytes",
                hint=f"{EXAMPLE_SIZE_MAX} at most, for everyone keeps it",
            )
    return found


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON of many shapes
    import json

    from meshnode.cli.failure import CommandFailed

    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CommandFailed(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CommandFailed(f"{path} is not JSON: {error}") from error


def _measured(file: "AgentFile") -> "Measurement":
    import trio

    from meshnode.adapters.agents.agent_files import agent_of
    from meshnode.adapters.agents.measuring import measure
    from meshnode.adapters.agents.openai_compatible import OpenAICompatibleAgent

    agent = agent_of(file, where="wrap")
    assert isinstance(agent, OpenAICompatibleAgent)

    async def run() -> "Measurement":
        with console(errors=True).status("measuring") as status:
            try:
                await agent.open()
                return await measure(agent, status.update)
            finally:
                with trio.CancelScope(shield=True):
                    await agent.aclose()

    return trio.run(run)


def _wrap(file: "AgentFile", home: Path, found: "Measurement | None", *, as_json: bool) -> None:
    from dataclasses import asdict

    from meshnode.adapters.agents.agent_files import agent_of, write_agent_file
    from meshnode.services.agents import AgentHost

    # Whatever a node would refuse is refused now, before anything is written.
    agent = agent_of(file, where="wrap", home=home)
    AgentHost([agent], calls_max=1, emit=lambda *_, **__: None)
    path = write_agent_file(home, file)
    hosted = _tell_node(home)
    if as_json:
        say_json(
            {
                "agent": file.name,
                "capability": file.capability,
                "file": str(path),
                "measured": None if found is None else asdict(found),
                "hosted": hosted,
            }
        )
        return
    out = console()
    price_mc = agent.spec.price_mc  # a function says its own, the file none
    out.print(f"{file.name}: {file.capability}, {price_mc} mc a call", markup=False)
    if found is not None:
        rate = f", {found.tokens_per_s} tokens/s" if found.tokens_per_s else ""
        room = f", context of {found.context_tokens} tokens" if found.context_tokens else ""
        out.print(
            f"measured: {found.latency_ms} ms for a short call{rate}{room},"
            f" {found.concurrency} at once (n {found.calls})",
            markup=False,
        )
        out.print(
            f"it says: {plain(' '.join(found.sample.split()), size_max=120)}",
            style="dim",
            markup=False,
        )
    out.print(f"kept in {path}", markup=False, soft_wrap=True)
    out.print(
        "the running node offers it now"
        if hosted is not None
        else f"start the node to offer it: meshnode up --home {home}",
        markup=False,
        soft_wrap=True,
    )


def _tell_node(home: Path) -> list[str] | None:
    """Have the node of ``home`` host what its files say; None where none runs."""
    from meshnode.adapters.running_file import HTTP_FILE, read_running

    if read_running(home / HTTP_FILE) is None:
        return None
    agents: list[str] = answer_of(Where(str(home)), "POST", "/api/agents/reload")["agents"]
    return agents
