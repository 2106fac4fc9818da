"""A command as an agent: JSON on its stdin, JSON on its stdout, one process a call.

The smallest way to bring a tool of any language into the mesh.  The command sees an
allow-list of the node's environment and nothing else of it, and ends with the call.
"""

import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
import rfc8785
import trio

from meshnode.adapters.agents.checkpoint_file import VARIABLE, with_checkpoint
from meshnode.adapters.agents.checkpoint_folders import sweep
from meshnode.adapters.agents.child_process import (
    ENVIRONMENT_ALLOWED,
    Limits,
    allowed_environment,
    run_child,
)
from meshnode.confinement import Finished
from meshnode.errors import AgentError, AgentTimeout, OutputInvalid
from meshnode.ports import AgentCall, AgentSpec, Chunk, JsonValue, Output

_QUOTE_CHARACTERS = 200


class CommandAgent:
    """An :class:`~meshnode.ports.Agent` that runs a command for each call."""

    def __init__(
        self,
        spec: AgentSpec,
        argv: Sequence[str],
        *,
        environment_allowed: Sequence[str] = ENVIRONMENT_ALLOWED,
        environment: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        """Describe the command; nothing runs yet.

        Args:
            spec: What it offers; its limits hold for each run.
            argv: Command and arguments; no shell.
            environment_allowed: Names of the node's variables that it may see.
            environment: Further variables, with values.
            cwd: Where it runs.
        """
        self._spec = spec
        self._argv = tuple(argv)
        self._environment_allowed = tuple(environment_allowed)
        self._environment = dict(environment or {})
        self._cwd = cwd

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    async def open(self) -> None:
        """Check that the command can be found, and clear up after nodes that were killed.

        Raises:
            AgentError: It can't.
        """
        path = self._variables().get("PATH")
        if shutil.which(self._argv[0], path=path) is None:
            raise AgentError(
                f"{self._spec.name}: {self._argv[0]} was not found", hint="is it installed?"
            )
        await trio.to_thread.run_sync(sweep)

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Run the command once.

        Beside the allowed variables it sees ``MESHNODE_IDEMPOTENCY_KEY``, ``TRACEPARENT``
        and ``MESHNODE_CHECKPOINT``, the file of its checkpoint.

        Raises:
            AgentError: It can't be started, its exit code isn't 0, or its checkpoint can't
                be read.
            AgentTimeout: It ran longer than allowed and was killed.
            OutputInvalid: It wrote too much, or no JSON.
        """
        left_s = call.deadline_s - trio.current_time()
        if left_s <= 0:
            raise AgentTimeout(f"{self._spec.name}: no time was left to start {self._argv[0]}")
        stdin = input_of(value)

        async def run(checkpoint: str) -> Finished:
            return await run_child(
                self._argv,
                stdin=stdin,
                env={**self._variables(call), VARIABLE: checkpoint},
                cwd=self._cwd,
                limits=Limits(
                    timeout_s=min(self._spec.timeout_s, left_s),
                    output_bytes_max=self._spec.output_bytes_max,
                ),
            )

        finished = await with_checkpoint(call, run)
        yield output_of(self._argv[0], finished)

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    def _variables(self, call: AgentCall | None = None) -> dict[str, str]:
        variables = allowed_environment(self._environment_allowed) | self._environment
        if call is not None:
            variables["MESHNODE_IDEMPOTENCY_KEY"] = call.idempotency_key
            variables["TRACEPARENT"] = call.traceparent
        return variables


def input_of(value: JsonValue) -> bytes:
    """Return what a command reads.

    Raises:
        AgentError: JSON can't hold ``value``.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise AgentError(f"the input can't be written as JSON: {error}") from error


def output_of(command: str, finished: Finished) -> Output:
    """Return what a command that has ended gives.

    Raises:
        AgentError: Its exit code isn't 0.
        OutputInvalid: It wrote no JSON.
    """
    if finished.returncode != 0:
        ending = f"exit code {finished.returncode}"
        if finished.returncode < 0:
            ending = f"signal {-finished.returncode}"
        said = f": {finished.stderr_tail}" if finished.stderr_tail else ""
        raise AgentError(f"{command} ended with {ending}{said}")
    try:
        value: JsonValue = msgspec.json.decode(finished.stdout)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        start = finished.stdout[:_QUOTE_CHARACTERS].decode(errors="replace")
        raise OutputInvalid(f"{command} wrote no JSON ({error}): {start!r}") from error
    return Output(value)
