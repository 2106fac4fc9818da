"""Who is believed, wired together: what was seen, told, heard, and found to contradict."""

from typing import NamedTuple

import trio

from meshnode.services.admission import Admission
from meshnode.services.context import Context
from meshnode.services.contractor import Contractor
from meshnode.services.equivocations import Equivocations
from meshnode.services.hearing import Hearing
from meshnode.services.membership import Members
from meshnode.services.reputation import Reputation
from meshnode.services.sessions import Sessions
from meshnode.services.testimony import Testimony


class Gossip(NamedTuple):
    """The services that see, tell and hear."""

    reputation: Reputation
    testimony: Testimony
    hearing: Hearing
    equivocations: Equivocations

    async def load(self) -> None:
        """Take up what was known before.

        Raises:
            StoreError: It can't be read.
        """
        await self.equivocations.load()
        await self.reputation.load()
        await self.hearing.load()

    async def run(self) -> None:
        """Run them until cancelled."""
        async with trio.open_nursery() as nursery:
            for service in (self.reputation.run, self.hearing.run, self.equivocations.run):
                nursery.start_soon(service)


def open_gossip(
    context: Context,
    *,
    sessions: Sessions,
    door: Admission,
    members: Members,
    contractor: Contractor,
) -> Gossip:
    """Return them, listening."""
    reputation = Reputation(context, members=members)
    equivocations = Equivocations(context, sessions=sessions, door=door)
    reputation.judge_by(equivocations.is_banned)
    equivocations.on_ban = reputation.banned
    door.is_banned = equivocations.is_banned

    async def contradicted(one: bytes, other: bytes) -> None:
        await equivocations.compare("acceptance", one, other)

    contractor.contradicted = contradicted
    hearing = Hearing(
        context, sessions=sessions, reputation=reputation, equivocations=equivocations
    )
    testimony = Testimony(context, sessions=sessions, door=door)
    return Gossip(reputation, testimony, hearing, equivocations)
