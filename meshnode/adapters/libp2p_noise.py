"""Noise after its handshake: frames sealed and opened in one step each, many per read.

The handshake is py-libp2p's.  What it leaves behind is a key and a counter for each
direction; its reader then takes two reads and three coroutines for each message, and
its checks cost as much as the cipher does for a small one.  Here whatever the socket
had is cut into messages and opened at once.

Specified by noiseprotocol.org, section 5.1 and 12.3 (ChaChaPoly), and libp2p/specs,
noise/README.md, "Wire Format": two bytes of length, then that many of ciphertext.
"""

from typing import Any, Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from libp2p.abc import ISecureConn
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.security.noise.io import NoiseTransportReadWriter
from libp2p.security.secure_session import SecureSession

from meshnode.adapters.libp2p_tcp import TcpStream

_LENGTH_BYTES: Final = 2
_TAG_BYTES: Final = 16
_BUFFER_BYTES_MIN: Final = 8 * 1024
#: Room for four of the largest messages.
_BUFFER_BYTES_MAX: Final = 4 * (65_535 + _LENGTH_BYTES)
#: Plaintext that fits one Noise message.
PLAINTEXT_BYTES_MAX: Final = 65_535 - _TAG_BYTES


class NoiseCipher:
    """Both directions of one connection, once it is secured."""

    __slots__ = ("_buffer", "_filled", "_opened", "_opener", "_sealed", "_sealer")

    def __init__(self, transport: NoiseTransportReadWriter) -> None:
        protocol = cast("Any", transport.noise_state.noise_protocol)
        sealer, opener = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        # From here on nobody else may use these keys: a nonce must not come twice.
        self._sealer, self._sealed = ChaCha20Poly1305(bytes(sealer.k)), int(sealer.n)
        self._opener, self._opened = ChaCha20Poly1305(bytes(opener.k)), int(opener.n)
        sealer.n = opener.n = None
        self._buffer = bytearray(_BUFFER_BYTES_MIN)
        self._filled = 0

    def seal(self, plaintext: bytes) -> bytes:
        """Return the message for the wire; ``plaintext`` has at most one message's bytes."""
        nonce = b"\0\0\0\0" + self._sealed.to_bytes(8, "little")
        sealed = self._sealer.encrypt(nonce, plaintext, None)
        self._sealed += 1
        return len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed

    @property
    def room(self) -> memoryview:
        """Where the next bytes from the wire belong; never empty."""
        return memoryview(self._buffer)[self._filled :]

    def open(self, size: int) -> list[bytes]:
        """Return the plaintexts of the messages that are whole, in order.

        Args:
            size: Bytes that were put into :attr:`room`.

        Raises:
            ConnectionClosedError: A message is not the peer's, or was changed on its way.
        """
        end = self._filled + size
        plaintexts: list[bytes] = []
        at, buffer = 0, self._buffer
        with memoryview(buffer) as view:
            while end - at > _LENGTH_BYTES:
                stop = at + _LENGTH_BYTES + (buffer[at] << 8 | buffer[at + 1])
                if stop > end:
                    break
                nonce = b"\0\0\0\0" + self._opened.to_bytes(8, "little")
                try:
                    plaintexts.append(
                        self._opener.decrypt(nonce, view[at + _LENGTH_BYTES : stop], None)
                    )
                except (InvalidTag, ValueError) as exc:
                    raise ConnectionClosedError(
                        "a message is not the peer's", transport="noise"
                    ) from exc
                self._opened += 1
                at = stop
            self._keep(view[at:end], is_full=end == len(buffer))
        return plaintexts

    def _keep(self, rest: memoryview, *, is_full: bool) -> None:
        """Put the beginning of a message where the next bytes follow it.

        The buffer is small while little comes, since every idle connection has one, and
        large while there is a lot: a large message needs it whole.
        """
        wanted = _BUFFER_BYTES_MAX if is_full else _BUFFER_BYTES_MIN
        if len(rest) > _BUFFER_BYTES_MIN // 2:
            wanted = _BUFFER_BYTES_MAX
        self._filled = len(rest)
        if wanted == len(self._buffer):
            self._buffer[: len(rest)] = bytes(rest)
        else:
            self._buffer = bytearray(wanted)
            self._buffer[: len(rest)] = rest


def layers(secured: ISecureConn) -> tuple[NoiseCipher, TcpStream, bytes]:
    """Return cipher, socket, and what was read ahead, of a connection after its handshakes."""
    assert isinstance(secured, SecureSession)
    transport = secured.conn
    assert isinstance(transport, NoiseTransportReadWriter), "Noise is the only security offered"
    raw = cast("Any", transport.read_writer.read_write_closer)
    assert isinstance(raw, RawConnection)
    assert isinstance(raw.stream, TcpStream), "TcpTransport is the only transport"
    return NoiseCipher(transport), raw.stream, secured._drain(None)
