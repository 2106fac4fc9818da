"""How a job stands, told by its events: what ``ask`` shows while it waits.

A fold over the lines of ``/api/jobs/JOB/events``.  It only counts and names; the job's
own fold, and the truth, are the node's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meshnode.cli.printing import short
from meshnode.domain.unit_states import BY_EVENT, MOST_TELLING, UnitState

#: Of a unit that was given to two: the other was faster, and the unit is done.
SUPERSEDED: Final = "award.superseded"


@dataclass(slots=True)
class Batch:
    """One unit."""

    items: int
    state: UnitState = "waiting"
    items_done: int = 0
    node: str = ""
    nodes: dict[int, str] = field(default_factory=dict)  # by attempt
    out: set[int] = field(default_factory=set)  # attempts that somebody works at
    verdict: str = ""
    cost_mc: int = 0


@dataclass(slots=True)
class Task:
    """One sub-task; its batches are known once its inputs are."""

    capability: str
    batches: dict[str, Batch] = field(default_factory=dict)
    expanded: bool = False


@dataclass(slots=True)
class Progress:
    """A job, as far as was heard.

    Attributes:
        tasks: Sub-task by id, in the graph's order.
        note: The last thing worth a line.
        ended: How it ended, or empty.
    """

    tasks: dict[str, Task] = field(default_factory=dict)
    note: str = ""
    ended: str = ""

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in the next line."""
        if "progress" in line:
            fields = line["progress"].get("fields", {})
            self._progressed(fields)
            return
        kind = line["kind"]
        known: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
            "planned": self._planned,
            "replanned": self._replanned,
            "expanded": self._expanded,
            "progressed": self._progressed,
            "verified": self._verified,
            "judged": self._judged,
            "done": self._done,
        }
        if kind in known:
            known[kind](line)
        elif kind in BY_EVENT:
            self._moved(kind, line)

    def _planned(self, line: Mapping[str, Any]) -> None:
        self.tasks = {task["id"]: Task(task["capability"]) for task in line["subtasks"]}

    def _replanned(self, line: Mapping[str, Any]) -> None:
        self.tasks[line["subtask"]].capability = line["capability"]
        self.note = f"{line['subtask']} goes on with {line['capability']}: {line['code']}"

    def _expanded(self, line: Mapping[str, Any]) -> None:
        task = self.tasks[line["subtask"]]
        task.expanded = True
        for number, size in enumerate(line["sizes"]):
            # A size of -1 is a single call.
            task.batches[f"{line['subtask']}/{number}"] = Batch(max(1, size))

    def _moved(self, kind: str, line: Mapping[str, Any]) -> None:
        batch = self._batch(line)
        if batch is None or line.get("code") == SUPERSEDED:
            return
        if kind in {"charged", "failed"}:
            batch.out.discard(line["attempt"])
        if batch.out and kind == "failed":
            return  # another was given the same, and goes on
        batch.state = BY_EVENT[kind]
        match kind:
            case "awarded":
                batch.node = batch.nodes[line["attempt"]] = short(line["peer"])
                batch.out.add(line["attempt"])
            case "delivered":
                batch.items_done = batch.items
            case "charged" if batch.verdict == "rejected":
                batch.state, batch.items_done = "waiting", 0
            case "charged":
                batch.cost_mc += line["paid_mc"]  # of each of several answers
                batch.node = batch.nodes.get(line["attempt"], batch.node)
            case "failed":
                batch.items_done = 0
                self.note = f"{line['unit']} at {short(line['peer']) or '-'}: {line['text']}"
            case _:
                pass

    def _progressed(self, line: Mapping[str, Any]) -> None:
        batch = self._batch(line)
        if batch is not None and batch.state == "running":
            batch.items_done = min(batch.items, int(line.get("items_done", 0)))
        if line.get("text"):
            self.note = f"{line.get('unit', '')}: {line['text']}"

    def _verified(self, line: Mapping[str, Any]) -> None:
        batch = self._batch(line)
        if batch is not None:
            batch.verdict = line["verdict"]

    def _judged(self, line: Mapping[str, Any]) -> None:
        batch = self._batch(line)
        if batch is not None and line.get("outcome"):
            batch.verdict = line["outcome"]

    def _done(self, line: Mapping[str, Any]) -> None:
        self.ended = line["state"]

    def _batch(self, line: Mapping[str, Any]) -> Batch | None:
        unit = str(line.get("unit", ""))
        task = self.tasks.get(unit.rpartition("/")[0])
        return task.batches.get(unit) if task else None

    def rows(self) -> list[tuple[object, ...]]:
        """Return a row for each sub-task: id, capability, state, done, nodes, verdict, cost."""
        return [(name, task.capability, *_sum(task)) for name, task in self.tasks.items()]


def _sum(task: Task) -> tuple[object, ...]:
    batches = task.batches.values()
    items = sum(batch.items for batch in batches)
    done = sum(batch.items_done for batch in batches)
    nodes = sorted({batch.node for batch in batches if batch.node})
    verdicts = sorted({batch.verdict for batch in batches if batch.verdict})
    cost_mc = sum(batch.cost_mc for batch in batches)
    return _state(task), f"{done}/{items}", " ".join(nodes), " ".join(verdicts), cost_mc


def _state(task: Task) -> UnitState:
    if not task.expanded:
        return "waiting"
    states = {batch.state for batch in task.batches.values()}
    return next((state for state in MOST_TELLING if state in states), "completed")
