"""Stock py-libp2p: an echo on one long-lived stream, over Noise, yamux and TCP.

The patches of this project are applied when a transport is opened, which this process
never does.
"""

import sys
from functools import partial

import trio
from libp2p import new_host
from libp2p.abc import IHost, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from multiaddr import Multiaddr

from meshnode.bench.beside.turns import BODY, arguments, check, take_turns

_ECHO = TProtocol("/bench/echo/1")
LISTEN = Multiaddr("/ip4/127.0.0.1/tcp/0")


def stock_host() -> IHost:
    """Return a host as its users make one, with Noise and yamux."""
    keys = create_new_key_pair()
    noise = NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)
    return new_host(keys, muxer_preference="YAMUX", sec_opt={NOISE: noise})


async def _echo(stream: INetStream) -> None:
    while data := await stream.read(65_536):
        await stream.write(data)


async def _main() -> None:
    part, address = arguments()
    callee, caller = stock_host(), stock_host()
    async with callee.run([LISTEN]), caller.run([LISTEN]):
        if part != "caller":
            callee.set_stream_handler(_ECHO, _echo)
            address = str(callee.get_addrs()[0])
        if part == "callee":
            await take_turns(_readline, address=address)
            return
        callee_info = info_from_p2p_addr(Multiaddr(address))
        await caller.connect(callee_info)
        stream = await caller.new_stream(callee_info.peer_id, [_ECHO])
        await take_turns(_readline, partial(_call, stream))


async def _call(stream: INetStream) -> None:
    await stream.write(BODY)
    answer = b""
    while len(answer) < len(BODY):
        answer += await stream.read(len(BODY) - len(answer))
    check(answer, BODY)


async def _readline() -> str:
    return await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    trio.run(_main)
