"""Vectors of what nobody signs: codec, frames, keys, sessions, artifacts, catalogue.

And of the envelope itself.
"""

from collections.abc import Iterator
from typing import Any, Final

from protocol import codec, limits
from protocol.artifacts import Fetch, Found, NotHeld
from protocol.catalogue import Digest, Pull, Push, summary
from protocol.framing import frame
from protocol.keys import digest
from protocol.session_frames import (
    Credit,
    Goodbye,
    Hello,
    Item,
    Ping,
    Pong,
    Request,
    Welcome,
    encode_frame,
)
from protocol.signing import Envelope, peek, seal, signed_bytes
from tests.protocol.samples import BROKER, CONTRACTOR, NETWORK, NOW_MS, changed
from tests.protocol.vector_answers import (
    BAD_SIGNATURE,
    CREDIT,
    MALFORMED,
    OUT_OF_TURN,
    TOO_LARGE,
    UNKNOWN_TYPE,
    WRONG_NETWORK,
    Case,
    H,
    ok,
)


def codec_cases() -> Iterator[Case]:
    """Values, and what is not the one encoding of any."""
    for why, data, value in (
        ("nil", "c0", None),
        ("false", "c2", False),
        ("the largest one-byte integer", "7f", 127),
        ("one more takes two bytes", "cc80", 128),
        ("the smallest one-byte integer", "e0", -32),
        ("one less takes two bytes", "d0df", -33),
        ("the largest integer", "cfffffffffffffffff", 2**64 - 1),
        ("the smallest integer", "d38000000000000000", -(2**63)),
        ("text of 31 bytes has a one-byte header", "bf" + "61" * 31, "a" * 31),
        ("bytes", "c4020001", {"hex": "0001"}),
        ("an empty list", "90", []),
        ("an empty map", "80", {}),
        ("keys ascend", "82a16101a16202", {"a": 1, "b": 2}),
        ("keys ascend by bytes, not by length", "82a2616101a16202", {"aa": 1, "b": 2}),
        ("16 levels", "91" * 16 + "00", [[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]),
    ):
        yield why, {}, H(data), ok(value)
    for why, data in (
        ("nothing", ""),
        ("a value and a byte more", "c000"),
        ("two bytes for a one-byte integer", "cc7f"),
        ("three bytes for a two-byte integer", "cd00ff"),
        ("five bytes for a three-byte integer", "ce0000ffff"),
        ("nine bytes for a five-byte integer", "cf00000000ffffffff"),
        ("a signed header for a positive integer", "d07f"),
        ("two bytes for a one-byte negative integer", "d0e0"),
        ("three bytes for a two-byte negative integer", "d1ff80"),
        ("a long header for short text", "d90161"),
        ("a longer header for text of 32 bytes", "da0020" + "61" * 32),
        ("a long header for short bytes", "c5000161"),
        ("a long header for a short list", "dc000105"),
        ("a long header for a short map", "de0001a16105"),
        ("keys descend", "82a16201a16102"),
        ("a key twice", "82a16101a16101"),
        ("a key that is an integer", "8101c0"),
        ("a key that is bytes", "81c40161c0"),
        ("a key without a value", "81a161"),
        ("a float of four bytes", "ca3f800000"),
        ("a float of eight bytes", "cb3ff0000000000000"),
        ("a timestamp", "d6ff00000000"),
        ("an extension type", "c70105ff"),
        ("the byte that MessagePack never uses", "c1"),
        ("text that is not UTF-8", "a1ff"),
        ("overlong UTF-8", "a2c080"),
        ("a surrogate in UTF-8", "a3eda080"),
        ("text that ends early", "a261"),
        ("an integer that ends early", "cd01"),
        ("a list that ends early", "9201"),
        ("four thousand million values announced in five bytes", "ddffffffff"),
        ("a map of as many, refused by its header", "dfffffffff"),
        ("four gigabytes announced in five bytes", "c6ffffffff"),
        ("17 levels", "91" * 17 + "00"),
        ("10,001 values", "dc2710" + "00" * 10_000),
    ):
        yield why, {}, H(data), MALFORMED


def framing_cases() -> Iterator[Case]:
    """Streams; ``cuts`` says where they were cut in two on the way."""
    yield "one frame", {"cuts": []}, H("00000001aa"), ok(["aa"])
    yield "two frames", {"cuts": []}, H("00000001aa00000002bbcc"), ok(["aa", "bbcc"])
    yield "cut in the header", {"cuts": [2]}, H("00000001aa"), ok(["aa"])
    yield "a frame that goes on", {"cuts": []}, H("00000001aa00000002bb"), ok(["aa"])
    over = (limits.FRAME_SIZE_MAX + 1).to_bytes(4, "big")
    yield "an empty frame", {"cuts": []}, bytes(4), MALFORMED
    yield "an empty frame after a good one", {"cuts": []}, H("00000001aa00000000"), MALFORMED
    yield "one byte over the limit, by its header alone", {"cuts": []}, over, TOO_LARGE
    yield "four gigabytes", {"cuts": []}, H("ffffffff"), TOO_LARGE
    yield "text instead of a length", {"cuts": []}, b"GET / HTTP/1.1\r\n", TOO_LARGE


#: RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032: Final = (
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac"
            "c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e"
            "458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290"
            "ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
)
#: The libp2p peer-ids specification: a PeerId in both spellings, and an Ed25519 key.
LIBP2P_PEER: Final = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"
LIBP2P_CID: Final = "bafzaajaiaejcal72gwuz2or47oyxxn6b3rkwdmmkrxgkjxzy3rqt5kczyn7lcm3l"
LIBP2P_SEED: Final = "7e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d"
LIBP2P_KEY_PEER: Final = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
LIBP2P_KEY: Final = "1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e"
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def keys_cases() -> Iterator[Case]:
    """Signatures (the bytes are the signature) and PeerIds (the bytes are the key)."""
    for number, (seed, key, message, signature) in enumerate(RFC_8032, start=1):
        inputs = {"op": "verify", "key": key, "message": message}
        yield f"RFC 8032, 7.1, test {number}", {**inputs, "seed": seed}, H(signature), ok()
    seed, key, message, signature = RFC_8032[1]
    inputs = {"op": "verify", "key": key, "message": message}
    scalar = (int.from_bytes(H(signature)[32:], "little") + _ORDER).to_bytes(32, "little")
    yield "another message", {**inputs, "message": "73"}, H(signature), BAD_SIGNATURE
    yield "another key", {**inputs, "key": RFC_8032[0][1]}, H(signature), BAD_SIGNATURE
    yield "a short signature", inputs, H(signature)[:-1], BAD_SIGNATURE
    yield "a long signature", inputs, H(signature) + b"\0", BAD_SIGNATURE
    yield "a short key", {**inputs, "key": key[2:]}, H(signature), BAD_SIGNATURE
    yield "S plus the group's order", inputs, H(signature)[:32] + scalar, BAD_SIGNATURE
    small = {**inputs, "key": "01" + "00" * 31}
    yield "a key of small order signs anything", small, b"\1" + bytes(63), BAD_SIGNATURE
    peers = {"op": "peer"}
    yield (
        "libp2p peer-ids: the key embedded in its Ed25519 example",
        {**peers, "peer": LIBP2P_PEER, "cid": LIBP2P_CID},
        _embedded(LIBP2P_CID),
        ok(),
    )
    yield (
        "libp2p peer-ids: its Ed25519 test key",
        {**peers, "peer": LIBP2P_KEY_PEER, "seed": LIBP2P_SEED},
        H(LIBP2P_KEY),
        ok(),
    )
    for why, peer in (
        ("empty", ""),
        ("no base58", "0OIl"),
        ("a character more", LIBP2P_PEER + "1"),
        ("a character less", LIBP2P_PEER[:-1]),
        ("white space after it", LIBP2P_PEER + "\n"),
        ("a leading 1: a byte more", "1" + LIBP2P_PEER),
        ("a hashed RSA key", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"),
        ("the CID spelling of a PeerId", LIBP2P_CID),
    ):
        yield f"no PeerId of an Ed25519 key: {why}", {**peers, "peer": peer}, b"", MALFORMED


def _embedded(cid: str) -> bytes:
    """The key in a CIDv1 of a PeerId, read without our own code: base32, then 36 bytes."""
    import base64

    raw = base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))
    assert raw[:8] == H("0172002408011220")
    return raw[8:]


def envelope_cases() -> Iterator[Case]:
    """Envelopes, read as an award of the test network."""
    valid = seal(BROKER, "award", NETWORK, b"\x01")
    parts = peek(valid)
    read = {"kind": "award", "network": NETWORK}

    def other(**fields: Any) -> bytes:
        return codec.encode(changed(parts, **fields))

    def forced(kind: str, network: str) -> bytes:
        signature = BROKER.sign(signed_bytes(kind, network, BROKER.peer, b""))
        return codec.encode(Envelope(BROKER.peer, BROKER.public, network, b"", signature, kind))

    fields = codec.decode(valid)
    assert isinstance(fields, dict)
    yield "an award", read, valid, ok({"issuer": BROKER.peer, "payload": "01"})
    empty = seal(CONTRACTOR, "award", NETWORK, b"")
    yield "an empty payload", read, empty, ok({"issuer": CONTRACTOR.peer, "payload": ""})
    yield "signed as another type", {**read, "kind": "receipt"}, valid, UNKNOWN_TYPE
    yield "renamed to another type", read, other(t="receipt"), UNKNOWN_TYPE
    renamed = other(t="receipt")
    yield "renamed, and read as that", {**read, "kind": "receipt"}, renamed, BAD_SIGNATURE
    yield "signed for another network", {**read, "network": "other"}, valid, WRONG_NETWORK
    moved = other(n="other")
    yield "moved to another network", {**read, "network": "other"}, moved, BAD_SIGNATURE
    yield "another payload", read, other(p=b"\x02"), BAD_SIGNATURE
    yield "another issuer", read, other(i=CONTRACTOR.peer), BAD_SIGNATURE
    stolen = other(i=CONTRACTOR.peer, k=CONTRACTOR.public)
    yield "another issuer and key", read, stolen, BAD_SIGNATURE
    yield "a key that is not the issuer's", read, other(k=CONTRACTOR.public), BAD_SIGNATURE
    yield "an issuer that is no PeerId", read, other(i="broker"), MALFORMED
    yield "a short signature", read, other(s=parts.s[:-1]), BAD_SIGNATURE
    yield "no signature", read, other(s=b""), BAD_SIGNATURE
    added = codec.encode(fields | {"z": 0})
    yield "a field that no signature covers", read, added, MALFORMED
    lacking = codec.encode({k: v for k, v in fields.items() if k != "k"})
    yield "no key", read, lacking, MALFORMED
    unsorted_ = b"\x86" + valid[1 + 2 + 54 :] + valid[1 : 1 + 2 + 54]
    yield "fields in another order", read, unsorted_, MALFORMED
    yield "a byte after it", read, valid + b"\0", MALFORMED
    yield "cut short", read, valid[:-1], MALFORMED
    yield "a list instead of a map", read, codec.encode(list(fields.values())), MALFORMED
    upper = forced("Award", NETWORK)
    yield "a type in capitals", {**read, "kind": "Award"}, upper, MALFORMED
    nul = forced("award", "net\0x")
    yield "a separator in a name", {**read, "network": "net\0x"}, nul, MALFORMED


def catalogue_cases() -> Iterator[Case]:
    """Bodies of the catalogue's requests."""
    alone = summary({BROKER.peer: 7})
    yield (
        "one peer: the digest is SHA-256 of `PeerId sequence newline`",
        {"type": "digest"},
        codec.encode(Digest(count=1, hash=digest(f"{BROKER.peer} 7\n".encode()))),
        ok({"count": 1, "hash": alone.hash.hex()}),
    )
    yield (
        "nothing held: the digest of nothing",
        {"type": "digest"},
        codec.encode({"count": 0, "hash": digest(b"")}),
        ok({"count": 0, "hash": digest(b"").hex()}),
    )
    pull = codec.encode(Pull(have={BROKER.peer: 7}))
    yield "a pull", {"type": "pull"}, pull, ok({"have": {BROKER.peer: 7}})
    push = codec.encode(Push(records=[b"\x01"], more=True))
    yield "a push", {"type": "push"}, push, ok({"records": ["01"], "more": True})
    for why, kind, value in (
        ("a short hash", "digest", {"count": 1, "hash": bytes(31)}),
        ("a negative count", "digest", {"count": -1, "hash": bytes(32)}),
        ("no hash", "digest", {"count": 1}),
        ("a sequence that is text", "pull", {"have": {"a": "1"}}),
        ("a negative sequence", "pull", {"have": {"a": -1}}),
        ("a list of peers without sequences", "pull", {"have": ["a"]}),
        ("a record that is text", "push", {"records": ["a"]}),
        ("no records", "push", {"more": False}),
        ("65 records", "push", {"records": [b""] * 65}),
        ("a list", "push", [[]]),
    ):
        yield why, {"type": kind}, codec.encode(value), MALFORMED


_HELLO: Final = Hello(NETWORK, [1], ["relay"], NOW_MS)
_WELCOME: Final = Welcome(1, [], NOW_MS, NOW_MS)
_REQUEST: Final = Request(1, "m", 5_000, 2, "", b"")
_FRESH: Final = {"role": "listener", "before": ""}
_GREETING: Final = {"role": "dialler", "before": ""}
_OPENED: Final = {"role": "listener", "before": encode_frame(_HELLO).hex()}
_SERVING: Final = {
    "role": "listener",
    "before": (encode_frame(_HELLO) + encode_frame(_REQUEST)).hex(),
}


def _raw(*value: Any) -> bytes:
    return frame(codec.encode(list(value)))


def session_cases() -> Iterator[Case]:
    """What a machine hears from ``bytes``, after it was told ``before``."""
    yield "a hello opens", _FRESH, encode_frame(_HELLO), ok(["Opened"])
    yield "a welcome opens", _GREETING, encode_frame(_WELCOME), ok(["Opened"])
    yield "a request", _OPENED, encode_frame(_REQUEST), ok(["Request"])
    yield "a ping is answered, not heard", _OPENED, encode_frame(Ping(NOW_MS)), ok([])
    yield "credit", _SERVING, encode_frame(Credit(1, 5)), ok(["Credit"])
    yield "credit for what has ended", _OPENED, encode_frame(Credit(9, 5)), ok([])
    yield "a piece for what was abandoned", _OPENED, encode_frame(Item(9, b"")), ok([])
    yield "an element of a later version", _OPENED, _raw(10, 0, "bye", 1), ok(["Goodbye"])
    after = encode_frame(Goodbye(0, "")) + encode_frame(_REQUEST)
    yield "a request after goodbye is refused unheard", _OPENED, after, ok(["Goodbye"])
    yield from _sessions_out_of_turn()
    yield from _requests_out_of_range()


def _sessions_out_of_turn() -> Iterator[Case]:
    yield "a request before the hello", _FRESH, encode_frame(_REQUEST), OUT_OF_TURN
    yield "a welcome to a listener", _FRESH, encode_frame(_WELCOME), OUT_OF_TURN
    yield "a hello to a dialler", _GREETING, encode_frame(_HELLO), OUT_OF_TURN
    yield "a second hello", _OPENED, encode_frame(_HELLO), OUT_OF_TURN
    yield "a pong before the welcome", _GREETING, encode_frame(Pong(1, 1)), OUT_OF_TURN
    foreign = encode_frame(Hello("other", [1], [], NOW_MS))
    yield "a hello of another network", _FRESH, foreign, WRONG_NETWORK
    newer = encode_frame(Hello(NETWORK, [2], [], NOW_MS))
    yield "no common version", _FRESH, newer, MALFORMED
    many = encode_frame(Hello(NETWORK, [1] * 17, [], NOW_MS))
    yield "17 versions", _FRESH, many, MALFORMED
    unasked = encode_frame(Welcome(2, [], NOW_MS, NOW_MS))
    yield "a version that was not offered", _GREETING, unasked, MALFORMED


def _requests_out_of_range() -> Iterator[Case]:
    yield "a frame type of a later version", _OPENED, _raw(11, 1), UNKNOWN_TYPE
    yield "a negative frame type", _OPENED, _raw(-1), MALFORMED
    yield "an empty array", _OPENED, _raw(), MALFORMED
    yield "a missing element", _OPENED, _raw(9, 1), MALFORMED
    yield "text for a number", _OPENED, _raw(2, "now"), MALFORMED
    yield "an integer that only looks like a frame", _OPENED, frame(H("cd0b0b")), MALFORMED
    yield "a request id in use", _SERVING, encode_frame(_REQUEST), MALFORMED
    instant = encode_frame(Request(1, "m", 0, 2, "", b""))
    yield "a request without time", _OPENED, instant, MALFORMED
    rich = encode_frame(Request(1, "m", 1, limits.CREDIT_MAX + 1, "", b""))
    yield "a request with too much credit", _OPENED, rich, MALFORMED
    yield "credit of nothing", _SERVING, encode_frame(Credit(1, 0)), MALFORMED
    beyond = encode_frame(Credit(1, limits.CREDIT_MAX - 1))
    yield "credit above the limit in all", _SERVING, beyond, MALFORMED
    crowd = b"".join(
        encode_frame(Request(rid, "m", 1, 0, "", b"")) for rid in range(limits.REQUESTS_MAX + 1)
    )
    yield "1,025 requests", _OPENED, crowd, CREDIT
    yield "an empty frame", _OPENED, bytes(4), MALFORMED
    yield "a frame over the limit", _OPENED, H("00040001"), TOO_LARGE


def artifact_cases() -> Iterator[Case]:
    """Messages of a fetch, without their frames."""
    fetch = codec.encode(Fetch(b"", bytes(32), 0))
    yield "a fetch", {}, fetch, ok("Fetch")
    yield "found", {}, codec.encode(Found(5)), ok("Found")
    yield "not held", {}, codec.encode(NotHeld(14, "gone")), ok("NotHeld")
    yield "an element of a later version", {}, codec.encode([1, 5, None]), ok("Found")
    for why, value in (
        ("an empty array", []),
        ("a type that is not", [3, 1]),
        ("a hash of 31 bytes", [0, b"", bytes(31), 0]),
        ("a negative offset", [0, b"", bytes(32), -1]),
        ("no offset", [0, b"", bytes(32)]),
        ("a negative size", [1, -1]),
        ("a map", {"size": 5}),
    ):
        yield why, {}, codec.encode(value), MALFORMED
    over = codec.encode([1, limits.ARTIFACT_SIZE_MAX + 1])
    yield "an artifact over the limit", {}, over, TOO_LARGE
