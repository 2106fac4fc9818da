"""What letters need, wired together; the mailbox, if its owner wants one."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from meshnode.services.admission import Admission
from meshnode.services.collecting import Collecting
from meshnode.services.context import Context
from meshnode.services.depositing import Depositing
from meshnode.services.directory import DirectoryService
from meshnode.services.inbox import Inbox
from meshnode.services.mailbox import Mailbox
from meshnode.services.membership import Members
from meshnode.services.outbox import Outbox
from meshnode.services.sessions import Sessions


class Mailroom(NamedTuple):
    """The services that carry letters."""

    inbox: Inbox
    outbox: Outbox
    depositing: Depositing
    collecting: Collecting
    mailbox: Mailbox | None

    def services(self) -> list[Callable[[], Awaitable[None]]]:
        """Return what is to be run."""
        kept = [] if self.mailbox is None else [self.mailbox.run]
        return [self.outbox.run, self.depositing.run, self.collecting.run, *kept]


def open_mailroom(
    context: Context,
    *,
    sessions: Sessions,
    door: Admission,
    directory: DirectoryService,
    members: Members,
) -> Mailroom:
    """Return them, listening."""
    inbox = Inbox(context, sessions=sessions, door=door)
    outbox = Outbox(context, sessions=sessions)
    depositing = Depositing(
        context, sessions=sessions, directory=directory, members=members, outbox=outbox
    )
    collecting = Collecting(
        context, sessions=sessions, door=door, directory=directory, members=members, inbox=inbox
    )
    mailbox = None
    if context.config.mailbox.enabled:
        mailbox = Mailbox(context, sessions=sessions, door=door)
    return Mailroom(inbox, outbox, depositing, collecting, mailbox)
