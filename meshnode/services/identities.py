"""Who names stand for: keys that ended, what names cost, and keys of programs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from meshnode.ports import Labour
from meshnode.services.app_keys import AppKeys
from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.identity_cost import Around, Cost, IdentityCost
from meshnode.services.key_fates import KeyFates
from meshnode.services.membership import Members
from meshnode.services.sessions import Sessions

__all__ = ["Cost", "Identities", "open_identities"]


@dataclass(frozen=True, slots=True)
class Identities:
    """A node's.

    Attributes:
        fates: Keys that have ended.
        members: Who is of its mesh.
        cost: What names cost.
        apps: Programs with keys of their own.
    """

    fates: KeyFates
    members: Members
    cost: IdentityCost
    apps: AppKeys

    async def load(self) -> None:
        """Read what is kept, before anybody can be here.

        Raises:
            StoreError: It can't be read.
            ConfigError: The node's own key has ended.
        """
        await self.fates.load()
        await self.cost.load()
        await self.apps.load()

    def services(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """Return what runs while the node does."""
        return self.fates.run, self.cost.run, self.members.run


def open_identities(
    context: Context,
    sessions: Sessions,
    directory: DirectoryService,
    labour: Labour | None,
) -> Identities:
    """Return a node's."""

    def knows(peer: str) -> bool:
        return bool(directory.addresses_of(peer)) or peer in sessions.connected()

    fates = KeyFates(context, sessions=sessions, knows=knows)
    directory.forget_ended(fates)
    members = Members(context, sessions=sessions, fates=fates)
    around = Around(directory.work_of, directory.prove, members.is_member, fates)
    cost = IdentityCost(context, labour, around)
    return Identities(fates, members, cost, AppKeys(context))
