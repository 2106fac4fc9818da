"""What an auditor needs of a mesh, simulated or real: who was in it, and their disks."""

from collections.abc import Mapping
from typing import Protocol


class Disk(Protocol):
    """What a node has written down."""

    @property
    def tables(self) -> Mapping[str, Mapping[str, bytes]]:
        """Values by table and key."""

    @property
    def logs(self) -> Mapping[str, list[bytes]]:
        """Entries by log."""


class Holder(Protocol):
    """A node, up or down."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def peer(self) -> str:
        """PeerId."""

    @property
    def disk(self) -> Disk:
        """What it has written down."""


class Estate(Protocol):
    """All nodes of a mesh."""

    @property
    def network_id(self) -> str:
        """Which mesh."""

    @property
    def members(self) -> Mapping[str, Holder]:
        """By name."""

    def name(self, peer: str) -> str:
        """Return who has the PeerId ``peer``."""
