"""The node's sense of meaning: MiniLM in a child process that ends when it is idle.

The model takes two hundred megabytes, and a node plans now and then: so it is loaded by
the first question, in a process of its own, and gone a minute after the last.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

import trio

from meshnode.adapters.agents.child_process import allowed_environment, kill_group
from meshnode.errors import AgentError

IDLE_S: Final = 60.0
_ANSWER_S: Final = 60.0
_TEXT_CHARACTERS_MAX: Final = 2_000
_CACHED_MAX: Final = 5_000


class ChildEmbedder:
    """An :class:`~meshnode.ports.Embedder` that remembers the vectors of texts."""

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        """Start nothing yet.

        Args:
            idle_s: The child ends when it has been asked nothing for so long.
        """
        self._idle_s = idle_s
        self._turn = trio.Lock()
        self._process: trio.Process | None = None
        self._received = bytearray()
        self._known: dict[str, list[float]] = {}

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text.

        Raises:
            AgentError: The model isn't installed, or its process died.
        """
        asked = [text[:_TEXT_CHARACTERS_MAX] for text in texts]
        async with self._turn:
            new = [text for text in dict.fromkeys(asked) if text not in self._known]
            if new:
                vectors = await self._ask(new)
                if len(self._known) + len(new) > _CACHED_MAX:
                    self._known = {
                        text: self._known[text] for text in asked if text in self._known
                    }
                self._known |= zip(new, vectors, strict=True)
            return [self._known[text] for text in asked]

    async def aclose(self) -> None:
        """End the child; idempotent."""
        process, self._process = self._process, None
        self._received.clear()
        if process is None:
            return
        with trio.CancelScope(shield=True):
            kill_group(process.pid)
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await pipe.aclose()

    async def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        done = False
        try:
            with trio.move_on_after(_ANSWER_S):
                try:
                    reply = await self._exchange(texts)
                except trio.BrokenResourceError:
                    # It ended because it was idle, just now or long ago: a fresh one.
                    await self.aclose()
                    reply = await self._exchange(texts)
                done = True
                if "error" in reply:
                    raise AgentError(str(reply["error"]), hint=str(reply.get("hint", "")))
                vectors: list[list[float]] = reply["vectors"]
                return vectors
        finally:
            if not done:  # what it would answer now belongs to nobody
                await self.aclose()
        raise AgentError(f"the embedding model gave no answer within {_ANSWER_S:g} s")

    async def _exchange(self, texts: Sequence[str]) -> dict[str, Any]:
        process = self._process
        if process is None or process.poll() is not None:
            await self.aclose()
            process = self._process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send_all(json.dumps(list(texts)).encode() + b"\n")
        while (end := self._received.find(b"\n")) < 0:
            data = await process.stdout.receive_some()
            if not data:
                raise trio.BrokenResourceError("the embedding model's process has ended")
            self._received += data
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        reply: dict[str, Any] = json.loads(line)
        return reply

    async def _start(self) -> trio.Process:
        script = Path(__file__).with_name("embedder_child.py")
        environment = allowed_environment(("PATH", "HOME", "LANG", "PYTHONPATH"))
        try:
            return await trio.lowlevel.open_process(
                [sys.executable, str(script), str(self._idle_s)],
                stdin=PIPE,
                stdout=PIPE,
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise AgentError(f"the embedding model can't be started: {error}") from error
