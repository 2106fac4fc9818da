"""The benchmark of jobs holds what they took against the least that they could take."""

import trio

from meshnode.bench.dags import Dag, Work
from meshnode.bench.makespan import Size, Took, figures, measure
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
