"""What came out of a simulated market: counted as it happens, for each window and in all.

The result is one frozen value of plain numbers, so that it can be printed as JSON,
compared, and plotted.  Figures that nobody has a number for (an error share where nothing
was accepted) are 0 there, with the count beside them that says so.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from simulations.market_parties import Contractor, Task

_QUANTILES: Final = (0.5, 0.95, 0.99)
#: Windows with fewer ended tasks than this share of a window's mean are no worst window:
#: the last of a run may hold three tasks.
_WORST_SHARE_MIN: Final = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """What happened in one span of time.

    Attributes:
        end_s: When it ended.
        arrived: Tasks that came in it.
        accepted: Tasks that ended in it with an accepted result.
        failed: Tasks that ended in it without.
        wrong: Accepted results that are wrong.
        executions: Runs that were begun in it.
        paid_mc: For what was accepted in it.
        latency_mean_s: From arrival to acceptance, of those accepted.
        latency_p95_s: Likewise.
        utilisation: Share of all slots that ran something.
        imbalance: Standard deviation of the agents' utilisation in the window.
        swing: Mean change of an agent's utilisation from the window before.
    """

    end_s: float
    arrived: int
    accepted: int
    failed: int
    wrong: int
    executions: int
    paid_mc: int
    latency_mean_s: float
    latency_p95_s: float
    utilisation: float
    imbalance: float
    swing: float

    @property
    def success_share(self) -> float:
        """Of those that ended, how many were accepted; 1 if none ended."""
        ended = self.accepted + self.failed
        return self.accepted / ended if ended else 1.0

    @property
    def error_share(self) -> float:
        """Of those accepted, how many are wrong."""
        return self.wrong / self.accepted if self.accepted else 0.0


@dataclass(frozen=True, slots=True)
class MarketResult:
    """How a market went.

    Attributes:
        policy: Who chose.
        seed: What it was run with.
        agents: How many.
        brokers: How many.
        tasks: How many came, and ended.
        elapsed_s: In the market's own time.
        digest: SHA-256 of everything that happened: equal for equal runs.
        success_share: Tasks with an accepted result.
        error_share: Of accepted results, those that are wrong.
        latency_mean_s: From arrival to acceptance.
        latency_p50_s: Likewise.
        latency_p95_s: Likewise.
        latency_p99_s: Likewise.
        executions_per_task: Runs that were begun, of all tasks.
        queued_share: Runs that had to wait for a slot at their contractor.
        wait_mean_s: How long, on the mean of all runs.
        paid_mc: By all brokers.
        cost_per_task_mc: Paid, for each accepted result.
        utilisation: Mean over the windows of the share of slots that ran something.
        utilisation_deviation: Standard deviation of that over the windows.
        imbalance: Mean over the windows, see :class:`Window`.
        swing: Likewise: many brokers that run to the same agents make it large.
        worst_success_share: Of the worst window for it.
        worst_error_share: Of the worst window for it.
        worst_latency_p95_s: Of the worst window for it.
        failures: Code -> tasks that ended by it.
        work: Behaviour -> share of the executions.
        reborn: New keys that agents took.
        windows: The series.
    """

    policy: str
    seed: int
    agents: int
    brokers: int
    tasks: int
    elapsed_s: float
    digest: str
    success_share: float
    error_share: float
    latency_mean_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    executions_per_task: float
    queued_share: float
    wait_mean_s: float
    paid_mc: int
    cost_per_task_mc: float
    utilisation: float
    utilisation_deviation: float
    imbalance: float
    swing: float
    worst_success_share: float
    worst_error_share: float
    worst_latency_p95_s: float
    failures: dict[str, int]
    work: dict[str, float]
    reborn: int
    windows: tuple[Window, ...]


class Counter:
    """Counts a market as it runs.

    Attributes:
        windows: Those that have ended.
        latencies_s: From arrival to acceptance, of every accepted task.
        accepted: Tasks, in all.
        wrong: Of those.
        failures: Code -> tasks that ended by it.
        arrived: Tasks, in all.
        executions: In all.
        queued: Executions that had to wait at their contractor.
        waited_s: All their waits together.
        paid_mc: In all.
    """

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.latencies_s = array("d")
        self.accepted = self.wrong = self.arrived = self.executions = self.paid_mc = 0
        self.failures: dict[str, int] = {}
        self.queued = 0
        self.waited_s = 0.0
        self._failed = 0
        self._closed = (0, 0, 0, 0, 0, 0)  # the sums, when the last window ended

    def begun(self, waited_s: float) -> None:
        """Count a run that begins."""
        self.executions += 1
        if waited_s > 0:
            self.queued += 1
            self.waited_s += waited_s

    def accept(self, task: Task, now_s: float, price_mc: int, *, wrong: bool) -> None:
        """Count a task that ends well, as its broker believes."""
        self.accepted += 1
        self.wrong += wrong
        self.paid_mc += price_mc
        self.latencies_s.append(now_s - task.arrived_s)

    def fail(self, code: str) -> None:
        """Count a task that ends without a result."""
        self._failed += 1
        self.failures[code] = self.failures.get(code, 0) + 1

    def close_window(
        self, contractors: Sequence[Contractor], *, now_s: float, length_s: float
    ) -> None:
        """End a window of ``length_s`` now."""
        sums = (
            self.arrived, self.accepted, self._failed, self.wrong, self.executions, self.paid_mc
        )  # fmt: skip
        arrived, accepted, failed, wrong, executions, paid_mc = (
            total - before for total, before in zip(sums, self._closed, strict=True)
        )
        self._closed = sums
        latencies_s = sorted(self.latencies_s[self.accepted - accepted :])
        utilisation, imbalance, swing = _business(contractors, now_s, length_s)
        self.windows.append(
            Window(
                end_s=now_s,
                arrived=arrived,
                accepted=accepted,
                failed=failed,
                wrong=wrong,
                executions=executions,
                paid_mc=paid_mc,
                latency_mean_s=_mean(latencies_s),
                latency_p95_s=quantile(latencies_s, 0.95),
                utilisation=utilisation,
                imbalance=imbalance,
                swing=swing,
            )
        )

    def result(
        self,
        contractors: Sequence[Contractor],
        *,
        labels: tuple[str, int, int],
        elapsed_s: float,
        digest: str,
    ) -> MarketResult:
        """Return the figures.

        Args:
            contractors: All agents.
            labels: Policy, seed, brokers.
            elapsed_s: In the market's own time.
            digest: Of what happened.
        """
        policy, seed, brokers = labels
        latencies_s = sorted(self.latencies_s)
        p50_s, p95_s, p99_s = (quantile(latencies_s, share) for share in _QUANTILES)
        windows = self.windows
        telling = _telling(windows)
        utilisations = [window.utilisation for window in windows]
        return MarketResult(
            policy=policy,
            seed=seed,
            agents=len(contractors),
            brokers=brokers,
            tasks=self.arrived,
            elapsed_s=elapsed_s,
            digest=digest,
            success_share=self.accepted / max(1, self.arrived),
            error_share=self.wrong / max(1, self.accepted),
            latency_mean_s=_mean(latencies_s),
            latency_p50_s=p50_s,
            latency_p95_s=p95_s,
            latency_p99_s=p99_s,
            executions_per_task=self.executions / max(1, self.arrived),
            queued_share=self.queued / max(1, self.executions),
            wait_mean_s=self.waited_s / max(1, self.executions),
            paid_mc=self.paid_mc,
            cost_per_task_mc=self.paid_mc / max(1, self.accepted),
            utilisation=_mean(utilisations),
            utilisation_deviation=_deviation(utilisations),
            imbalance=_mean([window.imbalance for window in windows]),
            swing=_mean([window.swing for window in windows[1:]]),
            worst_success_share=min((w.success_share for w in telling), default=1.0),
            worst_error_share=max((w.error_share for w in telling), default=0.0),
            worst_latency_p95_s=max((w.latency_p95_s for w in telling), default=0.0),
            failures=dict(sorted(self.failures.items())),
            work=_work(contractors),
            reborn=sum(contractor.births for contractor in contractors),
            windows=tuple(windows),
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return what ``share`` of ``ordered`` don't exceed; 0 if there are none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _business(
    contractors: Sequence[Contractor], now_s: float, length_s: float
) -> tuple[float, float, float]:
    """Return utilisation of all slots, its deviation between agents, and its mean change."""
    slots = busy = 0.0
    each: list[float] = []
    change = 0.0
    for contractor in contractors:
        now, before = contractor.close_window(now_s, length_s)
        slots += contractor.trader.concurrency
        busy += contractor.trader.concurrency * now
        change += abs(now - before)
        each.append(now)
    return busy / max(1.0, slots), _deviation(each), change / max(1, len(each))


def _telling(windows: Sequence[Window]) -> list[Window]:
    """Return the windows that hold enough to say something."""
    mean = _mean([window.accepted + window.failed for window in windows])
    return [w for w in windows if w.accepted + w.failed > _WORST_SHARE_MIN * mean]


def _work(contractors: Iterable[Contractor]) -> dict[str, float]:
    counts: dict[str, int] = {}
    for contractor in contractors:
        name = contractor.trader.behaviour.name
        counts[name] = counts.get(name, 0) + contractor.executions
    total = max(1, sum(counts.values()))
    return {name: count / total for name, count in sorted(counts.items())}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _deviation(values: Sequence[float]) -> float:
    mean = _mean(values)
    return sqrt(_mean([(value - mean) ** 2 for value in values]))
