"""Real nodes that are killed, and the auditor who reads what they leave behind."""

import json
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio

from meshnode.bench.survive_audit import audit
from meshnode.bench.survive_jobs import Survived, kill_at_random
from meshnode.bench.survive_partition import cut_in_half
from meshnode.bench.survive_points import kill_at_points
from meshnode.bench.survive_store import store_figures
from protocol.journal import decode_segment


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
    assert found.passed_on.total() >= 2, "some had standbys"
    assert (found.lost, found.wrong, found.unsettled, found.troubles) == ([], [], 0, [])


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


def jobs_of(home: Path, *, chartered: bool) -> list[str]:
    """Return the jobs whose journals are at ``home``, those with standbys or the others."""
    with closing(sqlite3.connect(home / "node.db")) as file:
        rows = file.execute("SELECT value FROM entry WHERE log LIKE 'job/%' AND seq = 0")
        headers = [decode_segment(value) for (value,) in rows]
    return [header.job for header in headers if bool(header.charter) is chartered]


def cut_end(home: Path, job: str) -> None:
    """Take the last event from each segment of a job's journal in the store at ``home``."""
    with closing(sqlite3.connect(home)) as file, file:
        file.execute(
            "DELETE FROM entry WHERE (log, seq) IN"
            " (SELECT log, max(seq) FROM entry WHERE log IN"
            "  (SELECT log FROM entry WHERE seq = 0 AND instr(value, ?))"
            "  GROUP BY log)",
            (job.encode(),),
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("chartered", [False, True])
def test_the_auditor_sees_a_job_without_an_end(
    survived: tuple[Path, Survived], tmp_path: Path, *, chartered: bool
) -> None:
    folder = tmp_path / "mesh"
    shutil.copytree(survived[0], folder)
    job, *_ = jobs_of(folder / "desk0", chartered=chartered)
    for home in folder.glob("*/node.db"):
        cut_end(home, job)
    assert any(line.startswith(f"job {job} has no end") for line in audit(folder))


@pytest.mark.timeout(300)
def test_the_auditor_sees_an_end_that_its_owner_does_not_know(
    survived: tuple[Path, Survived], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    shutil.copytree(survived[0], folder)
    job, *_ = jobs_of(folder / "desk0", chartered=True)
    cut_end(folder / "desk0" / "node.db", job)
    assert f"job {job} has ended, and desk0, whose it is, doesn't know it" in audit(folder)


@pytest.mark.timeout(300)
def test_the_auditor_sees_an_award_that_was_begun_twice_in_one_life(
    survived: tuple[Path, Survived], tmp_path: Path
) -> None:
    folder = tmp_path / "mesh"
    shutil.copytree(survived[0], folder)
    begun = '"award.begun"'
    texts = {log: log.read_text("utf-8") for log in sorted(folder.glob("worker*.log"))}
    log, text = next((log, text) for log, text in texts.items() if begun in text)
    line = next(line for line in text.splitlines() if begun in line)
    later = json.dumps({**json.loads(line), "number": json.loads(line)["number"] + 0.5})
    log.write_text(text.replace(line, f"{line}\n{later}"), "utf-8")
    assert any("2 times in one life" in line for line in audit(folder))


@pytest.mark.timeout(300)
def test_a_job_survives_nodes_that_die_where_they_are_told(tmp_path: Path) -> None:
    points = [("desk", "after:job.awarded"), ("worker", "after:result.kept")]
    found = trio.run(partial(kill_at_points, tmp_path, points, progress=silent))
    assert set(found.reached) == {f"{role} {point}" for role, point in points}
    assert found.states == {"completed": 2}
    assert (found.lost, found.wrong, found.unsettled, found.troubles) == ([], [], 0, [])


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
