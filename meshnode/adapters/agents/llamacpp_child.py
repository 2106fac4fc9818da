"""The process that holds a llama.cpp model; run as a script, never imported by a node.

It talks in lines of JSON over the pipes it was started with: a request on stdin,
pieces of text and an ending on what was stdout.  llama.cpp writes its log to stdout and
stderr from C++, so the real stdout is moved aside before it loads.

The library insists on listening on HTTP too: it gets a loopback port and a random key
that never leaves this process, so nobody can use it.

A thread of its own waits on stdin.  Its end means that the node is gone, however it
went, and this process ends with it.
"""

import json
import os
import queue
import sys
import threading
from importlib import import_module
from typing import Any

_STDOUT, _STDERR = 1, 2
Request = dict[str, Any]


class Worker:
    """Generates for one request at a time; a cancel stops it at the next token."""

    def __init__(self, replies: int) -> None:
        """Write replies to the file descriptor ``replies``."""
        self._replies = replies
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._cancelled = -1

    def reply(self, **fields: object) -> None:
        """Write one line to the node; short enough for the pipe to take it in one piece."""
        data = json.dumps(fields).encode() + b"\n"
        while data:
            data = data[os.write(self._replies, data) :]

    def listen(self) -> None:
        """Take requests until the node is gone, then end the process."""
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if "ping" in request:
                self.reply(pong=True)
            elif "cancel" in request:
                self._cancelled = max(self._cancelled, request["cancel"])
            else:
                self._requests.put(request)
        os._exit(0)  # generation may be under way in C++: nothing else would stop it

    def serve(self, server: Any) -> None:  # noqa: ANN401 - xllamacpp has no types
        """Answer requests for ever."""
        self.reply(ready=True)
        while True:
            request = self._requests.get()
            number = request.pop("id")
            try:
                ending = self._generate(server, number, request)
            except Exception as error:
                self.reply(id=number, error=f"{type(error).__name__}: {error}")
                raise
            self.reply(id=number, **ending)

    def _generate(self, server: Any, number: int, request: Request) -> dict[str, object]:  # noqa: ANN401 - as above
        ending: dict[str, object] = {"finish": "cancelled"}

        def receive(piece: Request) -> bool:
            """Pass a piece on; a true answer stops the generation."""
            if "error" in piece or "code" in piece:
                ending.clear()
                ending["error"] = str(piece.get("error", piece))
                return True
            for choice in piece.get("choices", ()):
                if text := choice.get("delta", {}).get("content"):
                    self.reply(id=number, text=text)
                if choice.get("finish_reason"):
                    ending["finish"] = choice["finish_reason"]
            if usage := piece.get("usage"):
                ending["tokens_in"] = usage["prompt_tokens"]
                ending["tokens_out"] = usage["completion_tokens"]
            return self._cancelled >= number

        if self._cancelled < number:
            server.handle_chat_completions(request, receive)
        return ending


def load(path: str, context_tokens: int, threads: int) -> Any:  # noqa: ANN401 - as above
    """Load the model file at ``path``."""
    library = import_module("xllamacpp")
    params = library.CommonParams()
    params.model.path = path
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = False
    params.ui = False
    params.hostnames = ["127.0.0.1"]
    key = os.urandom(32).hex()  # noqa: TID251 - no simulation runs this process, no port reaches it
    params.api_keys = [key]
    return library.Server(params)


def open_server(path: str, *, port: int, alias: str) -> str:
    """Serve the model file at ``path`` on loopback without a key; return the URL.

    The server lives as long as this process.
    """
    library = import_module("xllamacpp")
    params = library.CommonParams()
    params.model.path = path
    params.model_alias = {alias}
    params.n_ctx = 4096
    params.n_parallel = 2
    params.ui = False
    params.hostnames = ["127.0.0.1"]
    params.port = port
    _SERVERS.append(library.Server(params))
    return str(_SERVERS[-1].listening_address)


#: What is referred to nowhere else would be collected, and stop.
_SERVERS: list[Any] = []


def main(arguments: list[str]) -> None:
    """Load the model that ``arguments`` name and serve it."""
    path, context_tokens, threads = arguments
    worker = Worker(os.dup(_STDOUT))
    os.dup2(_STDERR, _STDOUT)
    threading.Thread(target=worker.listen, daemon=True).start()
    try:
        server = load(path, int(context_tokens), int(threads))
    except Exception as error:
        worker.reply(error=f"{type(error).__name__}: {error}")
        raise
    worker.serve(server)


if __name__ == "__main__":
    main(sys.argv[1:])
