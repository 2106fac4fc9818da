"""Nodes that were invited, and by hand: what tests of membership and invites share."""

from collections.abc import Sequence
from typing import Any

import msgspec

from meshnode.config import AccessConfig, NodeConfig
from meshnode.node import Node
from meshnode.ports import Agent
from meshnode.services.invites import JOIN, InviteRow
from protocol.codec import encode
from protocol.invites import read_token
from protocol.membership import Join, Joined, read_joined
from simulations.mesh import CONFIG, SimMesh

#: As nodes are by default.
STRICT = msgspec.structs.replace(CONFIG, access=AccessConfig())


def calling(*callers: str) -> NodeConfig:
    return msgspec.structs.replace(CONFIG, access=AccessConfig(callers=callers))


def holding(*tokens: str, config: NodeConfig = STRICT) -> NodeConfig:
    return msgspec.structs.replace(config, join=tokens)


async def token_of(node: Node, **options: Any) -> str:
    _, token, _ = await node.invites.create(
        node.dialled, **{"lifetime_s": 3_600.0, "uses": 1, **options}
    )
    return token


async def invited(
    mesh: SimMesh, by: str, name: str, *agents: Agent, config: NodeConfig = STRICT
) -> Node:
    """Start ``name`` with an invite of ``by``."""
    token = await token_of(mesh.node(by))
    return await mesh.start(name, agents=lambda: agents, config=holding(token, config=config))


async def row_of(node: Node, token: str) -> InviteRow:
    return dict(await node.invites.rows())[read_token(token).invite.hex()]


async def joined(node: Node, by: Node, body: bytes | None = None, *, token: str = "") -> Joined:
    """Ask ``by`` to be let in, by hand."""
    if body is None:
        invite = read_token(token)
        body = encode(Join(invite.invite, invite.secret))
    return read_joined(await node.sessions.request(by.peer, JOIN, body, timeout_s=10))


def standings(nodes: Sequence[Node], of: Node) -> list[str]:
    return [of.members.standing(node.peer) for node in nodes]
