"""``meshnode ask``: have a goal, or a task graph, done."""

import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.ask_plan import Wanted, planned
from meshnode.cli.options import Home, Json, TokenFile, Url, home_of
from meshnode.cli.printing import console, plain, say_json, table, units_table
from protocol.limits import REPLANS_MAX

if TYPE_CHECKING:
    from rich.console import RenderableType

    from meshnode.cli.client import NodeClient
    from meshnode.cli.progress import Progress

#: How often a broken stream of events is taken up again.
_TRIES: Final = 5
_PAUSE_S: Final = 1.0
#: Characters of one output that are printed for people; --out keeps all.
_OUTPUT_SHOWN: Final = 4_000


Goal = Annotated[str, typer.Argument(metavar="GOAL", help="What is to be done, in words.")]
Graph = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Task graph, TOML or JSON, in place of a goal."),
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Show graph, cost and time of the goal; do nothing.")
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Leave out what nothing here can serve.")
]
File = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FILE",
        help="Add {path, text} of a text file to the job input `files`, or NAME.",
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="NAME=JSON", help="Give a job input."),
]
Budget = Annotated[
    int | None, typer.Option(metavar="MC", min=0, help="Most to spend, millicredits.")
]
Deadline = Annotated[
    float | None, typer.Option(metavar="S", help="Seconds until it must be done.")
]
Key = Annotated[
    str, typer.Option(metavar="TEXT", help="Asking again with the same key asks once.")
]
Hedges = Annotated[
    int | None,
    typer.Option(
        metavar="PCT",
        min=0,
        max=100,
        help="Of a hundred units, so many may be given to a second node too when slow.",
    ),
]
Replans = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        max=REPLANS_MAX,
        help="So often may a sub-task that can't be done go on another way.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep outputs and signed provenance there."),
]


def ask(
    goal: Goal = "",
    *,
    graph: Graph = None,
    file: File = None,
    input_: Input = None,
    budget: Budget = None,
    deadline: Deadline = None,
    key: Key = "",
    hedges: Hedges = None,
    replans: Replans = None,
    out: Out = None,
    plan: Plan = False,
    partial: Partial = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Have something done by the mesh, through the node that runs here.

    Examples:
      meshnode ask "Summarise these documents and extract their keywords" --file README.md
      meshnode ask "Summarise it, then translate the summary into French" --file a.md --plan
      meshnode ask --graph review.toml --file README.md --file docs/guide.md --out result
      meshnode ask --graph review.json --input 'limit=3' --deadline 60 --key monday --json

    A goal is planned here, from what the mesh's agents say of themselves, without a
    language model; --plan shows what was understood and what it would take.  What it
    can't infer it asks for: --input NAME=JSON.

    A graph says it exactly:
      [subtasks.summaries]
      capability = "text.summarization@1"
      each = ["text"]                   # one call for each file
      inputs.text = "@files/*/text"     # the job input `files`, the text of each
      [outputs]
      summaries = "summaries/summary"

    Ctrl-C cancels the job.  With --json one line comes at the end, and the exit status
    says whether the job completed.
    """
    import trio

    from meshnode.cli.job_files import make_folder, read_graph, read_inputs
    from meshnode.domain.graph_files import graph_to_value

    if bool(goal) == (graph is not None):
        raise typer.BadParameter("say what is to be done: a GOAL in words, or --graph FILE")
    if plan and not goal:
        raise typer.BadParameter("--plan is for goals; a graph is its own plan")
    wanted = Wanted(
        goal,
        None if graph is None else graph_to_value(read_graph(graph)),
        read_inputs(file or (), input_ or ()),
        partial=partial,
        budget_mc=budget,
    )
    terms = {
        "idempotency_key": key,
        "budget_mc": budget,
        "deadline_s": deadline,
        "hedges_pct": hedges,
        "replans_max": replans,
    }
    folder = None if out is None else make_folder(out)
    reached = Reached(home_of(home), url, token_file)
    ended = trio.run(_ask, reached, wanted, terms, Shown(plan=plan, as_json=as_json))
    if ended is not None:
        _tell(ended, folder, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Reached:
    """Where the node is."""

    home: Path
    url: str
    token_file: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What is printed: the plan alone, and for whom."""

    plan: bool
    as_json: bool


async def _ask(
    where: Reached, wanted: Wanted, terms: Mapping[str, Any], shown: Shown
) -> "Ended | None":
    from meshnode.cli.client import open_client

    async with open_client(where.home, url=where.url, token_file=where.token_file) as client:
        made = await planned(client, wanted, show=shown.plan, as_json=shown.as_json)
        if made is None:
            return None
        made |= {name: value for name, value in terms.items() if value is not None}
        return await _have_done(client, made, show=not shown.as_json)


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended.

    Attributes:
        job: As ``GET /api/jobs/{id}`` tells it.
        outputs: By name, or None if it didn't complete.
        provenance: Its signed journal.
    """

    job: dict[str, Any]
    outputs: dict[str, Any] | None
    provenance: bytes


async def _have_done(client: "NodeClient", body: Mapping[str, Any], *, show: bool) -> Ended:
    from meshnode.cli.progress import Progress

    job: str = (await client.call("POST", "/api/jobs", body=body))["job"]
    progress = Progress()
    async with _cancelling_on_interrupt(client, job):
        if show:
            await _show(client, job, progress)
        else:
            await _follow(client, job, progress)
    status = await client.call("GET", f"/api/jobs/{job}")
    outputs = None
    if status["state"] == "completed":
        outputs = await client.call("GET", f"/api/jobs/{job}/outputs")
    return Ended(status, outputs, await client.content(f"/api/jobs/{job}/provenance"))


@asynccontextmanager
async def _cancelling_on_interrupt(client: "NodeClient", job: str) -> AsyncIterator[None]:
    """Let Ctrl-C cancel the job: who asked has gone.  A second one ends this at once."""
    import trio

    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                await anext(signals)
                console(errors=True).print("cancelling…", markup=False)
                await client.call("POST", f"/api/jobs/{job}/cancel")
                await anext(signals)
                raise KeyboardInterrupt

        nursery.start_soon(listen)
        yield
        nursery.cancel_scope.cancel()


async def _follow(client: "NodeClient", job: str, progress: "Progress") -> None:
    """Take in the job's events until it has ended, through broken connections."""
    import trio

    from meshnode.cli.failure import CommandFailed

    for left in reversed(range(_TRIES)):
        lines = client.lines(f"/api/jobs/{job}/events", since=str(progress.since), follow="1")
        try:
            async with aclosing(lines):
                async for line in lines:
                    progress.take(line)
        except CommandFailed as error:
            if error.told != "http.cut" or not left:
                raise
        if progress.ended:
            return
        await trio.sleep(_PAUSE_S)
    raise CommandFailed(
        f"job {job} goes on, but its node tells no more", hint="ask again with the same --key"
    )


async def _show(client: "NodeClient", job: str, progress: "Progress") -> None:
    """Follow the job, and let people see the graph fill in."""
    from rich.live import Live

    def picture() -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        titles = ("sub-task", "capability", "state", "done", "nodes", "verdict", "mc")
        rows = table(titles, progress.rows(), right="done mc")
        return Group(rows, Text(plain(progress.note, size_max=160), style="dim"))

    out = console(errors=True)
    with Live(console=out, get_renderable=picture, refresh_per_second=8, transient=True):
        await _follow(client, job, progress)


def _tell(ended: Ended, folder: Path | None, *, as_json: bool) -> None:
    """Print how it ended, and exit accordingly."""
    from meshnode.cli.failure import CommandFailed
    from meshnode.cli.job_files import keep

    job = ended.job
    journal = None if folder is None else keep(folder, job, ended.outputs, ended.provenance)
    if as_json:
        failed = {"error": job["error"]} if job["error"] else {"outputs": ended.outputs}
        say_json({**job, **failed, "provenance": str(journal) if journal else None})
    else:
        _print(ended, journal)
    if job["state"] != "completed":
        if as_json:
            raise typer.Exit(1)
        error = job["error"] or {}
        raise CommandFailed(
            f"the job {job['state']}: {plain(error.get('message') or error.get('code'))}",
            hint=f"job {job['job']}",
            told=str(error.get("code")),
        )


def _print(ended: Ended, journal: Path | None) -> None:
    out = console()
    job = ended.job
    out.print(units_table(job["subtasks"]))
    for name, value in (ended.outputs or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.print(f"\n{plain(name)}:", style="bold", markup=False)
        out.print(plain(text, size_max=_OUTPUT_SHOWN, lines=True), markup=False, soft_wrap=True)
    cost = f"{job['cost_mc']} of {job['budget_mc']} mc, {job['elapsed_s']:.1f} s"
    out.print(f"\njob {job['job']} {job['state']}: {cost}", markup=False)
    if journal is not None:
        out.print(
            f"kept in {journal.parent}; check it: meshnode verify {journal}", markup=False
        )
