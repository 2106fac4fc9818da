"""Stock py-libp2p: 64 MiB written and read on one stream, over Noise, yamux and TCP.

Nothing is asked for, checked, hashed or kept: what the library can carry at best.
"""

import sys
from functools import partial
from typing import Final

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from multiaddr import Multiaddr

from meshnode.bench.beside.libp2p_hop import LISTEN, stock_host
from meshnode.bench.beside.turns import arguments, take_turns

_BULK: Final = TProtocol("/bench/bulk/1")
_SIZE: Final = 64 * 1024 * 1024
#: Written at once: of 16 KiB to 64 MiB what is carried fastest.
_PIECE: Final = bytes(1 << 20)


async def _give(stream: INetStream) -> None:
    for _ in range(_SIZE // len(_PIECE)):
        await stream.write(_PIECE)
    await stream.close()


async def _main() -> None:
    part, address = arguments()
    callee, caller = stock_host(), stock_host()
    async with callee.run([LISTEN]), caller.run([LISTEN]):
        if part != "caller":
            callee.set_stream_handler(_BULK, _give)
            address = str(callee.get_addrs()[0])
        if part == "callee":
            await take_turns(_readline, address=address)
            return
        info = info_from_p2p_addr(Multiaddr(address))
        await caller.connect(info)
        await take_turns(_readline, partial(_take, caller, info.peer_id))


async def _take(caller: IHost, peer: ID) -> None:
    stream = await caller.new_stream(peer, [_BULK])
    left = _SIZE
    while left > 0:
        left -= len(await stream.read(min(left, 1 << 18)))
    await stream.close()


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
