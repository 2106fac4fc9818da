"""A broker keeps its lease; when it is gone one standby takes over; one that is back stops."""

from collections import deque
from dataclasses import dataclass, field

import pytest

from meshnode.domain.failover import (
    Asked,
    Granted,
    Mandate,
    Position,
    Refused,
    Rules,
    Seat,
    Seen,
    Turn,
    admits,
    follows,
)
from tests.meshnode.domain.purity import outside_calls

LEASE_MS, SKEW_MS = 30_000, 5_000
RULES = Rules(Mandate(("owner", "first", "second"), 1, LEASE_MS, SKEW_MS))
EMPTY = Position(0, 0)


@dataclass
class Mesh:
    """Members that hear each other at once, unless they are away, and wake when it is due."""

    rules: Rules
    offsets_ms: dict[str, int] = field(default_factory=dict)
    now_ms: int = 0
    away: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    seats: dict[str, Seat] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.rules.mandate.members:
            self.seats[name] = self.rules.seat(name, EMPTY, now_ms=self.clock(name))

    def clock(self, name: str) -> int:
        """What a member's clock shows."""
        return self.now_ms + self.offsets_ms.get(name, 1_000_000)

    def stand(self, name: str) -> None:
        """A member stands, and all hear it."""
        self._carry(name, self.rules.stand(self.seats[name], now_ms=self.clock(name)))

    def run(self, duration_ms: int) -> None:
        """Let time pass, in steps of 100 ms."""
        for _ in range(duration_ms // 100):
            self.now_ms += 100
            for name in self.rules.mandate.members:
                if name not in self.away:
                    turn = self.rules.wake(self.seats[name], now_ms=self.clock(name))
                    self._carry(name, turn)
            assert len(self.acting()) <= 1

    def acting(self) -> list[tuple[str, int]]:
        """Who may act, and in which epoch."""
        found = []
        for name, seat in self.seats.items():
            if name not in self.away and self.rules.may_act(seat, now_ms=self.clock(name)):
                assert seat.candidacy is not None
                found.append((name, seat.candidacy.epoch))
        return found

    def _carry(self, name: str, turn: Turn) -> None:
        self.seats[name] = turn.seat
        todo = deque((name, to, message) for to, message in turn.sends)
        while todo:
            sender, to, message = todo.popleft()
            if to in self.away or (sender in self.cut) != (to in self.cut):
                continue
            seat, now_ms = self.seats[to], self.clock(to)
            match message:
                case Asked():
                    turn = self.rules.asked(seat, message, now_ms=now_ms)
                case Granted():
                    turn = self.rules.granted(seat, message)
                case Refused():
                    turn = self.rules.refused(seat, message, now_ms=now_ms)
            self.seats[to] = turn.seat
            todo.extend((to, whom, answer) for whom, answer in turn.sends)


@pytest.fixture
def mesh() -> Mesh:
    """The owner is the broker of epoch 1."""
    mesh = Mesh(RULES)
    mesh.stand("owner")
    assert mesh.acting() == [("owner", 1)]
    return mesh


# --- leases ---


def test_a_broker_keeps_its_lease_and_its_epoch(mesh: Mesh) -> None:
    mesh.run(10 * LEASE_MS)
    assert mesh.acting() == [("owner", 1)]


def test_it_stops_the_allowance_before_its_lease_ends(mesh: Mesh) -> None:
    seat, asked_ms = mesh.seats["owner"], mesh.clock("owner")
    assert RULES.may_act(seat, now_ms=asked_ms + LEASE_MS - SKEW_MS - 1)
    assert not RULES.may_act(seat, now_ms=asked_ms + LEASE_MS - SKEW_MS)


def test_one_standby_is_enough_for_a_majority(mesh: Mesh) -> None:
    mesh.away = {"second"}
    mesh.run(10 * LEASE_MS)
    assert mesh.acting() == [("owner", 1)]


def test_without_a_majority_nobody_acts_until_it_is_back(mesh: Mesh) -> None:
    mesh.away = {"first", "second"}
    mesh.run(3 * LEASE_MS)
    assert mesh.acting() == []
    mesh.away = set()
    mesh.run(LEASE_MS)
    assert len(mesh.acting()) == 1


def test_clocks_may_stand_years_apart() -> None:
    year_ms = 365 * 86_400_000
    mesh = Mesh(RULES, {"owner": 5 * year_ms, "first": 10, "second": 2 * year_ms})
    mesh.stand("owner")
    mesh.run(3 * LEASE_MS)
    assert mesh.acting() == [("owner", 1)]
    mesh.away = {"owner"}
    mesh.run(3 * LEASE_MS)
    assert mesh.acting() == [("first", 2)]


# --- passing on ---


def test_when_the_broker_is_gone_the_first_standby_takes_over(mesh: Mesh) -> None:
    mesh.away = {"owner"}
    mesh.run(LEASE_MS - 100)
    assert mesh.acting() == [], "not before its lease has run out"
    mesh.run(LEASE_MS // 4 + 200)
    assert mesh.acting() == [("first", 2)]


def test_when_the_first_standby_is_gone_too_in_five_the_second_does() -> None:
    members = ("owner", "first", "second", "third", "fourth")
    mesh = Mesh(Rules(Mandate(members, 1, LEASE_MS, SKEW_MS)))
    mesh.stand("owner")
    mesh.away = {"owner", "first"}
    mesh.run(2 * LEASE_MS)
    assert mesh.acting() == [("second", 2)]


def test_one_that_is_back_stays_behind_the_higher_epoch(mesh: Mesh) -> None:
    mesh.cut = {"owner"}
    mesh.run(3 * LEASE_MS)
    assert mesh.acting() == [("first", 2)]
    mesh.cut = set()
    mesh.run(5 * LEASE_MS)
    assert mesh.acting() == [("first", 2)]


def test_a_quick_restart_goes_on_in_the_same_epoch(mesh: Mesh) -> None:
    seat = RULES.restarted(mesh.seats["owner"], now_ms=mesh.clock("owner"))
    assert not RULES.may_act(seat, now_ms=mesh.clock("owner")), "it was granted nothing yet"
    mesh.seats["owner"] = seat
    mesh.run(200)
    assert mesh.acting() == [("owner", 1)]


def test_two_that_stand_at_once_settle_it(mesh: Mesh) -> None:
    mesh.away = {"owner"}
    mesh.run(LEASE_MS + 100)
    mesh.cut = {"first"}
    mesh.stand("first")
    mesh.stand("second")
    assert mesh.acting() == []
    mesh.cut = set()
    mesh.run(4 * LEASE_MS)
    ((_, epoch),) = mesh.acting()
    assert epoch > 2, "the epoch that each had granted itself is nobody's"


def test_one_that_was_cut_off_does_not_drive_the_epochs_up(mesh: Mesh) -> None:
    mesh.cut = {"second"}
    mesh.run(50 * LEASE_MS)
    assert mesh.seats["second"].promise.epoch == 2
    mesh.cut = set()
    mesh.run(3 * LEASE_MS)
    assert mesh.acting() == [("owner", 1)]


def test_a_certificate_of_a_higher_epoch_stops_a_broker_at_once(mesh: Mesh) -> None:
    seat, now_ms = mesh.seats["owner"], mesh.clock("owner")
    turn = RULES.shown(seat, 2, "first", now_ms=now_ms)
    assert not RULES.may_act(turn.seat, now_ms=now_ms)
    again = RULES.stand(turn.seat, now_ms=now_ms)
    assert again.seat.promise.epoch != 1, "epoch 1 is over for it"
    old = RULES.shown(seat, 0, "first", now_ms=now_ms)
    assert RULES.may_act(old.seat, now_ms=now_ms)


# --- granting ---


def asked(epoch: int, broker: str, count: int = 0) -> Asked:
    """It asks at 7 by its own clock."""
    return Asked(epoch, broker, 7, Position(1, count))


def test_what_is_granted_is_written_and_says_when_it_was_asked_for() -> None:
    seat = RULES.seat("second", EMPTY, now_ms=0)
    turn = RULES.asked(seat, asked(1, "owner"), now_ms=50)
    assert turn.writes == turn.seat.promise == (1, "owner", 50 + LEASE_MS)
    assert turn.sends == (("owner", Granted(1, "owner", "second", 7)),)


@pytest.mark.parametrize(
    ("request_", "now_ms", "yes"),
    [
        (asked(3, "owner"), 0, True),  # more time
        (asked(3, "first"), LEASE_MS, False),
        (asked(2, "first"), LEASE_MS, False),
        (asked(2, "owner"), LEASE_MS, False),
        (asked(4, "first", 10), LEASE_MS - 1, False),
        (asked(4, "first", 10), LEASE_MS, True),
        (asked(4, "owner", 10), 0, True),
        (asked(4, "first", 9), LEASE_MS, False),  # it has less of the journal
        (asked(4, "stranger", 10), LEASE_MS, False),
    ],
)
def test_what_a_member_grants_that_granted_epoch_3_at_0(
    request_: Asked, now_ms: int, *, yes: bool
) -> None:
    seat = RULES.seat("second", Position(1, 10), now_ms=0)
    seat = RULES.asked(seat, asked(3, "owner", 10), now_ms=0).seat
    turn = RULES.asked(seat, request_, now_ms=now_ms)
    ((to, answer),) = turn.sends
    assert to == request_.broker
    assert isinstance(answer, Granted) == yes
    if not yes:
        assert (turn.seat, turn.writes) == (seat, None)
        assert answer == Refused(3, "owner", "second")


def test_a_grant_that_nobody_asked_for_gives_no_time(mesh: Mesh) -> None:
    seat = mesh.seats["owner"]
    for odd in (
        Granted(1, "owner", "first", mesh.clock("owner") + 1),
        Granted(1, "owner", "stranger", mesh.clock("owner")),
        Granted(2, "owner", "first", mesh.clock("owner")),
        Granted(1, "second", "first", mesh.clock("owner")),
    ):
        assert RULES.granted(seat, odd).seat == seat


# --- contractors ---


def test_a_contractor_goes_by_certificates_and_never_back() -> None:
    first, second = Seen(1, "owner", b"c"), Seen(2, "first", b"c")
    assert follows(None, first)
    assert follows(first, second)
    assert follows(second, second)
    for other in (first, Seen(2, "second", b"c"), Seen(2, "first", b"d")):
        assert not follows(second, other)
        assert not admits(second, other)
    assert admits(second, second)
    assert not admits(None, first), "an award's word is no certificate"
    assert not admits(first, Seen(9, "first", b"c"))


def test_the_rules_read_nothing_of_the_world(mesh: Mesh) -> None:
    assert outside_calls(lambda: RULES.stand(mesh.seats["owner"], now_ms=9)) == []
    assert (
        outside_calls(lambda: RULES.asked(mesh.seats["first"], asked(9, "owner"), now_ms=9))
        == []
    )
