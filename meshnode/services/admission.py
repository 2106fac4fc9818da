"""The door: who is let in to have work done, when, and how much of it.

What the owner said in the settings, and what he says while the node runs: a pause, which
holds through a restart.  Each kind of request has an allowance for each peer, so that
asking costs this node little.  The node's own business with itself always passes.
"""

import math
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from meshnode.domain.admission import NOT_ALLOWED, QUOTA, No, Now, Rules, closed, over_quota
from meshnode.domain.hours import Hours
from meshnode.errors import StoreError
from meshnode.ports import Delete, Put
from meshnode.services.allowance import Allowance
from meshnode.services.artifacts import Artifacts
from meshnode.services.bodies import (
    ACCEPTANCE,
    AWARD,
    CANCEL,
    CFP,
    DECLINE,
    OFFERS,
    PAYMENT,
    SUCCEED,
)
from meshnode.services.buyers import Purchaser
from meshnode.services.context import Context
from meshnode.services.invites import OPEN_NAME
from meshnode.services.mail import ACKS, COLLECT, DEPOSIT, KEY, LETTER, WAITING
from meshnode.services.membership import Members
from meshnode.services.served import Served
from meshnode.services.sessions import Handler, Incoming
from protocol.reputation import ASK, PROOFS

if TYPE_CHECKING:
    from collections.abc import Callable

_OWNER: Final = "owner"
_PAUSE: Final = "pause"

#: What a caller is told that the owner doesn't let call.
STRANGER: Final = No(
    NOT_ALLOWED, "this node works for members of its mesh only: ask its owner for an invite"
)
#: What a caller is told that has signed two statements that contradict each other.
BANNED: Final = No(
    NOT_ALLOWED, "this node holds two statements of yours that contradict each other"
)
#: What a caller is told whose outputs there is no room for.
NO_ROOM: Final = No(
    QUOTA, "this node keeps as many bytes of outputs as it may: some must lapse first"
)
#: Requests of one peer: method -> at once, and each second after.  A busy broker makes a
#: few hundred awards a second; offers it asks for every few seconds.
_RATES: Final = {
    CFP: (512, 128.0),
    OFFERS: (32, 4.0),
    AWARD: (2_048, 512.0),
    DECLINE: (512, 128.0),
    CANCEL: (2_048, 512.0),
    ACCEPTANCE: (2_048, 512.0),
    SUCCEED: (512, 128.0),
    PAYMENT: (32, 1.0),
    LETTER: (256, 8.0),
    DEPOSIT: (256, 8.0),
    COLLECT: (64, 2.0),
    ACKS: (64, 2.0),
    KEY: (64, 2.0),
    WAITING: (64, 2.0),
    ASK: (64, 1.0),
    PROOFS: (16, 0.2),
}
#: How often full allowances are forgotten, seconds.
_SWEEP_S: Final = 60.0


class Pause(msgspec.Struct, frozen=True):
    """The owner wants nothing done for others.

    Attributes:
        since_ms: Unix time.
        until_ms: When it ends by itself; 0 for when he says so.
    """

    since_ms: int
    until_ms: int = 0


class Admission:
    """See the module.  :meth:`load` first.

    Attributes:
        is_banned: Whether a peer is let do nothing here, whatever the owner says.
    """

    def __init__(
        self, context: Context, *, members: Members, served: Served, artifacts: Artifacts
    ) -> None:
        self.is_banned: Callable[[str], bool] = _nobody
        self._artifacts = artifacts
        self._own = context.peer
        self._clock = context.clock
        self._store = context.store
        self._emit = context.emit
        self._access = context.config.access
        self._quota = context.config.quota
        self._ledger = context.config.ledger
        self._is_public = context.config.is_public
        self._hours = Hours.parse(self._access.opening)
        self._members = members
        self._served = served
        self._pause: Pause | None = None
        self._swept_s = -math.inf  # on Trio's clock
        self._allowances = {
            method: Allowance(f"{method} requests of one peer", burst=burst, per_s=per_s)
            for method, (burst, per_s) in _RATES.items()
        }

    # --- the owner's word ---

    @property
    def paused(self) -> Pause | None:
        """The pause that holds now."""
        pause = self._pause
        if pause is not None and 0 < pause.until_ms <= self._clock.now_ms():
            return None
        return pause

    async def pause(self, until_ms: int = 0) -> Pause:
        """Take on nothing more for others, until ``until_ms`` or :meth:`resume`.

        Raises:
            StoreError: It can't be written down; nothing changed.
        """
        pause = Pause(self._clock.now_ms(), until_ms)
        await self._store.commit(Put(_OWNER, _PAUSE, msgspec.msgpack.encode(pause)))
        self._pause = pause
        self._emit("owner.paused", until_ms=until_ms)
        return pause

    async def resume(self) -> bool:
        """End a pause; tell whether there was one.

        Raises:
            StoreError: It can't be written down; nothing changed.
        """
        was = self.paused is not None
        await self._store.commit(Delete(_OWNER, _PAUSE))
        self._pause = None
        if was:
            self._emit("owner.resumed")
        return was

    async def load(self) -> None:
        """Take up a pause from before.

        Raises:
            StoreError: What is there is none.
        """
        raw = await self._store.read(_OWNER, _PAUSE)
        if raw is None:
            return
        try:
            self._pause = msgspec.msgpack.decode(raw, type=Pause)
        except msgspec.MsgspecError as exc:
            raise StoreError(f"{_OWNER}/{_PAUSE} is no pause: {exc}") from exc

    # --- deciding ---

    @property
    def rules(self) -> Rules:
        """What the owner says, as of now."""
        pause = self._pause
        return Rules(
            hours=self._hours,
            quota=self._quota,
            paused=pause is not None,
            paused_until_ms=pause.until_ms if pause is not None else 0,
        )

    @property
    def now(self) -> Now:
        """The time, here."""
        return Now(self._clock.now_ms(), self._clock.ahead_s(self._access.time_zone))

    def closed(self) -> No | None:
        """Return why nobody else may have anything now, if that is so."""
        return closed(self.rules, self.now)

    async def stranger(self, peer: str) -> No | None:
        """Refuse ``peer`` if the owner doesn't let it call; it may be asked who it is.

        Raises:
            Busy: It didn't answer.
        """
        if self.is_banned(peer):
            return BANNED
        if why := self._members.fates.bar(peer):
            return No(NOT_ALLOWED, why)
        return None if await self._members.may_call(peer) else STRANGER

    def refusal(self, peer: str, calls: int) -> No | None:
        """Return why ``peer`` may not have ``calls`` calls now, if that is so."""
        if peer == self._own:
            return None
        rules, now = self.rules, self.now
        if (no := closed(rules, now)) is not None:
            return no
        if self._artifacts.is_full(peer):
            return NO_ROOM
        return over_quota(
            rules,
            calls,
            caller=self._served.use(peer),
            everyone=self._served.everyone,
            now=now,
        )

    def purchaser(self, peer: str) -> Purchaser:
        """Return ``peer`` as a buyer: its keys, and what it may have out to begin with."""
        fates = self._members.fates
        heir = fates.heir(peer)
        keys = tuple(dict.fromkeys((peer, heir, *fates.followed(heir))))
        if peer == self._own or any(key in self._ledger.believed for key in keys):
            return Purchaser(keys, 0)
        known = self._is_known(peer)
        return Purchaser(
            keys, self._ledger.member_first_mc if known else self._ledger.stranger_first_mc
        )

    def _is_known(self, peer: str) -> bool:
        """Tell whether somebody stands for ``peer``, or its membership costs something."""
        standing = self._members.standing(peer)
        if standing == "inviter":
            return True
        if standing == "invited" and self._members.name_of(peer) != OPEN_NAME:
            return True
        return standing != "stranger" and not self._is_public

    def limited(self, handler: Handler, method: str) -> Handler:
        """Return ``handler`` of ``method`` for those only who don't ask too often.

        Others are told that this node is busy, and until when, before anything is read.
        """
        allowance = self._allowances[method]

        async def handle(incoming: Incoming) -> bytes:
            if incoming.peer != self._own:
                now_s = trio.current_time()
                self._sweep(now_s)
                allowance.take(incoming.peer, 1, now_s=now_s)
            return await handler(incoming)

        return handle

    def _sweep(self, now_s: float) -> None:
        """Keep what is remembered of peers small: it grows with requests only."""
        if now_s >= self._swept_s + _SWEEP_S:
            self._swept_s = now_s
            for allowance in self._allowances.values():
                allowance.sweep(now_s=now_s)


def _nobody(_: str) -> bool:
    return False
