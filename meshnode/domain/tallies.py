"""What was asked of this node and what came of it, counted.

One tally holds one caller's business in one capability during one clock hour; tallies
are added up for whoever wants to see more than that.
"""

from collections.abc import Iterable

import msgspec

#: Why a proposal lost, where its broker didn't say.
LAPSED = "lapsed"


class Tally(msgspec.Struct, kw_only=True):
    """Counts.

    Attributes:
        asked: Calls for proposals.
        offered: Standing offers handed out.
        proposed: Calls for proposals that were answered with one.
        lost: Proposals that another was preferred to: reason -> count.
        refused: Calls and awards that this node refused: reason -> count.
        awarded: Awards taken on.
        calls: Calls of the agent in them.
        finished: Awards with a completed result.
        failed: Awards that failed here.
        cancelled: Awards that their broker withdrew.
        rejected: Results that their broker rejected.
        earned_mc: Paid in receipts that both sides signed.
        run_ms: That the agent ran.
        last_ms: When the caller was last heard of, Unix time.
    """

    asked: int = 0
    offered: int = 0
    proposed: int = 0
    lost: dict[str, int] = {}
    refused: dict[str, int] = {}
    awarded: int = 0
    calls: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    rejected: int = 0
    earned_mc: int = 0
    run_ms: int = 0
    last_ms: int = 0

    def add(self, other: "Tally") -> None:
        """Count what ``other`` counts."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                for reason, count in theirs.items():
                    mine[reason] = mine.get(reason, 0) + count
            elif name == "last_ms":
                self.last_ms = max(self.last_ms, other.last_ms)
            else:
                setattr(self, name, mine + theirs)


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of ``tallies``."""
    found = Tally()
    for tally in tallies:
        found.add(tally)
    return found
