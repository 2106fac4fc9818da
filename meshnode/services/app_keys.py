"""Programs that this node's key has certified: who is let in for what, and who no more.

A certificate is made with the key alone, also while the node is down, so the node doesn't
know how many there are.  What it keeps is the keys that its owner has withdrawn, for as
long as a certificate may live.
"""

from typing import Final

import msgspec

from meshnode.errors import InputInvalid
from meshnode.ports import Delete, Put, Write
from meshnode.services.context import Context
from protocol import limits
from protocol.app_keys import AppCertificate, read_pass, require
from protocol.codec import Count, decode_as, encode
from protocol.errors import Malformed, Revoked
from protocol.keys import public_key

#: PeerId of an app key -> :class:`_Row`.
TABLE: Final = "app_withdrawn"
_KEPT_MAX: Final = 1_024


class _Row(msgspec.Struct, frozen=True):
    at_ms: Count


_ROW: Final = msgspec.msgpack.Decoder(_Row)


class AppKeys:
    """See the module.  :meth:`load` first."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._withdrawn: dict[str, int] = {}

    async def load(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: It can't be read.
        """
        for app, raw in await self._context.store.scan(TABLE):
            self._withdrawn[app] = decode_as(raw, _ROW).at_ms

    def admit(self, envelope: bytes, purpose: str) -> AppCertificate:
        """Return who bears the pass in ``envelope``, if that may do what ``purpose`` names.

        Raises:
            Revoked: The owner has withdrawn the key.
            NotCovered: It is certified for something else.
            RemoteProtocolError: It is no pass to this node, or none that counts now.
        """
        certificate = read_pass(
            envelope,
            issuer=self._context.peer,
            network=self._context.network,
            now_ms=self._context.clock.now_ms(),
        )
        if certificate.app in self._withdrawn:
            raise Revoked("the owner of this node has withdrawn the key")
        require(certificate, purpose)
        return certificate

    def withdrawn(self) -> dict[str, int]:
        """Return the keys that are let in no more, and since when, Unix time."""
        return dict(self._withdrawn)

    async def withdraw(self, app: str) -> None:
        """Let the program with the key ``app`` in no more, durably.

        Raises:
            InputInvalid: It is no PeerId, or there are too many.
            StoreError: It can't be written down; nothing changed.
        """
        try:
            public_key(app)
        except Malformed as exc:
            raise InputInvalid(
                f"{app[:60]!r} names no app key", hint="its certificate does: a PeerId"
            ) from exc
        now_ms = self._context.clock.now_ms()
        oldest_ms = now_ms - limits.CERTIFICATE_LIFETIME_MS_MAX - 2 * limits.SKEW_MS_MAX
        lapsed = [key for key, at_ms in self._withdrawn.items() if at_ms < oldest_ms]
        if len(self._withdrawn) - len(lapsed) >= _KEPT_MAX and app not in self._withdrawn:
            raise InputInvalid(
                f"{_KEPT_MAX} app keys are withdrawn", hint="rotate the node's key instead"
            )
        writes: list[Write] = [Delete(TABLE, key) for key in lapsed]
        await self._context.store.commit(*writes, Put(TABLE, app, encode(_Row(now_ms))))
        for key in lapsed:
            del self._withdrawn[key]
        self._withdrawn[app] = now_ms
        self._context.emit("app.withdrawn", app=app)
