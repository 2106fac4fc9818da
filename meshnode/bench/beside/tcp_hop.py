"""A raw TCP echo on Trio: no encryption, nobody is authenticated, nothing is dispatched."""

import sys
from functools import partial

import trio

from meshnode.bench.beside.turns import BODY, arguments, check, take_turns


async def _echo(stream: trio.SocketStream) -> None:
    async with stream:
        while data := await stream.receive_some(len(BODY)):
            await stream.send_all(data)


async def _main() -> None:
    part, address = arguments()
    async with trio.open_nursery() as nursery:
        if part != "caller":
            serve = partial(trio.serve_tcp, _echo, 0, host="127.0.0.1")
            listeners: list[trio.SocketListener] = await nursery.start(serve)
            address = str(listeners[0].socket.getsockname()[1])
        if part == "callee":
            await take_turns(_readline, address=address)
        else:
            async with await trio.open_tcp_stream("127.0.0.1", int(address)) as stream:
                await take_turns(_readline, partial(_call, stream))
        nursery.cancel_scope.cancel()


async def _call(stream: trio.SocketStream) -> None:
    await stream.send_all(BODY)
    answer = b""
    while len(answer) < len(BODY):
        more = await stream.receive_some(len(BODY) - len(answer))
        check(bool(more), expected=True)
        answer += more
    check(answer, BODY)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
