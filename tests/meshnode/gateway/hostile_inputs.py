"""What a broken or hostile client may send, byte for byte.

Frames of HTTP/2 are built by hand: a library would refuse to make most of these.
"""

import struct
from collections.abc import Iterator
from random import Random
from typing import Final

HOST: Final = b"Host: 127.0.0.1\r\n"
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RESET, SETTINGS = 0, 1, 2, 3, 4
PUSH, PING, GOAWAY, WINDOW, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x4, 0x8, 0x20

#: ":method: GET", ":scheme: http", ":path: /", ":authority: 127.0.0.1" in HPACK.
GET: Final = b"\x82\x86\x84\x01\x09127.0.0.1"
POST: Final = b"\x83\x86\x84\x01\x09127.0.0.1"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Return one frame of HTTP/2."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


OPENING: Final = PREFACE + frame(SETTINGS)
WHOLE: Final = END_STREAM | END_HEADERS


def broken_heads() -> Iterator[bytes]:
    """Heads of HTTP/1 that are wrong, or stop halfway."""
    yield b""
    yield b"\r\n\r\n"
    yield b"\x00" * 100
    yield b"\xff\xfe\xfd" * 1000
    yield b"GET"
    yield b"GET / HTTP/1.1"
    yield b"GET / HTTP/1.1\r\n"
    yield b"GET / HTTP/1.1\r\nHost"
    yield b"GET / HTTP/1.1\r\n\r\n"
    yield b"GET / HTTP/9.9\r\n" + HOST + b"\r\n"
    yield b"GET / HTTP/0.9\r\n\r\n"
    yield b"GET / HTTP/1.1\n\n"
    yield b"GET  /  HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200)  # TLS hello
    yield b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 200_000 + b"\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 5000 + b"\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b": nameless\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n folded\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"
    yield b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n"
    yield b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"GET /%ff%fe%00 HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"GET http://[::1 HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"G\xc3\x89T / HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"CONNECT evil:80 HTTP/1.1\r\n" + HOST + b"\r\n"


def broken_bodies() -> Iterator[bytes]:
    """Bodies of HTTP/1 that are wrong, or stop halfway."""
    yield b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 1e9\r\n\r\n"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nhalf"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n" + b"too much" * 1000
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3000000\r\n\r\n" + bytes(3_000_000)
    yield (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab")
    chunked = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n"
    yield chunked + b"\r\n"
    yield chunked + b"\r\nzz\r\n"
    yield chunked + b"\r\n-1\r\n"
    yield chunked + b"\r\nffffffffffffffffffff\r\n"
    yield chunked + b"\r\n5\r\nab"
    yield chunked + b"\r\n2\r\nabcd\r\n0\r\n\r\n"
    yield chunked + b"\r\n0\r\nTrailer: " + b"a" * 100_000 + b"\r\n\r\n"
    yield chunked + b"Content-Length: 4\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\nab"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    yield b"POST / HTTP/1.1\r\n" + HOST + b"Expect: nonsense\r\n\r\n"
    yield (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 500
    yield b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGARBAGE\x00\x01\r\n\r\n"
    yield b"HEAD / HTTP/1.0\r\n\r\n"
    yield b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n" + bytes(100_000)


def broken_upgrades() -> Iterator[bytes]:
    """Attempts at WebSocket and at HTTP/2 by upgrade that go wrong."""
    socket = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    yield socket + b"\r\n"
    yield socket + key + b"Sec-WebSocket-Version: 99\r\n\r\n"
    yield socket + key + b"Sec-WebSocket-Version: 13\r\n\r\n" + b"\xff" * 1000
    yield socket + b"Sec-WebSocket-Key: !\r\nSec-WebSocket-Version: 13\r\n\r\n"
    yield socket + key + key + b"Sec-WebSocket-Version: 13\r\n\r\n"
    yield socket.replace(b"GET", b"POST") + key + b"Sec-WebSocket-Version: 13\r\n\r\n"
    yield (
        socket
        + key
        + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: \xff;;;=\r\n\r\n"
    )
    upgrade = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\n"
    yield upgrade + b"Upgrade: h2c\r\n\r\n"
    yield upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
    yield upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n"
    yield upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + b"junk" * 50
    yield upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + PREFACE + bytes(99)
    yield upgrade + b"Upgrade: h2c\r\nHTTP2-Settings: \xff\xff\r\n\r\n"


def broken_frames() -> Iterator[bytes]:
    """Frames of HTTP/2 that break its rules."""
    yield PREFACE
    yield PREFACE[:20]
    yield b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"
    yield b"PRI * HTTP/2.0\r\n" + HOST + b"\r\nSM\r\n\r\n"
    yield PREFACE + b"\xff" * 500
    yield PREFACE + frame(DATA, 0, 1, b"first")
    yield OPENING + b"\xff" * 9
    yield OPENING + frame(SETTINGS, 0, 0, b"odd")
    yield OPENING + frame(SETTINGS, 0, 1)
    yield OPENING + frame(SETTINGS, 1, 0, bytes(6))
    yield OPENING + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31))
    yield OPENING + frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 1))
    yield OPENING + frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 7))
    yield OPENING + frame(PING, 0, 0, b"short")
    yield OPENING + frame(PING, 0, 3, bytes(8))
    yield OPENING + frame(WINDOW, 0, 0, bytes(4))
    yield OPENING + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 3
    yield OPENING + frame(WINDOW, 0, 9, b"\x00\x00\x00\x01")
    yield OPENING + frame(RESET, 0, 1, bytes(4))
    yield OPENING + frame(RESET, 0, 0, bytes(4))
    yield OPENING + frame(GOAWAY, 0, 0, bytes(8))
    yield OPENING + frame(GOAWAY, 0, 0, b"")
    yield OPENING + frame(DATA, 0, 0, b"x")
    yield OPENING + frame(DATA, END_STREAM, 5, b"x")
    yield OPENING + frame(DATA, PADDED, 1, b"\xff")
    yield OPENING + frame(PUSH, END_HEADERS, 1, bytes(4) + GET)
    yield OPENING + frame(CONTINUATION, END_HEADERS, 1, GET)
    yield OPENING + frame(HEADERS, 0, 1, GET) + frame(PING, 0, 0, bytes(8))
    yield OPENING + frame(HEADERS, WHOLE, 2, GET)
    yield OPENING + frame(HEADERS, WHOLE, 0, GET)
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff")


def broken_streams() -> Iterator[bytes]:
    """Requests of HTTP/2 that break its rules."""
    yield OPENING + frame(HEADERS, WHOLE, 1, b"")
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\x82")
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\x86\x84\x01\x09127.0.0.1")  # no :method
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\x82\x86\x01\x09127.0.0.1")  # no :path
    yield OPENING + frame(HEADERS, WHOLE, 1, GET + b"\x82")
    yield OPENING + frame(HEADERS, WHOLE, 1, GET.replace(b"\x84", b"\x04\x03/\xff\xfe"))
    yield OPENING + frame(HEADERS, WHOLE, 1, GET.replace(b"\x84", b"\x04\x00"))
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\x02\x03G\xc3\x89" + GET[1:])
    yield OPENING + frame(HEADERS, WHOLE, 1, b"\x02\x07CONNECT\x01\x09127.0.0.1")
    yield OPENING + frame(HEADERS, END_HEADERS, 1, _connect(b"websocket"))
    yield OPENING + frame(HEADERS, WHOLE, 1, _connect(b"\xff"))
    yield OPENING + frame(HEADERS, WHOLE, 1, GET + b"\x00\x03A B\x01x")
    yield OPENING + frame(HEADERS, WHOLE, 1, GET + b"\x00\x00\x01x")
    yield OPENING + frame(HEADERS, WHOLE | PRIORITISED, 1, b"\x00\x00\x00\x01\x00" + GET)
    yield OPENING + frame(PRIORITY, 0, 1, b"\x00\x00\x00\x01\x00")
    yield OPENING + frame(PRIORITY, 0, 3, b"\x80\x00\x00\x63\xff")
    yield OPENING + frame(PRIORITY, 0, 0, bytes(5))
    yield OPENING + frame(PRIORITY, 0, 1, bytes(4))
    yield OPENING + frame(HEADERS, WHOLE, 1, GET) * 2
    yield OPENING + frame(HEADERS, WHOLE, 5, GET) + frame(HEADERS, WHOLE, 3, GET)
    yield OPENING + frame(HEADERS, WHOLE, 1, GET) + frame(DATA, 0, 1, b"late")
    yield OPENING + _post(1, b"Content", length=b"3")
    yield OPENING + frame(99, 0xFF, 0x7FFFFFFF, b"unknown")
    yield OPENING + (2**24 - 1).to_bytes(3, "big") + bytes([DATA, 0]) + bytes(4) + bytes(50_000)


def _connect(protocol: bytes) -> bytes:
    text = b"\x00\x09:protocol" + bytes([len(protocol)]) + protocol
    return b"\x02\x07CONNECT" + text + b"\x86\x84\x01\x09127.0.0.1"


def _post(stream: int, body: bytes, *, length: bytes) -> bytes:
    size = b"\x00\x0econtent-length" + bytes([len(length)]) + length
    head = frame(HEADERS, END_HEADERS, stream, POST + size)
    return head + frame(DATA, END_STREAM, stream, body)


def floods() -> Iterator[bytes]:
    """Many well-formed frames of HTTP/2, each of which costs the server something."""
    gets = [frame(HEADERS, WHOLE, stream, GET) for stream in range(1, 4000, 2)]
    resets = [frame(RESET, 0, stream, bytes(4)) for stream in range(1, 4000, 2)]
    yield OPENING + b"".join(gets)
    yield OPENING + b"".join(
        get + reset for get, reset in zip(gets[:600], resets[:600], strict=True)
    )  # rapid reset
    yield OPENING + b"".join(
        frame(PRIORITY, 0, stream, b"\x00\x00\x00\x00\x10") for stream in range(1, 6000, 2)
    )
    yield OPENING + b"".join(
        frame(PRIORITY, 0, stream, struct.pack(">IB", stream - 2, 0))
        for stream in range(3, 3000, 2)
    )  # one chain
    yield OPENING + frame(PING, 0, 0, bytes(8)) * 5000
    yield OPENING + frame(SETTINGS) * 3000
    yield OPENING + frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 1, bytes(100)) * 2000
    yield OPENING + frame(DATA, 0, 1, b"") * 3000
    yield OPENING + frame(WINDOW, 0, 0, b"\x00\x00\x00\x01") * 5000
    stalled = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
    yield PREFACE + stalled + b"".join(gets[:90])
    posts = [frame(HEADERS, END_HEADERS, stream, POST) for stream in range(1, 180, 2)]
    yield OPENING + b"".join(posts) + frame(DATA, 0, 1, bytes(16_000)) * 4
    bomb = b"\x40\x01a\x7f\x81\x1e" + b"b" * 4000  # one long entry, then named over and over
    yield OPENING + frame(HEADERS, WHOLE, 1, GET + bomb + b"\xbe" * 12_000)


def noise() -> Iterator[bytes]:
    """Random bytes, and good openings with random ends and flipped bits."""
    chance = Random(2024)
    for _ in range(10):
        yield chance.randbytes(chance.randint(1, 5000))
    for _ in range(10):
        yield OPENING + chance.randbytes(chance.randint(1, 500))
    good = OPENING + frame(HEADERS, WHOLE, 1, GET) + frame(PING, 0, 0, bytes(8))
    for _ in range(15):
        changed = bytearray(good)
        changed[chance.randrange(24, len(good))] ^= 1 << chance.randrange(8)
        yield bytes(changed)


def all_inputs() -> list[bytes]:
    """Return every input, always in the same order."""
    return [
        *broken_heads(),
        *broken_bodies(),
        *broken_upgrades(),
        *broken_frames(),
        *broken_streams(),
        *floods(),
        *noise(),
    ]
