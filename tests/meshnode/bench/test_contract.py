"""The benchmarks of contracts measure what they say, on two real nodes."""

import trio

from meshnode.bench.contract import Size, measure_contracts, measure_throughput
from meshnode.bench.figures import Figure

TINY = Size(chains=2, links=3, jobs=2, seconds=2, units=5, rounds=1)


def by_id(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.id: figure for figure in figures}


def test_contracts_take_time_and_an_offer_saves_the_round_trip() -> None:
    told: list[str] = []
    figures = by_id(trio.run(measure_contracts, told.append, TINY))
    assert set(figures) == {
        "P2.contract", "P2.fsync", "P2.job", "P3.offer", "P3.cfp", "P3.share",
    }  # fmt: skip
    assert figures["P2.contract"].n == 4  # of each chain all but the first
    assert figures["P2.fsync"].value > 0
    assert figures["P2.contract"].value > 4 * 0.01, "two disks and a network take their time"
    assert figures["P3.offer"].value == 0
    assert figures["P3.cfp"].value == 1
    assert figures["P3.share"].value > 0
    assert told


def test_throughput_counts_every_sub_task() -> None:
    figures = by_id(trio.run(measure_throughput, lambda _: None, TINY))
    assert figures["P6.units"].n == 5
    assert figures["P6.units"].value > 0
