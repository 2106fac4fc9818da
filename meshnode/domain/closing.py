"""How a job that was ended is closed: what is open is stopped first."""

from collections.abc import Iterator

from meshnode.domain.facts import Cancelled
from meshnode.domain.job import JobState
from meshnode.domain.step_kinds import Finish, Step, Stop


def closing(state: JobState, why: Cancelled) -> Iterator[Step]:
    """Yield what closes the job: stops while anything is open, then its end."""
    stopping = False
    for unit, attempt in state.open_attempts():
        stopping = True
        yield Stop(unit.name, attempt.number)
    if not stopping:
        owner = why.reason == "owner"
        yield Finish("cancelled" if owner else "failed", why.reason, why.text)
