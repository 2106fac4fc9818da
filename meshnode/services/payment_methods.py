"""The settlement port's two plain ways: none at all, and what owners say.

Others, which move money themselves, are handed to the node among its ports.
"""

import trio

from meshnode.config import NodeConfig
from meshnode.errors import NoSettlement
from meshnode.ports import Settlement


class KeepNothing:
    """Settlement ``none``: there are balances, and no payments."""

    method = "none"

    async def pay(self, peer: str, amount_mc: int, reference: str, /) -> None:
        """See the port."""
        await trio.lowlevel.checkpoint()
        raise NoSettlement(
            f"{amount_mc} mc to {peer} ({reference}) can't be settled: this node keeps"
            " balances only",
            hint='set ledger.settlement = "manual", and start it anew',
        )

    async def came(self, _peer: str, _amount_mc: int, _reference: str, /) -> bool | None:
        """See the port."""
        await trio.lowlevel.checkpoint()
        return False


class Manual:
    """Settlement ``manual``: owners pay, and look whether they were paid, by themselves."""

    method = "manual"

    async def pay(self, _peer: str, _amount_mc: int, _reference: str, /) -> None:
        """See the port: the owner has."""
        await trio.lowlevel.checkpoint()

    async def came(self, _peer: str, _amount_mc: int, _reference: str, /) -> bool | None:
        """See the port."""
        await trio.lowlevel.checkpoint()
        return None


def settlement_of(config: NodeConfig) -> Settlement:
    """Return what the settings ask for."""
    return Manual() if config.ledger.settlement == Manual.method else KeepNothing()
