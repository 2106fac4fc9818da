"""What work by letter needs, wired together: as broker, as contractor, and whom to write to."""

from typing import NamedTuple

import trio

from meshnode.services.artifacts import Artifacts
from meshnode.services.commissions import Commissions
from meshnode.services.context import Context
from meshnode.services.contractor import Contractor
from meshnode.services.mailroom import Mailroom
from meshnode.services.market import Market
from meshnode.services.order_book import OnNews, OrderBook
from meshnode.services.orders import Orders
from meshnode.services.receipts import Receipts


class Ordering(NamedTuple):
    """The services that order work by letter, and do it."""

    orders: Orders
    commissions: Commissions
    book: OrderBook

    async def run(self) -> None:
        """Run them until cancelled."""
        async with trio.open_nursery() as nursery:
            for service in (self.orders.run, self.commissions.run, self.book.run):
                nursery.start_soon(service)


def open_ordering(
    context: Context,
    mailroom: Mailroom,
    *,
    artifacts: Artifacts,
    contractor: Contractor,
    on_news: OnNews,
) -> Ordering:
    """Return them, listening."""
    inbox, outbox = mailroom.inbox, mailroom.outbox
    orders = Orders(context, artifacts=artifacts, outbox=outbox, inbox=inbox)
    commissions = Commissions(
        context, contractor=contractor, artifacts=artifacts, outbox=outbox, inbox=inbox
    )
    return Ordering(orders, commissions, OrderBook(context, on_news))


def use_letters(ordering: Ordering, *, market: Market, receipts: Receipts) -> None:
    """Let a broker know who takes orders, and send its halves of their receipts so."""
    market.write_to(ordering.book.providers)
    receipts.send_by(ordering.orders.settle)
