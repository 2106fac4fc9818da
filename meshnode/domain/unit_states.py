"""How a unit stands, in the words that everybody uses: API, command line, explanations.

A unit that failed and is tried again waits, like one that was never begun; it has failed
only when its job ended without it.  The table in docs/jobs.md is this one.
"""

from collections.abc import Mapping
from typing import Final, Literal

UnitState = Literal["waiting", "negotiating", "running", "checking", "completed", "failed"]

#: Kind of event -> how its unit stands from then on, unless others at it say more.
BY_EVENT: Final[Mapping[str, UnitState]] = {
    "called": "negotiating",
    "awarded": "running",
    "delivered": "checking",
    "charged": "completed",
    "failed": "waiting",
}
#: Of what several units do, the one that tells most of all of them comes first.
MOST_TELLING: Final[tuple[UnitState, ...]] = (
    "failed",
    "checking",
    "running",
    "negotiating",
    "waiting",
    "completed",
)
