"""Contractors that do random work for real, sign it, and misbehave as their traits say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from meshnode.domain.bindings import artifacts, assemble
from meshnode.domain.matching import Candidate
from meshnode.domain.units import CROWDED
from meshnode.domain.values import canonical, resolve_list
from meshnode.ports import JsonValue
from protocol.keys import Identity, digest
from protocol.messages import (
    Award,
    Budget,
    Cfp,
    Header,
    Label,
    Message,
    Metering,
    Proposal,
    Result,
    StandingOffer,
    read_message,
    sign_message,
)
from protocol.receipts import Receipt
from tests.meshnode.domain.random_graphs import work

NETWORK = "test-net"
OFFER_LIFETIME_MS = 120_000


@dataclass(frozen=True)
class Traits:
    """What a contractor is like; chances are per CFP or award.

    Attributes:
        capability: Its one capability.
        price_mc: For one call.
        latency_ms: For one call.
        concurrency: As its record says.
        offers: It makes standing offers.
        busy: Chance to refuse for being busy.
        refuses: Chance to refuse a CFP for another reason.
        fails: Chance that the agent fails.
        lies: Chance of a wrong output where a check will tell, else of a misshapen one.
        silent: Chance to answer nothing.
        starved: Chance that an input can't be had from its maker.
        repeats: Chance that an answer comes twice.
        dies_ms: When it is gone, after the start; 0 for never.
        bid_ms: The longest that it takes to answer a CFP.
        offset_ms: Its clock minus the broker's.
    """

    capability: str = "work.a@1"
    price_mc: int = 0
    latency_ms: int = 100
    concurrency: int = 2
    offers: bool = True
    busy: float = 0.0
    refuses: float = 0.0
    fails: float = 0.0
    lies: float = 0.0
    silent: float = 0.0
    starved: float = 0.0
    repeats: float = 0.0
    dies_ms: int = 0
    bid_ms: int = 2_500  # some come too late
    offset_ms: int = 0


@dataclass(frozen=True)
class Answer:
    """What an award came to, in how long; ``code`` is empty when it was done."""

    ms: int
    code: str = ""
    result: bytes = b""
    receipt: bytes = b""
    output: bytes = b""
    twice: bool = False


def identity(name: str) -> Identity:
    """The node called ``name``: always the same keys."""
    return Identity(digest(f"sign {name}".encode()), digest(f"seal {name}".encode()))


class Pen:
    """Fills headers and signs."""

    def __init__(self, name: str) -> None:
        self.identity = identity(name)
        self.count = 0

    def header(self, audience: str, now_ms: int, **about: object) -> Header:
        """A fresh header, as :class:`meshnode.services.signer.Signer` fills it."""
        self.count += 1
        fields: dict[str, object] = {
            "id": digest(f"{self.identity.peer} {self.count}".encode())[:16],
            "issuer": self.identity.peer,
            "audience": audience,
            "issued_ms": now_ms,
            "expires_ms": now_ms + OFFER_LIFETIME_MS,
            "sequence": self.count,
            "network": NETWORK,
            "job": "",
            "subtask": "",
            "replica": 0,
            "label": Label(),
            "budget": Budget(),
            "hops": 0,
            "deadline_ms": 0,
            "idempotency_key": "",
            "traceparent": "",
            "epoch": 0,
            "charter": b"",
        }
        return Header(**{**fields, **about})  # type: ignore[arg-type]  # a table of fields

    def reply(self, to: Header, now_ms: int) -> Header:
        """A header about what ``to`` is about."""
        return self.header(
            to.issuer,
            now_ms,
            job=to.job,
            subtask=to.subtask,
            replica=to.replica,
            deadline_ms=to.deadline_ms,
            idempotency_key=to.idempotency_key,
            epoch=to.epoch,
            charter=to.charter,
        )

    def sign(self, message: Message) -> bytes:
        """Its envelope."""
        return sign_message(self.identity, message)


def tokens_of(award: Award) -> int:
    """How many model tokens an award takes, of those that it has: none, all, or some."""
    return award.h.budget.tokens * (award.h.id[0] % 5) // 4


@dataclass
class Contractor:
    """One node that does work; it answers an award it has seen before the same way again."""

    name: str
    traits: Traits
    rng: Random
    pen: Pen = field(init=False)
    answers: dict[bytes, Answer] = field(default_factory=dict)
    began_ms: dict[bytes, int] = field(default_factory=dict)
    offer: tuple[bytes, int] = (b"", 0)

    def __post_init__(self) -> None:
        self.pen = Pen(self.name)

    @property
    def peer(self) -> str:
        return self.pen.identity.peer

    def candidate(self, broker: str, now_ms: int) -> Candidate:
        """What the broker knows of it."""
        offer, expires_ms = self._offer(broker, now_ms)
        return Candidate(
            peer=self.peer,
            agent="agent",
            capability=self.traits.capability,
            price_mc=self.traits.price_mc,
            latency_ms=self.traits.latency_ms,
            concurrency=self.traits.concurrency,
            offer=offer,
            offer_expires_ms=expires_ms,
            items_max=100,
            alive=True,
        )

    def _offer(self, broker: str, now_ms: int) -> tuple[bytes, int]:
        if not self.traits.offers:
            return b"", 0
        if self.offer[1] < now_ms + 20_000:
            message = StandingOffer(
                h=self.pen.header(broker, now_ms + self.traits.offset_ms),
                agent="agent",
                capability=self.traits.capability,
                price_mc=self.traits.price_mc,
                items_max=100,
                awards_max=32,
                latency_ms=self.traits.latency_ms,
            )
            self.offer = self.pen.sign(message), now_ms + OFFER_LIFETIME_MS
        return self.offer

    def bid(self, cfp: bytes, now_ms: int) -> tuple[str, bytes, Proposal | None]:
        """``("proposal", envelope, message)``, or the reason of a refusal, or silence."""
        traits = self.traits
        chance = self.rng.random()
        if chance < traits.silent:
            return "", b"", None
        if chance < traits.silent + traits.busy:
            return "busy", b"", None
        if chance < traits.silent + traits.busy + traits.refuses:
            return "price", b"", None
        asked = read_message(cfp, Cfp, network=NETWORK)
        proposal = Proposal(
            h=self.pen.reply(asked.h, now_ms + traits.offset_ms),
            cfp=digest(cfp),
            agent="agent",
            capability=traits.capability,
            price_mc=traits.price_mc,
            eta_ms=traits.latency_ms * asked.items,
            free=1,
            items=asked.items,
        )
        return "proposal", self.pen.sign(proposal), proposal

    def do(
        self, envelope: bytes, blobs: Mapping[bytes, bytes], now_ms: int, *, checked: bool
    ) -> Answer:
        """Do an award; ``checked`` says that a wrong output would be found out."""
        name = digest(envelope)
        if name in self.answers:
            old = self.answers[name]
            left_ms = self.began_ms[name] + old.ms - now_ms
            return Answer(max(1, left_ms), old.code, old.result, old.receipt, old.output)
        answer = self._answer(envelope, blobs, now_ms, checked=checked)
        if answer.code not in {"node.busy", CROWDED}:
            self.answers[name], self.began_ms[name] = answer, now_ms
        return answer

    def _answer(
        self, envelope: bytes, blobs: Mapping[bytes, bytes], now_ms: int, *, checked: bool
    ) -> Answer:
        traits, chance = self.traits, self.rng.random()
        award = read_message(envelope, Award, network=NETWORK)
        assert award.h.audience == self.peer
        ms = max(1, traits.latency_ms * award.items)
        made_elsewhere = any(
            part.holder != award.h.issuer for part in artifacts(award.inputs).values()
        )
        failures = {
            "peer.lost": traits.silent,
            # Who may wait for any time is never refused for that.
            CROWDED if award.wait_max_ms else "node.busy": traits.busy,
            "artifact.unavailable": traits.starved if made_elsewhere else 0.0,
        }
        for code, share in failures.items():
            if chance < share:
                return Answer(30_000 if code == "peer.lost" else 5, code)
            chance -= share
        if chance < traits.fails:
            return Answer(ms, "agent.failed")
        inputs = assemble(award.inputs, award.each, award.items, blobs)
        outputs: list[JsonValue] = [work(value) for value in inputs]
        output: JsonValue = outputs if award.each else outputs[0]
        if chance < traits.fails + traits.lies:
            output = self._lie(output, award, checked=checked)
        return self._signed(envelope, award, output, now_ms + traits.offset_ms + ms, ms)

    def _lie(self, output: JsonValue, award: Award, *, checked: bool) -> JsonValue:
        if not checked and award.each:
            return [output, *[None] * award.items]  # too many items: anybody can tell
        if not checked:
            return output
        false: JsonValue = {"id": "false", "items": [], "a/b": [0, ["x", 0]]}
        return [false] * award.items if award.each else false

    def _signed(
        self, envelope: bytes, award: Award, output: JsonValue, at_ms: int, ms: int
    ) -> Answer:
        data = canonical(output)
        lengths = {pointer: len(resolve_list(output, pointer)) for pointer in award.lengths}
        full_mc = self.traits.price_mc * award.items
        price_mc = full_mc if self.rng.random() < 0.8 else full_mc // 2
        result = self.pen.sign(
            Result(
                h=self.pen.reply(award.h, at_ms),
                award=digest(envelope),
                state="completed",
                output=digest(data),
                size=len(data),
                inline=data if len(data) <= 4_000 else b"",
                lengths=lengths,
                metering=Metering(run_ms=ms, tokens_out=tokens_of(award)),
                price_mc=price_mc,
            )
        )
        receipt = self.pen.sign(
            Receipt(
                h=self.pen.reply(award.h, at_ms),
                award=digest(envelope),
                result=digest(result),
                capability=award.capability,
                agent=award.agent,
                cost_mc=price_mc,
                latency_ms=ms,
            )
        )
        twice = self.rng.random() < self.traits.repeats
        return Answer(ms, "", result, receipt, data, twice)
