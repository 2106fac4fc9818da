"""What must not grow with time: the tables of every node, its tasks, its disk.

Look twice, with as much to do at both moments and many jobs between; what has become more
is a leak, unless it is kept on purpose::

    before = look(stage.mesh)
    …
    leaks = grown(before, look(stage.mesh))

Nobody lists the tables: they are found in the node's objects, so that one which is added
next year is watched too.  What grows on purpose is listed (:data:`BOUNDED`,
:data:`HISTORY`), with its bound or its reason.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import trio

from simulations.mesh import Member, SimMesh

#: Tables in memory that fill up and then stay as they are -> their bounds.  What is in
#: their values (``…*``) goes with them.
BOUNDED: Final[Mapping[str, int]] = MappingProxyType(
    {
        "artifacts._memory": 64 * 1024 * 1024,  # bytes, of which each has one at least
        "artifacts._granted": 4_096,
        "artifacts._sound": 4_096,
        "broker._ended": 32,
        "broker._journals": 64,  # as many that have ended, and those that run
        "broker._tools.checking._schemas": 128,
        "contractor._letters._seen": 20_000,
        "contractor._records._epochs": 512,
        "contractor._records._finished": 512,
        "contractor._records._taken": 512,
        "contractor._unwanted": 20_000,
        "directory._exchange._neighbours._told": 4_096,
        "families._rows": 1_024,
        "golds._lending._dresses": 256,
        "measuring._tried": 1_000,
        "market._watching._runs": 512,
        "market._watching._seen": 512,
        "ledger._balances._amounts": 4_096,  # accounts with whoever was ever paid
        "outbox._ended": 1_000,
        "tallies._open": 4_096,
        "tallies._past": 24 * 256,  # a day of hours, each with as many callers
        "tallies._rows": 2 * 256,
    }
)
#: What a node keeps on its disk of what has been, until its time is over.
HISTORY: Final = frozenset(
    {
        "artifact",
        "artifact_chunk",
        "artifact_job",
        "award",
        "balance",
        "evidence",
        "family",
        "gold",
        "gold_body",
        "gold_dress",
        "gold_given",
        "evidence_begun",
        "heard",
        "hearsay_cursor",
        "hearsay_deal",
        "hearsay_halves",
        "inbox",
        "inbox_letter",
        "inbox_seen",
        "job",
        "job_key",
        "journal_head",
        "ledger",
        "measured",
        "log job",
        "posting",
        "outbox",
        "outbox_letter",
        "receipt",
        "receipt_time",
        "result",
        "served",
        "settlement",
        "testimony",
        "watched",
    }
)

_CONTAINERS: Final = (dict, list, set, deque, bytearray)
#: Objects that are looked into: a node's own, and the machines that it runs.
_INSIDE: Final = ("meshnode.services.", "meshnode.domain.", "meshnode.node", "protocol.")
#: Values of a table that are looked into: what is said with one peer, one job at work.
_PARTS: Final = "meshnode.services."


@dataclass(slots=True)
class Sizes:
    """How much there is of everything at one moment.

    Attributes:
        at_s: When, by the clock of the run.
        nodes: Who was up.
        counts: Table -> node -> entries; nothing that is empty.
        tasks: Alive in the whole process.
        due: Calls in the network's timetable.
    """

    at_s: float
    nodes: dict[str, None] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    tasks: int = 0
    due: int = 0

    def add(self, table: str, node: str, entries: int) -> None:
        """Count ``entries`` more of ``table``."""
        if entries:
            there = self.counts.setdefault(table, {})
            there[node] = there.get(node, 0) + entries

    def total(self, table: str) -> int:
        """Return the entries of ``table``, all nodes together."""
        return sum(self.counts.get(table, {}).values())


def look(mesh: SimMesh) -> Sizes:
    """Return how much there is of everything now; takes a few hundred steps a node."""
    sizes = Sizes(
        trio.current_time(),
        tasks=trio.lowlevel.current_statistics().tasks_living,
        due=len(mesh.world.network.timetable),
    )
    for member in mesh.members.values():
        if member.life is not None:
            sizes.nodes[member.name] = None
            for table, entries in tables(member.life.node, empty=False):
                sizes.add(table, member.name, entries)
        _add_disk(sizes, member)
    return sizes


def _add_disk(sizes: Sizes, member: Member) -> None:
    for table, cells in member.disk.tables.items():
        sizes.add(f"disk {table}", member.name, len(cells))
    for log, entries in member.disk.logs.items():
        sizes.add(f"disk log {log.partition('/')[0]}", member.name, len(entries))


def tables(root: object, *, empty: bool = True) -> Iterator[tuple[str, int]]:
    """Yield every container in ``root`` and in the objects that it is made of, by its path.

    One that is reached by several paths is told once, by the shortest; those of the values
    of a table share a path, which ends in ``*``.  Most are empty at most nodes: those can be
    left out.
    """
    seen: set[int] = {id(root)}
    ahead: deque[tuple[str, object]] = deque([("", root)])
    while ahead:
        path, owner = ahead.popleft()
        for name, what, value in _held(owner):
            if id(value) in seen or not (empty or what == "inside" or _entries(value)):
                continue
            here = f"{path}.{name}" if path else name
            seen.add(id(value))
            if what == "inside":
                ahead.append((here, value))
            elif isinstance(value, trio.Nursery):
                yield f"{here} tasks", _entries(value)
            elif not (isinstance(value, deque) and value.maxlen is not None):  # or it can't
                yield here, _entries(value)
                assert isinstance(value, _CONTAINERS)
                parts = [part for part in _parts(value) if id(part) not in seen]
                seen.update(map(id, parts))
                ahead += [(f"{here}*", part) for part in parts]


def _entries(value: object) -> int:
    if isinstance(value, trio.Nursery):
        return len(value.child_tasks)
    assert isinstance(value, _CONTAINERS)
    return len(value)


def _parts(table: Iterable[object]) -> Iterable[object]:
    """Return the values of ``table`` that are looked into: all, if its first one is."""
    if not table:
        return ()
    values = table.values() if isinstance(table, dict) else table
    first = next(iter(values), None)
    return values if type(first).__module__.startswith(_PARTS) else ()


class _Kinds(dict[type, Literal["container", "tasks", "inside"] | None]):
    """What is to be done with a value of each type: most hold nothing that grows."""

    def __missing__(self, kind: type) -> Literal["container", "tasks", "inside"] | None:
        what: Literal["container", "tasks", "inside"] | None = None
        if issubclass(kind, _CONTAINERS):
            what = "container"
        elif kind is trio.Nursery:
            what = "tasks"
        elif kind.__module__.startswith(_INSIDE) and not issubclass(kind, msgspec.Struct):
            what = "inside"
        self[kind] = what
        return what


_KINDS: Final = _Kinds()


@cache
def _slots(kind: type) -> tuple[str, ...]:
    found: list[str] = []
    for one in kind.__mro__:
        slots = one.__dict__.get("__slots__", ())
        found += [slots] if isinstance(slots, str) else slots
    return tuple(found)


def _held(owner: object) -> Iterator[tuple[str, str, object]]:
    """Yield the attributes of ``owner`` that are told or looked into."""
    for name, value in getattr(owner, "__dict__", {}).items():
        if (what := _KINDS[type(value)]) is not None:
            yield name, what, value
    for name in _slots(type(owner)):  # type: ignore[arg-type]  # classes hash
        value = getattr(owner, name, None)
        if (what := _KINDS[type(value)]) is not None:
            yield name, what, value


def _rise(before: Sizes, after: Sizes, table: str, slack: int) -> tuple[int, str] | None:
    """Return by how much ``table`` has grown beyond what it may, and a line that says so."""
    was, there = before.counts.get(table, {}), after.counts[table]
    bound = BOUNDED.get(table, 0)
    more = {
        node: entries - was.get(node, 0)
        for node, entries in there.items()
        if node in before.nodes and entries > max(bound, was.get(node, 0) + slack)
    }
    if not more:
        return None
    worst = max(more, key=lambda node: more[node])
    rise = f"{was.get(worst, 0)} to {there[worst]} at {worst}"
    return sum(more.values()), f"{table} grew at {len(more)} nodes: {rise}"


def grown(before: Sizes, after: Sizes, *, slack: int = 0) -> list[str]:
    """Return what has become more at those who were up before, a line each, the most first.

    Args:
        before: At an earlier moment.
        after: At a later one, with as much to do.
        slack: Entries that one node may have more of anything.
    """
    found: list[tuple[int, str]] = []
    rising: set[str] = set()
    for table in sorted(after.counts):
        whole, part, _ = table.partition("*")
        if table.removeprefix("disk ") in HISTORY:
            continue
        if part and (whole in BOUNDED or whole in rising):
            continue  # it goes with the whole
        if line := _rise(before, after, table, slack):
            rising.add(table)
            found.append(line)
    nodes = max(1, len(after.nodes))
    for what, now, then in (
        ("tasks", after.tasks, before.tasks),
        ("timetable", after.due, before.due),
    ):
        if now > then + slack * nodes:
            found.append((now - then, f"the {what} grew from {then} to {now}"))
    return [line for _, line in sorted(found, key=lambda row: -row[0])]
