"""Catalogues kept complete between neighbours, by flooding and by comparing.

News goes to every neighbour at once and is passed on once; a neighbour that sends a
record is not sent it back.  Whoever chose the other compares digests; if they differ
it pulls what it lacks, and what it says it *has* shows the other side what to pull in
return.  So a lost push costs one interval, and two catalogues that differ for good
reason (no room, clocks) ask each other ever more rarely.

Every peer has an allowance, and every record is verified here, whoever sent it.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, TypeVar

import trio

from meshnode.config import DirectoryConfig
from meshnode.domain.catalogue import Outcome, Verdict
from meshnode.errors import Busy
from meshnode.ports import Emit
from meshnode.services.allowance import Allowance
from meshnode.services.neighbours import Neighbour, Neighbours
from meshnode.services.records import Intake
from meshnode.services.sessions import Incoming, Sessions
from protocol.catalogue import DIGEST, PULL, PUSH, RECORDS_BYTES_MAX, Digest, Pull, Push, read
from protocol.codec import encode
from protocol.errors import RemoteProtocolError, TooLarge

#: News waits this long for more, and for the neighbour to bring it itself, seconds.
_GATHER_S: Final = (0.01, 0.03)
_REQUEST_S: Final = 10.0
_BUSY_S_MAX: Final = 10.0
_JITTER: Final = (0.75, 1.25)
#: Pulls in a row from one neighbour, and how many comparisons run at once.
_PULLS_MAX: Final = 200
_COMPARING_MAX: Final = 2
#: Wait between pulls that bring nothing: doubled each time, seconds.
_FRUITLESS_S: Final = 1.0
_FRUITLESS_S_MAX: Final = 160.0
#: A first pull that brings more than this is the mesh as it was, and news to nobody.
_NEWS_MAX: Final = 16

B = TypeVar("B", Digest, Pull, Push)


class Exchange:
    """This node's part in the exchange of catalogues."""

    def __init__(
        self,
        intake: Intake,
        sessions: Sessions,
        config: DirectoryConfig,
        *,
        rng: Random,
        emit: Emit,
        seeds: Sequence[str] = (),
    ) -> None:
        self._intake = intake
        self._catalogue = intake.catalogue
        self._own = intake.catalogue.own
        self._sessions = sessions
        self._config = config
        self._rng = rng
        self._neighbours = Neighbours(intake, sessions, config, rng=rng, emit=emit, seeds=seeds)
        self._nursery: trio.Nursery | None = None
        self._comparing = trio.Semaphore(_COMPARING_MAX)
        self._pulling: dict[str, None] = {}
        #: Peer -> when it may be pulled from again, and the wait after that.
        self._patience: dict[str, tuple[float, float]] = {}
        self._joined = False
        self._quiet = False
        self._records = Allowance("the intake of records", burst=512, per_s=32)
        self._bytes = Allowance("the intake of records", burst=16_000_000, per_s=512_000)
        self._questions = Allowance("the exchange of catalogues", burst=128, per_s=4)
        # From the start: a peer that is told "no such method" looks for another.
        for method, handler in (
            (DIGEST, self._on_digest),
            (PULL, self._on_pull),
            (PUSH, self._on_push),
        ):
            sessions.handle_promptly(method, handler)

    def neighbours(self) -> Sequence[str]:
        """Return who is pushed to, sorted."""
        return sorted(neighbour.peer for neighbour in self._neighbours.all())

    def start(self, nursery: trio.Nursery) -> None:
        """Exchange in ``nursery``."""
        self._nursery = nursery
        self._intake.on_news(self._news)
        self._neighbours.start(nursery, self._tend)
        nursery.start_soon(self._meet_strangers)

    # --- news ---

    def _news(self, outcome: Outcome, source: str) -> None:
        """Pass on what the catalogue took, to all but who brought it."""
        if not self._quiet:
            for neighbour in self._neighbours.all():
                if neighbour.peer != source:
                    neighbour.owe(outcome.peer)
        if outcome.verdict is Verdict.NEW:
            self._neighbours.look_around()

    async def push_own(self, envelope: bytes, *, timeout_s: float) -> None:
        """Send this node's record to every neighbour and wait for them; best effort."""
        body = encode(Push(records=[envelope]))

        async def push(neighbour: Neighbour) -> None:
            neighbour.owed.pop(self._own, None)
            with self._neighbours.blaming(neighbour.peer):
                await self._sessions.request(neighbour.peer, PUSH, body, timeout_s=timeout_s)

        async with trio.open_nursery() as nursery:
            for neighbour in self._neighbours.all():
                nursery.start_soon(push, neighbour)

    # --- one neighbour ---

    async def _tend(self, neighbour: Neighbour) -> None:
        with neighbour.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._compare, neighbour)
                await self._deliver(neighbour)

    async def _deliver(self, neighbour: Neighbour) -> None:
        """Send what is owed, as it comes; this node's own record without delay."""
        while True:
            await neighbour.woken.wait()
            if self._own not in neighbour.owed:
                await trio.sleep(self._rng.uniform(*_GATHER_S))
            neighbour.woken = trio.Event()
            with self._neighbours.blaming(neighbour.peer):
                await self._deliver_some(neighbour)

    async def _deliver_some(self, neighbour: Neighbour) -> None:
        order = sorted(neighbour.owed, key=lambda peer: peer != self._own)
        push = self._catalogue.push(order)
        # If not all fit, those that did are the first ones of which there is a record.
        sent = order[: len(push.records)] if push.more else order
        for peer in sent:
            del neighbour.owed[peer]
        if neighbour.owed:
            neighbour.woken.set()
        if not push.records:
            return
        own_sequence = self._neighbours.own_sequence() if self._own in sent else 0
        body = encode(Push(records=push.records))
        try:
            await self._sessions.request(neighbour.peer, PUSH, body, timeout_s=_REQUEST_S)
        except Busy as exc:
            neighbour.owed = dict.fromkeys((*sent, *neighbour.owed))
            neighbour.woken.set()
            await trio.sleep(min(exc.retry_after_ms / 1000, _BUSY_S_MAX))
        else:
            self._neighbours.told(neighbour.peer, own_sequence)

    async def _compare(self, neighbour: Neighbour) -> None:
        """Compare at intervals, if this node chose the neighbour."""
        await neighbour.promoted.wait()
        while True:
            with self._neighbours.blaming(neighbour.peer):
                await self._sync(neighbour.peer)
                self._joined = True
            await trio.sleep(self._neighbours.interval_s())
            self._sweep()

    async def _meet_strangers(self) -> None:
        """Compare with somebody else now and then."""
        while True:
            await trio.sleep(self._config.provide_interval_s * self._rng.uniform(*_JITTER))
            peer = self._neighbours.stranger()
            if peer is not None and await self._neighbours.reach(peer):
                with self._neighbours.blaming(peer):
                    await self._sync(peer)

    def _sweep(self) -> None:
        now_s = trio.current_time()
        for allowance in (self._records, self._bytes, self._questions):
            allowance.sweep(now_s=now_s)
        self._patience = {
            peer: (next_s, gap_s)
            for peer, (next_s, gap_s) in self._patience.items()
            if next_s + _FRUITLESS_S_MAX > now_s
        }

    # --- comparing ---

    async def _sync(self, peer: str) -> None:
        """Compare with ``peer``, and pull if there is a difference."""
        async with self._comparing:
            mine = self._catalogue.digest(now_ms=self._intake.now_ms())
            answer = await self._sessions.request(
                peer, DIGEST, encode(mine), timeout_s=_REQUEST_S
            )
            theirs = read(answer, Digest)
            if theirs != self._catalogue.digest(now_ms=self._intake.now_ms()):
                await self._pull(peer)

    async def _pull(self, peer: str) -> None:
        """Ask ``peer`` for what is missing here, until it has no more."""
        next_s, gap_s = self._patience.get(peer, (0.0, _FRUITLESS_S))
        if peer in self._pulling or trio.current_time() < next_s:
            return
        self._pulling[peer] = None
        gap_s = min(gap_s * 2, _FRUITLESS_S_MAX)
        try:
            for _ in range(_PULLS_MAX):
                have = self._catalogue.have(source=peer, now_ms=self._intake.now_ms())
                answer = await self._sessions.request(
                    peer, PULL, encode(Pull(have=have)), timeout_s=_REQUEST_S
                )
                push = read(answer, Push)
                self._quiet = not self._joined and len(push.records) > _NEWS_MAX
                try:
                    outcomes = self._take(peer, push)
                finally:
                    self._quiet = False
                if any(outcome.taken for outcome in outcomes):
                    gap_s = _FRUITLESS_S
                # What it sent is held or declined by now; else it repeats itself.
                if not push.more or not any(o.taken or o.reason for o in outcomes):
                    break
        finally:
            del self._pulling[peer]
            self._patience[peer] = (trio.current_time() + gap_s, gap_s)

    def _take(self, peer: str, push: Push) -> list[Outcome]:
        """Offer what ``peer`` sent.

        Raises:
            RemoteProtocolError: It sent a record that no honest node passes on; the
                others were offered all the same.
        """
        size_bytes = sum(map(len, push.records))
        if size_bytes > RECORDS_BYTES_MAX:
            raise TooLarge(size_bytes, RECORDS_BYTES_MAX)
        outcomes = [self._intake.offer(record, source=peer) for record in push.records]
        if (neighbour := self._neighbours.get(peer)) is not None:
            for outcome in outcomes:
                if outcome.verdict is Verdict.STALE:
                    neighbour.owe(outcome.peer)
                elif outcome.taken or outcome.verdict is Verdict.SAME:
                    neighbour.owed.pop(outcome.peer, None)
        for outcome in outcomes:
            if outcome.blames_source and outcome.error is not None:
                raise outcome.error
        return outcomes

    # --- answering ---

    def _on_digest(self, incoming: Incoming) -> bytes:
        self._read(incoming, Digest)
        self._neighbours.welcome(incoming.peer)
        return encode(self._catalogue.digest(now_ms=self._intake.now_ms()))

    def _on_pull(self, incoming: Incoming) -> bytes:
        have = self._read(incoming, Pull).have
        now_ms = self._intake.now_ms()
        if self._nursery is not None and self._catalogue.lacks(
            have, source=incoming.peer, now_ms=now_ms
        ):
            self._nursery.start_soon(self._pull_back, incoming.peer)
        return encode(self._catalogue.answer(have, now_ms=now_ms))

    async def _pull_back(self, peer: str) -> None:
        with self._neighbours.blaming(peer):
            await self._pull(peer)

    def _on_push(self, incoming: Incoming) -> bytes:
        push = self._read(incoming, Push)
        count = len(push.records)
        self._records.take(incoming.peer, count, now_s=trio.current_time())
        try:
            self._take(incoming.peer, push)
        except RemoteProtocolError as exc:
            self._neighbours.shun(incoming.peer, str(exc))
            raise
        return b""

    def _read(self, incoming: Incoming, kind: type[B]) -> B:
        """Let a request in, and return what it says.

        Raises:
            Busy: The peer has used up its allowance, or is shunned.
            RemoteProtocolError: Nothing that this protocol has; the peer is shunned.
        """
        peer, now_s = incoming.peer, trio.current_time()
        self._neighbours.admit(peer)
        if kind is not Push:
            self._questions.take(peer, 1, now_s=now_s)
        self._bytes.take(peer, len(incoming.body), now_s=now_s)
        try:
            return read(incoming.body, kind)
        except RemoteProtocolError as exc:
            self._neighbours.shun(peer, str(exc))
            raise
