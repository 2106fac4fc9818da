"""What names cost: this node's own proof of work, and whether others have paid for theirs.

In a public mesh a name that costs nothing is thrown away once it is found out.  So a node
proves some work for its own, once, after it is ready, and shows it in its record; who it
asks for a task or works for may be held against theirs with :meth:`IdentityCost.cost`.

Checking a proof costs as much as one try at it, so it is done when somebody wants to know,
one at a time beside the loop, once for each proof, and only so often for one peer; what
came of it is kept.  Members of this node's own mesh have paid by their membership, and an
heir (22-lifecycle.md) by what its old key had paid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import trio

from meshnode.errors import Busy, StoreError
from meshnode.ports import Delete, Labour, Put, Write
from meshnode.services.allowance import Allowance
from meshnode.services.context import Context
from meshnode.services.key_fates import KeyFates
from protocol.codec import Count, decode_as, encode
from protocol.errors import RemoteProtocolError

Cost = Literal["paid", "unpaid", "unknown"]

#: PeerId -> :class:`_Checked`; this node's own, too.
TABLE: Final = "work"
#: Peers of which it is kept what their proof is worth, the oldest forgotten first.
_CHECKED_MAX: Final = 8_192
#: A node is ready by then, seconds: only what is left over goes into its proof.
_AFTER_S: Final = 5.0
#: Proofs that wait to be checked: those beyond are checked when they are asked for again.
_WAITING_MAX: Final = 256


class _Checked(msgspec.Struct, frozen=True):
    nonce: bytes
    bits: Count


_CHECKED: Final = msgspec.msgpack.Decoder(_Checked)


@dataclass(frozen=True, slots=True)
class Around:
    """What this service needs of others.

    Attributes:
        work_of: The nonce in the record of a peer, or None without a record.
        prove: Shows one in this node's own.
        is_member: Whether a peer is of this node's own mesh.
        fates: Who goes on for whom.
    """

    work_of: Callable[[str], bytes | None]
    prove: Callable[[bytes], None]
    is_member: Callable[[str], bool]
    fates: KeyFates


class IdentityCost:
    """See the module.  :meth:`load` first, then :meth:`run` once the node is ready."""

    def __init__(self, context: Context, labour: Labour | None, around: Around) -> None:
        self._context = context
        self._labour = labour
        self._around = around
        self._checked: dict[str, _Checked] = {}
        self._waiting: dict[str, bytes] = {}
        self._woken = trio.Event()
        self._allowance = Allowance("checks of one peer's work", burst=2, per_s=1 / 600)

    @property
    def asked_bits(self) -> int:
        """What a name costs here: no bits in a private mesh."""
        config = self._context.config
        return config.trust.work_bits if config.is_public else 0

    def cost(self, peer: str) -> Cost:
        """Return whether the name of ``peer`` has cost what this node asks for.

        ``unknown`` means that its record isn't here, or that its proof is yet to be
        checked, which this sees to: ask again later.
        """
        if not self.asked_bits or peer == self._context.peer or self._around.is_member(peer):
            return "paid"
        names = (peer, *self._around.fates.followed(peer))
        if any(self._is_worth(name) for name in names):
            return "paid"
        nonce = self._around.work_of(peer)
        if nonce is None:
            return "unknown"
        if not nonce:
            return "unpaid"
        checked = self._checked.get(peer)
        if checked is not None and checked.nonce == nonce:
            return "unpaid"
        self._have_checked(peer, nonce)
        return "unknown"

    def is_unpaid(self, peer: str) -> bool:
        """Tell whether it is known that the name of ``peer`` has cost too little."""
        return self.cost(peer) == "unpaid"

    def _is_worth(self, peer: str) -> bool:
        checked = self._checked.get(peer)
        return checked is not None and checked.bits >= self.asked_bits

    def _have_checked(self, peer: str, nonce: bytes) -> None:
        if self._labour is None or peer in self._waiting or len(self._waiting) >= _WAITING_MAX:
            return
        now_s = trio.current_time()
        self._allowance.sweep(now_s=now_s)
        try:
            self._allowance.take(peer, 1, now_s=now_s)
        except Busy:
            return
        self._waiting[peer] = nonce
        self._woken.set()

    # --- living ---

    async def load(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: It can't be read.
        """
        for peer, raw in await self._context.store.scan(TABLE):
            self._checked[peer] = decode_as(raw, _CHECKED)
        own = self._checked.get(self._context.peer)
        if own is not None and own.bits >= self._own_bits:
            self._around.prove(own.nonce)

    @property
    def _own_bits(self) -> int:
        """What this node proves for its own name."""
        config = self._context.config
        wanted = config.is_public or config.trust.work_always
        return config.trust.work_bits if wanted else 0

    async def run(self) -> None:
        """Prove this node's own work, and check others', until cancelled."""
        if self._labour is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._earn, self._labour)
            while True:
                await self._woken.wait()
                self._woken = trio.Event()
                while self._waiting:
                    peer = next(iter(self._waiting))
                    await self._check(peer, self._waiting[peer], self._labour)
                    self._waiting.pop(peer, None)

    async def _earn(self, labour: Labour) -> None:
        """Find a proof for this node's name, unless there is one."""
        bits, peer = self._own_bits, self._context.peer
        own = self._checked.get(peer)
        if not bits or (own is not None and own.bits >= bits):
            return
        await trio.sleep(_AFTER_S)
        started_s = trio.current_time()
        nonce = await labour.search(self._context.network, peer, bits)
        took_s = round(trio.current_time() - started_s, 1)
        self._context.emit("work.proved", bits=bits, took_s=took_s)
        await self._keep(peer, _Checked(nonce, bits))
        self._around.prove(nonce)

    async def _check(self, peer: str, nonce: bytes, labour: Labour) -> None:
        try:
            bits = await labour.bits(self._context.network, peer, nonce)
        except RemoteProtocolError as exc:
            self._context.emit("work.refused", peer=peer, why=str(exc))
            bits = 0
        self._context.emit("work.checked", peer=peer, bits=bits)
        await self._keep(peer, _Checked(nonce, bits))

    async def _keep(self, peer: str, checked: _Checked) -> None:
        writes: list[Write] = [Put(TABLE, peer, encode(checked))]
        self._checked.pop(peer, None)
        if len(self._checked) >= _CHECKED_MAX:
            oldest = next(one for one in self._checked if one != self._context.peer)
            del self._checked[oldest]
            writes.append(Delete(TABLE, oldest))
        self._checked[peer] = checked
        try:
            await self._context.store.commit(*writes)
        except StoreError as exc:  # it is checked again after a restart
            self._context.emit("work.unsaved", why=str(exc))
