"""Signed messages of this node: one place that fills headers, so that none forgets a field."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from meshnode.ports import Entropy, WallClock
from protocol.keys import Identity
from protocol.messages import (
    MESSAGE_ID_SIZE,
    Budget,
    Header,
    Label,
    Message,
    sign_message,
)

#: Lifetime of a message that nobody acts on late, milliseconds.
LIFETIME_MS: Final = 300_000


@dataclass(frozen=True, slots=True)
class Topic:
    """What a message is about: the part of a header that stays the same for an award.

    Attributes:
        job: Job id, or empty.
        subtask: Unit name, or empty.
        replica: 0 for the first execution.
        deadline_ms: Unix time when the work is worthless.
        idempotency_key: The same for every retry of the same work.
        traceparent: W3C trace context, or empty.
        budget: What may be spent below.
        hops: Brokers that may still follow.
        label: Of the content.
        epoch: Of the job's broker.
        charter: Hash, or empty.
    """

    job: str = ""
    subtask: str = ""
    replica: int = 0
    deadline_ms: int = 0
    idempotency_key: str = ""
    traceparent: str = ""
    budget: Budget = field(default_factory=Budget)
    hops: int = 0
    label: Label = field(default_factory=Label)
    epoch: int = 0
    charter: bytes = b""

    @classmethod
    def of(cls, header: Header) -> "Topic":
        """Return the topic of a message, to answer it."""
        return cls(
            job=header.job,
            subtask=header.subtask,
            replica=header.replica,
            deadline_ms=header.deadline_ms,
            idempotency_key=header.idempotency_key,
            traceparent=header.traceparent,
            budget=header.budget,
            hops=header.hops,
            label=header.label,
            epoch=header.epoch,
            charter=header.charter,
        )


class Signer:
    """Makes headers and signs messages as this node."""

    def __init__(
        self, identity: Identity, network: str, clock: WallClock, entropy: Entropy
    ) -> None:
        self.identity = identity
        self.network = network
        self._clock = clock
        self._entropy = entropy
        self._sequences: Counter[str] = Counter()

    @property
    def peer(self) -> str:
        """This node's PeerId."""
        return self.identity.peer

    def header(self, audience: str, topic: Topic, *, lifetime_ms: int = LIFETIME_MS) -> Header:
        """Return a fresh header.

        Args:
            audience: PeerId of the reader.
            topic: What the message is about.
            lifetime_ms: At most 10 minutes for what binds; signing refuses more.
        """
        now_ms = self._clock.now_ms()
        self._sequences[audience] += 1
        return Header(
            id=self._entropy.token(MESSAGE_ID_SIZE),
            issuer=self.peer,
            audience=audience,
            issued_ms=now_ms,
            expires_ms=now_ms + lifetime_ms,
            sequence=self._sequences[audience],
            network=self.network,
            job=topic.job,
            subtask=topic.subtask,
            replica=topic.replica,
            label=topic.label,
            budget=topic.budget,
            hops=topic.hops,
            deadline_ms=topic.deadline_ms,
            idempotency_key=topic.idempotency_key,
            traceparent=topic.traceparent,
            epoch=topic.epoch,
            charter=topic.charter,
        )

    def sign(self, message: Message) -> bytes:
        """Return the signed envelope of ``message``."""
        return sign_message(self.identity, message)
