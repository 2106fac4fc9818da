"""Random task graphs, the work that their agents do, and what must come of them.

:func:`evaluate` runs a graph the plain way: in order, on whole values, in one place.
Whatever a mesh makes of the same graph in batches and pieces has to be equal to it.
"""

from collections.abc import Mapping
from hashlib import sha256
from random import Random
from typing import cast

from meshnode.domain.values import canonical, parse, pick, resolve_list
from meshnode.ports import JsonValue
from protocol.graph import Check, Source, SubTask, TaskGraph, order

CAPABILITIES = ("work.a@1", "work.b@1", "work.b.c@2")
#: Other versions, which nobody asks for: a patched plan does.
OTHERS = ("work.a@2", "work.a.fast@4", "work.b@3")
#: What is asked for; each is answered by one of the capabilities at least.
QUERIES = ("work", "work.a", "work.a@1", "work.b", "work.b@1")

#: Places in what :func:`work` returns, and those among them that are lists.
PLACES = ("", "/id", "/items", "/items/*/v", "/a~1b", "/a~1b/1", "/a~1b/1/0")
LISTS = (("/items", "/items/*/v"), ("/a~1b",))
INPUT_LISTS = (("/list", "/list/*/t"),)
INPUT_PLACES = ("", "/title", "/list", "/list/*/t")


def work(value: JsonValue) -> JsonValue:
    """What every agent here does: something that depends on every byte of its input."""
    name = sha256(canonical(value)).digest()
    items: list[JsonValue] = [{"v": f"{name[1]}-{n}", "n": n} for n in range(name[0] % 4)]
    return {"id": name.hex()[:12], "items": items, "a/b": [name[2], ["x", name[3]]]}


def evaluate(graph: TaskGraph, inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the job's outputs, or raise ValueError where lists to map over are unequal."""
    tasks = {task.id: task for task in graph.subtasks}
    made: dict[str, JsonValue] = {}

    def value(source: Source) -> JsonValue:
        if source.kind == "value":
            return pick(parse(source.value), source.pointer)
        if source.kind == "input":
            return pick(inputs[source.name], source.pointer)
        whole = made[source.name]
        if tasks[source.name].each:
            return [pick(item, source.pointer) for item in cast("list[JsonValue]", whole)]
        return pick(whole, source.pointer)

    for name in order(graph):
        task = tasks[name]
        given = {field: value(source) for field, source in task.inputs.items()}
        if not task.each:
            made[name] = work(given)
            continue
        lists = {field: resolve_list(given[field], "") for field in task.each}
        if len({len(items) for items in lists.values()}) > 1:
            raise ValueError(name)
        count = len(lists[task.each[0]])
        made[name] = [
            work({**given, **{field: items[n] for field, items in lists.items()}})
            for n in range(count)
        ]
    return {name: value(source) for name, source in graph.outputs.items()}


def random_inputs(rng: Random) -> dict[str, JsonValue]:
    """Inputs that :func:`random_graph` draws from."""
    documents: list[JsonValue] = [{"t": f"text {n}", "n": n} for n in range(rng.randrange(8))]
    return {
        "docs": {"list": documents, "title": "Ω title"},
        "more": {"list": [{"t": "one"}, {"t": "two"}, {"t": "three"}], "title": "second"},
    }


def random_graph(rng: Random, *, tasks_max: int = 7, unequal: bool = False) -> TaskGraph:
    """A graph in which every place exists; ``unequal`` lets it map over unequal lists."""
    count = rng.randint(1, tasks_max)
    names = [f"t{n}" for n in range(count)]
    rng.shuffle(names)
    tasks: list[SubTask] = []
    for name in names:
        tasks.append(_random_task(rng, name, tasks, unequal=unequal))
    outputs = {f"out{n}": _place(rng, tasks, fresh=False) for n in range(rng.randint(1, 3))}
    outputs["last"] = Source(kind="task", name=names[-1])
    rng.shuffle(tasks)
    return TaskGraph(name="random", subtasks=tasks, outputs=outputs)


def _random_task(rng: Random, name: str, before: list[SubTask], *, unequal: bool) -> SubTask:
    inputs = {f"in{n}": _place(rng, before) for n in range(rng.randrange(3))}
    each: list[str] = []
    if rng.random() < 0.45:
        mapped = _equal_lists(rng, before)
        if unequal and rng.random() < 0.3:
            mapped += _equal_lists(rng, before)
        for n, source in enumerate(mapped):
            inputs[f"each{n}"] = source
            each.append(f"each{n}")
    return SubTask(
        id=name,
        capability=rng.choice(QUERIES),
        inputs=inputs,
        each=each,
        batch_items_max=rng.choice((0, 0, 1, 2, 3)),
        checks=[Check(kind="recompute")] if rng.random() < 0.4 else [],
        attempts_max=rng.randint(2, 5),
    )


def _place(rng: Random, before: list[SubTask], *, fresh: bool = True) -> Source:
    kind = rng.random()
    if before and (kind < 0.6 or not fresh):
        pointer = rng.choice(PLACES)
        return Source(kind="task", name=rng.choice(before).id, pointer=pointer)
    if kind < 0.8:
        name = rng.choice(("docs", "more"))
        return Source(kind="input", name=name, pointer=rng.choice(INPUT_PLACES))
    value = canonical({"k": [1, {"deep": "é"}], "list": ["p", "q"]})
    return Source(kind="value", value=value, pointer=rng.choice(("", "/k/1/deep", "/list")))


def _equal_lists(rng: Random, before: list[SubTask]) -> list[Source]:
    """One or two places that are lists of one length."""
    kind = rng.random()
    if before and kind < 0.6:
        task = rng.choice(before)
        group = PLACES if task.each else rng.choice(LISTS)
        some = rng.sample(group, rng.randint(1, min(2, len(group))))
        return [Source(kind="task", name=task.id, pointer=pointer) for pointer in some]
    if kind < 0.85:
        (group,) = INPUT_LISTS
        some = rng.sample(group, rng.randint(1, 2))
        name = rng.choice(("docs", "more"))
        return [Source(kind="input", name=name, pointer=pointer) for pointer in some]
    size = rng.randrange(5)
    value = canonical({"here": [f"c{n}" for n in range(size)]})
    return [Source(kind="value", value=value, pointer="/here")]
