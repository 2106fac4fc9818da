"""Where a node can be told to die: how it is written, and when it is reached."""

import re
from pathlib import Path

import pytest

from meshnode.domain.facts import Done
from meshnode.errors import ConfigError, StoreError
from meshnode.ports import Append, Delete, Put, Write
from meshnode.services.crash_points import (
    LABELS,
    CrashPoint,
    MortalStore,
    labels_of,
    read_crash_point,
)
from protocol.journal import wrap_event
from simulations.store import MemoryDisk, MemoryStore

ROOT = Path(__file__).parents[3]
AWARD = Put("award", "aa", b"")


def test_a_point_is_read_as_it_is_written() -> None:
    assert read_crash_point("after:award.taken") == CrashPoint("after", "award.taken", 1)
    point = CrashPoint("before", "job.done", 12)
    assert read_crash_point(str(point)) == point


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("award.taken", "'award.taken' is no crash point"),
        ("during:award.taken", "is no crash point"),
        ("after:award", "no crash point at 'award'"),
        ("after:award.taken#0", "'0' is no number"),
        ("after:award.taken#-1", "'-1' is no number"),
        ("after:award.taken#", "'' is no number"),
        ("after:award.taken#x", "'x' is no number"),
    ],
)
def test_what_is_none_is_refused_with_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        read_crash_point(text, where="$HERE")
    assert str(caught.value).startswith("$HERE: ")
    assert caught.value.hint


def test_labels_say_what_a_commit_holds() -> None:
    done = wrap_event("done", Done(state="completed"), seq=3, at_ms=0)
    writes: list[Write] = [
        Append("job/x", 0, b"the header of a segment is no event"),
        Append("job/x", 3, done),
        Append("notes/x", 3, b"another log"),
        AWARD,
        Put("served", "x", b""),
        Delete("award", "x"),
        Delete("acceptance_due", "x"),
    ]
    assert list(labels_of(writes)) == ["job.done", "award.taken", "acceptance.settled"]


def test_the_page_for_users_has_every_label() -> None:
    page = (ROOT / "docs/testing.md").read_text("utf-8").split("## Crash points")[1]
    table = page.split("| label |")[1].split("\n\n")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if "`" in line]
    assert sorted(re.findall(r"`([a-z.]+)`", " ".join(rows))) == sorted(LABELS)


class Deaths:
    """A store of which the power goes."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.points: list[CrashPoint] = []
        self.store = MemoryStore(self.disk)

    def mortal(self, text: str) -> MortalStore:
        return MortalStore(self.store, self.die, read_crash_point(text))

    def die(self, point: CrashPoint) -> None:
        self.points.append(point)
        self.store.crash()


async def test_before_a_commit_nothing_of_it_is_there() -> None:
    deaths = Deaths()
    with pytest.raises(StoreError, match="has crashed"):
        await deaths.mortal("before:award.taken").commit(AWARD)
    assert not deaths.disk.tables.get("award")


async def test_after_a_commit_all_is_there_and_the_caller_is_not_told() -> None:
    deaths = Deaths()
    with pytest.raises(StoreError, match="has crashed"):
        await deaths.mortal("after:award.taken").commit(AWARD, Put("other", "b", b""))
    assert deaths.disk.tables == {"award": {"aa": b""}, "other": {"b": b""}}
    assert deaths.points == [CrashPoint("after", "award.taken")]


async def test_the_third_is_the_third_of_its_kind() -> None:
    deaths = Deaths()
    store = deaths.mortal("after:award.taken#3")
    await store.commit(AWARD)
    await store.commit(Put("result", "aa", b""))
    await store.commit(Put("award", "bb", b""), Put("award", "cc", b""))
    assert not deaths.points, "one commit is one, whatever it holds"
    with pytest.raises(StoreError):
        await store.commit(Put("award", "dd", b""))
    assert list(deaths.disk.tables["award"]) == ["aa", "bb", "cc", "dd"]


async def test_a_store_is_mortal_once_and_can_be_spared() -> None:
    deaths = Deaths()
    store = deaths.mortal("before:award.taken")
    store.dies_at(None)
    await store.commit(AWARD)
    store.dies_at(CrashPoint("before", "result.kept"))
    await store.commit(AWARD)
    assert not deaths.points
    with pytest.raises(StoreError):
        await store.commit(Put("result", "aa", b""))
    assert store.doom is None


async def test_what_isnt_a_commit_is_the_stores_own() -> None:
    store = Deaths().mortal("after:job.done")
    await store.commit(AWARD, Append("log", 0, b"x"))
    assert await store.read("award", "aa") == b""
    assert await store.scan("award", count_max=1) == [("aa", b"")]
    assert await store.log("log", start=0) == [b"x"]
    await store.drop_log("log")
    assert await store.log("log") == []
    await store.aclose()
    with pytest.raises(StoreError, match="is closed"):
        await store.commit(AWARD)
