"""A peer-to-peer mesh node: agents, capability records, brokers, task graphs.

The Python API stands here (see :mod:`meshnode.public`, and docs/python.md)::

    from meshnode import Node, agent, TaskGraph

It is loaded when a name of it is first asked for, so that ``meshnode --help`` and
programs that want a part of the package don't pay for libp2p; what an agent or a test is
written with never does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshnode.public import (
        Agent,
        AgentCall,
        AgentSpec,
        Chunk,
        Job,
        JobEvent,
        JobFailed,
        JobResult,
        MeshError,
        Node,
        NodeConfig,
        Output,
        Place,
        TaskGraph,
        agent,
    )

__all__ = [
    "Agent",
    "AgentCall",
    "AgentSpec",
    "Chunk",
    "Job",
    "JobEvent",
    "JobFailed",
    "JobResult",
    "MeshError",
    "Node",
    "NodeConfig",
    "Output",
    "Place",
    "TaskGraph",
    "agent",
]


#: Names that don't need a node: tests and modules of agents have them without libp2p.
_LIGHT = {
    "agent": "meshnode.adapters.agents.function",
    "Agent": "meshnode.ports",
    "AgentCall": "meshnode.ports",
    "AgentSpec": "meshnode.ports",
    "Chunk": "meshnode.ports",
    "JobFailed": "meshnode.errors",
    "MeshError": "meshnode.errors",
    "NodeConfig": "meshnode.config",
    "Output": "meshnode.ports",
    "Place": "meshnode.domain.graph_builder",
    "TaskGraph": "meshnode.domain.graph_builder",
}


def __getattr__(name: str) -> object:
    """Return a name of the API."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # libp2p takes most of a second to import
    return getattr(import_module(_LIGHT.get(name, "meshnode.public")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
