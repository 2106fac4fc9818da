"""Attempts that a job no longer wants: cancelled at their contractors, and closed."""

from typing import Final

import trio

from meshnode.domain.hedges import SUPERSEDED
from meshnode.domain.step_kinds import Stop
from meshnode.domain.units import Unit
from meshnode.services.awards import Awards
from meshnode.services.journals import JobJournal
from meshnode.services.step_facts import failed

#: A job waits so long for a slow contractor to hear that another was faster, seconds.
_SUPERSEDE_S: Final = 2.0


async def stop(journal: JobJournal, awards: Awards, step: Stop) -> None:
    """Cancel an award that is out; the attempt closes when it is acknowledged or lapses.

    Raises:
        StoreError: The disk refused.
    """
    unit = journal.state.units[step.unit]
    if unit.accepted is not None:
        await _supersede(journal, awards, step, unit)
        return
    attempt = unit.attempt(step.attempt)
    if attempt is None:
        return
    if attempt.award and attempt.delivered is None:
        reason = journal.state.cancelled
        why = reason.reason if reason else "owner"
        await awards.cancel(journal.state, step.unit, attempt, why)
    await journal.record(
        failed(step, code="job.cancelled", text="the job ended early", peer=attempt.peer),
        still=lambda: unit.attempt(step.attempt) is attempt,
    )


async def _supersede(journal: JobJournal, awards: Awards, step: Stop, unit: Unit) -> None:
    """Cancel an award that another was faster than: nothing is paid for it."""
    attempt = unit.attempts[step.attempt]
    # A slow one may be deaf, and the job goes on: then its lease runs out.
    with trio.move_on_after(_SUPERSEDE_S):
        await awards.cancel(journal.state, step.unit, attempt, "superseded")
    await journal.record(
        failed(step, code=SUPERSEDED, text="another contractor was faster", peer=attempt.peer),
        still=lambda: attempt.open,
    )
