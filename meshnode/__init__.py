"""A peer-to-peer mesh node: agents, capability records, brokers, task graphs.

The Python API stands here (see :mod:`meshnode.public`, and docs/python.md)::

    from meshnode import Node, agent, TaskGraph

It is loaded when a name of it is first asked for, so that ``meshnode --help`` and
programs that want a part of the package don't pay for libp2p.
"""

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


def __getattr__(name: str) -> object:
    """Return a name of the API."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from meshnode import public  # noqa: PLC0415 - libp2p takes most of a second to import

    return getattr(public, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
