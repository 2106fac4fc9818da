"""A session: greeting, requests with credit, time, and what waits goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import (
    CreditExceeded,
    ErrorCode,
    LocalProtocolError,
    Malformed,
    OutOfTurn,
    RemoteProtocolError,
    WrongNetwork,
)
from protocol.framing import FrameReader, frame
from protocol.session import (
    TRANSITIONS,
    URGENT,
    CancelRequest,
    Credit,
    Failure,
    Goodbye,
    Hello,
    Item,
    Opened,
    Ping,
    Pong,
    Reply,
    Request,
    SessionFrame,
    SessionMachine,
    State,
    Welcome,
    decode_frame,
    encode_frame,
)
from tests.protocol.samples import NETWORK, NOW_MS, examples
from tests.protocol.test_session_frames import FRAMES


def machine(role: str = "listener", **fields: object) -> SessionMachine:
    """A machine that has started."""
    features = frozenset({"relay", role})
    made = SessionMachine(
        "dialler" if role == "dialler" else "listener", network=NETWORK, features=features
    )
    for name, value in fields.items():
        setattr(made, name, value)
    made.start(now_ms=NOW_MS)
    return made


def said(made: SessionMachine) -> list[SessionFrame]:
    """What ``made`` says now."""
    out: list[SessionFrame] = []
    reader = FrameReader()
    while data := made.take():
        out += map(decode_frame, reader.feed(data))
    return out


def pair() -> tuple[SessionMachine, SessionMachine]:
    """A dialler and a listener that have greeted each other and have nothing to say."""
    dialler, listener = machine("dialler"), machine()
    pump(dialler, listener)
    return dialler, listener


def pump(
    one: SessionMachine, other: SessionMachine, *, now_ms: int = NOW_MS
) -> tuple[list[object], list[object]]:
    """Carry everything across; return what each of the two heard."""
    heard: tuple[list[object], list[object]] = ([], [])
    while True:
        there, back = one.take(), other.take()
        if not there and not back:
            return heard
        heard[1].extend(other.receive(there, now_ms=now_ms) if there else [])
        heard[0].extend(one.receive(back, now_ms=now_ms) if back else [])


def tell(made: SessionMachine, *frames: SessionFrame, now_ms: int = NOW_MS) -> list[object]:
    """What ``made`` makes of ``frames``."""
    return list(made.receive(b"".join(map(encode_frame, frames)), now_ms=now_ms))


# --- any input ---


@examples(200)
@given(
    st.sampled_from(["dialler", "listener"]),
    st.lists(st.binary(max_size=40) | st.sampled_from(list(map(encode_frame, FRAMES)))),
    st.booleans(),
)
def test_any_bytes_at_any_time_give_events_or_blame_the_peer(
    role: str,
    pieces: list[bytes],
    opened: bool,
) -> None:
    made = pair()[role == "listener"] if opened else machine(role)
    try:
        for piece in pieces:
            for event in made.receive(piece, now_ms=NOW_MS):
                assert not isinstance(event, Hello | Welcome | Ping | Pong)
    except RemoteProtocolError:
        pass
    said(made)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("spoken", FRAMES, ids=lambda spoken: type(spoken).__name__)
def test_a_frame_without_a_row_is_out_of_turn(state: State, spoken: SessionFrame) -> None:
    made = machine("dialler" if state is State.GREETING else "listener")
    made.state = state
    if (state, type(spoken)) in TRANSITIONS:
        tell(made, spoken)
        assert made.state is TRANSITIONS[state, type(spoken)]
    else:
        with pytest.raises(OutOfTurn):
            tell(made, spoken)


def test_nobody_greets_the_dialler() -> None:
    for started in (True, False):
        made = machine("dialler") if started else SessionMachine("dialler", NETWORK)
        with pytest.raises(OutOfTurn):
            tell(made, Hello(NETWORK, [1], [], NOW_MS))


# --- greeting ---


def test_both_open_with_what_they_share() -> None:
    dialler, listener = machine("dialler"), machine()
    heard = pump(dialler, listener)
    assert heard == ([Opened(1, frozenset({"relay"}))], [Opened(1, frozenset({"relay"}))])
    assert dialler.state is listener.state is State.OPEN


def test_another_network_is_refused() -> None:
    with pytest.raises(WrongNetwork):
        tell(machine(), Hello("other", [1], [], NOW_MS))


@pytest.mark.parametrize(
    "hello",
    [
        Hello(NETWORK, [], [], NOW_MS),
        Hello(NETWORK, [2, 3], [], NOW_MS),
        Hello(NETWORK, [1] * (limits.VERSIONS_MAX + 1), [], NOW_MS),
        Hello(NETWORK, [1], ["f"] * (limits.FEATURES_MAX + 1), NOW_MS),
    ],
)
def test_a_hello_without_our_version_or_over_the_limits_is_refused(hello: Hello) -> None:
    tell(machine(), Hello(NETWORK, [1] * limits.VERSIONS_MAX, [], NOW_MS))
    tell(machine(), Hello(NETWORK, [1, 2], ["f"] * limits.FEATURES_MAX, NOW_MS))
    with pytest.raises(Malformed):
        tell(machine(), hello)


def test_a_welcome_with_a_version_not_offered_or_over_the_limits_is_refused() -> None:
    tell(machine("dialler"), Welcome(1, ["f"] * limits.FEATURES_MAX, NOW_MS, NOW_MS))
    with pytest.raises(Malformed):
        tell(machine("dialler"), Welcome(2, [], NOW_MS, NOW_MS))
    with pytest.raises(Malformed):
        tell(machine("dialler"), Welcome(1, ["f"] * 65, NOW_MS, NOW_MS))


@pytest.mark.parametrize("role", ["dialler", "listener"])
def test_a_greeting_that_is_dripped_is_given_up(role: str) -> None:
    made = machine(role)
    drip = encode_frame(Hello(NETWORK, [1], [], NOW_MS))
    for second in range(1, limits.HELLO_MS_MAX // 1_000):
        made.receive(drip[second : second + 1] if second > 3 else b"\0", now_ms=NOW_MS + second)
        assert made.tick(now_ms=NOW_MS + 1_000 * second)
    assert made.tick(now_ms=NOW_MS + limits.HELLO_MS_MAX - 1)
    assert not made.tick(now_ms=NOW_MS + limits.HELLO_MS_MAX)


# --- time ---


def frozen_after_ms(made: SessionMachine) -> int:
    """How long after it was last heard, ticked each second, the peer is taken for gone."""
    for second in range(1, 60):
        if not made.tick(now_ms=NOW_MS + 1_000 * second):
            return 1_000 * second
    return 60_000


@pytest.mark.parametrize("side", [0, 1])
def test_a_frozen_peer_is_noticed_within_ten_seconds(side: int) -> None:
    made = pair()[side]
    assert limits.SILENCE_MS_MAX <= frozen_after_ms(made) <= 10_000
    assert [type(frame) for frame in said(made)] == [Ping, Ping]


def test_a_quiet_peer_that_answers_pings_stays() -> None:
    dialler, listener = pair()
    for second in range(1, 60):
        now_ms = NOW_MS + 1_000 * second
        assert dialler.tick(now_ms=now_ms)
        assert listener.tick(now_ms=now_ms)
        pump(dialler, listener, now_ms=now_ms)


def test_no_ping_while_there_is_traffic() -> None:
    dialler, listener = pair()
    for second in range(1, 20):
        dialler.request("m", b"", timeout_ms=1)
        pump(dialler, listener, now_ms=NOW_MS + 1_000 * second)
        listener.reply(second, b"")
        pump(dialler, listener, now_ms=NOW_MS + 1_000 * second)
        dialler.tick(now_ms=NOW_MS + 1_000 * second)
        assert not said(dialler)


@examples(200)
@given(
    st.integers(-120_000, 120_000),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 3_000)), min_size=1, max_size=6),
)
def test_the_clock_offset_is_right_within_half_the_shortest_round_trip(
    skew_ms: int, trips: list[tuple[int, int]]
) -> None:
    dialler, listener = pair()
    dialler.round_trip_ms = dialler.offset_ms = None
    now_ms = NOW_MS
    for there_ms, back_ms in trips:
        dialler.ping(now_ms=now_ms)
        listener.receive(dialler.take(), now_ms=now_ms + there_ms + skew_ms)
        now_ms += there_ms + back_ms
        dialler.receive(listener.take(), now_ms=now_ms)
    assert dialler.round_trip_ms == min(there + back for there, back in trips)
    assert dialler.offset_ms is not None
    assert abs(dialler.offset_ms - skew_ms) <= dialler.round_trip_ms / 2 + 1


def test_both_sides_know_the_others_clock_after_the_greeting() -> None:
    dialler, listener = machine("dialler"), machine()
    listener.receive(dialler.take(), now_ms=NOW_MS + 70_020)  # 20 ms there, an hour's skew
    dialler.receive(listener.take(), now_ms=NOW_MS + 40)
    listener.receive(dialler.take(), now_ms=NOW_MS + 70_060)
    assert (dialler.offset_ms, listener.offset_ms) == (70_000, -70_000)


def test_our_own_clock_set_back_is_not_the_peers_fault() -> None:
    dialler, listener = pair()
    offset_ms = dialler.offset_ms
    dialler.ping(now_ms=NOW_MS + 60_000)
    listener.receive(dialler.take(), now_ms=NOW_MS)
    dialler.receive(listener.take(), now_ms=NOW_MS)
    assert dialler.offset_ms == offset_ms


# --- requests and credit ---


def test_an_answer_comes_in_pieces_and_ends() -> None:
    dialler, listener = pair()
    rid = dialler.request("m", b"ask", timeout_ms=5_000, credit=2)
    assert pump(dialler, listener)[1] == [Request(rid, "m", 5_000, 2, "", b"ask")]
    listener.item(rid, b"1")
    listener.item(rid, b"2")
    with pytest.raises(LocalProtocolError):
        listener.item(rid, b"3")
    dialler.grant(rid, 1)
    assert pump(dialler, listener)[1] == [Credit(rid, 1)]
    listener.item(rid, b"3")
    listener.reply(rid, b"end")
    assert pump(dialler, listener)[0] == [Item(rid, b"3"), Reply(rid, b"end")]
    assert dialler.idle
    assert listener.idle


def test_an_answer_ends_once() -> None:
    dialler, listener = pair()
    rid = dialler.request("m", b"", timeout_ms=1)
    pump(dialler, listener)
    listener.reply(rid, b"1")
    listener.reply(rid, b"2")
    listener.fail(rid, ErrorCode.INTERNAL, "late")
    with pytest.raises(LocalProtocolError):
        listener.item(rid, b"late")
    assert pump(dialler, listener)[0] == [Reply(rid, b"1")]
    assert tell(dialler, Reply(rid, b"again"), Failure(rid, 1, "", 0), Item(rid, b"")) == []


def test_pieces_beyond_the_credit_are_refused() -> None:
    dialler, _ = pair()
    rid = dialler.request("m", b"", timeout_ms=1, credit=1)
    tell(dialler, Item(rid, b"1"))
    with pytest.raises(CreditExceeded):
        tell(dialler, Item(rid, b"2"))


def test_limits_of_credit() -> None:
    dialler, listener = pair()
    rid = dialler.request("m", b"", timeout_ms=1, credit=limits.CREDIT_MAX)
    pump(dialler, listener)
    for items in (1, 0, -1):
        with pytest.raises(LocalProtocolError):
            dialler.grant(rid, items)
        with pytest.raises(Malformed):
            tell(pair_serving(rid, limits.CREDIT_MAX), Credit(rid, items))
    for credit in (-1, limits.CREDIT_MAX + 1):
        with pytest.raises(LocalProtocolError):
            dialler.request("m", b"", timeout_ms=1, credit=credit)
        with pytest.raises(Malformed):
            tell(pair()[1], Request(1, "m", 1, credit, "", b""))


def pair_serving(rid: int, credit: int) -> SessionMachine:
    """A listener that serves one request."""
    _, listener = pair()
    tell(listener, Request(rid, "m", 1, credit, "", b""))
    return listener


@pytest.mark.parametrize("timeout_ms", [0, -1])
def test_a_request_without_time_is_refused(timeout_ms: int) -> None:
    dialler, listener = pair()
    with pytest.raises(LocalProtocolError):
        dialler.request("m", b"", timeout_ms=timeout_ms)
    with pytest.raises(Malformed):
        tell(listener, Request(1, "m", timeout_ms, 1, "", b""))


def test_a_request_id_in_use_is_refused() -> None:
    with pytest.raises(Malformed):
        tell(pair_serving(5, 1), Request(5, "m", 1, 1, "", b""))


def test_limit_of_open_requests() -> None:
    dialler, listener = pair()
    for _ in range(limits.REQUESTS_MAX):
        dialler.request("m", b"", timeout_ms=1)
    with pytest.raises(LocalProtocolError):
        dialler.request("m", b"", timeout_ms=1)
    pump(dialler, listener)
    with pytest.raises(CreditExceeded):
        tell(listener, Request(limits.REQUESTS_MAX + 1, "m", 1, 1, "", b""))


def test_what_is_too_large_to_say_changes_nothing() -> None:
    dialler, listener = pair()
    large = bytes(limits.FRAME_SIZE_MAX)
    with pytest.raises(LocalProtocolError):
        dialler.request("m", large, timeout_ms=1)
    assert dialler.idle
    rid = dialler.request("m", b"", timeout_ms=1, credit=1)
    pump(dialler, listener)
    with pytest.raises(LocalProtocolError):
        listener.item(rid, large)
    with pytest.raises(LocalProtocolError):
        listener.reply(rid, large)
    assert listener.credit(rid) == 1
    listener.fail(rid, ErrorCode.TOO_LARGE, "the answer is too large")
    assert [type(event) for event in pump(dialler, listener)[0]] == [Failure]


def test_an_abandoned_request_is_cancelled_there() -> None:
    dialler, listener = pair()
    rid = dialler.request("m", b"", timeout_ms=1)
    pump(dialler, listener)
    dialler.abandon(rid)
    assert pump(dialler, listener)[1] == [CancelRequest(rid)]
    assert not listener.is_serving(rid)
    listener.reply(rid, b"late")
    assert listener.idle


def test_a_request_abandoned_before_it_was_sent_is_never_sent() -> None:
    # A cancel is urgent: it would overtake its request, and the peer work for nobody.
    dialler, listener = pair()
    first = dialler.request("m", b"1", timeout_ms=1)
    second = dialler.request("m", b"2", timeout_ms=1)
    dialler.abandon(first)
    heard = pump(dialler, listener)[1]
    assert [event.rid for event in heard if isinstance(event, Request)] == [second]
    assert listener.is_serving(second)
    assert not listener.is_serving(first)


def test_credit_does_not_overtake_the_request_that_it_is_for() -> None:
    dialler, listener = pair()
    rid = dialler.request("m", b"", timeout_ms=1, credit=1)
    dialler.grant(rid, 5)
    pump(dialler, listener)
    assert listener.credit(rid) == 6


# --- leaving ---


def test_closing_gives_the_requests_without_an_answer() -> None:
    dialler, listener = pair()
    rids = [dialler.request("m", b"", timeout_ms=1) for _ in range(3)]
    pump(dialler, listener)
    listener.reply(rids[1], b"")
    pump(dialler, listener)
    assert dialler.close() == [rids[0], rids[2]]
    assert dialler.close() == []
    with pytest.raises(LocalProtocolError):
        dialler.request("m", b"", timeout_ms=1)
    with pytest.raises(OutOfTurn):
        tell(dialler, Ping(NOW_MS))


def test_after_goodbye_open_requests_finish_and_new_ones_are_refused_unheard() -> None:
    dialler, listener = pair()
    open_rid = dialler.request("m", b"", timeout_ms=1)
    pump(dialler, listener)
    listener.goodbye(ErrorCode.BUSY, "leaving")
    late_rid = dialler.request("m", b"", timeout_ms=1)  # the goodbye is still on its way
    heard = listener.receive(dialler.take(), now_ms=NOW_MS)
    assert heard == []  # refused already: nobody may work on it
    listener.reply(open_rid, b"done")
    events = pump(dialler, listener)[0]
    assert Goodbye(ErrorCode.BUSY, "leaving") in events
    assert Reply(open_rid, b"done") in events
    refusals = [event for event in events if isinstance(event, Failure)]
    assert [(event.rid, event.code) for event in refusals] == [(late_rid, ErrorCode.BUSY)]
    with pytest.raises(LocalProtocolError):
        dialler.request("m", b"", timeout_ms=1)


# --- order ---


def test_urgent_frames_are_written_before_all_others() -> None:
    dialler, listener = pair()
    rids = [dialler.request("m", b"", timeout_ms=1) for _ in range(3)]
    pump(dialler, listener)
    listener.item(rids[0], bytes(1_000))
    listener.reply(rids[1], bytes(1_000))
    listener.fail(rids[2], ErrorCode.BUSY, "busy")
    listener.request("m", b"", timeout_ms=1)
    listener.ping(now_ms=NOW_MS)
    order = [isinstance(frame, URGENT) for frame in said(listener)]
    assert order == [True, True, False, False, False]


@examples(100)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=12), st.integers(1, 900)
)
def test_taking_keeps_the_order_and_whole_frames(
    frames: list[tuple[bool, int]], size_max: int
) -> None:
    dialler, _ = pair()
    for number, (urgent, size) in enumerate(frames):
        if urgent:
            dialler.ping(now_ms=NOW_MS + number)
        else:
            dialler.request(f"m{number}", bytes(size), timeout_ms=1)
    waiting = dialler.waiting_bytes
    taken = b""
    while piece := dialler.take(size_max):
        bodies = FrameReader().feed(piece)
        assert b"".join(map(frame, bodies)) == piece
        assert len(bodies) == 1 or len(piece) <= size_max
        taken += piece
    assert len(taken) == waiting
    got = [decode_frame(body) for body in FrameReader().feed(taken)]
    pings = [frame.time_ms for frame in got if isinstance(frame, Ping)]
    requests = [frame.rid for frame in got if isinstance(frame, Request)]
    assert pings == sorted(pings)
    assert requests == sorted(requests)
    assert [type(frame) for frame in got] == [Ping] * len(pings) + [Request] * len(requests)
