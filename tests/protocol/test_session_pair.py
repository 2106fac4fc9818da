"""Two session machines, joined by pipes that cut anywhere, never fail each other.

Whatever either side says, and however late and in what pieces it arrives: neither blames
the other, credit is never exceeded, each request ends exactly once, and when everything
has arrived both agree on what is open and on how much credit is left.
"""

from typing import Literal

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from typing_extensions import override

from protocol.errors import ErrorCode
from protocol.limits import CREDIT_MAX
from protocol.session import (
    CancelRequest,
    Credit,
    Failure,
    Goodbye,
    Item,
    Opened,
    Reply,
    Request,
    SessionEvent,
    SessionMachine,
    State,
)
from tests.protocol.samples import NETWORK, NOW_MS, examples

SIDES = st.sampled_from([0, 1])
PICK = st.integers(0, 1_000)


class Side:
    """One node: its machine, and what it knows of what it asked and was asked."""

    def __init__(self, role: Literal["dialler", "listener"]) -> None:
        self.machine = SessionMachine(role, NETWORK)
        self.machine.start(now_ms=NOW_MS)
        self.pipe = bytearray()  # on its way to the other side
        self.granted: dict[int, int] = {}  # of open requests
        self.got: dict[int, int] = {}
        self.ended: dict[int, str] = {}
        self.serving: dict[int, int] = {}

    def end(self, rid: int, how: str) -> None:
        assert rid in self.granted, "an end of something that was never asked"
        assert rid not in self.ended, "a second end"
        self.ended[rid] = how

    def open(self) -> list[int]:
        return [rid for rid in self.granted if rid not in self.ended]

    def heard(self, event: SessionEvent) -> None:
        match event:
            case Opened() | Goodbye() | Credit():
                pass
            case Request(rid=rid):
                assert rid not in self.serving
                self.serving[rid] = 0
            case CancelRequest(rid=rid):
                del self.serving[rid]
            case Item(rid=rid):
                assert rid not in self.ended
                self.got[rid] += 1
                assert self.got[rid] <= self.granted[rid], "more pieces than granted"
            case Reply(rid=rid) | Failure(rid=rid):
                self.end(rid, type(event).__name__)


class Pair(RuleBasedStateMachine):
    """Says anything that a node may say, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side("dialler"), Side("listener"))
        self.now_ms = NOW_MS

    def pick(self, some: list[int], at: int) -> int | None:
        return some[at % len(some)] if some else None

    @initialize(greeted=st.sampled_from([True, True, False]))
    def greet(self, greeted: bool) -> None:
        """Mostly the greeting is over, so that what follows is about requests."""
        if greeted:
            self.deliver_everything()

    def deliver_everything(self) -> None:
        while any(side.pipe or side.machine.waiting_bytes for side in self.sides):
            for at in (0, 1):
                self.write(at, 10_000)
                self.arrive(at, 100_000)

    # --- the pipes ---

    @rule(at=SIDES, size=st.integers(1, 200))
    def write(self, at: int, size: int) -> None:
        self.sides[at].pipe += self.sides[at].machine.take(size)

    @rule(at=SIDES, size=st.integers(1, 200))
    def arrive(self, at: int, size: int) -> None:
        """Some bytes arrive, cut anywhere; honest peers are never blamed."""
        source, target = self.sides[at], self.sides[1 - at]
        data = bytes(source.pipe[:size])
        del source.pipe[:size]
        for event in target.machine.receive(data, now_ms=self.now_ms):
            target.heard(event)

    @rule(ms=st.integers(0, 2_000))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        for side in self.sides:
            side.machine.tick(now_ms=self.now_ms)

    # --- asking ---

    @rule(at=SIDES, credit=st.integers(0, 3))
    def ask(self, at: int, credit: int) -> None:
        side = self.sides[at]
        if side.machine.state is State.OPEN:
            rid = side.machine.request("m", b"body", timeout_ms=1_000, credit=credit)
            side.granted[rid], side.got[rid] = credit, 0

    @rule(at=SIDES, which=PICK, items=st.integers(1, 3))
    def grant(self, at: int, which: int, items: int) -> None:
        side = self.sides[at]
        rid = self.pick(side.open(), which)
        if rid is not None and side.granted[rid] + items <= CREDIT_MAX:
            side.machine.grant(rid, items)
            side.granted[rid] += items

    @rule(at=SIDES, which=PICK)
    def abandon(self, at: int, which: int) -> None:
        side = self.sides[at]
        rid = self.pick(side.open(), which)
        if rid is not None:
            side.machine.abandon(rid)
            side.end(rid, "abandoned")

    # --- answering ---

    @rule(at=SIDES, which=PICK)
    def piece(self, at: int, which: int) -> None:
        side = self.sides[at]
        rid = self.pick(list(side.serving), which)
        if rid is not None and side.machine.credit(rid):
            side.machine.item(rid, b"piece")

    @rule(at=SIDES, which=PICK, good=st.booleans())
    def answer(self, at: int, which: int, good: bool) -> None:
        side = self.sides[at]
        rid = self.pick(list(side.serving), which)
        if rid is not None:
            del side.serving[rid]
            if good:
                side.machine.reply(rid, b"end")
            else:
                side.machine.fail(rid, ErrorCode.INTERNAL, "failed")

    @precondition(lambda self: self.now_ms > NOW_MS + 4_000)
    @rule(at=SIDES)
    def leave(self, at: int) -> None:
        self.sides[at].machine.goodbye(ErrorCode.BUSY, "leaving")

    # --- what always holds ---

    @invariant()
    def each_knows_what_it_serves(self) -> None:
        for side in self.sides:
            assert all(side.machine.is_serving(rid) for rid in side.serving)

    @override
    def teardown(self) -> None:
        """Once all has arrived, both agree; closing orphans just what is still open."""
        self.deliver_everything()
        for asker, server in (self.sides, self.sides[::-1]):
            assert sorted(asker.open()) == sorted(server.serving)
            for rid in asker.open():
                left = asker.granted[rid] - asker.got[rid]
                assert server.machine.credit(rid) == left, "credit was lost on the way"
        for side in self.sides:
            assert sorted(side.machine.close()) == sorted(side.open())


TestPair = Pair.TestCase
TestPair.settings = examples(60)
