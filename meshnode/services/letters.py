"""Reading what brokers sign to this node, and refusing it in words.

A message must come from its issuer, be for this node, and count at this time by the
issuer's clock.
"""

from typing import Final

from meshnode.domain.admission import No
from meshnode.services.context import Context
from meshnode.services.sessions import Incoming, Sessions
from meshnode.services.signer import Topic
from protocol.errors import Malformed, Stale
from protocol.keys import digest
from protocol.messages import M, Message, Refuse, read_message
from protocol.timely import check_timely

#: Ids of messages remembered against replays.
_SEEN_MAX: Final = 20_000


class Letters:
    """See the module."""

    def __init__(self, context: Context, *, sessions: Sessions) -> None:
        self._signer = context.signer
        self._clock = context.clock
        self._emit = context.emit
        self._sessions = sessions
        self._seen: dict[bytes, None] = {}

    def peer_now_ms(self, peer: str) -> int:
        """Return Unix time by the clock of ``peer``."""
        return self._clock.now_ms() + self._sessions.offset_ms(peer)

    def read(self, incoming: Incoming, kind: type[M]) -> M:
        """Return the signed message in a request's body: from its sender, to us, in time.

        Raises:
            RemoteProtocolError: It isn't one.
        """
        message = read_message(incoming.body, kind, network=self._signer.network)
        if message.h.issuer != incoming.peer:
            raise Malformed(f"a {kind.TYPE} comes from its issuer")
        check_timely(
            message, audience=self._signer.peer, now_ms=self.peer_now_ms(incoming.peer)
        )
        return message

    def refuse_replay(self, message: Message) -> None:
        """Let each message pass once.

        Raises:
            Stale: It was here before.
        """
        key = message.h.issuer.encode() + message.h.id
        if key in self._seen:
            raise Stale("this message id was seen before")
        self._seen[key] = None
        if len(self._seen) > _SEEN_MAX:
            del self._seen[next(iter(self._seen))]

    def refuse(self, message: Message, envelope: bytes, no: No, *, to: str = "") -> bytes:
        """Return the signed refusal of ``message``, which came as ``envelope``.

        ``to`` is who sent it, if that isn't its issuer.
        """
        peer = to or message.h.issuer
        self._emit("contract.refused", peer=peer, reason=no.reason, why=no.text)
        return self._signer.sign(
            Refuse(
                h=self._signer.header(peer, Topic.of(message.h)),
                of=digest(envelope),
                reason=no.reason,
                text=no.text,
                retry_after_ms=no.retry_ms,
            )
        )
