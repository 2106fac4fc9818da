"""A job of each kind of sub-task, done by contractors of which one fails at first."""

from functools import lru_cache

from meshnode.ports import JsonValue
from protocol.graph import Check, Source, SubTask, TaskGraph
from tests.meshnode.domain.contractors import Traits
from tests.meshnode.domain.journals import Run, contractors_of

DOCUMENTS = Source(kind="input", name="docs", pointer="/list")
GRAPH = TaskGraph(
    name="review",
    subtasks=[
        SubTask(
            id="each",
            capability="work.a",
            inputs={
                "x": DOCUMENTS,
                "c": Source(kind="value", value=b"[0,1,2,3,4]"),
                "whole": Source(kind="input", name="docs"),
            },
            each=["x", "c"],
            batch_items_max=2,
            checks=[Check(kind="recompute")],
        ),
        SubTask(
            id="one", capability="work.b", inputs={"k": Source(kind="value", value=b"[1]")}
        ),
        SubTask(
            id="last",
            capability="work.a",
            inputs={
                "all": Source(kind="task", name="each", pointer="/id"),
                "one": Source(kind="task", name="one"),
            },
        ),
        SubTask(
            id="after",
            capability="work.a@1",
            inputs={"item": Source(kind="task", name="one", pointer="/a~1b")},
            each=["item"],
        ),
    ],
    outputs={
        "last": Source(kind="task", name="last"),
        "ids": Source(kind="task", name="each", pointer="/id"),
        "title": Source(kind="value", value=b'"t"'),
    },
)
INPUTS: dict[str, JsonValue] = {"docs": {"list": [{"t": n} for n in range(5)], "title": "x"}}
#: Some make offers and some bid; some fail at first.
TRAITS = (
    Traits(price_mc=3, concurrency=1, latency_ms=400, fails=0.2),
    Traits(price_mc=4, concurrency=1, latency_ms=500),
    Traits(capability="work.b@1", price_mc=2, offers=False, bid_ms=100),
    Traits(capability="work.b@1", price_mc=2, offers=False, bid_ms=100, offset_ms=-900_000),
)


@lru_cache
def finished_run() -> Run:
    """A job that was completed, with a failed attempt on the way."""
    for seed in range(100):
        made = Run(GRAPH, INPUTS, contractors_of(seed, *TRAITS), budget_mc=500)
        state = made.run()
        if any(unit.failures() for unit in state.units.values()):
            assert state.done is not None
            assert state.done.state == "completed"
            return made
    raise AssertionError("nobody failed")
