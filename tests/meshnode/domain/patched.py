"""A job whose map nobody did right as planned, and another version of its capability did."""

from meshnode.ports import JsonValue
from protocol.graph import Source, SubTask, TaskGraph
from protocol.limits import REPLANS_MAX
from tests.meshnode.domain.contractors import Traits
from tests.meshnode.domain.journals import Run, contractors_of
from tests.meshnode.domain.random_runs import Invariants

TRAITS = (
    Traits(capability="work.a@1", lies=1.0, price_mc=1),
    Traits(capability="work.a@2", price_mc=2),
)
MAPPED = TaskGraph(
    name="mapped",
    subtasks=[
        SubTask(
            id="a",
            capability="work.a@1",
            inputs={"x": Source(kind="input", name="docs", pointer="/list")},
            each=["x"],
            batch_items_max=2,
        ),
        SubTask(id="b", capability="work.a", inputs={"x": Source(kind="task", name="a")}),
    ],
    outputs={
        "ids": Source(kind="task", name="a", pointer="/id"),
        "all": Source(kind="task", name="b"),
    },
)
DOCS: dict[str, JsonValue] = {"docs": {"list": [1, 2, 3, 4, 5], "title": "t"}}


def patched_run() -> Run:
    """The job, finished."""
    run = Run(MAPPED, DOCS, contractors_of(1, *TRAITS), replans_max=REPLANS_MAX)
    run.watch = Invariants()
    run.run()
    return run
