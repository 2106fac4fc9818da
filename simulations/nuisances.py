"""Nodes that trouble others without any contract: floods, and old messages over again.

Rogues like those of :mod:`simulations.rogues`; what they do, they do beside what an
honest node does.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle, islice
from typing import Annotated, Final, Literal

import msgspec
import trio
from typing_extensions import override

from meshnode.config import NodeConfig
from meshnode.errors import MeshError
from meshnode.node import Node, Ports
from meshnode.ports import Agent
from meshnode.services.bodies import ACCEPTANCE, AWARD, CANCEL, CFP, DECLINE
from meshnode.services.sessions import Handler, Incoming
from meshnode.services.signer import Topic
from protocol.catalogue import PUSH, Push
from protocol.codec import encode
from protocol.errors import RemoteProtocolError
from protocol.messages import Cfp
from protocol.records import NodeRecord, sign_record
from protocol.session import PROTOCOL
from simulations.rogues import Conduct, Rogue
from simulations.ruses import Seconds

#: What a flood is sent in, seconds.
_WAVE_S: Final = 0.25
_TIMEOUT_S: Final = 5.0
#: Messages that a replayer keeps.
_KEPT_MAX: Final = 1_000


class Flooder(Conduct, frozen=True, kw_only=True):
    """Asks for more than anybody can give: denial of service by sheer number.

    It gains nothing, or the silence of a rival.  Each peer has an allowance for each kind of
    request, and a number of streams; beyond it the peer is told that the node is busy,
    before anything is read.  The others must not feel it.

    Attributes:
        what: ``cfps`` for which no award follows; ``sessions`` that never say hello;
            ``records``, its own, signed anew each time.
        per_s: How many each second, all peers together.
        from_s: When it begins, by the clock of the run.
        for_s: How long it goes on.
    """

    what: Literal["cfps", "sessions", "records"] = "cfps"
    per_s: Annotated[int, msgspec.Meta(ge=1)] = 400
    from_s: Seconds = 0.0
    for_s: Seconds = 3_600.0

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        return _Flooding(config, ports, agents, self)


class _Flooding(Rogue):
    def __init__(
        self, config: NodeConfig, ports: Ports, agents: Sequence[Agent], conduct: Flooder
    ) -> None:
        super().__init__(config, ports, agents)
        self._conduct = conduct
        self._sequence = 0

    @override
    async def mischief(self) -> None:
        conduct = self._conduct
        send = {"cfps": self._cfp, "sessions": self._session, "records": self._record}
        wave = max(1, round(conduct.per_s * _WAVE_S))
        await trio.sleep_until(conduct.from_s)
        with trio.move_on_after(conduct.for_s):
            async with trio.open_nursery() as nursery:
                while True:
                    peers = [record for record in self.known() if record.peer != self.peer]
                    for record in islice(cycle(peers), wave):
                        nursery.start_soon(self._try, send[conduct.what], record)
                    await trio.sleep(_WAVE_S)

    async def _try(self, send: "_Send", target: NodeRecord) -> None:
        with trio.move_on_after(_TIMEOUT_S):
            try:
                await send(target)
            except (MeshError, RemoteProtocolError):
                return  # what the target thinks of it is its own business

    async def _cfp(self, target: NodeRecord) -> None:
        """Call for a proposal that is never answered with an award."""
        signer = self.context.signer
        offered = [capability.name for capability in target.capabilities]
        topic = Topic(
            job=self.context.entropy.token(10).hex(),
            subtask="call/0",
            deadline_ms=self.clock.now_ms() + 60_000,
        )
        cfp = Cfp(
            h=signer.header(target.peer, topic),
            capability=offered[0] if offered else "no.such@1",
            items=1,
            input_bytes=100,
            timeout_ms=30_000,
            price_max_mc=1_000_000,
        )
        await self.sessions.request(target.peer, CFP, signer.sign(cfp), timeout_s=_TIMEOUT_S)

    async def _session(self, target: NodeRecord) -> None:
        """Open a stream for a session, say nothing, and hold it."""
        stream = await self.context.transport.open(
            target.peer, PROTOCOL, addresses=target.addresses
        )
        try:
            await trio.sleep_forever()
        finally:
            await stream.aclose()

    async def _record(self, target: NodeRecord) -> None:
        """Send its own record, newer than ever."""
        own = next(record for record in self.known() if record.peer == self.peer)
        self._sequence = max(self._sequence, own.sequence) + 1
        signer = self.context.signer
        newer = msgspec.structs.replace(own, sequence=self._sequence)
        envelope = sign_record(signer.identity, signer.network, newer)
        body = encode(Push(records=[envelope]))
        await self.sessions.request(target.peer, PUSH, body, timeout_s=_TIMEOUT_S)


_Send = Callable[[NodeRecord], Awaitable[None]]


class Replayer(Conduct, frozen=True, kw_only=True):
    """Keeps what it hears, and says it again later, to everybody (Syverson 1994).

    It gains whatever is done twice: a call answered, an award begun, a payment, a record
    that was withdrawn.  Every message names its issuer and its audience, counts for minutes
    and once; an older record loses against a newer one.  So nothing should come of it.

    Attributes:
        every_s: How often all that is kept is sent again.
    """

    every_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0

    @override
    def make(self, config: NodeConfig, ports: Ports, agents: Sequence[Agent]) -> Node:
        return _Replaying(config, ports, agents, self)


class _Replaying(Rogue):
    def __init__(
        self, config: NodeConfig, ports: Ports, agents: Sequence[Agent], conduct: Replayer
    ) -> None:
        super().__init__(config, ports, agents)
        self._conduct = conduct
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=_KEPT_MAX)
        for method in (CFP, AWARD, CANCEL, ACCEPTANCE, DECLINE, PUSH):
            if (handler := self.sessions.handler(method)) is not None:
                self.sessions.handle(method, self._listening(handler))

    def _listening(self, handler: Handler) -> Handler:
        async def listen(incoming: Incoming) -> bytes:
            self._heard.append((incoming.method, incoming.body))
            return await handler(incoming)

        return listen

    @override
    async def mischief(self) -> None:
        while True:
            await trio.sleep(self._conduct.every_s)
            for method, body in tuple(self._heard):
                for peer in self.sessions.connected():
                    await self._say(peer, method, body)

    async def _say(self, peer: str, method: str, body: bytes) -> None:
        try:
            await self.sessions.request(peer, method, body, timeout_s=_TIMEOUT_S)
        except (MeshError, RemoteProtocolError) as exc:
            self.events.emit("replay.refused", peer=peer, method=method, why=str(exc))
        else:
            self.events.emit("replay.taken", peer=peer, method=method)
