"""What a peer may answer when it is asked which protocol it speaks."""

import pytest
import trio
from libp2p.abc import INetStream

from meshnode.adapters.libp2p_transport import open_transport
from meshnode.errors import StreamLost
from tests.meshnode.adapters.libp2p_nodes import ECHO, echo, seed


@pytest.mark.parametrize(
    "answer",
    [
        b"\x02\xff\n",
        b"\x13/multistream/1.0.0\n\x02\xff\n",
        b"\xff" * 12,
        b"\x00",
        b"\x01x",
        b"",
    ],
    ids=["no text", "no text later", "no length", "empty", "no end", "nothing"],
)
async def test_whatever_a_peer_answers_the_stream_is_lost_and_nothing_else(
    answer: bytes,
) -> None:
    async def lie(stream: INetStream) -> None:
        await stream.write(answer)
        await stream.close()

    async with open_transport(seed("a")) as a, open_transport(seed("b")) as b:
        honest = b.swarm.common_stream_handler
        b.serve(ECHO, echo)
        b.swarm.set_stream_handler(lie)
        with trio.fail_after(20), pytest.raises(StreamLost):
            await a.open(b.peer, ECHO, addresses=b.addresses())
        b.swarm.set_stream_handler(honest)
        with trio.fail_after(20):
            stream = await a.open(b.peer, ECHO)
            await stream.send(b"ping")
            assert await stream.receive() == b"ping"
