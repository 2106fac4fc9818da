"""The benchmark of jobs holds what they took against the least that they could take."""

import math

import trio

from meshnode.bench.dags import Dag, Work, longest_path
from meshnode.bench.makespan import Size, Took, figures, measure, measure_scarce
from meshnode.bench.makespan_scarce import draw_shop, ours_ms
from tests.meshnode.bench.figures import by_id, values_of


def test_real_jobs_of_every_shape_are_measured() -> None:
    measured = trio.run(measure, lambda *_: None, Size(jobs=8))
    by, values = by_id(measured), values_of(measured)
    assert set(by) == {
        "P4.critical_path", "P4.critical_path.short", "P4.added_ms", "P4.fsync",
    }  # fmt: skip
    assert by["P4.critical_path"].n == by["P4.critical_path.short"].n == 4
    assert values["P4.critical_path"] > 1, "nothing is faster than its longest path"
    assert values["P4.critical_path.short"] > 1
    for shape in ("chain", "fork-join", "layers", "map-reduce"):
        assert shape in by["P4.critical_path"].note


def test_what_was_added_is_told_for_each_task_in_a_row() -> None:
    chain = Work(Dag("chain", [[], [0], [1]]), [100, 100, 100])
    fork = Work(Dag("fork-join", [[], [0], [0], [1, 2]]), [100, 500, 100, 100])
    values = values_of(figures([Took(chain, 330.0), Took(fork, 770.0)], [0.5]))
    assert values["P4.critical_path.short"] == 1.1
    assert values["P4.critical_path"] == 1.1
    assert values["P4.added_ms"] == (10 + 70 / 3) / 2
    assert values["P4.fsync"] == 0.5


def test_jobs_with_few_agents_are_measured_beside_heft() -> None:
    size = Size(jobs=0, scarce=3, exact=2)
    measured = measure_scarce(lambda *_: None, size)
    again = measure_scarce(lambda *_: None, size)
    assert measured == again, "virtual time, and seeds"
    by, values = by_id(measured), values_of(measured)
    assert [by[name].n for name in ("P4.heft", "P4.heft.exact")] == [3, 2]
    assert 0.7 < values["P4.heft"] < 1.4
    assert 0.9 < values["P4.heft.exact"] < 1.4


def test_a_shop_is_the_same_for_all_who_plan() -> None:
    shop, exact = draw_shop(5), draw_shop(5, noise=0.0)
    assert (shop.dag, shop.kinds, shop.skills, shop.takes_ms) == (
        exact.dag, exact.kinds, exact.skills, exact.takes_ms
    )  # fmt: skip
    assert shop.problem(known=False) == exact.problem(known=False)
    assert exact.problem(known=True) == exact.problem(known=False)
    true, said = shop.problem(known=True), shop.problem(known=False)
    pairs = [
        (mine, other)
        for row, others in zip(true.costs, said.costs, strict=True)
        for mine, other in zip(row, others, strict=True)
    ]
    assert all(math.isfinite(mine) == math.isfinite(other) for mine, other in pairs)
    assert any(mine > other for mine, other in pairs)
    assert any(mine < other for mine, other in pairs)
    bound = longest_path(shop.dag, [min(row) for row in true.costs])
    assert shop.heft_ms() >= bound
    assert ours_ms(shop, seed=5) >= bound
