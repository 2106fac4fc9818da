"""Orders and outcomes: what is read, what is written, and what neither lets pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError, TooLarge
from protocol.limits import LETTER_BODY_SIZE_MAX, SKEW_MS_MAX
from protocol.messages import Award, read_message
from protocol.orders import (
    Outcome,
    free_ms,
    read_order,
    read_outcome,
    write_order,
    write_outcome,
)
from tests.protocol.samples import NETWORK, examples
from tests.protocol.vector_orders import RULES, WORDS, body, ordered, signed


@given(data=st.binary(max_size=200))
@examples(50)
def test_any_bytes_are_read_or_blame_the_peer(data: bytes) -> None:
    for read in (read_order, read_outcome):
        with pytest.raises(RemoteProtocolError):
            read(data, network=NETWORK)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@examples(100)
def test_a_changed_order_is_refused(at: int, bit: int) -> None:
    whole = bytearray(body())
    whole[at % len(whole)] ^= 1 << bit
    with pytest.raises(RemoteProtocolError):
        read_order(bytes(whole), network=NETWORK)


def test_what_is_written_is_read_again_in_whatever_order_it_was_given() -> None:
    award = signed(ordered())
    for enclosed in ([RULES, WORDS], [WORDS, RULES]):
        assert write_order(award, enclosed, network=NETWORK) == body()


def test_the_work_is_free_the_skew_after_its_deadline() -> None:
    award = read_message(signed(ordered()), Award, network=NETWORK)
    assert free_ms(award) == award.h.deadline_ms + SKEW_MS_MAX


def test_this_node_writes_no_order_that_others_would_refuse() -> None:
    with pytest.raises(LocalProtocolError):
        write_order(signed(ordered()), [RULES], network=NETWORK)
    with pytest.raises(LocalProtocolError):
        write_outcome(Outcome(b"", b"", b""), network=NETWORK)


def test_what_no_letter_holds_is_said_to_be_too_large() -> None:
    with pytest.raises(TooLarge):
        write_order(signed(ordered()), [bytes(LETTER_BODY_SIZE_MAX)], network=NETWORK)
    with pytest.raises(TooLarge):
        write_outcome(Outcome(b"", b"", b"", bytes(LETTER_BODY_SIZE_MAX)), network=NETWORK)
