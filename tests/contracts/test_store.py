"""What every Store keeps to, on SQLite in a real file and in memory.

Each claim runs on both.  The in-memory disk runs under the real clock here, with a
latency of zero; its virtual-time behaviour is tested beside it.
"""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, note, settings
from hypothesis import strategies as st

from meshnode.adapters.sqlite_store import open_store
from meshnode.errors import StoreError
from meshnode.ports import Add, Append, Delete, Once, Put, Store, Write, read_sum
from simulations.store import MemoryDisk, MemoryStore

LIMIT_S = 60.0
VALUE_BYTES_MAX = 16 * 1024 * 1024

#: Opens the store of one home; calling it again reopens the same one.
Open = Callable[[], AbstractAsyncContextManager[Store]]


def sqlite_home(folder: Path) -> Open:
    return lambda: open_store(folder / "store.sqlite")


def memory_home(_folder: Path) -> Open:
    disk = MemoryDisk()

    @asynccontextmanager
    async def reopen() -> AsyncIterator[Store]:
        async with aclosing(MemoryStore(disk)) as store:
            yield store

    return reopen


HOMES = {"sqlite": sqlite_home, "memory": memory_home}


@pytest.fixture(params=HOMES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    return HOMES[request.param](tmp_path)


async def test_a_commit_is_read_back(home: Open) -> None:
    async with home() as store:
        await store.commit(Put("jobs", "a", b"\x00\xff"), Append("log", 0, b"first"))
        assert await store.read("jobs", "a") == b"\x00\xff"
        assert await store.log("log") == [b"first"]
        assert await store.read("jobs", "b") is None
        assert await store.read("other", "a") is None
        assert await store.log("other") == []


async def test_a_put_replaces_and_a_delete_removes(home: Open) -> None:
    async with home() as store:
        await store.commit(Put("t", "k", b"1"))
        await store.commit(Put("t", "k", b"2"), Delete("t", "absent"))
        assert await store.read("t", "k") == b"2"
        await store.commit(Delete("t", "k"))
        assert await store.read("t", "k") is None


async def test_the_writes_of_one_commit_apply_in_their_order(home: Open) -> None:
    async with home() as store:
        await store.commit(Put("t", "k", b"1"), Delete("t", "k"), Put("t", "k", b"2"))
        assert await store.read("t", "k") == b"2"


async def test_sums_add_up_whoever_adds(home: Open) -> None:
    async with home() as store:
        async with trio.open_nursery() as nursery:
            for amount in range(-5, 50):
                nursery.start_soon(store.commit, Add("sum", "k", amount))
        assert read_sum(await store.read("sum", "k")) == sum(range(-5, 50))
        await store.commit(Add("sum", "k", -(2**80)), Add("sum", "new", 0))
    async with home() as store:
        assert read_sum(await store.read("sum", "k")) == sum(range(-5, 50)) - 2**80
        assert await store.read("sum", "new") == b"0"
        assert read_sum(await store.read("sum", "none")) == 0


async def test_what_is_no_sum_is_not_added_to_and_the_commit_is_refused(home: Open) -> None:
    add = Add("t", "k", 1)
    async with home() as store:
        await store.commit(Put("t", "k", b"v"))
        for write in (add, Once("t", "other", b"", (Put("t", "more", b""), add))):
            with pytest.raises(StoreError, match="is no sum"):
                await store.commit(Put("t", "beside", b""), write)
        assert await store.scan("t") == [("k", b"v")]


async def test_what_is_done_once_is_not_done_again(home: Open) -> None:
    def once(value: bytes) -> Once:
        return Once("key", "k", value, (Put("t", "k", value), Add("sum", "k", 3)))

    async with home() as store:
        await store.commit(once(b"1"), once(b"2"), Put("t", "beside", b"1"))
        await store.commit(once(b"3"), Put("t", "beside", b"2"))
        assert await store.scan("key") == [("k", b"1")]
        assert await store.scan("t") == [("beside", b"2"), ("k", b"1")]
        assert await store.read("sum", "k") == b"3"
        await store.commit(Delete("key", "k"), once(b"4"))
        assert (await store.read("t", "k"), await store.read("sum", "k")) == (b"4", b"6")


async def test_what_is_added_in_a_commit_that_fails_is_not_added(home: Open) -> None:
    async with home() as store:
        await store.commit(Add("sum", "k", 1))
        with pytest.raises(StoreError):
            await store.commit(
                Once("key", "k", b"", (Add("sum", "k", 2),)), Append("l", 7, b"")
            )
        assert await store.read("sum", "k") == b"1"
        assert await store.scan("key") == []


async def test_a_commit_of_nothing_is_no_error(home: Open) -> None:
    async with home() as store:
        await store.commit()


async def test_reopening_finds_everything(home: Open) -> None:
    async with home() as store:
        await store.commit(Put("t", "k", b"v"), Append("log", 0, b"a"), Append("log", 1, b"b"))
    async with home() as store:
        assert await store.read("t", "k") == b"v"
        assert await store.log("log", start=1) == [b"b"]
        await store.commit(Append("log", 2, b"c"))
        assert await store.log("log") == [b"a", b"b", b"c"]


@pytest.mark.parametrize("seq", [-1, 0, 2, 2**70])
async def test_an_append_that_leaves_a_gap_or_repeats_is_refused_whole(
    home: Open, seq: int
) -> None:
    async with home() as store:
        await store.commit(Append("log", 0, b"a"))
        with pytest.raises(StoreError, match="next one is 1"):
            await store.commit(Put("t", "k", b"v"), Append("log", seq, b"x"))
        assert await store.read("t", "k") is None
        assert await store.log("log") == [b"a"]


async def test_a_gap_inside_one_commit_takes_all_of_it_down(home: Open) -> None:
    async with home() as store:
        with pytest.raises(StoreError):
            await store.commit(Append("log", 0, b"a"), Append("log", 2, b"c"))
        assert await store.log("log") == []
        await store.commit(Append("log", 0, b"a"), Append("log", 1, b"b"))
        assert await store.log("log") == [b"a", b"b"]


async def test_a_misfit_fails_its_caller_and_nobody_else_in_the_group(home: Open) -> None:
    refused: list[int] = []

    async def commit(store: Store, number: int) -> None:
        try:
            seq = 7 if number % 5 == 0 else 0
            await store.commit(Put("t", f"{number:02}", b"v"), Append(f"log{number}", seq, b""))
        except StoreError:
            refused.append(number)

    async with home() as store:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(commit, store, number)
        assert sorted(refused) == list(range(0, 50, 5))
        kept = [key for key, _ in await store.scan("t")]
        assert kept == [f"{number:02}" for number in range(50) if number % 5]


async def test_fifty_concurrent_callers_all_commit(home: Open) -> None:
    async def write(store: Store, writer: int) -> None:
        for seq in range(10):
            await store.commit(
                Append(f"log{writer}", seq, b"%d" % seq), Put("t", f"{writer}", b"")
            )

    async with home() as store:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for writer in range(50):
                    nursery.start_soon(write, store, writer)
        for writer in range(50):
            assert await store.log(f"log{writer}") == [b"%d" % seq for seq in range(10)]


async def test_of_racers_for_one_entry_exactly_one_wins(home: Open) -> None:
    won: list[int] = []

    async def race(store: Store, number: int) -> None:
        try:
            await store.commit(Append("log", 0, b"%d" % number))
        except StoreError:
            return
        won.append(number)

    async with home() as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(race, store, number)
        assert await store.log("log") == [b"%d" % number for number in won]
        assert len(won) == 1


async def test_a_scan_gives_one_tables_prefix_in_code_point_order(home: Open) -> None:
    keys = [
        "a",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a/é",
        "a/\uffff",
        "a/😀",
        "a0",
        "b",
        "A",
        "a/\x00",
    ]
    async with home() as store:
        await store.commit(*(Put("t", key, key.encode()) for key in keys), Put("u", "a/9", b""))
        found = await store.scan("t", "a/")
        wanted = sorted(key for key in keys if key.startswith("a/"))
        assert list(found) == [(key, key.encode()) for key in wanted]
        assert [key for key, _ in await store.scan("t")] == sorted(keys)
        assert [key for key, _ in await store.scan("t", "a/", count_max=2)] == wanted[:2]
        assert list(await store.scan("t", "a/", count_max=0)) == []
        assert list(await store.scan("t", "zz")) == []
        assert list(await store.scan("t", "a/\U0010ffff")) == []


async def test_a_dropped_log_is_gone_and_starts_again_at_zero(home: Open) -> None:
    async with home() as store:
        await store.commit(
            Append("log", 0, b"a"), Append("log", 1, b"b"), Append("log2", 0, b"x")
        )
        await store.drop_log("log")
        await store.drop_log("absent")
        assert await store.log("log") == []
        assert await store.log("log2") == [b"x"]
        await store.commit(Append("log", 0, b"new"))
    async with home() as store:
        assert await store.log("log") == [b"new"]


async def test_a_caller_cancelled_before_it_hands_over_commits_nothing(home: Open) -> None:
    async with home() as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.commit(Put("t", "k", b"v"))
        assert scope.cancelled_caught
        assert await store.read("t", "k") is None


async def test_a_cancelled_commit_is_whole_or_absent_and_hurts_no_other(home: Open) -> None:
    async def commit(store: Store, number: int, scope: trio.CancelScope) -> None:
        with scope:
            await store.commit(Put("t", f"{number:02}", b""), Append(f"log{number}", 0, b""))

    scopes = [trio.CancelScope() for _ in range(40)]
    async with home() as store:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for number, scope in enumerate(scopes):
                    nursery.start_soon(commit, store, number, scope)
                await trio.lowlevel.checkpoint()
                for scope in scopes[::2]:
                    scope.cancel()
        # A commit that was queued behind the cancelled ones: they are settled after it.
        await store.commit(Put("u", "last", b""))
        kept = {key for key, _ in await store.scan("t")}
        for number, scope in enumerate(scopes):
            whole = await store.log(f"log{number}") == [b""]
            assert whole == (f"{number:02}" in kept)
            assert whole or scope.cancelled_caught


async def test_closing_finishes_what_was_handed_over(home: Open) -> None:
    async with home() as store:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(store.commit, Put("t", f"{number:02}", b""))
            await trio.testing.wait_all_tasks_blocked()
            await store.aclose()
        await store.aclose()
    async with home() as store:
        assert len(await store.scan("t")) == 20


async def test_a_closed_store_refuses_everything(home: Open) -> None:
    async with home() as store:
        await store.aclose()
        with pytest.raises(StoreError, match="closed"):
            await store.commit(Put("t", "k", b"v"))
        with pytest.raises(StoreError, match="closed"):
            await store.read("t", "k")
        with pytest.raises(StoreError, match="closed"):
            await store.scan("t")
        with pytest.raises(StoreError, match="closed"):
            await store.log("log")
        with pytest.raises(StoreError, match="closed"):
            await store.drop_log("log")


async def test_an_open_store_cannot_be_opened_twice(home: Open) -> None:
    async with home() as store:
        with pytest.raises(StoreError, match="in use by another node"):
            async with home():
                pass
        await store.commit(Put("t", "k", b"v"))
    async with home() as store:
        assert await store.read("t", "k") == b"v"


@pytest.mark.parametrize(
    "write",
    [
        Put("", "k", b""),
        Put("Upper", "k", b""),
        Put("a" * 33, "k", b""),
        Put("t\n", "k", b""),
        Put("t", "", b""),
        Put("t", "k" * 513, b""),
        Put("t", "é" * 257, b""),
        Put("t", "\ud800", b""),
        Put("t", "k", bytes(VALUE_BYTES_MAX + 1)),
        Delete("t;drop", "k"),
        Delete("t", ""),
        Append("", 0, b""),
        Append("l" * 513, 0, b""),
        Append("log", 0, bytes(VALUE_BYTES_MAX + 1)),
        Add("Upper", "k", 1),
        Add("t", "", 1),
        Once("t", "", b""),
        Once("t", "k", bytes(VALUE_BYTES_MAX + 1)),
        Once("t", "k", b"", (Put("t", "", b""),)),
    ],
    ids=lambda write: f"{type(write).__name__}",
)
async def test_what_breaks_a_limit_is_refused_with_all_that_came_with_it(
    home: Open, write: Write
) -> None:
    async with home() as store:
        with pytest.raises(StoreError):
            await store.commit(Put("t", "good", b""), write)
        assert await store.read("t", "good") is None


async def test_what_just_keeps_the_limits_is_stored(home: Open) -> None:
    value = bytes(VALUE_BYTES_MAX)
    async with home() as store:
        await store.commit(Put("a" * 32, "é" * 256, value), Append("l" * 512, 0, b""))
        assert await store.read("a" * 32, "é" * 256) == value


async def test_the_callers_own_error_leaves_the_block_as_it_is(home: Open) -> None:
    async def fail() -> None:
        async with home() as store:
            await store.commit(Put("t", "k", b"v"))
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()
    async with home() as store:
        assert await store.read("t", "k") == b"v"


# --- any sequence of operations, against a model of two dicts -----------------------

_TABLES = st.sampled_from(["a", "b"])
_KEYS = st.sampled_from(["k", "k/1", "k/2", "l", "é"])
_LOGS = st.sampled_from(["x", "y"])
_VALUES = st.binary(max_size=4)
_PUTS = st.builds(Put, _TABLES, _KEYS, _VALUES)
_ADDS = st.builds(Add, st.just("sums"), _KEYS, st.integers(-9, 9))
_WRITES = st.one_of(
    _PUTS,
    st.builds(Delete, _TABLES, _KEYS),
    st.builds(Append, _LOGS, st.integers(0, 3), _VALUES),
    _ADDS,
    st.builds(
        Once, _TABLES, _KEYS, _VALUES, st.lists(st.one_of(_PUTS, _ADDS), max_size=2).map(tuple)
    ),
)
_STEPS = st.one_of(
    st.lists(_WRITES, min_size=1, max_size=4).map(tuple),
    _LOGS,  # drop this log
    st.none(),  # close and reopen
)


class Model:
    def __init__(self) -> None:
        self.tables: dict[str, dict[str, bytes]] = {"a": {}, "b": {}, "sums": {}}
        self.logs: dict[str, list[bytes]] = {"x": [], "y": []}

    def commit(self, writes: tuple[Write, ...]) -> bool:
        tables = {name: dict(cells) for name, cells in self.tables.items()}
        logs = {name: list(entries) for name, entries in self.logs.items()}
        for write in writes:
            match write:
                case Put(table, key, value):
                    tables[table][key] = value
                case Delete(table, key):
                    tables[table].pop(key, None)
                case Append(log, seq, value):
                    if seq != len(logs[log]):
                        return False
                    logs[log].append(value)
                case Add():
                    self._put(tables, write)
                case Once(table, key, value, inner):
                    if key not in tables[table]:
                        tables[table][key] = value
                        for one in inner:
                            self._put(tables, one)
        self.tables, self.logs = tables, logs
        return True

    def _put(self, tables: dict[str, dict[str, bytes]], write: Put | Add) -> None:
        cells = tables[write.table]
        if isinstance(write, Put):
            cells[write.key] = write.value
        else:
            cells[write.key] = b"%d" % (int(cells.get(write.key, b"0")) + write.amount)


async def _follow(home: Open, steps: list[tuple[Write, ...] | str | None]) -> None:
    model = Model()
    left = list(steps)
    while left:
        async with home() as store:
            while left and (step := left.pop(0)) is not None:
                if isinstance(step, str):
                    await store.drop_log(step)
                    model.logs[step] = []
                elif model.commit(step):
                    await store.commit(*step)
                else:
                    with pytest.raises(StoreError):
                        await store.commit(*step)
            for table, cells in model.tables.items():
                assert dict(await store.scan(table)) == cells
                under = sorted(key for key in cells if key.startswith("k/"))
                assert [key for key, _ in await store.scan(table, "k/")] == under
            for log, entries in model.logs.items():
                assert await store.log(log) == entries
                assert await store.log(log, start=1) == entries[1:]


@pytest.mark.parametrize("kind", HOMES)
@settings(max_examples=30, deadline=None)
@given(steps=st.lists(_STEPS, max_size=8))
def test_any_sequence_of_commits_agrees_with_a_model(
    kind: str, steps: list[tuple[Write, ...] | str | None]
) -> None:
    note(f"{kind}: {steps}")
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_follow, HOMES[kind](Path(folder)), steps)
