"""The benchmarks of contracts measure what they say, on two real nodes."""

import trio

from meshnode.bench.contract import Size, measure_contracts
from tests.meshnode.bench.figures import by_id, values_of

TINY = Size(chains=2, links=3, jobs=2, seconds=2)


def test_contracts_take_time_and_an_offer_saves_the_round_trip() -> None:
    told: list[str] = []
    measured = trio.run(measure_contracts, lambda what, _=None: told.append(what), TINY)
    figures, values = by_id(measured), values_of(measured)
    assert set(figures) == {
        "P2.contract", "P2.contract.ms", "P2.contract.cpu_ms", "P2.a2a.ms", "P2.a2a.cpu_ms",
        "P2.contract.two_processes", "P2.contract.two_processes.ms",
        "P2.contract.two_processes.cpu_ms", "P2.a2a.two_processes.ms",
        "P2.a2a.two_processes.cpu_ms", "P2.fsync", "P2.job", "P3.offer", "P3.cfp", "P3.share",
    }  # fmt: skip
    assert figures["P2.contract"].n == figures["P2.contract.two_processes"].n == 6
    assert values["P2.fsync"] > 0
    assert values["P2.contract.ms"] > 4 * 0.01, "two disks and a network take their time"
    assert values["P2.contract.cpu_ms"] > 0
    assert values["P2.contract.two_processes.ms"] > 4 * 0.01
    assert figures["P2.contract"].holds is None, "there is nothing beside it"
    assert values["P3.offer"] == 0
    assert values["P3.cfp"] == 1
    assert values["P3.share"] > 0
    assert told
