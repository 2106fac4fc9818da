"""A command as an agent, in a sandbox: what its owner doesn't answer for can do no harm.

It sees nothing of the node's environment, and has no checkpoint: that would be a folder of
this machine's in which it may write.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import trio

from meshnode.adapters.agents.command import input_of, output_of
from meshnode.confinement import Confinement
from meshnode.errors import AgentTimeout
from meshnode.ports import AgentCall, AgentSpec, Chunk, JsonValue, Output, Sandbox


class ConfinedCommandAgent:
    """An :class:`~meshnode.ports.Agent` that runs a command in a sandbox for each call."""

    def __init__(
        self, spec: AgentSpec, argv: Sequence[str], sandbox: Sandbox, within: Confinement
    ) -> None:
        """Describe the command; nothing runs yet.

        Args:
            spec: What it offers; its limits hold for each run.
            argv: Command and arguments; no shell.
            sandbox: What it runs in.
            within: What it may see and take there; time and output are those of ``spec``.
        """
        self._spec = spec
        self._argv = tuple(argv)
        self._sandbox = sandbox
        self._within = replace(within, output_bytes_max=spec.output_bytes_max)

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    async def open(self) -> None:
        """Check that the command can be run so.

        Raises:
            NoSandbox: It can't.
        """
        await self._sandbox.check(self._within, self._argv[0])

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Run the command once.

        It sees ``MESHNODE_IDEMPOTENCY_KEY`` and ``TRACEPARENT``, and where its folder is.

        Raises:
            NoSandbox: There is no sandbox any more.
            AgentError: It can't be started, its exit code isn't 0, or it held too much.
            AgentTimeout: It ran longer than allowed and was killed.
            OutputInvalid: It wrote too much, or no JSON.
        """
        left_s = call.deadline_s - trio.current_time()
        if left_s <= 0:
            raise AgentTimeout(f"{self._spec.name}: no time was left to start {self._argv[0]}")
        told = {
            "MESHNODE_IDEMPOTENCY_KEY": call.idempotency_key,
            "TRACEPARENT": call.traceparent,
        }
        finished = await self._sandbox.run(
            self._argv,
            replace(self._within, timeout_s=min(self._spec.timeout_s, left_s)),
            stdin=input_of(value),
            env=told,
        )
        yield output_of(self._argv[0], finished)

    async def aclose(self) -> None:
        """Nothing is held between calls."""
