"""What a name costs: a proof of work that is bound to a key, and hard on memory.

A key costs nothing to make, so where anybody may come, whoever is found out would come
again under another name.  A proof takes some seconds to a minute of one core and 16 MiB to
find, once for a key and a mesh, and one try of that to check.

Specified in protocol/spec/32-work.md; vectors in protocol/vectors/work.json.
"""

from hashlib import scrypt
from typing import Final

from protocol import limits
from protocol.errors import LocalProtocolError, Malformed
from protocol.keys import digest, public_key
from protocol.signing import is_network

_DOMAIN: Final = b"meshnode/1/work\0"
_HASH_SIZE: Final = 32
#: scrypt takes 128 * N * r bytes, and a little.
_MEMORY_BYTES_MAX: Final = 2 * 128 * limits.WORK_N * limits.WORK_R


def work_bits(network: str, peer: str, nonce: bytes) -> int:
    """Return what ``nonce`` is worth: the zero bits that its hash begins with.

    Takes 16 MiB and some 50 to 250 ms of one core: never in a loop that others wait for.

    Raises:
        Malformed: ``peer`` is no PeerId, or the nonce has another size.
    """
    if not is_network(network):
        raise LocalProtocolError(f"no such network: {network!r}")
    if not is_nonce(nonce):
        raise Malformed(f"work: a nonce has {limits.WORK_NONCE_SIZE} bytes")
    found = scrypt(
        public_key(peer) + nonce,
        salt=digest(_DOMAIN + network.encode()),
        n=limits.WORK_N,
        r=limits.WORK_R,
        p=1,
        maxmem=_MEMORY_BYTES_MAX,
        dklen=_HASH_SIZE,
    )
    return 8 * _HASH_SIZE - int.from_bytes(found, "big").bit_length()


def is_nonce(nonce: bytes) -> bool:
    """Tell whether ``nonce`` may be one: it costs nothing to see."""
    return len(nonce) == limits.WORK_NONCE_SIZE
