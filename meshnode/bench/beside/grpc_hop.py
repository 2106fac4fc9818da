"""A unary call of ``grpc.aio``, bytes in and out: not encrypted, nobody is authenticated."""

import asyncio
import sys
from functools import partial

import grpc

from meshnode.bench.beside.turns import BODY, arguments, check, take_turns

_METHOD = "/bench.Echo/Say"


class _Echo(grpc.GenericRpcHandler):
    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(_echo) if call.method == _METHOD else None


async def _echo(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
    return request


async def _main() -> None:
    part, address = arguments()
    server = grpc.aio.server()
    if part != "caller":
        server.add_generic_rpc_handlers((_Echo(),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
    if part == "callee":
        await take_turns(_readline, address=address)
    else:
        async with grpc.aio.insecure_channel(address) as channel:
            await take_turns(_readline, partial(_call, channel.unary_unary(_METHOD)))
    await server.stop(None)


async def _call(say: grpc.aio.UnaryUnaryMultiCallable) -> None:
    check(await say(BODY), BODY)


async def _readline() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(_main())
