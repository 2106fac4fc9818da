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
#: Plaintext that fits one Noise message.
PLAINTEXT_BYTES_MAX: Final = 65_535 - _TAG_BYTES


class NoiseCipher:
    """Both directions of one connection, once it is secured."""

    __slots__ = ("_opened", "_opener", "_sealed", "_sealer", "_tail")

    def __init__(self, transport: NoiseTransportReadWriter) -> None:
        protocol = cast("Any", transport.noise_state.noise_protocol)
        sealer, opener = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        # From here on nobody else may use these keys: a nonce must not come twice.
        self._sealer, self._sealed = ChaCha20Poly1305(bytes(sealer.k)), int(sealer.n)
        self._opener, self._opened = ChaCha20Poly1305(bytes(opener.k)), int(opener.n)
        sealer.n = opener.n = None
        self._tail = b""

    def seal(self, plaintext: bytes) -> bytes:
        """Return the message for the wire; ``plaintext`` has at most one message's bytes."""
        nonce = b"\0\0\0\0" + self._sealed.to_bytes(8, "little")
        sealed = self._sealer.encrypt(nonce, plaintext, None)
        self._sealed += 1
        return len(sealed).to_bytes(_LENGTH_BYTES, "big") + sealed

    def open(self, data: bytes) -> list[bytes]:
        """Return the plaintexts of the messages that ``data`` completes, in order.

        Raises:
            ConnectionClosedError: A message is not the peer's, or was changed on its way.
        """
        if self._tail:
            data = self._tail + data
        plaintexts: list[bytes] = []
        at, end = 0, len(data)
        view = memoryview(data)
        while end - at > _LENGTH_BYTES:
            stop = at + _LENGTH_BYTES + (data[at] << 8 | data[at + 1])
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
        self._tail = data[at:]
        return plaintexts


def layers(secured: ISecureConn) -> tuple[NoiseCipher, TcpStream, bytes]:
    """Return cipher, socket, and what was read ahead, of a connection after its handshakes."""
    assert isinstance(secured, SecureSession)
    transport = secured.conn
    assert isinstance(transport, NoiseTransportReadWriter), "Noise is the only security offered"
    raw = cast("Any", transport.read_writer.read_write_closer)
    assert isinstance(raw, RawConnection)
    assert isinstance(raw.stream, TcpStream), "TcpTransport is the only transport"
    return NoiseCipher(transport), raw.stream, secured._drain(None)
