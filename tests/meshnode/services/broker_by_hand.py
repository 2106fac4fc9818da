"""A broker worked by hand, so that a contractor is told what a broker's own code would not say.

In virtual time (a MockClock's).
"""

from dataclasses import dataclass
from typing import Any

import msgspec
import trio

from meshnode.config import NodeConfig
from meshnode.domain.tallies import Tally
from meshnode.domain.values import canonical
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.services.bodies import (
    AWARD,
    CANCEL,
    CFP,
    OFFERS,
    OFFERS_BODY,
    RESULT_BODY,
    AwardBody,
    OffersBody,
)
from meshnode.services.signer import Signer, Topic
from protocol.codec import decode_as, encode
from protocol.keys import digest
from protocol.messages import (
    Award,
    Binding,
    Cancel,
    Cfp,
    Part,
    Refuse,
    Result,
    read_message,
)
from simulations.mesh import CONFIG, NETWORK, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    start,
    until,
)


@dataclass
class Hand:
    """A broker worked by hand, on node ``name``, towards node b."""

    mesh: SimMesh
    name: str = "a"

    @property
    def node(self) -> Node:
        return self.mesh.node(self.name)

    @property
    def signer(self) -> Signer:
        return self.node.artifacts._signer

    @property
    def peer(self) -> str:
        return self.mesh.peer("b")

    def topic(self, deadline_s: float = 60.0) -> Topic:
        now_ms = self.mesh.members[self.name].clock.now_ms()
        return Topic(
            job="job",
            subtask="say/0",
            deadline_ms=now_ms + int(deadline_s * 1000),
            idempotency_key="job/say/0",
        )

    async def request(self, method: str, body: bytes, **options: Any) -> bytes:
        return await self.node.sessions.request(
            self.peer, method, body, timeout_s=options.pop("timeout_s", 100.0), **options
        )

    def cfp(self, **fields: Any) -> bytes:
        message = Cfp(
            h=self.signer.header(self.peer, self.topic()),
            capability="text.shout@1",
            items=1,
            input_bytes=10,
            timeout_ms=30_000,
            price_max_mc=100,
        )
        return self.signer.sign(msgspec.structs.replace(message, **fields))

    async def offer(self) -> bytes:
        """Return b's standing offer."""
        raw = await self.request(OFFERS, encode(OffersBody([b"text.shout"])))
        return decode_as(raw, OFFERS_BODY).items[0]

    def award(self, terms: bytes, *, deadline_s: float = 60.0, **fields: Any) -> AwardBody:
        part = Part(inline=canonical("hello"))
        message = Award(
            h=self.signer.header(self.peer, self.topic(deadline_s), lifetime_ms=600_000),
            cfp=b"",
            proposal=digest(terms),
            agent="shout",
            capability="text.shout@1",
            inputs={"text": Binding(parts=[part])},
            each=[],
            items=1,
            price_cap_mc=2,
            timeout_ms=50_000,
            lease_ms=10_000,
        )
        return AwardBody(self.signer.sign(msgspec.structs.replace(message, **fields)), terms)

    async def send(self, body: AwardBody, **options: Any) -> bytes:
        return await self.request(AWARD, encode(body), **options)

    async def cancel(self, body: AwardBody) -> None:
        message = Cancel(
            h=self.signer.header(self.peer, self.topic()),
            award=digest(body.award),
            reason="owner",
        )
        await self.request(CANCEL, self.signer.sign(message))


def result_of(raw: bytes) -> Result:
    return read_message(decode_as(raw, RESULT_BODY).result, Result, network=NETWORK)


def refusal_of(raw: bytes) -> Refuse:
    return read_message(decode_as(raw, RESULT_BODY).refuse, Refuse, network=NETWORK)


async def meet(mesh: SimMesh, agent: TextAgent, config: NodeConfig = CONFIG) -> Hand:
    await start(mesh, config, a=[], b=[agent])
    hand = Hand(mesh)
    await hand.node.sessions.connect(hand.peer)
    await trio.sleep(1)
    return hand


async def third(mesh: SimMesh, hand: Hand) -> Node:
    """Start another node that has a session with b."""
    other = await mesh.start("c")
    await until(lambda: bool(other.addresses_of(hand.peer)))
    await other.sessions.connect(hand.peer)
    return other


async def insist(hand: Hand, body: AwardBody) -> bytes:
    """Send an award until it is answered."""
    while True:
        try:
            return await hand.send(body)
        except MeshError:
            await trio.sleep(0.05)


async def refused_call(hand: Hand, **fields: Any) -> Refuse:
    """Call b for a proposal; return its refusal."""
    raw = await hand.request(CFP, hand.cfp(**fields))
    return read_message(raw, Refuse, network=NETWORK)


async def tally(mesh: SimMesh, caller: str = "a", *, since_ms: int = 0) -> Tally:
    """What b counted for ``caller``."""
    found = await mesh.node("b").tallies.tallies(since_ms)
    who = mesh.peer(caller) if caller in mesh.members else caller
    return found.get((who, "text.shout@1"), Tally())
