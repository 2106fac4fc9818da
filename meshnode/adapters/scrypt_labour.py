"""Proofs of work in threads of their own: the loop never waits for a hash.

hashlib lets go of the interpreter's lock while it reckons.  Checking takes one of trio's
threads at a time.  Searching takes a thread of its own, since its priority is lowered for
good: trio's threads are used again, for what shouldn't be slow.
"""

import os
import threading
from contextlib import suppress
from itertools import count
from typing import Final

import trio

from meshnode.ports import Entropy
from protocol.limits import WORK_NONCE_SIZE
from protocol.work import work_bits

#: As low as it goes.
_NICE: Final = 19
_NONCES: Final = 1 << 8 * WORK_NONCE_SIZE


class ScryptLabour:
    """See the module."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._one = trio.CapacityLimiter(1)

    async def bits(self, network: str, peer: str, nonce: bytes) -> int:
        """Return what a proof is worth.

        Raises:
            Malformed: ``peer`` is no PeerId, or the nonce has another size.
        """
        return await trio.to_thread.run_sync(
            work_bits, network, peer, nonce, limiter=self._one, abandon_on_cancel=True
        )

    async def search(self, network: str, peer: str, bits: int) -> bytes:
        """Return a nonce worth ``bits``; a cancelled search ends within one try."""
        found, stop, done = bytearray(), threading.Event(), trio.Event()
        token = trio.lowlevel.current_trio_token()
        first = int.from_bytes(self._entropy.token(WORK_NONCE_SIZE), "big")

        def work() -> None:
            _yield_to_all()
            for number in count(first):
                nonce = (number % _NONCES).to_bytes(WORK_NONCE_SIZE, "big")
                if stop.is_set():
                    break
                if work_bits(network, peer, nonce) >= bits:
                    found.extend(nonce)
                    break
            with suppress(trio.RunFinishedError):  # the node has ended meanwhile
                token.run_sync_soon(done.set)

        threading.Thread(target=work, name="proof of work", daemon=True).start()
        try:
            await done.wait()
        finally:
            stop.set()
        return bytes(found)


def _yield_to_all() -> None:
    """Lower this thread's priority, where the system has one for each thread."""
    if hasattr(os, "setpriority"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
