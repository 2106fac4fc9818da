"""What a standby must have beside a job's journal: inputs, slices, outputs and schemas.

They are fetched under the tickets that its broker sends along, some at once, and each is
kept when it has come: a shipment that takes too long goes on where it was.  They take the
room of the job's owner, as what a contractor keeps for a broker takes that broker's.

Specified in protocol/spec/86-shipping.md.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import outcome
import trio

from meshnode.domain.facts import Awarded, Delivered, Fact, from_event
from meshnode.errors import ArtifactError, MeshError, Superseded
from meshnode.ports import Put
from meshnode.services.artifacts import Artifacts, Wanted
from meshnode.services.checking import SCHEMAS
from meshnode.services.context import Context
from meshnode.services.seat import Seat
from meshnode.services.shipping import artifacts_of
from protocol.journal import decode_event
from protocol.keys import digest
from protocol.messages import Result, Ticket, read_message
from protocol.shipping import Ship

#: For one input, and for one output: what is missing of those holds nothing up.
_FETCH_S: Final = 20.0
_OUTPUT_FETCH_S: Final = 4.0
#: Of one shipment at once.
_FETCHES_MAX: Final = 4
_NOBODYS: Final = ("", b"")


class StandbyArtifacts:
    """See the module."""

    def __init__(self, context: Context, artifacts: Artifacts) -> None:
        self._context = context
        self._artifacts = artifacts

    async def fetch(self, seat: Seat, ship: Ship) -> None:
        """Have what the events say that their broker holds, under the tickets that came.

        A job can be done again without an output, and not without an input.

        Raises:
            MeshError: An input can't be had, or another broker goes on meanwhile.
        """
        tickets: dict[bytes, tuple[str, bytes]] = {}
        for envelope in ship.tickets:
            ticket = read_message(envelope, Ticket, network=self._context.network)
            tickets[ticket.artifact] = (ticket.holder, envelope)
        done = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_with, seat, seat.newest, nursery.cancel_scope)
            fetched = await outcome.acapture(self._fetch_all, seat, ship, tickets)
            done = True
            nursery.cancel_scope.cancel()
        if not done:
            raise Superseded(f"another broker goes on with job {seat.job}")
        fetched.unwrap()

    async def _fetch_all(
        self, seat: Seat, ship: Ship, tickets: Mapping[bytes, tuple[str, bytes]]
    ) -> None:
        facts = [from_event(decode_event(body)) for body in ship.events]
        named = {fact.schema for fact in facts if isinstance(fact, Awarded)}
        schemas = [raw for raw in ship.schemas if digest(raw) in named]  # and no others
        if schemas:
            rows = [Put(SCHEMAS, digest(raw).hex(), raw) for raw in schemas]
            await self._context.store.commit(*rows)
        limit, failed = trio.CapacityLimiter(_FETCHES_MAX), list[MeshError]()

        async def have(fact: Fact, name: bytes, size: int) -> None:
            async with limit:
                try:
                    if not failed:
                        await self._have(seat, fact, (name, size, *tickets.get(name, _NOBODYS)))
                except MeshError as exc:
                    failed.append(exc)

        async with trio.open_nursery() as nursery:
            for name, (fact, size) in _artifacts_of(facts).items():
                nursery.start_soon(have, fact, name, size)
        if failed:
            raise failed[0]

    async def _have(self, seat: Seat, fact: Fact, about: tuple[bytes, int, str, bytes]) -> None:
        """Have an artifact on the disk: what came stays, though another doesn't in time."""
        try:
            data = await self._bytes(seat, fact, about)
        except ArtifactError as exc:
            if not isinstance(fact, Delivered):
                raise
            self._context.emit("standby.output_missing", job=seat.job, why=str(exc))
            return
        _, writes = await self._artifacts.prepare(
            data,
            job=seat.job,
            broker=self._context.peer,
            charter=seat.chartered.name,
            payer=seat.chartered.charter.owner,
        )
        await self._context.store.commit(*writes)

    async def _bytes(
        self, seat: Seat, fact: Fact, about: tuple[bytes, int, str, bytes]
    ) -> bytes:
        name, size, holder, ticket = about
        if isinstance(fact, Delivered):
            result = read_message(fact.result, Result, network=self._context.network)
            if result.inline and digest(result.inline) == name:
                return result.inline
        charter = seat.chartered.charter
        # As for any other's job: what is here for another one isn't given away by its hash.
        wanted = Wanted(
            name, size, holder, ticket, charter.owner, seat.job, seat.chartered.name
        )
        must = not isinstance(fact, Delivered)
        return await self._artifacts.fetch(
            wanted, timeout_s=_FETCH_S if must else _OUTPUT_FETCH_S
        )


def _artifacts_of(facts: Sequence[Fact]) -> dict[bytes, tuple[Fact, int]]:
    """Return what ``facts`` say that their broker holds, by whom it can't be done without."""
    found: dict[bytes, tuple[Fact, int]] = {}
    for fact in facts:
        for name, size in artifacts_of(fact).items():
            if name not in found or isinstance(found[name][0], Delivered):
                found[name] = (fact, size)
    return found


async def _end_with(seat: Seat, newest: tuple[int, str], scope: trio.CancelScope) -> None:
    """Cancel ``scope`` when the job has another broker: the one before may be gone."""
    while seat.newest == newest:
        await seat.changed.wait()
    scope.cancel()
