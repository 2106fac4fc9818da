"""A PeerId is libp2p's, and embeds the key that it stands for."""

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import PrivateKey

from protocol import keys
from protocol.errors import BadSignature, LocalProtocolError, Malformed, RemoteProtocolError
from tests.protocol.samples import BROKER, CONTRACTOR, examples, mutated


@examples(100)
@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_gives_its_key_back(key: bytes) -> None:
    assert keys.public_key(keys.peer_id(key)) == key


@examples(300)
@given(
    st.text(max_size=70) | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
)
def test_any_text_is_the_one_spelling_of_a_key_or_blames_the_peer(text: str) -> None:
    try:
        key = keys.public_key(text)
    except RemoteProtocolError:
        return
    assert keys.peer_id(key) == text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda peer: peer + "1",
        lambda peer: peer + " ",
        lambda peer: " " + peer,
        lambda peer: "1" + peer,
        lambda peer: peer[:-1],
        lambda peer: peer.lower(),
        lambda peer: "Q" + peer[1:],
        lambda peer: peer[:-1] + "0",  # no letter of base58
        lambda peer: peer + "\n",
        lambda peer: "é" + peer,
        lambda peer: peer * 1000,
        lambda _: base58.b58encode(b"\x12\x20" + bytes(32)).decode(),  # a hashed (RSA) key
        lambda _: base58.b58encode(bytes.fromhex("00250802122102") + bytes(32)).decode(),
    ],
)
def test_another_spelling_of_a_peer_id_is_refused(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(Malformed):
        keys.public_key(spoil(BROKER.peer))


def test_a_key_of_another_size_has_no_peer_id() -> None:
    for size in (0, 31, 33):
        with pytest.raises(LocalProtocolError):
            keys.peer_id(bytes(size))
        with pytest.raises(LocalProtocolError):
            keys.Identity(bytes(size), bytes(32))
        with pytest.raises(LocalProtocolError):
            keys.Identity(bytes(32), bytes(size))


@examples(200)
@given(st.binary(max_size=100), st.data())
def test_a_signature_holds_for_its_key_and_message_only(
    message: bytes, data: st.DataObject
) -> None:
    signature = BROKER.sign(message)
    keys.verify(BROKER.public, message, signature)
    with pytest.raises(BadSignature):
        keys.verify(CONTRACTOR.public, message, signature)
    with pytest.raises(BadSignature):
        keys.verify(BROKER.public, message + b"\0", signature)
    other = data.draw(mutated(signature).filter(lambda changed: changed != signature))
    with pytest.raises(BadSignature):
        keys.verify(BROKER.public, message, other)


#: Order of Ed25519's group: adding it to a signature's second half gives another one that
#: lenient verifiers accept, which would let anybody change a signed thing's hash.
_ORDER = 2**252 + 27742317777372353535851937790883648493


def test_a_signature_has_one_spelling() -> None:
    signature = BROKER.sign(b"award")
    scalar = int.from_bytes(signature[32:], "little") + _ORDER
    with pytest.raises(BadSignature):
        keys.verify(BROKER.public, b"award", signature[:32] + scalar.to_bytes(32, "little"))


@examples(100)
@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=128))
def test_verifying_anything_holds_or_blames_the_peer(
    key: bytes, message: bytes, signature: bytes
) -> None:
    with pytest.raises(BadSignature):
        keys.verify(key, message, signature)


@pytest.mark.parametrize(
    "key", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
)
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    with pytest.raises(BadSignature):
        keys.verify(key, b"anything", b"\x01" + bytes(63))


def test_what_nothing_can_be_sealed_to_is_what_the_library_refuses_too() -> None:
    secret = bytes(range(32))
    for number in keys._SMALL_ORDER:
        for high in (0, 1 << 255):
            key = (number | high).to_bytes(32, "little")
            assert not keys.is_sealing_key(key)
            with pytest.raises(Malformed):
                keys.agree(secret, key)
    assert not keys.is_sealing_key(BROKER.x25519_public[:31])
    assert keys.is_sealing_key(BROKER.x25519_public)
    assert keys.is_sealing_key(b"\x02" + bytes(31))
    keys.agree(secret, b"\x02" + bytes(31))


def test_an_identity_shows_its_peer_id_and_nothing_secret() -> None:
    assert repr(BROKER) == f"Identity({BROKER.peer})"
    assert BROKER.x25519_public != CONTRACTOR.x25519_public
    secret = keys.digest(b"seal broker")
    assert BROKER.x25519_public == bytes(PrivateKey(secret).public_key)
