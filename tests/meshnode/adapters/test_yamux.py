"""The yamux machine, without a socket: two of them against each other, and hostile bytes."""

import struct

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from meshnode.adapters.yamux import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    GROWTH_BYTES_MAX,
    HEADER,
    PING,
    RST,
    STREAMS_MAX,
    SYN,
    WINDOW_BYTES,
    WINDOW_BYTES_MAX,
    WINDOW_UPDATE,
    Channel,
    PeerBroke,
    YamuxMachine,
)


def frames(data: bytes) -> list[tuple[int, int, int, int]]:
    """Type, flags, stream and value of each frame; none may carry data."""
    assert len(data) % HEADER.size == 0
    cut = [HEADER.unpack_from(data, at)[1:] for at in range(0, len(data), HEADER.size)]
    assert all(kind != DATA for kind, *_ in cut)
    return cut


def pair() -> tuple[YamuxMachine, YamuxMachine]:
    return YamuxMachine(dialled=True), YamuxMachine(dialled=False)


def settle(one: YamuxMachine, other: YamuxMachine) -> None:
    """Exchange control frames until neither has more to say."""
    while (said := one.take()) or (answered := other.take()):
        if said:
            other.receive(said)
        else:
            one.receive(answered)


def opened() -> tuple[YamuxMachine, YamuxMachine, Channel, Channel]:
    one, other = pair()
    here = one.open()
    settle(one, other)
    return one, other, here, other.opened.pop()


def data(machine: YamuxMachine, channel: Channel, body: bytes) -> bytes:
    return machine.data_header(channel, len(body)) + body


# --- what it is for ---------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=12), st.data())
def test_bytes_arrive_in_order_however_the_wire_is_cut(
    bodies: list[bytes], draw: st.DataObject
) -> None:
    one, other, here, there = opened()
    wire = b"".join(data(one, here, body) for body in bodies)
    one.finish(here)
    wire += one.take()
    got = b""
    while wire:
        size = draw.draw(st.integers(1, len(wire)))
        note(f"cut {size}")
        assert all(channel is there for channel in other.receive(wire[:size]))
        wire = wire[size:]
        while there.buffered:
            piece = other.read(there, draw.draw(st.integers(1, 4000)))
            assert piece
            got += piece
    assert got == b"".join(bodies)
    assert there.finished_by_peer


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_in_or_blamed_on_the_peer(noise: bytes) -> None:
    machine = YamuxMachine(dialled=False)
    try:
        machine.receive(noise)
    except PeerBroke:
        return
    assert sum(channel.buffered for channel in machine.channels.values()) <= len(noise)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([DATA, WINDOW_UPDATE, PING, GO_AWAY]),
            st.integers(0, 15),
            st.sampled_from([0, 1, 2, 3, 5]),
            st.integers(0, 300),
        ),
        max_size=30,
    )
)
def test_any_frames_are_taken_in_or_blamed_on_the_peer(
    script: list[tuple[int, int, int, int]],
) -> None:
    machine = YamuxMachine(dialled=False)
    ours = machine.open()
    try:
        for kind, flags, channel_id, value in script:
            body = bytes(value) if kind == DATA else b""
            machine.receive(HEADER.pack(0, kind, flags, channel_id, value) + body)
    except PeerBroke as exc:
        note(f"blamed: {exc}")
    assert 0 <= machine.opened_here <= 1
    assert machine.opened_here == (ours.id in machine.channels)
    assert all(channel.credit >= 0 for channel in machine.channels.values())


# --- windows ----------------------------------------------------------------------


def test_a_window_update_goes_out_at_half_a_window_and_not_before() -> None:
    one, other, here, there = opened()
    half = WINDOW_BYTES // 2
    other.receive(data(one, here, bytes(half - 1)))
    other.read(there, half)
    assert not other.take()
    other.receive(data(one, here, b"x"))
    other.read(there, 1)
    ((kind, flags, channel_id, grant),) = frames(other.take())
    assert (kind, flags, channel_id) == (WINDOW_UPDATE, 0, here.id)
    assert grant >= half


def test_what_waits_to_be_read_is_not_granted_again() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, bytes(WINDOW_BYTES)))
    other.read(there, WINDOW_BYTES // 2)
    one.receive(other.take())
    assert here.send_window == WINDOW_BYTES // 2, "half is free, half is still unread"


def test_one_byte_beyond_the_window_is_the_peers_fault() -> None:
    _, other, here, _ = opened()
    with pytest.raises(PeerBroke, match="1 bytes beyond"):
        other.receive(HEADER.pack(0, DATA, 0, here.id, WINDOW_BYTES + 1))


def test_a_window_grows_for_a_reader_that_keeps_up_and_only_so_far() -> None:
    one, other, here, there = opened()
    for _ in range(40):
        other.receive(data(one, here, bytes(min(here.send_window, 100_000))))
        other.read(there, 100_000)
        settle(other, one)
    assert there.window == WINDOW_BYTES_MAX


def test_a_window_does_not_grow_for_a_reader_that_lags() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, bytes(WINDOW_BYTES)))
    for _ in range(40):
        while there.buffered > 1000:
            other.read(there, there.buffered - 1000)
        settle(other, one)
        other.receive(data(one, here, bytes(here.send_window)))
    assert there.window == WINDOW_BYTES


def test_all_windows_of_a_connection_together_grow_only_so_far() -> None:
    one, other = pair()
    pairs = []
    for _ in range(20):
        here = one.open()
        settle(one, other)
        pairs.append((here, other.opened.pop()))
    for here, there in pairs * 12:
        other.receive(data(one, here, bytes(here.send_window)))
        other.read(there, WINDOW_BYTES_MAX)
        settle(other, one)
    grown = sum(there.window - WINDOW_BYTES for _, there in pairs)
    assert grown == GROWTH_BYTES_MAX
    for _, there in pairs:  # and what a stream had goes back
        other.abort(there)
    here = one.open()
    settle(one, other)
    fresh = other.opened.pop()
    other.receive(data(one, here, bytes(WINDOW_BYTES)))
    other.read(fresh, WINDOW_BYTES)
    assert fresh.window > WINDOW_BYTES


def test_tiny_frames_are_kept_as_few_pieces() -> None:
    one, other, here, there = opened()
    for _ in range(20_000):
        other.receive(data(one, here, b"x"))
    assert there.buffered == 20_000
    assert len(there._pieces) < 20


def test_a_large_piece_read_a_little_at_a_time_is_not_copied_each_time() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, bytes(60_000)))
    (piece,) = there._pieces
    assert other.read(there, 10) == bytes(10)
    assert there._pieces[0] is piece


# --- opening and ending -----------------------------------------------------------


def test_each_side_opens_its_own_numbers() -> None:
    one, other = pair()
    assert [one.open().id, one.open().id, other.open().id] == [1, 3, 2]


@pytest.mark.parametrize("channel_id", [0, 2, 1])
def test_a_stream_that_is_not_the_peers_to_open_is_its_fault(channel_id: int) -> None:
    machine = YamuxMachine(dialled=False)
    machine.receive(HEADER.pack(0, WINDOW_UPDATE, SYN, 1, 0))
    with pytest.raises(PeerBroke, match="opened stream"):
        machine.receive(HEADER.pack(0, WINDOW_UPDATE, SYN, channel_id, 0))


def test_one_stream_too_many_is_reset_and_its_data_passed_over() -> None:
    machine = YamuxMachine(dialled=False)
    for channel_id in range(1, 2 * STREAMS_MAX, 2):
        machine.receive(HEADER.pack(0, WINDOW_UPDATE, SYN, channel_id, 0))
    machine.take()
    beyond = 2 * STREAMS_MAX + 1
    machine.receive(HEADER.pack(0, DATA, SYN, beyond, 5) + b"hello")
    assert frames(machine.take()) == [(WINDOW_UPDATE, RST, beyond, 0)]
    machine.receive(HEADER.pack(0, DATA, FIN, 1, 2) + b"hi")
    assert machine.channels[1].buffered == 2
    machine.open()  # ours are counted apart
    assert machine.opened_here == 1


def test_streams_that_are_broken_off_at_once_are_nobodys_work() -> None:
    """A peer may open and reset without end: no stream of it is ever open for the count."""
    _, machine = pair()
    for number in range(1, 2 * STREAMS_MAX, 2):
        opens = HEADER.pack(0, WINDOW_UPDATE, SYN, number, 0)
        breaks = HEADER.pack(0, WINDOW_UPDATE, RST, number, 0)
        machine.receive(opens + breaks)
    kept = 2 * STREAMS_MAX + 1
    machine.receive(HEADER.pack(0, WINDOW_UPDATE, SYN, kept, 0))
    assert [channel.id for channel in machine.opened] == [kept]


def test_a_stream_may_open_with_data_and_end_at_once() -> None:
    machine = YamuxMachine(dialled=False)
    machine.receive(HEADER.pack(0, DATA, SYN | FIN, 1, 5) + b"hello")
    channel = machine.opened.pop()
    assert frames(machine.take()) == [(WINDOW_UPDATE, ACK, 1, 0)]
    assert machine.read(channel, 100) == b"hello"
    assert channel.finished_by_peer


def test_a_stream_that_both_finished_is_forgotten_and_can_still_be_read() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, b"last words"))
    one.finish(here)
    other.finish(there)
    settle(one, other)
    assert not one.channels
    assert not other.channels
    assert other.read(there, 100) == b"last words"


def test_what_was_sent_before_an_end_is_read_before_the_break() -> None:
    one, other, here, there = opened()
    wire = data(one, here, b"last words")
    one.finish(here)
    one.abort(here)
    other.receive(wire + one.take())
    assert other.read(there, 100) == b"last words"
    assert there.finished_by_peer
    assert there.reset


def test_an_aborted_stream_drops_what_waits_and_says_so_once() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, b"unread"))
    other.abort(there)
    assert not there.buffered
    assert frames(other.take()) == [(WINDOW_UPDATE, RST, here.id, 0)]
    other.abort(there)
    other.finish(there)
    assert not other.take()


def test_data_for_a_stream_that_is_gone_is_passed_over() -> None:
    one, other, here, there = opened()
    other.abort(there)
    other.take()
    other.receive(data(one, here, b"late") + HEADER.pack(0, PING, SYN, 0, 7))
    assert frames(other.take()) == [(PING, ACK, 0, 7)]


def test_the_end_of_a_connection_breaks_its_streams_and_keeps_what_came() -> None:
    one, other, here, there = opened()
    other.receive(data(one, here, b"came") + HEADER.pack(0, DATA, FIN, here.id, 10) + b"half")
    assert other.end() == [there]
    assert other.read(there, 100) == b"camehalf"
    assert there.reset
    assert not there.finished_by_peer, "the rest of the frame never came"
    assert not other.take()


# --- the connection ---------------------------------------------------------------


def test_a_ping_is_answered_and_an_answer_is_not() -> None:
    machine = YamuxMachine(dialled=False)
    machine.receive(HEADER.pack(0, PING, SYN, 0, 42) + HEADER.pack(0, PING, ACK, 0, 43))
    assert frames(machine.take()) == [(PING, ACK, 0, 42)]


def test_a_peer_that_goes_away_wants_no_new_streams() -> None:
    one, other = pair()
    one.leave()
    settle(one, other)
    assert other.going_away


@pytest.mark.parametrize(("version", "kind"), [(1, DATA), (0, 4), (255, 255)])
def test_a_frame_of_no_known_kind_is_the_peers_fault(version: int, kind: int) -> None:
    with pytest.raises(PeerBroke, match="version"):
        YamuxMachine(dialled=True).receive(struct.pack("!BBHII", version, kind, 0, 1, 0))
