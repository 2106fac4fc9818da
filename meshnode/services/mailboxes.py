"""Which mailboxes are used for whom: members' only, in the order that both ends come to.

Any peer may say in its record that it keeps letters.  One that isn't known as a member of
this mesh is asked for its chain when it is wanted; so many at a time, the next ones the
next time, so that names that are made up cost little and don't hide the others for ever.
"""

from typing import Final

import trio

from meshnode.services.context import Context
from meshnode.services.directory import DirectoryService
from meshnode.services.mail import FEATURE, ranked
from meshnode.services.membership import Members

#: Mailboxes that are used for one recipient.
USED_MAX: Final = 8
#: Peers that are asked who they are, for one recipient at a time.
_ASKED_MAX: Final = 8
#: Peers that were asked and are no members are not asked again before the others; so many.
_ASKED_KEPT_MAX: Final = 1_024


class Mailboxes:
    """See the module."""

    def __init__(
        self, context: Context, *, directory: DirectoryService, members: Members
    ) -> None:
        self._context = context
        self._directory = directory
        self._members = members
        self._asked: dict[str, None] = {}

    def known(self, recipient: str) -> list[str]:
        """Return those that are used for ``recipient``, the best first."""
        fit = [peer for peer in self._candidates(recipient) if self._is_ours(peer)]
        return ranked(recipient, fit)[:USED_MAX]

    async def meet(self, recipient: str) -> None:
        """Ask who the best of the others are, where few are known to be members."""
        if len(self.known(recipient)) >= USED_MAX:
            return
        others = [peer for peer in self._candidates(recipient) if not self._is_ours(peer)]
        fresh = [peer for peer in ranked(recipient, others) if peer not in self._asked]
        if not fresh:  # who was no member may be one now
            self._asked.clear()
            fresh = ranked(recipient, others)
        async with trio.open_nursery() as nursery:
            for peer in fresh[:_ASKED_MAX]:
                if len(self._asked) >= _ASKED_KEPT_MAX:
                    del self._asked[next(iter(self._asked))]
                self._asked[peer] = None
                nursery.start_soon(self._members.meet, peer)

    def _is_ours(self, peer: str) -> bool:
        return self._members.lets(peer) or self._members.is_member(peer)

    def _candidates(self, recipient: str) -> list[str]:
        without = {recipient, self._context.peer}
        return [peer for peer in self._directory.featuring(FEATURE) if peer not in without]
