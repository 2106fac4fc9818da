"""Who is who in the mesh: this node's chain of invitations, and those of its peers.

A chain is asked for when it is wanted, over the session with its holder, and kept in
memory while it holds: whoever does no business here costs nothing.  What this node's
owner did (invited somebody, was invited) is kept in the store as a *trust edge*.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import msgspec
import trio

from meshnode.config import ANYONE, INVITED, MEMBERS
from meshnode.errors import Busy, MeshError, StoreError, StreamLost, Unreachable
from meshnode.ports import Delete, Put
from meshnode.services.context import Context
from meshnode.services.key_fates import KeyFates
from meshnode.services.sessions import Incoming, RequestTimeout, Sessions
from protocol import limits
from protocol.codec import decode_as, encode
from protocol.errors import Expired, Malformed, RemoteProtocolError, Revoked
from protocol.membership import (
    Chain,
    Joined,
    Lineage,
    extend,
    names_in,
    read_chain,
    read_joined,
    read_presented,
)
from protocol.signing import peek

MEMBERSHIP: Final = "membership"
RENEW: Final = "renew"

#: Network id -> this node's :class:`~protocol.membership.Chain` in that mesh.
CHAINS: Final = "membership"
#: ``relation/PeerId`` -> :class:`Edge`.
EDGES: Final = "trust_edge"

#: Chains of peers kept in memory, the oldest forgotten first.
_KNOWN_MAX: Final = 8_192
#: A peer that had no chain for us is asked again after this, seconds: it may have joined.
_ASK_AGAIN_S: Final = 2.0
_TIMEOUT_S: Final = 5.0
#: Times that it is asked in a row while it doesn't answer, and the pause between; seconds.
_ASKED_MAX: Final = 3
_PAUSE_S: Final = 0.1
#: When whoever couldn't be asked may call again, milliseconds.
_BUSY_MS: Final = 500
#: How often the inviter is asked for a younger link, seconds.
_RENEW_S: Final = 3_600.0
#: A link with less than this before it is renewed, milliseconds.
_HALF_LIFE_MS: Final = limits.LINK_LIFETIME_MS_MAX // 2

Standing = Literal["self", "inviter", "invited", "member", "stranger"]
Relation = Literal["invited", "invited_by"]


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """That one node trusted another enough to let it in, as this node knows it.

    Attributes:
        relation: This node ``invited`` the peer, or was ``invited_by`` it.
        peer: Who.
        invite: Id of the invite.
        name: What the owner calls it, or empty.
        since_ms: Unix time.
        addresses: Where an inviter can be dialled, with ``/p2p``.
    """

    relation: Relation
    peer: str
    invite: bytes
    name: str
    since_ms: int
    addresses: list[str] = []

    @property
    def write(self) -> Put:
        """What keeps it."""
        return Put(EDGES, f"{self.relation}/{self.peer}", encode(self))


_EDGE: Final = msgspec.msgpack.Decoder(Edge)
_CHAIN: Final = msgspec.msgpack.Decoder(Chain)


class Members:
    """See the module.  :meth:`load` first, then :meth:`run`."""

    def __init__(self, context: Context, *, sessions: Sessions, fates: KeyFates) -> None:
        self.fates = fates
        self._context = context
        self._sessions = sessions
        self._callers = context.config.access.admitted
        self._links: list[bytes] = []
        self._lineage = self._founder()
        self._edges: dict[tuple[Relation, str], Edge] = {}
        self._known: dict[str, Lineage] = {}
        self._asked_s: dict[str, float] = {}
        self._asking: dict[str, trio.Event] = {}
        self._loaded = trio.Event()
        self._met_inviter = trio.Event()
        sessions.handle(MEMBERSHIP, self._on_membership)
        sessions.handle(RENEW, self._on_renew)
        sessions.on_change(self._session_changed)
        fates.on_change(self._key_ended)

    # --- asking ---

    @property
    def lineage(self) -> Lineage:
        """Where this node stands in its mesh's tree."""
        return self._lineage

    @property
    def links(self) -> Sequence[bytes]:
        """This node's chain."""
        return tuple(self._links)

    def standing(self, peer: str) -> Standing:
        """Return what ``peer`` is to this node, as far as is known: see :meth:`meet`."""
        if peer == self._context.peer:
            return "self"
        if self.fates.bar(peer):
            return "stranger"
        if peer == self._lineage.inviter or ("invited_by", peer) in self._edges:
            return "inviter"
        if ("invited", peer) in self._edges:
            return "invited"
        return "member" if self._root_of(peer) == self._lineage.root else "stranger"

    def is_member(self, peer: str) -> bool:
        """Tell whether ``peer`` is known to be in this node's mesh, or this node itself."""
        return self.standing(peer) != "stranger"

    def name_of(self, peer: str) -> str:
        """Return what the owner called ``peer`` when inviting it, or empty."""
        edge = self._edges.get(("invited", peer))
        return edge.name if edge is not None else ""

    def edges(self) -> Sequence[Edge]:
        """Return the trust edges of this node, the oldest first."""
        return sorted(self._edges.values(), key=lambda edge: (edge.since_ms, edge.peer))

    def edge(self, relation: Relation, peer: str) -> Edge | None:
        """Return one of them."""
        return self._edges.get((relation, peer))

    async def may_call(self, peer: str) -> bool:
        """Tell whether the owner lets ``peer`` call; may ask the peer for its chain.

        Raises:
            Busy: It has to be asked, and doesn't answer: nothing is known of it.
        """
        await self._loaded.wait()
        if self.fates.bar(peer):
            return False
        if ANYONE in self._callers or peer in self._callers or peer == self._context.peer:
            return True
        if INVITED in self._callers and self.standing(peer) in {"inviter", "invited"}:
            return True
        if MEMBERS not in self._callers:
            return False
        if not await self.meet(peer):
            raise Busy("the look at who calls", retry_after_ms=_BUSY_MS)
        return self.is_member(peer)

    def admits(self, peer: str, links: Sequence[bytes]) -> bool:
        """Tell whether the owner lets ``peer`` call, by the chain that it has shown.

        Nobody is asked: ``peer`` may be away.
        """
        if not self.is_member(peer):
            self._learn(peer, links)
        return self.lets(peer)

    def lets(self, peer: str) -> bool:
        """Tell whether the owner lets ``peer`` call, by what is known of it already."""
        standing = self.standing(peer)
        return not self.fates.bar(peer) and (
            ANYONE in self._callers
            or peer in self._callers
            or standing == "self"
            or (INVITED in self._callers and standing in {"inviter", "invited"})
            or (MEMBERS in self._callers and standing != "stranger")
        )

    async def meet(self, peer: str) -> bool:
        """Learn the chain of ``peer``, unless it is known to be no stranger.

        Return False if it can't be asked, or doesn't answer.
        """
        await self._loaded.wait()
        while (asking := self._asking.get(peer)) is not None:
            await asking.wait()
        lately_s = self._asked_s.get(peer, -_ASK_AGAIN_S) + _ASK_AGAIN_S
        if self.is_member(peer) or trio.current_time() < lately_s:
            return True
        done = self._asking[peer] = trio.Event()
        try:
            for _ in range(_ASKED_MAX):
                if await self._ask(peer):
                    return True
                await trio.sleep(_PAUSE_S)
        finally:
            del self._asking[peer]
            done.set()
        return False

    async def _ask(self, peer: str) -> bool:
        """Exchange chains with ``peer``; return whether there is an answer.

        Where both had dialled, one of the sessions is just being closed: a request that
        goes down with it is asked again on the other.
        """
        body = encode(self._shown(self._links))
        try:
            answer = await self._sessions.request(peer, MEMBERSHIP, body, timeout_s=_TIMEOUT_S)
            self._learn_shown(peer, read_presented(answer))
        except (Busy, StreamLost, Unreachable, RequestTimeout) as exc:
            self._context.emit("membership.unknown", peer=peer, why=str(exc))
            return False
        except (MeshError, RemoteProtocolError) as exc:
            self._context.emit("membership.refused", peer=peer, why=str(exc))
        self._keep_bounded(self._asked_s)
        self._asked_s[peer] = trio.current_time()
        return True

    # --- living ---

    async def load(self) -> None:
        """Read what is kept.

        Raises:
            StoreError: It can't be read.
        """
        store, network = self._context.store, self._context.network
        for _, row in await store.scan(EDGES):
            edge = decode_as(row, _EDGE)
            self._edges[edge.relation, edge.peer] = edge
        await self._move_all_edges()
        kept = dict(await store.scan(CHAINS))
        if network in kept:
            self._judge_own(decode_as(kept[network], _CHAIN).links)
        elif kept:
            self._context.emit("membership.elsewhere", networks=sorted(kept), network=network)
        self._loaded.set()

    async def run(self) -> None:
        """Have this node's chain renewed in time, until cancelled."""
        while True:
            self._met_inviter = trio.Event()
            await self._move_all_edges()
            inviter = self.inviter
            if inviter in self._sessions.connected():
                await self._renew(inviter)
            with trio.move_on_after(_RENEW_S):
                await self._met_inviter.wait()

    @property
    def inviter(self) -> str:
        """Who let this node in, also when its chain has lapsed since; or empty."""
        if self._lineage.inviter:
            return self._lineage.inviter
        by = [edge for edge in self.edges() if edge.relation == "invited_by"]
        return self.fates.heir(by[-1].peer) if by else ""

    def _session_changed(self, peer: str, opened: bool) -> None:  # noqa: FBT001 - Sessions calls it so
        if opened and peer == self.inviter:
            self._met_inviter.set()

    async def _renew(self, inviter: str) -> None:
        try:
            body = encode(self._shown(self._links))
            raw = await self._sessions.request(inviter, RENEW, body, timeout_s=_TIMEOUT_S)
            joined = read_joined(raw)
            self.learn_rotations(joined.rotations, inviter)
            if joined.links:
                await self.adopt(joined.links, inviter)
            else:
                self._context.emit("membership.not_renewed", peer=inviter, why=joined.reason)
        except (MeshError, RemoteProtocolError) as exc:
            self._context.emit("membership.not_renewed", peer=inviter, why=str(exc))

    async def adopt(self, links: list[bytes], inviter: str, *edges: Edge) -> None:
        """Make ``links``, which ``inviter`` gave, this node's chain; durable on return.

        Raises:
            RemoteProtocolError: They are no chain of this node through ``inviter``.
            StoreError: They can't be written down.
        """
        lineage = self._read(self._context.peer, links)
        if lineage.inviter != inviter:
            raise Malformed("the chain is not by the peer that gave it")
        if links == self._links and not edges:
            return
        put = Put(CHAINS, self._context.network, encode(Chain(links)))
        await self._context.store.commit(put, *(edge.write for edge in edges))
        moved = lineage.root != self._lineage.root
        self._links, self._lineage = links, lineage
        for edge in edges:
            self._edges[edge.relation, edge.peer] = edge
        if moved:
            self._asked_s.clear()  # they may know this node otherwise from now on
        self._context.emit(
            "membership.held", root=lineage.root, inviter=inviter, depth=len(links)
        )

    async def let_in(self, edge: Edge, *writes: Put) -> list[bytes]:
        """Return a chain for who is let in by ``edge``, kept together with ``writes``.

        Raises:
            LocalProtocolError: This node's own chain can't be made longer, or the peer is
                above it: look at :attr:`lineage` first.
            StoreError: It can't be written down.
        """
        links = self._links_for(edge.peer)
        await self._context.store.commit(edge.write, *writes)
        self._edges[edge.relation, edge.peer] = edge
        return links

    def _links_for(self, peer: str) -> list[bytes]:
        link = extend(
            self._context.signer.identity,
            self._lineage,
            peer,
            network=self._context.network,
            now_ms=self._context.clock.now_ms(),
        )
        return [*self._links, link]

    # --- being asked ---

    async def _on_membership(self, incoming: Incoming) -> bytes:
        """Exchange chains."""
        chain = read_presented(incoming.body)
        await self._loaded.wait()
        self._learn_shown(incoming.peer, chain)
        return encode(self._shown(self._links))

    async def _on_renew(self, incoming: Incoming) -> bytes:
        """Give whom this node invited its chain again, young."""
        await self._loaded.wait()
        peer, chain = incoming.peer, read_presented(incoming.body)
        self.learn_rotations(chain.rotations, peer)
        for key in self.fates.followed(peer):
            await self._move_edges(key)
        if ("invited", peer) not in self._edges:
            return encode(Joined([], "unknown"))
        if reason := self.hindrance(peer):
            return encode(Joined([], reason))
        self._learn(peer, chain.links)
        held = self._known.get(peer)
        # By the names in the links: a key that was rotated has them signed anew.
        if held is not None and held.names == (*self._lineage.path, peer):
            left_ms = held.expires_ms - self._context.clock.now_ms()
            if left_ms > _HALF_LIFE_MS:  # nothing to gain: what it holds is good
                return encode(self.joined(chain.links))
        return encode(self.joined(self._links_for(peer)))

    def joined(self, links: list[bytes]) -> Joined:
        """Return the answer that gives somebody ``links``."""
        return Joined(links, "", self._shown(links).rotations)

    def hindrance(self, peer: str) -> str:
        """Return why no link to ``peer`` can be signed, or empty: a reason of the spec."""
        if peer in self._lineage.path:
            return "above"
        return "depth" if len(self._links) >= limits.CHAIN_LINKS_MAX else ""

    # --- pieces ---

    def _founder(self) -> Lineage:
        return self._read(self._context.peer, [])

    def _read(self, member: str, links: Sequence[bytes]) -> Lineage:
        """Return what ``links`` prove about ``member``, as keys stand now.

        Raises:
            RemoteProtocolError: Nothing.
        """
        now_ms = self._context.clock.now_ms()
        lineage = read_chain(
            links,
            member=member,
            network=self._context.network,
            now_ms=now_ms,
            heir=self.fates.heir,
        )
        for issuer in [peek(link).i for link in links]:
            ended_ms = self.fates.ended_ms(issuer)
            if ended_ms is None:
                continue
            if not self.fates.has_heir(issuer):
                raise Revoked(f"a link is by the key {issuer}, which is revoked")
            until_ms = ended_ms + limits.ROTATED_LINKS_MS
            if now_ms >= until_ms:
                raise Expired(f"a link is by the key {issuer}, which was followed long ago")
            expires_ms = min(lineage.expires_ms, until_ms - limits.LINK_SKEW_MS_MAX)
            lineage = replace(lineage, expires_ms=expires_ms)
        return lineage

    def _shown(self, links: list[bytes]) -> Chain:
        """Return ``links`` with what shows who goes on for keys in them that have ended."""
        if not self.fates.ended:
            return Chain(links)
        names = [name for link in links for name in names_in(link)]
        own = self.fates.followed(self._context.peer)
        return Chain(links, self.fates.shown((*own, *names))[: limits.CHAIN_ROTATIONS_MAX])

    def _learn_shown(self, peer: str, chain: Chain) -> None:
        self.learn_rotations(chain.rotations, peer)
        self._learn(peer, chain.links)

    def learn_rotations(self, rotations: Sequence[bytes], peer: str) -> None:
        """Learn what came with a chain of ``peer``; what doesn't hold shows in the chain."""
        for envelope in rotations:
            try:
                self.fates.take(envelope, source=peer)
            except RemoteProtocolError as exc:
                self._context.emit("membership.refused", peer=peer, why=str(exc))

    def _key_ended(self, _: str) -> None:
        """Judge all chains anew: whose they are, and which hold."""
        self._known.clear()
        self._asked_s.clear()
        if self._loaded.is_set():
            self._judge_own(self._links)
            self._met_inviter.set()  # its heir may give this node another link

    def _judge_own(self, links: list[bytes]) -> None:
        try:
            self._lineage, self._links = self._read(self._context.peer, links), links
        except RemoteProtocolError as exc:
            # It lapsed: the inviter renews it, or a new invite does.
            self._lineage, self._links = self._founder(), []
            self._context.emit("membership.lapsed", why=str(exc))

    async def _move_all_edges(self) -> None:
        if not self.fates.ended:
            return
        try:
            for _, peer in list(self._edges):
                await self._move_edges(peer)
        except StoreError as exc:  # they are moved when it is asked for them
            self._context.emit("membership.unsaved", why=str(exc))

    async def _move_edges(self, peer: str) -> None:
        """Let the heir of ``peer`` have what this node's owner did with that.

        Raises:
            StoreError: It can't be written down; nothing changed.
        """
        heir = self.fates.heir(peer)
        relations: tuple[Relation, ...] = ("invited", "invited_by")
        for relation in relations:
            edge = self._edges.get((relation, peer))
            if edge is None or heir in {peer, self._context.peer}:
                continue
            moved = msgspec.structs.replace(edge, peer=heir)
            gone = Delete(EDGES, f"{relation}/{peer}")
            await self._context.store.commit(moved.write, gone)
            self._edges.pop((relation, peer), None)
            self._edges[relation, heir] = moved

    def _learn(self, peer: str, links: Sequence[bytes]) -> None:
        """Keep what ``peer`` shows, if it holds."""
        try:
            lineage = self._read(peer, links)
        except RemoteProtocolError as exc:
            self._known.pop(peer, None)
            self._context.emit("membership.refused", peer=peer, why=str(exc))
            return
        self._known.pop(peer, None)
        self._keep_bounded(self._known)
        self._known[peer] = lineage

    @staticmethod
    def _keep_bounded(table: dict[str, Lineage] | dict[str, float]) -> None:
        if len(table) >= _KNOWN_MAX:
            table.pop(next(iter(table)))

    def _root_of(self, peer: str) -> str:
        """Return the founder of the mesh that ``peer`` is known to be in, or its own."""
        lineage = self._known.get(peer)
        if lineage is None:
            return peer
        now_ms = self._context.clock.now_ms()
        held = now_ms < lineage.expires_ms + limits.LINK_SKEW_MS_MAX
        return lineage.root if held else ""
