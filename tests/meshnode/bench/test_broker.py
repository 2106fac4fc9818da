"""The benchmark of the broker counts sub-tasks whose receipts are at both sides."""

import trio

from meshnode.bench.broker import Size, Tally, figures, measure
from tests.meshnode.bench.figures import by_id, values_of

TINY = Size(units=5, rounds=2)


def test_every_sub_task_of_every_round_is_counted() -> None:
    measured = trio.run(measure, lambda *_: None, TINY)
    by, values = by_id(measured), values_of(measured)
    assert set(by) == {
        "P6.units", "P6.units.rate", "P6.dask.rate", "P6.broker.cpu_ms",
        "P6.contractors.cpu_ms",
    }  # fmt: skip
    assert by["P6.units"].holds is None, "there is nothing beside it"
    assert by["P6.units.rate"].n == 10
    assert values["P6.units.rate"] > 0
    assert values["P6.broker.cpu_ms"] > 0
    assert values["P6.contractors.cpu_ms"] > 0


def test_the_ratio_is_taken_within_a_round() -> None:
    """A machine that became ten times as slow after the first round makes no difference."""
    ours = Tally(rates=[900.0, 90.0, 90.0], cpu_ns=(6_000_000, 12_000_000))
    dask = Tally(rates=[300.0, 30.0, 45.0])
    values = values_of(figures(Size(units=1, rounds=3), ours, dask))
    assert values["P6.units"] == 3.0
    assert values["P6.units.rate"] == 90.0
    assert values["P6.dask.rate"] == 45.0
    assert values["P6.broker.cpu_ms"] == 2.0
    assert values["P6.contractors.cpu_ms"] == 4.0
