"""By what right a node goes on with a job that has standbys: asked before every decision."""

from meshnode.services.seat import Seat
from meshnode.services.seats import Seats
from meshnode.services.shipping import Shipping


class Right:
    """By what right this node goes on with a job: asked before every decision."""

    def __init__(self, seats: Seats, seat: Seat, shipping: Shipping) -> None:
        self._seats = seats
        self._seat = seat
        self._shipping = shipping

    @property
    def holds(self) -> bool:
        """Whether it may decide anything now; when the charter has expired, nobody else may."""
        if self._seats.is_past(self._seat):
            return True
        return self._seats.acts(self._seat) and not self._shipping.is_behind()

    async def until_safe(self, count: int) -> None:
        """Wait until a majority of the members has the first ``count`` events."""
        await self._shipping.until_safe(count)
