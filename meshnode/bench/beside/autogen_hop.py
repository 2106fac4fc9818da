"""AutoGen's distributed runtime: a message to an agent of another worker, and its answer.

The host and both workers in one process, or the caller's worker in one of its own.
Not encrypted, nobody is authenticated.
"""

import asyncio
import logging
import socket
import sys
from dataclasses import dataclass
from functools import partial

from autogen_core import AgentId, MessageContext, RoutedAgent, message_handler
from autogen_core import try_get_known_serializers_for_type as serializers_of
from autogen_ext.runtimes.grpc import GrpcWorkerAgentRuntime, GrpcWorkerAgentRuntimeHost

from meshnode.bench.beside.turns import TEXT, arguments, check, take_turns

_ECHO = "echo"


@dataclass
class Said:
    """What is sent and given back."""

    text: str


class Echo(RoutedAgent):
    """Gives back what it is given."""

    @message_handler
    async def said(self, message: Said, _ctx: MessageContext) -> Said:
        """Answer."""
        return message


async def _main() -> None:
    logging.disable(logging.CRITICAL)  # it logs every message
    part, address = arguments()
    host = None
    if part != "caller":
        address = f"127.0.0.1:{_free_port()}"
        host = GrpcWorkerAgentRuntimeHost(address)
        host.start()
        callee = await _worker(address)
        await Echo.register(callee, _ECHO, lambda: Echo("gives back what it is given"))
    if part == "callee":
        await take_turns(_readline, address=address)
    else:
        await take_turns(_readline, partial(_call, await _worker(address)))
    if host is not None:
        await host.stop(grace=0)


async def _worker(address: str) -> GrpcWorkerAgentRuntime:
    worker = GrpcWorkerAgentRuntime(host_address=address)
    worker.add_message_serializer(serializers_of(Said))
    await worker.start()
    return worker


def _free_port() -> int:
    """Return a port that is free now; the host can't be asked which one it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _call(worker: GrpcWorkerAgentRuntime) -> None:
    answer = await worker.send_message(Said(TEXT), AgentId(_ECHO, "default"))
    check(answer.text, TEXT)


async def _readline() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main())
