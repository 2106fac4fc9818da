"""What came of many takes, in one value that stays small: figures, and who failed."""

from collections.abc import Iterator
from typing import Final

import msgspec

from simulations.outcome import Outcome, quantile

#: Failed takes that are kept whole, the first ones; of the others their troubles stay.
WHOLE_MAX: Final = 5


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A figure over the seeds.

    Attributes:
        name: Of the figure, units last.
        least: Its smallest value.
        p50: Its median.
        p95: 95 of 100 seeds don't exceed it.
        most: Its largest value.
    """

    name: str
    least: float
    p50: float
    p95: float
    most: float


class Summary:
    """Outcomes, as they come.

    Attributes:
        outcomes: All by seed; the first few whole, the others without nodes and stories.
    """

    def __init__(self, *, all_whole: bool = False) -> None:
        """Keep all of them whole with ``all_whole``: thousands take gigabytes."""
        self.outcomes: dict[int, Outcome] = {}
        self._all_whole = all_whole
        self._whole: dict[bool, list[int]] = {True: [], False: []}  # seeds, by who passed

    def add(self, outcome: Outcome) -> None:
        """Take ``outcome`` in; which ones stay whole doesn't hang on the order."""
        self.outcomes[outcome.seed] = outcome
        if self._all_whole:
            return
        whole = self._whole[outcome.passed]
        whole.append(outcome.seed)
        if len(whole) > (1 if outcome.passed else WHOLE_MAX):
            last = max(whole)
            whole.remove(last)
            self.outcomes[last] = msgspec.structs.replace(
                self.outcomes[last], dots=(), lines=(), stories=()
            )

    def in_order(self) -> list[Outcome]:
        """Return the outcomes by seed."""
        return [self.outcomes[seed] for seed in sorted(self.outcomes)]

    def failed(self) -> list[Outcome]:
        """Return those of whom something must hold that doesn't, by seed."""
        return [outcome for outcome in self.in_order() if not outcome.passed]

    def spreads(self) -> Iterator[Spread]:
        """Yield the figures of all who were played to their end."""
        played = [outcome for outcome in self.in_order() if outcome.digest]
        for name in played[0].figures if played else ():
            values = [one.figures[name] for one in played if name in one.figures]
            yield Spread(
                name=name,
                least=min(values),
                p50=quantile(values, 0.5),
                p95=quantile(values, 0.95),
                most=max(values),
            )

    @property
    def virtual_s(self) -> float:
        """Virtual time of all, seconds."""
        return sum(outcome.virtual_s for outcome in self.outcomes.values())
