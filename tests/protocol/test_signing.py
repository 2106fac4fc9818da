"""An envelope says who, in which mesh and meaning what; nobody else can change its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec, keys, limits, signing
from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    RemoteProtocolError,
    UnknownType,
    WrongNetwork,
)
from protocol.keys import digest
from protocol.signing import Envelope, is_network, peek, seal, signed_bytes, unseal
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, changed, examples, mutated

VALID = seal(BROKER, "award", NETWORK, b"\x01")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Nothing is remembered yet, and every signature that is checked is in the list."""
    seen: list[bytes] = []

    def verify(key: bytes, message: bytes, signature: bytes) -> None:
        seen.append(signature)
        keys.verify(key, message, signature)

    monkeypatch.setattr(signing, "_HOLDING", signing._Holding(3))
    monkeypatch.setattr(signing, "verify", verify)
    return seen


def sealed_elsewhere(payload: bytes) -> bytes:
    """Seal as another process does: this one remembers nothing of it."""
    signature = BROKER.sign(signed_bytes("award", NETWORK, BROKER.peer, payload))
    parts = Envelope(BROKER.peer, BROKER.public, NETWORK, payload, signature, "award")
    return codec.encode(parts)


def test_a_signature_is_checked_once(checked: list[bytes]) -> None:
    envelope = sealed_elsewhere(b"a")
    for _ in range(3):
        assert unseal(envelope, kind="award", network=NETWORK).p == b"a"
    assert checked == [peek(envelope).s]


def test_what_was_sealed_here_needs_no_check(checked: list[bytes]) -> None:
    assert seal(BROKER, "award", NETWORK, b"a") == sealed_elsewhere(b"a")
    unseal(sealed_elsewhere(b"a"), kind="award", network=NETWORK)
    assert checked == []


def test_what_is_remembered_is_bounded_and_the_least_used_goes(checked: list[bytes]) -> None:
    first, *others = (sealed_elsewhere(bytes([number])) for number in range(4))
    for envelope in (first, *others[:2], first, others[2]):  # the last one drops others[0]
        unseal(envelope, kind="award", network=NETWORK)
    assert len(checked) == 4
    unseal(first, kind="award", network=NETWORK)
    assert len(checked) == 4
    unseal(others[0], kind="award", network=NETWORK)
    assert len(checked) == 5


def test_a_refused_envelope_is_refused_again(checked: list[bytes]) -> None:
    forged = codec.encode(changed(peek(sealed_elsewhere(b"a")), p=b"b"))
    for _ in range(2):
        with pytest.raises(BadSignature):
            unseal(forged, kind="award", network=NETWORK)
    assert len(checked) == 2


@examples(200)
@given(st.binary(max_size=300))
def test_what_was_sealed_is_unsealed(payload: bytes) -> None:
    envelope = seal(BROKER, "award", NETWORK, payload)
    assert envelope == sealed_elsewhere(payload)
    parts = unseal(envelope, kind="award", network=NETWORK)
    assert (parts.i, parts.k, parts.p) == (BROKER.peer, BROKER.public, payload)


@examples(300)
@given(st.binary(max_size=300) | mutated(VALID))
def test_any_bytes_are_an_envelope_or_blame_the_peer(data: bytes) -> None:
    try:
        parts = peek(data)
    except RemoteProtocolError:
        return
    assert codec.encode(parts) == data


@examples(500)
@given(mutated(VALID))
def test_a_changed_envelope_is_refused(data: bytes) -> None:
    if data == VALID:
        return
    with pytest.raises(RemoteProtocolError):
        unseal(data, kind="award", network=NETWORK)


def test_every_single_flipped_bit_is_refused() -> None:
    for bit in range(8 * len(VALID)):
        data = bytearray(VALID)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteProtocolError):
            unseal(bytes(data), kind="award", network=NETWORK)


def test_a_field_that_no_signature_covers_is_refused() -> None:
    # Messages name an envelope by its hash: a relay may not give one award two names.
    fields = codec.decode(VALID)
    assert isinstance(fields, dict)
    assert codec.encode(fields) == VALID
    with pytest.raises(Malformed):
        unseal(codec.encode(fields | {"z": 0}), kind="award", network=NETWORK)


@pytest.mark.parametrize("field", ["i", "k", "n", "p", "s", "t"])
def test_a_missing_field_is_refused(field: str) -> None:
    fields = codec.decode(VALID)
    assert isinstance(fields, dict)
    del fields[field]
    with pytest.raises(Malformed):
        peek(codec.encode(fields))


def test_signed_as_one_type_it_is_read_as_no_other() -> None:
    with pytest.raises(UnknownType):
        unseal(VALID, kind="receipt", network=NETWORK)
    renamed = codec.encode(changed(peek(VALID), t="receipt"))
    with pytest.raises(BadSignature):
        unseal(renamed, kind="receipt", network=NETWORK)


def test_signed_for_one_network_it_is_read_in_no_other() -> None:
    with pytest.raises(WrongNetwork):
        unseal(VALID, kind="award", network="other")
    moved = codec.encode(changed(peek(VALID), n="other"))
    with pytest.raises(BadSignature):
        unseal(moved, kind="award", network="other")


def test_the_key_is_the_issuers() -> None:
    stolen = changed(peek(VALID), i=CONTRACTOR.peer)
    for parts in (stolen, changed(stolen, k=CONTRACTOR.public), changed(peek(VALID), k=b"")):
        with pytest.raises(BadSignature):
            unseal(codec.encode(parts), kind="award", network=NETWORK)


@pytest.mark.parametrize("issuer", ["", "x", "12D3KooW", BROKER.peer + "\0", "é" * 40])
def test_an_issuer_that_is_no_peer_is_refused(issuer: str) -> None:
    with pytest.raises(RemoteProtocolError):
        unseal(codec.encode(changed(peek(VALID), i=issuer)), kind="award", network=NETWORK)


def test_no_two_things_are_signed_as_the_same_bytes() -> None:
    # The separator is in none of the names, so where one ends is never in doubt.
    assert signed_bytes("ab", "c", "d", b"") != signed_bytes("a", "bc", "d", b"")
    assert signed_bytes("a", "b", "cd", b"") != signed_bytes("a", "bc", "d", b"")
    signed = signed_bytes("award", "net", "peer", b"x")
    assert signed == b"meshnode/1/award\0net\0peer\0" + digest(b"x")


@pytest.mark.parametrize(
    ("network", "good"),
    [
        ("a", True),
        ("test-net.1_x", True),
        ("a" * limits.NETWORK_SIZE_MAX, True),
        ("a" * (limits.NETWORK_SIZE_MAX + 1), False),
        ("", False),
        ("A", False),
        ("-a", False),
        ("a b", False),
        ("a\n", False),
        ("a\0", False),
        ("é", False),
    ],
)
def test_a_network_has_a_plain_name(network: str, good: bool) -> None:
    assert is_network(network) is good
    if not good:
        with pytest.raises(LocalProtocolError):
            seal(BROKER, "award", network, b"")
        forged = _sign("award", network)
        with pytest.raises(Malformed):
            unseal(forged, kind="award", network=network)


@pytest.mark.parametrize("kind", ["", "Award", "a" * (limits.TYPE_SIZE_MAX + 1), "a\0b", "1a"])
def test_a_type_has_a_plain_name(kind: str) -> None:
    seal(BROKER, "a" * limits.TYPE_SIZE_MAX, NETWORK, b"")
    with pytest.raises(LocalProtocolError):
        seal(BROKER, kind, NETWORK, b"")
    with pytest.raises(Malformed):
        unseal(_sign(kind, NETWORK), kind=kind, network=NETWORK)


def _sign(kind: str, network: str) -> bytes:
    """Sign what ``seal`` would refuse."""
    signature = BROKER.sign(signed_bytes(kind, network, BROKER.peer, b""))
    return codec.encode(Envelope(BROKER.peer, BROKER.public, network, b"", signature, kind))


def test_an_envelope_holds_at_most_a_frame() -> None:
    room = limits.FRAME_SIZE_MAX - len(seal(BROKER, "award", NETWORK, bytes(70_000))) + 70_000
    assert len(seal(BROKER, "award", NETWORK, bytes(room))) == limits.FRAME_SIZE_MAX
    with pytest.raises(LocalProtocolError):
        seal(BROKER, "award", NETWORK, bytes(room + 1))
