"""A chain proves who was let in, and nothing else does; a token comes back whole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, limits
from protocol.errors import LocalProtocolError, Malformed, RemoteProtocolError
from protocol.invites import Invite, is_token, read_token, write_token
from protocol.membership import (
    Chain,
    Join,
    Joined,
    Lineage,
    extend,
    read_chain,
    read_join,
    read_joined,
    read_presented,
)
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    NOW_MS,
    examples,
    identity,
    mutated,
)
from tests.protocol.vector_members import FOUNDER, invite, link

FIRST = link(FOUNDER, BROKER.peer, 1)
SECOND = link(BROKER, CONTRACTOR.peer, 2)
READ: dict[str, Any] = {"member": CONTRACTOR.peer, "network": NETWORK, "now_ms": NOW_MS}


def grown(count: int) -> tuple[list[bytes], Lineage]:
    """A chain of ``count`` links and what it proves."""
    who = identity("member-0")
    links: list[bytes] = []
    lineage = read_chain(links, member=who.peer, network=NETWORK, now_ms=NOW_MS)
    for number in range(1, count + 1):
        new = identity(f"member-{number}")
        links.append(extend(who, lineage, new.peer, network=NETWORK, now_ms=NOW_MS))
        lineage = read_chain(links, member=new.peer, network=NETWORK, now_ms=NOW_MS)
        who = new
    return links, lineage


def test_everyone_invited_by_a_member_is_a_member_of_the_founders_mesh() -> None:
    for count in range(limits.CHAIN_LINKS_MAX + 1):
        links, lineage = grown(count)
        assert lineage.root == identity("member-0").peer
        assert len(links) == len(lineage.path) - 1 == count
        assert lineage.inviter == (identity(f"member-{count - 1}").peer if count else "")


def test_the_eighth_member_invites_nobody() -> None:
    _, lineage = grown(limits.CHAIN_LINKS_MAX)
    last = identity(f"member-{limits.CHAIN_LINKS_MAX}")
    with pytest.raises(LocalProtocolError, match="at most 8"):
        extend(last, lineage, CONTRACTOR.peer, network=NETWORK, now_ms=NOW_MS)


def test_nobody_invites_who_invited_them() -> None:
    _, lineage = grown(2)
    for above in lineage.path:
        with pytest.raises(LocalProtocolError):
            extend(identity("member-2"), lineage, above, network=NETWORK, now_ms=NOW_MS)


def test_a_chain_holds_as_long_as_its_first_link_to_expire() -> None:
    early = link(FOUNDER, BROKER.peer, 1, expires_ms=NOW_MS + 5)
    late = link(BROKER, CONTRACTOR.peer, 2, issued_ms=NOW_MS + 3)
    lineage = read_chain([early, late], **READ)
    assert (lineage.issued_ms, lineage.expires_ms) == (NOW_MS + 3, NOW_MS + 5)


@examples(200)
@given(data=st.data())
def test_any_bytes_are_a_chain_or_blame_the_peer(data: st.DataObject) -> None:
    which = data.draw(st.sampled_from([0, 1]))
    links = [FIRST, SECOND]
    links[which] = data.draw(st.binary(max_size=80) | mutated(links[which]))
    try:
        lineage = read_chain(links, **READ)
    except RemoteProtocolError:
        return
    assert links == [FIRST, SECOND], "nothing but the signed bytes hold"
    assert lineage.path == (FOUNDER.peer, BROKER.peer, CONTRACTOR.peer)


BODIES: list[tuple[Any, Any]] = [
    (Chain([FIRST, SECOND]), read_presented),
    (Join(bytes(8), bytes(16)), read_join),
    (Joined([FIRST], ""), read_joined),
    (Joined([], "expired"), read_joined),
]


@pytest.mark.parametrize(("body", "read"), BODIES)
@examples(100)
@given(data=st.data())
def test_any_bytes_are_a_body_or_blame_the_peer(
    body: Any, read: Any, data: st.DataObject
) -> None:
    whole = codec.encode(body)
    assert read(whole) == body
    try:
        read(data.draw(st.binary(max_size=80) | mutated(whole)))
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (Chain([b""] * 9), read_presented),
        (Join(bytes(7), bytes(16)), read_join),
        (Join(bytes(8), bytes(17)), read_join),
        (Joined([b""] * 9, ""), read_joined),
        (Joined([FIRST], "used"), read_joined),
        (Joined([], ""), read_joined),
    ],
)
def test_a_body_out_of_bounds_is_refused(body: Any, read: Any) -> None:
    with pytest.raises(Malformed):
        read(codec.encode(body))


# --- tokens ---


def test_a_token_comes_back() -> None:
    token = write_token(invite())
    assert is_token(token)
    assert token.isascii()
    assert token.removeprefix("mesh1:").isalnum(), "a double click takes it whole"
    assert read_token(token) == invite()
    assert read_token(token).dialled() == [f"/ip4/192.0.2.7/tcp/4001/p2p/{BROKER.peer}"]


@examples(100)
@given(data=st.data())
def test_any_text_is_a_token_or_refused(data: st.DataObject) -> None:
    token = write_token(invite())
    text = data.draw(st.text(max_size=80).map("mesh1:".__add__) | st.text(max_size=80))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(token) - 1))
        text = token[:at] + data.draw(st.text(max_size=2)) + token[at + 1 :]
    try:
        told = read_token(text)
    except Malformed:
        return
    assert told == invite()


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": ["/ip4/192.0.2.7/" + "a" * 240] * 5},
        {"addresses": []},
        {"secret": b""},
        {"peer": "x"},
    ],
)
def test_no_token_is_written_that_a_reader_refuses(wrong: Any) -> None:
    with pytest.raises(LocalProtocolError):
        write_token(invite(**wrong))


def test_the_longest_token_that_may_be_written_is_read() -> None:
    most = invite(addresses=["/" + "a" * 255] * limits.INVITE_ADDRESSES_MAX, network="n" * 32)
    assert isinstance(most, Invite)
    assert read_token(write_token(most)) == most
