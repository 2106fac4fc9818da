"""Real nodes that are killed, and the auditor who reads what they leave behind."""

import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from meshnode.bench.survive_audit import audit
from meshnode.bench.survive_jobs import Survived, kill_at_points, kill_at_random
from meshnode.bench.survive_partition import cut_in_half
from meshnode.bench.survive_store import store_figures


def silent(*_: object) -> None:
    """Hear of progress."""


@pytest.fixture(scope="module")
def survived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Survived]:
    """Return what six jobs left behind while three nodes were killed."""
    folder = tmp_path_factory.mktemp("mesh")
    play = partial(kill_at_random, folder, jobs=6, kills=3, seed=5, progress=silent)
    return folder, trio.run(play)


@pytest.mark.timeout(300)
def test_jobs_survive_nodes_that_are_killed_at_random(survived: tuple[Path, Survived]) -> None:
    _, found = survived
    assert found.kills.total() >= 3
    assert found.jobs >= 6
    assert found.states == {"completed": found.jobs}
    assert (found.lost, found.wrong, found.unsettled, found.troubles) == ([], 0, 0, [])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("receipt", "never got"),
        ("served", "as earned, its receipts say"),
        ("ledger", "posted nothing for award"),
        ("balance", "that it owes"),
    ],
)
def test_the_auditor_sees_what_one_side_lacks(
    survived: tuple[Path, Survived], tmp_path: Path, table: str, told: str
) -> None:
    folder = tmp_path / "mesh"
    shutil.copytree(survived[0], folder)
    with closing(sqlite3.connect(folder / "worker0" / "node.db")) as file, file:
        gone = file.execute("DELETE FROM cell WHERE tbl = ?", (table,)).rowcount
    assert gone, "worker0 did something"
    assert any(told in line for line in audit(folder))


@pytest.mark.timeout(300)
def test_the_auditor_sees_a_job_without_an_end(
    survived: tuple[Path, Survived], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    shutil.copytree(survived[0], folder)
    with closing(sqlite3.connect(folder / "desk0" / "node.db")) as file, file:
        (log,) = file.execute("SELECT log FROM entry WHERE log LIKE 'job/%'").fetchone()
        (last,) = file.execute("SELECT max(seq) FROM entry WHERE log = ?", (log,)).fetchone()
        file.execute("DELETE FROM entry WHERE log = ? AND seq = ?", (log, last))
    assert f"{log} of desk0 has no end" in audit(folder)


@pytest.mark.timeout(300)
def test_a_job_survives_nodes_that_die_where_they_are_told(tmp_path: Path) -> None:
    points = [("desk", "after:job.awarded"), ("worker", "after:result.kept")]
    found = trio.run(partial(kill_at_points, tmp_path, points, progress=silent))
    assert found.reached == {"after:job.awarded": 1, "after:result.kept": 1}
    assert found.states == {"completed": 2}
    assert (found.lost, found.wrong, found.unsettled, found.troubles) == ([], 0, 0, [])


@pytest.mark.timeout(300)
def test_a_mesh_that_was_cut_in_half_loses_nothing() -> None:
    healed = cut_in_half(seed=1)
    assert len(healed.ends) > 20
    assert healed.lost == 0
    cut = [end for end in healed.ends if healed.healed_s - 60 < end.begun_s < healed.healed_s]
    assert cut, "jobs were asked for while it was cut"


@pytest.mark.timeout(300)
def test_a_killed_store_keeps_what_it_said_was_durable() -> None:
    lost, parted, unreadable = store_figures(silent, kills=4, seed=2)
    assert (lost.value, parted.value, unreadable.value) == (0, 0, 0)
    assert int(lost.note.split()[0]) > 0


@pytest.mark.timeout(300)
def test_a_store_that_speaks_too_soon_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "hasty_child.py"
    honest = Path("meshnode/bench/survive_store_child.py").read_text("utf-8")
    said = '                os.write(1, b"%d\\n" % number)\n'
    begun = "                await store.commit("
    assert said in honest
    child.write_text(honest.replace(said, "").replace(begun, said + begun), "utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:.")
    monkeypatch.setattr("meshnode.bench.survive_store._CHILD", "hasty_child")
    lost, *_ = store_figures(silent, kills=6, seed=2)
    assert lost.value
