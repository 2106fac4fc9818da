"""A broker, a contractor and a mailbox that are never all up, in a MockClock's time."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio

from meshnode.config import NodeConfig, OrdersConfig
from meshnode.domain.job import JobState
from meshnode.node import Node
from meshnode.services.job_terms import Terms
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.correspondence import keeping
from tests.meshnode.services.worlds import TextAgent, inputs, shouting, until

#: What an order has, seconds, after no more than is waited for anybody.
TIME_S: Final = 900
TERMS: Final = Terms(deadline_s=3 * TIME_S, patience_s=20, by_letter_s=TIME_S)


def taking(**limits: Any) -> NodeConfig:
    """Settings of a node that does work ordered by letter."""
    orders = OrdersConfig(enabled=True, **limits)
    changed: NodeConfig = msgspec.structs.replace(CONFIG, orders=orders)
    return changed


async def three(
    mesh: SimMesh, agents: Sequence[TextAgent] = (), config: NodeConfig | None = None
) -> tuple[Node, Node]:
    """Start a mailbox, Ada who is the broker, and Bob who takes orders; all know each other."""
    await mesh.start("box", config=keeping())
    await mesh.start("ada", config=CONFIG)
    await mesh.start("bob", agents=lambda: tuple(agents), config=config or taking())
    nodes = [mesh.node(name) for name in mesh.members]
    await until(lambda: all(len(node.known()) == len(nodes) for node in nodes))
    await trio.sleep(5)  # and both have looked into the mailbox
    return mesh.node("ada"), mesh.node("bob")


async def deposited(mesh: SimMesh, count: int = 1, *, for_: str = "bob") -> None:
    """Wait until a mailbox has so many letters for a node."""
    prefix = f"{mesh.peer(for_)}/"

    def kept() -> int:
        table = mesh.members["box"].disk.tables.get("mailbox_sealed", {})
        return sum(key.startswith(prefix) for key in table)

    await until(lambda: kept() >= count, within_s=300)


async def ended(node: Node, job: str, *, within_s: float = 20_000) -> JobState:
    with trio.fail_after(within_s):
        return await node.wait(job)


async def ordered(mesh: SimMesh, *words: str, terms: Terms = TERMS) -> str:
    """Have Ada order while Bob is away, and wait until a mailbox has all of it."""
    graph = shouting(len(words), **({"batch_items_max": 1} if len(words) > 1 else {}))
    job = await mesh.node("ada").submit(graph, inputs(*words), terms)
    await deposited(mesh, len(words))
    return job
