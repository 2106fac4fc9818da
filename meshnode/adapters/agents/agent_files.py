"""The agents of a node's home: one TOML file each, in ``HOME/agents``.

``meshnode wrap`` writes them and ``meshnode up`` hosts them.  A file names what is
wrapped (a model on a server, a function, a command, a specialist) and the terms; no file
holds a key.
"""

import math
import re
import sys
import tomllib
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import tomli_w

from meshnode.adapters.agents.command import CommandAgent
from meshnode.adapters.agents.confined_command import ConfinedCommandAgent
from meshnode.adapters.agents.declaring import read_likeness
from meshnode.adapters.agents.function import load_function
from meshnode.adapters.agents.openai_compatible import OpenAICompatibleAgent
from meshnode.adapters.agents.registry import create
from meshnode.adapters.agents.upstream import PARAMETERS_ALLOWED, Upstream, make_spec
from meshnode.adapters.bubblewrap import Bubblewrap, probe
from meshnode.confinement import Confinement
from meshnode.errors import ConfigError, NoSandbox
from meshnode.ports import Agent, AgentSpec, Example, Measures

FOLDER: Final = "agents"
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
_CAPABILITY: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*@[1-9][0-9]{0,5}")
_BYTES_MAX: Final = 256 * 1024
#: What limits of the system can hold.
_SIZE_MAX: Final = 2**62


class AgentFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One wrapped agent.

    Attributes:
        kind: What is wrapped.
        name: Of the agent; empty takes the file's.
        capability: What it can do; functions and specialists say it themselves.
        description: One to three sentences.
        price_mc: Of one call, millicredits.
        concurrency_max: Calls that run at once.
        timeout_s: Longest run of one call.
        input_bytes_max: Largest input of one call, as JSON.
        examples: ``{input, output}``.
        base_url: Of a model's server, up to and with ``/v1``.
        model: As the server calls it.
        key_env: Environment variable that holds the key.
        system: Said to the model before everything else.
        parameters: What callers may set.
        target: ``module:name`` of a function, or the name of a specialist.
        path: Folder in which a function's module is looked for, beside where Python looks.
        command: A command and its arguments; JSON on stdin, JSON on stdout.
        input_schema: What a command takes.
        output_schema: What a command gives, or the schema a model is held to.
        sandbox: The command runs in a sandbox, or not at all (docs/sandbox.md).
        sandbox_reads: Folders that it may read there, beside the system's programs.
        sandbox_network: It may use the network there.
        sandbox_memory_bytes: Most memory of all its processes there.
        sandbox_processes: Most processes and threads of one call there.
        sandbox_disk_bytes: Most that it may write there.
        deterministic: The same input always gives the same output (of a command).
        like: When two of its answers say the same: ``normalised``, or a table with its kind.
        checks: Kinds of checks that its outputs are made for: ``quoted``, ``program``.
        measured_at_ms: When the next were measured, Unix time: without it they don't count.
        measured_calls: How many calls the next three are made of.
        latency_ms: Measured when it was wrapped: the median of a short call.
        tokens_per_s: Measured: how fast a model writes.
        context_tokens: What a model's server says that it can hold; 0 if it doesn't.
    """

    kind: Literal["openai", "function", "command", "specialist"]
    name: str = ""
    capability: str = ""
    description: str = ""
    price_mc: int = 0
    concurrency_max: int = 1
    timeout_s: float = 300.0
    input_bytes_max: int = 4 * 1024 * 1024
    examples: list[dict[str, Any]] = []
    base_url: str = ""
    model: str = ""
    key_env: str = ""
    system: str = ""
    parameters: list[str] = msgspec.field(default_factory=lambda: [*PARAMETERS_ALLOWED])
    target: str = ""
    path: str = ""
    command: list[str] = []
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}
    sandbox: bool = False
    sandbox_reads: list[str] = []
    sandbox_network: bool = False
    sandbox_memory_bytes: int = Confinement().memory_bytes_max
    sandbox_processes: int = Confinement().processes_max
    sandbox_disk_bytes: int = Confinement().disk_bytes_max
    deterministic: bool = False
    like: str | dict[str, Any] = ""
    checks: list[str] = []
    measured_at_ms: int = 0
    measured_calls: int = 0
    latency_ms: int = 0
    tokens_per_s: int = 0
    context_tokens: int = 0


#: What isn't said.
_PLAIN: Final = AgentFile(kind="command")


def agent_of(file: AgentFile, *, where: str, home: Path | None = None) -> Agent:
    """Return the agent that ``file`` describes.

    Args:
        file: What is said of it.
        where: Its name in errors.
        home: Of the node that is to host it: what no sandbox may read.

    Raises:
        ConfigError: It can't be one; names ``where`` and what is wrong.
    """
    within = _confinement(file, where, home)
    if file.kind == "specialist":
        return create(file.target)
    if file.kind == "function":
        if file.path and file.path not in sys.path:
            sys.path.append(file.path)
        return load_function(file.target)
    if not _NAME.fullmatch(file.name):
        raise ConfigError(f"{where}: {file.name!r} can't name an agent", hint="use [a-z0-9_-]")
    if not _CAPABILITY.fullmatch(file.capability):
        raise ConfigError(
            f"{where}: {file.capability!r} is no capability",
            hint="write it like text.summarization@1",
        )
    _check_limits(file, where)
    if file.kind == "command":
        spec = replace(_command_spec(file, where), **_declared(file, where))
        if within is None:
            return CommandAgent(spec, file.command)
        _see_that_it_is_held(within, file.command[0], where)
        return ConfinedCommandAgent(spec, file.command, Bubblewrap(), within)
    measured = (file.measured_calls, file.latency_ms, file.tokens_per_s, file.context_tokens)
    if min(*measured, file.measured_at_ms) < 0:
        raise ConfigError(f"{where}: what was measured can't be negative", hint="wrap it again")
    try:
        upstream = Upstream(
            base_url=file.base_url,
            model=file.model,
            key_env=file.key_env,
            system=file.system,
            parameters=file.parameters,
            schema=file.output_schema or None,
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", hint=error.hint) from error
    spec = make_spec(
        upstream,
        name=file.name,
        capability=file.capability,
        description=file.description,
        examples=_examples(file, where),
        price_mc=file.price_mc,
        concurrency_max=file.concurrency_max,
        timeout_s=file.timeout_s,
        measures=_measures(file),
    )
    spec = replace(spec, input_bytes_max=file.input_bytes_max, **_declared(file, where))
    return OpenAICompatibleAgent(spec, upstream)


def _declared(file: AgentFile, where: str) -> dict[str, Any]:
    """Return what the file says of how answers may be checked and compared."""
    try:
        like = read_likeness(file.like)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}", hint=error.hint) from error
    return {"like": like, "checks": file.checks, "deterministic": file.deterministic}


def _measures(file: AgentFile) -> Measures:
    """Return what was measured; files of older versions don't say when, so it is nothing."""
    if not file.measured_at_ms:
        return Measures()
    return Measures(
        samples=file.measured_calls,
        latency_ms=file.latency_ms,
        tokens_per_s=file.tokens_per_s,
        context_tokens=file.context_tokens,
        at_ms=file.measured_at_ms,
    )


def _check_limits(file: AgentFile, where: str) -> None:
    for name in ("concurrency_max", "timeout_s", "input_bytes_max"):
        value = getattr(file, name)
        if not 0 < value < math.inf:  # false for NaN too
            raise ConfigError(
                f"{where}: {name} is {value}", hint="it must be positive and finite"
            )


def _confinement(file: AgentFile, where: str, home: Path | None) -> Confinement | None:
    """Return how the agent is held, or None if it isn't."""
    if not file.sandbox:
        for name in AgentFile.__struct_fields__:
            if name.startswith("sandbox_") and getattr(file, name) != getattr(_PLAIN, name):
                raise ConfigError(
                    f"{where}: {name} says nothing without a sandbox", hint="sandbox = true"
                )
        return None
    if file.kind != "command":
        raise ConfigError(f"{where}: only a command runs in a sandbox", hint="leave it out")
    for name in ("sandbox_memory_bytes", "sandbox_processes", "sandbox_disk_bytes"):
        if not 0 < getattr(file, name) < _SIZE_MAX:
            raise ConfigError(f"{where}: {name} is out of range", hint="it must be positive")
    for path in file.sandbox_reads:
        _keep_from_home(path, where, home)
    return Confinement(
        reads=tuple(file.sandbox_reads),
        network=file.sandbox_network,
        memory_bytes_max=file.sandbox_memory_bytes,
        processes_max=file.sandbox_processes,
        disk_bytes_max=file.sandbox_disk_bytes,
    )


def _keep_from_home(path: str, where: str, home: Path | None) -> None:
    """See that what may be read at ``path`` holds nothing of the node's own."""
    if home is None:
        return
    own, shown = home.resolve(), Path(path).resolve()
    if own.is_relative_to(shown) or shown.is_relative_to(own):
        raise ConfigError(
            f"{where}: sandbox_reads names {path}, where the node's keys are",
            hint="name a folder outside of the node's home",
        )


def _see_that_it_is_held(within: Confinement, program: str, where: str) -> None:
    """Try the sandbox before the agent is offered: what can't be held isn't hosted."""
    try:
        probe(within, program)
    except NoSandbox as error:
        raise ConfigError(f"{where}: sandbox = true, and {error}", hint=error.hint) from error


def _command_spec(file: AgentFile, where: str) -> AgentSpec:
    if not file.command:
        raise ConfigError(f"{where}: no command is named", hint="command = ['prog', 'arg']")
    if not file.input_schema or not file.output_schema:
        raise ConfigError(
            f"{where}: a command needs input_schema and output_schema",
            hint="JSON Schemas of what it reads and writes",
        )
    return AgentSpec(
        name=file.name,
        capability=file.capability,
        description=file.description or f"Runs {file.command[0]}.",
        input_schema=file.input_schema,
        output_schema=file.output_schema,
        examples=_examples(file, where),
        price_mc=file.price_mc,
        concurrency_max=file.concurrency_max,
        timeout_s=file.timeout_s,
        input_bytes_max=file.input_bytes_max,
    )


def _examples(file: AgentFile, where: str) -> list[Example]:
    for number, example in enumerate(file.examples, 1):
        if example.keys() != {"input", "output"}:
            raise ConfigError(f"{where}: example {number} has no input and output")
    return [Example(example["input"], example["output"]) for example in file.examples]


def read_agent_file(path: Path) -> AgentFile:
    """Return what stands in the file at ``path``.

    Raises:
        ConfigError: It can't be read; names the setting.
    """
    try:
        if path.stat().st_size > _BYTES_MAX:
            raise ConfigError(
                f"{path} has over {_BYTES_MAX} bytes", hint="is it the right one?"
            )
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", hint="mend that line") from error
    for name in raw:
        if name not in AgentFile.__struct_fields__:
            near = get_close_matches(name, AgentFile.__struct_fields__, n=1)
            raise ConfigError(
                f"{path}: there is no setting {name!r}"
                + (f" (did you mean {near[0]!r}?)" if near else ""),
                hint="leave it out",
            )
    raw.setdefault("name", path.stem)
    try:
        return msgspec.convert(raw, AgentFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", hint="mend that setting") from error


def load_agents(home: Path) -> list[Agent]:
    """Return the agents of ``HOME/agents``, in order of their files' names.

    Raises:
        ConfigError: A file can't be used; names it.
    """
    folder = home / FOLDER
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.suffix == ".toml")
    return [agent_of(read_agent_file(path), where=str(path), home=home) for path in files]


def write_agent_file(home: Path, file: AgentFile) -> Path:
    """Write ``file`` into the home, over an older one of its name; return where.

    Raises:
        ConfigError: The home can't be written.
    """
    plain = msgspec.structs.asdict(AgentFile(kind=file.kind))
    said = {
        name: value
        for name, value in msgspec.structs.asdict(file).items()
        if name == "kind" or value != plain[name]
    }
    path = home / FOLDER / f"{file.name}.toml"
    aside = path.with_suffix(".new")
    try:
        # The home may be made here, and a node refuses one that others can enter.
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        aside.write_bytes(tomli_w.dumps(said).encode())
        aside.replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {error.strerror}", hint="check who owns the home"
        ) from error
    return path


def remove_agent_file(home: Path, name: str) -> bool:
    """Remove the file of the agent ``name``; tell whether there was one."""
    path = home / FOLDER / f"{name}.toml"
    if not _NAME.fullmatch(name) or not path.is_file():
        return False
    path.unlink()
    return True
