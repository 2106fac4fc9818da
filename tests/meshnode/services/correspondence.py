"""Two owners who write to each other, in virtual time (a MockClock's)."""

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from meshnode.config import InboxConfig, MailboxConfig, NodeConfig
from meshnode.node import Node
from meshnode.services.mail import HELD_SEALED, InboxRow, OutboxRow
from meshnode.services.signer import Topic
from protocol.codec import encode
from protocol.mail import Letter, sign_letter
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import start, until


def settings(**limits: Any) -> NodeConfig:
    """Settings with other limits of the inbox."""
    changed: NodeConfig = msgspec.structs.replace(CONFIG, inbox=InboxConfig(**limits))
    return changed


def keeping(**limits: Any) -> NodeConfig:
    """Settings of a mailbox."""
    kept = MailboxConfig(enabled=True, **limits)
    changed: NodeConfig = msgspec.structs.replace(CONFIG, mailbox=kept)
    return changed


async def two(mesh: SimMesh, config: NodeConfig = CONFIG) -> tuple[Node, Node]:
    """Start Ada, who writes, and Bob; they know each other."""
    ada, bob = await start(mesh, config, ada=(), bob=())
    return ada, bob


def apart(mesh: SimMesh) -> None:
    """Let nothing pass between Ada and Bob; everybody else hears both."""
    ada, bob = mesh.peer("ada"), mesh.peer("bob")
    mesh.world.network.cut_one_way(ada, bob)
    mesh.world.network.cut_one_way(bob, ada)


async def write(mesh: SimMesh, text: str, by: str = "ada", to: str = "bob", **more: Any) -> str:
    """Have a letter written; return its name."""
    return await mesh.node(by).outbox.write(mesh.peer(to), text.encode(), **more)


def by_hand(
    node: Node, to: str, number: int = 0, *, body: bytes = b"by hand", **header: Any
) -> bytes:
    """A letter that a node's own code would not have sent."""
    made = node.outbox._context.signer.header(to, Topic(), lifetime_ms=3_600_000)
    fields = {name: getattr(made, name) for name in made.__struct_fields__}
    heading = type(made)(**{**fields, "id": bytes([number]) * 16, **header})
    letter = Letter(h=heading, kind="text/plain", subject="", body=body, answers=b"")
    return sign_letter(node._ports.identity, letter)


async def texts(node: Node) -> list[str]:
    """What has come, in order of the alphabet."""
    found = [(await node.inbox.letter(name))[1].body.decode() for name, _ in await rows(node)]
    return sorted(found)


async def rows(node: Node) -> Sequence[tuple[str, InboxRow]]:
    return await node.inbox.rows()


async def ended(mesh: SimMesh, name: str, by: str = "ada", within_s: float = 60.0) -> OutboxRow:
    """Wait until a letter no longer waits; return how it stands."""
    with trio.fail_after(within_s):
        while True:
            row = await mesh.node(by).outbox.row(name)
            if row.state != "waiting":
                return row
            await trio.sleep(0.1)


# --- with mailboxes between ---


async def three(mesh: SimMesh, boxes: int = 1, **limits_: Any) -> list[str]:
    """Start mailboxes, Ada and Bob; all know each other, and Bob has collected once."""
    names = [f"box{n}" for n in range(boxes)]
    for name in names:
        await mesh.start(name, config=keeping(**limits_))
    for name in ("ada", "bob"):
        await mesh.start(name, config=CONFIG)
    nodes = [mesh.node(name) for name in mesh.members]
    await until(lambda: all(len(node.known()) == len(nodes) for node in nodes))
    await trio.sleep(2)
    return names


def held(mesh: SimMesh, name: str, table: str = HELD_SEALED) -> dict[str, bytes]:
    """What a mailbox has on its disk."""
    return mesh.members[name].disk.tables.get(table, {})


def ask(node: Node, to: str, method: str, body: Any) -> Any:
    return node.sessions.request(to, method, encode(body), timeout_s=10)
