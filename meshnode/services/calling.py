"""Calls for proposals of one job: sent to all at once, each answer written down as it comes."""

import trio

from meshnode.domain.facts import Called
from meshnode.services.awards import Awards
from meshnode.services.journals import JobJournal


async def collect(journal: JobJournal, awards: Awards, fact: Called) -> None:
    """Send the CFPs of ``fact``, and record the answers.

    Raises:
        StoreError: The disk refused one of them.
    """
    async with trio.open_nursery() as nursery:
        for peer in sorted(fact.cfps):
            nursery.start_soon(_collect_one, journal, awards, fact, peer)


async def _collect_one(journal: JobJournal, awards: Awards, fact: Called, peer: str) -> None:
    answer = await awards.ask(fact, peer)

    def is_wanted() -> bool:
        unit = journal.state.units.get(fact.unit)
        attempt = unit.attempt(fact.attempt) if unit else None
        return attempt is not None and not attempt.award

    await journal.record(answer, still=is_wanted)
