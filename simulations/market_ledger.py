"""Every payment of a simulated market, so that a checker can count it all again.

Brokers and agents each keep a purse of their own.  The ledger holds the single payments,
and the checker holds the purses against it: what brokers paid is what agents got, and
nothing else, once for each accepted result.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from simulations.market_parties import Broker, Contractor


class Payment(NamedTuple):
    """What was paid for one accepted result.

    Attributes:
        task: Its number.
        broker: Index of who paid.
        agent: Index of who got it.
        price_mc: How much.
    """

    task: int
    broker: int
    agent: int
    price_mc: int


class Ledger:
    """Payments, in the order they were made; 16 bytes each."""

    def __init__(self) -> None:
        self._entries = array("I")

    def __len__(self) -> int:
        return len(self._entries) // len(Payment._fields)

    def add(self, payment: Payment) -> None:
        """Enter a payment."""
        self._entries.extend(payment)

    def __iter__(self) -> Iterator[Payment]:
        fields = iter(self._entries)
        return map(Payment._make, zip(fields, fields, fields, fields, strict=True))


def check_ledger(
    ledger: Ledger,
    brokers: Sequence[Broker],
    contractors: Sequence[Contractor],
    *,
    accepted: int,
) -> Iterator[str]:
    """Say what doesn't add up.

    Args:
        ledger: All payments.
        brokers: With what each believes it paid.
        contractors: With what each believes it earned, under all its keys.
        accepted: Tasks with an accepted result.
    """
    paid_mc, earned_mc = [0] * len(brokers), [0] * len(contractors)
    settled: set[int] = set()
    for payment in ledger:
        if payment.task in settled:
            yield f"task {payment.task} was paid for twice"
        settled.add(payment.task)
        asked_mc = contractors[payment.agent].trader.price_mc
        if payment.price_mc != asked_mc:
            yield f"task {payment.task} cost {payment.price_mc} mc, and {asked_mc} were asked"
        paid_mc[payment.broker] += payment.price_mc
        earned_mc[payment.agent] += payment.price_mc
    if len(ledger) != accepted:
        yield f"{accepted} results were accepted and {len(ledger)} were paid for"
    for broker in brokers:
        if broker.paid_mc != paid_mc[broker.number]:
            yield f"broker {broker.number}: {broker.paid_mc} mc, not {paid_mc[broker.number]}"
    for agent in contractors:
        if agent.earned_mc != earned_mc[agent.number]:
            yield f"agent {agent.number}: {agent.earned_mc} mc, not {earned_mc[agent.number]}"
    if sum(paid_mc) != sum(earned_mc):
        yield f"{sum(paid_mc)} mc were paid and {sum(earned_mc)} earned"
