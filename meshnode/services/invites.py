"""Invites: made for somebody, taken by whoever holds them, and the way in by one.

An invite is kept by the hash of its secret.  A use is counted in the same commit that
keeps the trust edge to who joined, so it is counted once however often, and with
whatever breaks in between, the same node asks.
"""

from collections.abc import Sequence
from hmac import compare_digest
from typing import Final

import msgspec
import trio

from meshnode.domain.clocks import CLOCK_OFF_MS
from meshnode.errors import ConfigError, InputInvalid, MeshError, NotFound
from meshnode.ports import Delete, Put, Started
from meshnode.services.context import Context
from meshnode.services.membership import Edge, Members
from meshnode.services.sessions import Incoming, RequestFailed, Sessions
from protocol import limits
from protocol.codec import Count, decode_as, encode
from protocol.errors import ErrorCode, RemoteProtocolError
from protocol.invites import Invite, write_token
from protocol.keys import digest
from protocol.membership import Join, Joined, read_join, read_joined

JOIN: Final = "join"
INVITES: Final = "invite"

USES_MAX: Final = 10_000
LIFETIME_S_MAX: Final = 366 * 86_400.0
_NAME_SIZE_MAX: Final = 80
#: What a seed's own invites are for, for how many, how long, and how many are kept.
OPEN_NAME: Final = "seed list"
_OPEN_USES: Final = 1_000
_OPEN_S: Final = 30 * 86_400.0
_OPEN_KEPT: Final = 20
#: Invites kept at once; the lapsed ones are forgotten when there are more.
_KEPT_MAX: Final = 1_000
_JOIN_S: Final = 10.0
#: An inviter that doesn't answer is asked again after this, seconds.
_AGAIN_S: Final = 5.0


class InviteRow(msgspec.Struct, frozen=True, kw_only=True):
    """An invite as its maker keeps it.

    Attributes:
        secret: Hash of the secret.
        name: Whom it is for, as the owner says; or empty.
        uses: How many nodes may join by it.
        used: How many have.
        issued_ms: Unix time.
        expires_ms: Unix time from which nobody new joins by it.
        revoked: Nobody joins by it any more.
    """

    secret: bytes
    name: str
    uses: Count
    used: Count
    issued_ms: Count
    expires_ms: Count
    revoked: bool = False

    def lapsed(self, now_ms: int) -> bool:
        """Whether nobody new joins by it any more."""
        return self.revoked or self.used >= self.uses or self.expires_ms <= now_ms


_ROW: Final = msgspec.msgpack.Decoder(InviteRow)


class InviteRefused(MeshError):
    """The inviter didn't let this node in.

    Attributes:
        reason: Code of the protocol, such as ``expired``.
    """

    code = "invite.refused"

    def __init__(self, reason: str, inviter: str, *, offset_ms: int = 0) -> None:
        text, hint = _REASONS.get(reason, (f"was refused: {reason[:60]}", "ask for a new one"))
        if reason == "expired" and abs(offset_ms) > CLOCK_OFF_MS:
            ahead = "ahead of" if offset_ms > 0 else "behind"
            hint = (
                f"the inviter's clock is {abs(offset_ms) // 60_000} min {ahead} this"
                " machine's: set the wrong one right, or ask for a new invite"
            )
        super().__init__(f"the invite by {inviter} {text}", hint=hint)
        self.reason = reason


_REASONS: Final = {
    "unknown": (
        "is not known there",
        "its node has a new home or store: ask its owner for a new one, `meshnode invite`",
    ),
    "expired": ("has expired", "ask its owner for a new one: `meshnode invite`"),
    "used": ("is used up", "ask its owner for a new one: `meshnode invite --uses N`"),
    "revoked": ("was revoked", "ask its owner for a new one, if you should have one"),
    "depth": (
        "leads no further: it is 8 invitations from the mesh's founder",
        "ask somebody who is nearer to the founder for one",
    ),
    "above": (
        "goes round in a circle: that node was itself let in by this one",
        "you are in the same mesh already: leave this invite out",
    ),
}


class Invites:
    """This node's invites, and joining by another's."""

    def __init__(self, context: Context, *, sessions: Sessions, members: Members) -> None:
        self._context = context
        self._sessions = sessions
        self._members = members
        self._turn = trio.Lock()  # one use is counted at a time
        sessions.handle(JOIN, self._on_join)

    # --- the owner's ---

    async def create(
        self, addresses: Sequence[str], *, name: str = "", uses: int = 1, lifetime_s: float
    ) -> tuple[str, str, InviteRow]:
        """Return a new invite's id, its token, which is kept nowhere, and what is kept.

        Args:
            addresses: Where this node can be dialled, without ``/p2p``.
            name: Whom it is for.
            uses: How many nodes may join by it.
            lifetime_s: From now on, seconds.

        Raises:
            InputInvalid: One of them is out of range.
            ConfigError: This node can't be dialled, so nobody could join by it, or is too
                far from the founder to invite anyone.
        """
        if not 1 <= uses <= USES_MAX:
            raise InputInvalid(f"an invite for {uses} uses", hint=f"1 to {USES_MAX}")
        if not 1 <= lifetime_s <= LIFETIME_S_MAX:
            raise InputInvalid(
                f"an invite that expires in {lifetime_s:g} s", hint="1 second to 366 days"
            )
        if len(name) > _NAME_SIZE_MAX or not name.isprintable():
            raise InputInvalid(
                "an invite's name is one line", hint=f"of up to {_NAME_SIZE_MAX} characters"
            )
        if not addresses:
            raise ConfigError(
                "this node listens nowhere, so nobody could join through it",
                hint="set listen, such as /ip4/0.0.0.0/tcp/4001",
            )
        if len(self._members.links) >= limits.CHAIN_LINKS_MAX:
            raise ConfigError(
                "this node is 8 invitations from its mesh's founder: it can't invite anyone",
                hint="ask somebody who is nearer to the founder to",
            )
        now_ms = self._context.clock.now_ms()
        invite = Invite(
            network=self._context.network,
            peer=self._context.peer,
            addresses=_told(addresses),
            invite=self._context.entropy.token(limits.INVITE_ID_SIZE),
            secret=self._context.entropy.token(limits.INVITE_SECRET_SIZE),
            expires_ms=now_ms + round(lifetime_s * 1000),
        )
        row = InviteRow(
            secret=digest(invite.secret),
            name=name,
            uses=uses,
            used=0,
            issued_ms=now_ms,
            expires_ms=invite.expires_ms,
        )
        token = write_token(invite)
        await self._make_room(now_ms)
        await self._context.store.commit(Put(INVITES, invite.invite.hex(), encode(row)))
        self._context.emit("invite.made", invite=invite.invite.hex(), uses=uses)
        return invite.invite.hex(), token, row

    async def renew_open(self, addresses: Sequence[str]) -> str:
        """Return the token of a new invite for many, as a seed hands out at each start.

        The last few hold on: lists of seeds that were copied go on working.

        Raises:
            MeshError: As :meth:`create`.
        """
        rows = [(key, row) for key, row in await self.rows() if row.name == OPEN_NAME]
        old = [Delete(INVITES, key) for key, _ in rows[_OPEN_KEPT:]]
        if old:
            await self._context.store.commit(*old)
        _, token, _ = await self.create(
            addresses, name=OPEN_NAME, uses=_OPEN_USES, lifetime_s=_OPEN_S
        )
        return token

    async def rows(self) -> list[tuple[str, InviteRow]]:
        """Return every invite with its id, the newest first."""
        kept = await self._context.store.scan(INVITES)
        found = [(key, decode_as(raw, _ROW)) for key, raw in kept]
        return sorted(found, key=lambda item: -item[1].issued_ms)

    async def revoke(self, invite: str) -> InviteRow:
        """Let nobody join by ``invite`` any more; who has joined stays a member.

        Raises:
            NotFound: There is no such invite.
        """
        async with self._turn:
            row = await self._row(invite)
            if row is None:
                raise NotFound(
                    f"there is no invite {invite[:40]!r} here", hint="see `meshnode invites`"
                )
            row = msgspec.structs.replace(row, revoked=True)
            await self._context.store.commit(Put(INVITES, invite, encode(row)))
        self._context.emit("invite.revoked", invite=invite)
        return row

    async def _row(self, invite: str) -> InviteRow | None:
        raw = await self._context.store.read(INVITES, invite)
        return decode_as(raw, _ROW) if raw is not None else None

    async def _make_room(self, now_ms: int) -> None:
        """Forget lapsed invites once there are many.

        Raises:
            InputInvalid: There are too many that haven't lapsed.
        """
        rows = await self.rows()
        if len(rows) < _KEPT_MAX:
            return
        lapsed = [key for key, row in rows if row.lapsed(now_ms)]
        if not lapsed:
            raise InputInvalid(
                f"{len(rows)} invites are open", hint="revoke some, or make one with --uses"
            )
        await self._context.store.commit(*(Delete(INVITES, key) for key in lapsed))

    # --- who comes ---

    async def _on_join(self, incoming: Incoming) -> bytes:
        join, peer = read_join(incoming.body), incoming.peer
        async with self._turn:
            row = await self._row(join.invite.hex())
            reason = self._refusal(row, join, peer)
            if reason or row is None:
                self._context.emit("invite.refused", peer=peer, reason=reason)
                return encode(Joined([], reason))
            return encode(self._members.joined(await self._let_in(row, join, peer)))

    async def _let_in(self, row: InviteRow, join: Join, peer: str) -> list[bytes]:
        """Return the chain of ``peer``; it takes a use unless it was let in before."""
        edge = self._members.edge("invited", peer)
        writes = []
        if edge is None:
            counted = msgspec.structs.replace(row, used=row.used + 1)
            writes.append(Put(INVITES, join.invite.hex(), encode(counted)))
            edge = Edge(
                relation="invited",
                peer=peer,
                invite=join.invite,
                name=row.name,
                since_ms=self._context.clock.now_ms(),
            )
            self._context.emit("invite.taken", peer=peer, name=row.name)
        return await self._members.let_in(edge, *writes)

    def _refusal(self, row: InviteRow | None, join: Join, peer: str) -> str:
        """Return why ``peer`` can't come in, or empty."""
        if row is None or not compare_digest(row.secret, digest(join.secret)):
            return "unknown"
        if row.revoked:
            return "revoked"
        edge = self._members.edge("invited", peer)
        again = edge is not None and edge.invite == join.invite
        if not again and row.expires_ms <= self._context.clock.now_ms():
            return "expired"
        if not again and row.used >= row.uses:
            return "used"
        return self._members.hindrance(peer)

    # --- coming ---

    async def enter(
        self,
        invites: Sequence[Invite],
        *,
        task_status: Started = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Join by the first of ``invites`` that does; started once each was tried.

        Whoever doesn't answer is asked again later: a seed may come up after its nodes.

        Raises:
            InviteRefused: Each that answered said no.
        """
        waiting = await self._try_each(invites)
        task_status.started()
        while waiting:
            await trio.sleep(_AGAIN_S)
            waiting = await self._try_each(waiting)

    async def _try_each(self, invites: Sequence[Invite]) -> list[Invite]:
        """Return those that may still do, if none did."""
        waiting: list[Invite] = []
        refused: InviteRefused | None = None
        for invite in invites:
            try:
                with trio.fail_after(_JOIN_S):
                    await self.join(invite)
            except InviteRefused as exc:
                self._context.emit("invite.not_taken", peer=invite.peer, why=exc.line())
                # An old invite of a node's own inviter is no reason not to start it.
                if exc.reason != "above" and self._members.lineage.inviter != invite.peer:
                    refused = refused or exc
            except (MeshError, trio.TooSlowError) as exc:
                waiting.append(invite)
                why = str(exc) or "it took too long"
                self._context.emit("node.join_failed", peer=invite.peer, why=why)
            else:
                return []
        if refused is not None and not waiting:
            raise refused
        return waiting

    async def join(self, invite: Invite) -> None:
        """Become a member by ``invite``, unless this node is one by it already.

        Raises:
            InviteRefused: The inviter said no: asking again won't help.
            MeshError: It can't be reached, or didn't answer; it may later.
        """
        edge = self._members.edge("invited_by", invite.peer)
        held = self._members.lineage.inviter == invite.peer
        if invite.peer == self._context.peer or (
            edge and edge.invite == invite.invite and held
        ):
            return
        await self._sessions.connect(invite.peer, addresses=invite.addresses)
        body = encode(Join(invite.invite, invite.secret))
        try:
            raw = await self._sessions.request(invite.peer, JOIN, body, timeout_s=_JOIN_S)
            joined = read_joined(raw)
            self._members.learn_rotations(joined.rotations, invite.peer)
            if not joined.links:
                offset_ms = self._sessions.offset_ms(invite.peer)
                raise InviteRefused(joined.reason, invite.peer, offset_ms=offset_ms)
            edge = Edge(
                relation="invited_by",
                peer=invite.peer,
                invite=invite.invite,
                name="",
                since_ms=self._context.clock.now_ms(),
                addresses=invite.dialled(),
            )
            await self._members.adopt(joined.links, invite.peer, edge)
        except RequestFailed as exc:
            if exc.failure == ErrorCode.UNKNOWN_TYPE:
                raise InviteRefused("it is too old to know invites", invite.peer) from exc
            raise
        except RemoteProtocolError as exc:
            raise InviteRefused(f"its answer is no membership: {exc}", invite.peer) from exc


def _told(addresses: Sequence[str]) -> list[str]:
    """Return the addresses that go into a token: those that others reach come first."""
    ordered = sorted(addresses, key=is_local)
    return ordered[: limits.INVITE_ADDRESSES_MAX]


def is_local(address: str) -> bool:
    """Tell whether a multiaddr is of this machine only."""
    return address.startswith(("/ip4/127.", "/ip6/::1/"))
