"""``meshnode ask``: have a goal, or a task graph, done."""

import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from meshnode.cli.ask_plan import Wanted, planned
from meshnode.cli.asking import Where
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, table, units_table
from protocol.limits import HOPS_MAX, REPLANS_MAX

if TYPE_CHECKING:
    from rich.console import RenderableType

    from meshnode.cli.following import Following
    from meshnode.cli.progress import Progress

#: Somebody waits for the answer: a node that is gone for longer is not waited for, seconds.
_PATIENCE_S: Final = 15.0
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
Standbys = Annotated[
    str,
    typer.Option(
        metavar="N|PEER,…",
        help="Nodes that go on with the job if this one is gone: how many, or which.",
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
#: What the options of a job are called in the API, in the order of `given` in :func:`ask`.
_TERMS: Final = (
    *("idempotency_key", "budget_mc", "deadline_s", "hedges_pct", "standbys", "replans_max"),
    *("subtasks_max", "fan_out_max", "depth_max", "patience_s", "by_letter_s", "assurance"),
    *("lends_golds", "tokens_max"),
)
HandOn = Annotated[
    int | None,
    typer.Option(
        "--hand-on",
        metavar="N",
        min=0,
        help="So many sub-tasks may nodes hand on to others, all together; 0 for none.",
    ),
]
FanOut = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Of these, so many may one award hand on."),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="So many model tokens may be used, further down too; 0 for any number.",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=HOPS_MAX, help="Brokers below each other, yours among them."
    ),
]
Patience = Annotated[
    float | None,
    typer.Option(
        metavar="S", min=0, help="So long is a node waited for that is away; 20 s unless said."
    ),
]
ByLetter = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        min=0,
        help="Then it goes by letter to one that takes orders so, which has so long for it.",
    ),
]
Assurance = Annotated[
    str,
    typer.Option(
        metavar="economy|assured|P",
        help="How sure answers are to be that no check proves: others are asked until then.",
    ),
]
Lend = Annotated[
    bool | None,
    typer.Option(
        "--lend-golds",
        help="What a check proves may be asked of other agents, to see whether they know it.",
        show_default=False,
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
    standbys: Standbys = "",
    replans: Replans = None,
    hand_on: HandOn = None,
    fan_out: FanOut = None,
    depth: Depth = None,
    tokens: Tokens = None,
    patience: Patience = None,
    by_letter: ByLetter = None,
    assurance: Assurance = "",
    lend: Lend = None,
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

    from meshnode.cli import job_files
    from meshnode.domain.graph_files import graph_to_value

    _need_one(goal, graph, plan=plan)
    value = None if graph is None else graph_to_value(job_files.read_graph(graph))
    inputs = job_files.read_inputs(file or (), input_ or ())
    wanted = Wanted(goal, value, inputs, partial=partial, budget_mc=budget)
    heirs = job_files.read_standbys(standbys) if standbys else None
    sure = job_files.read_assurance(assurance) if assurance else None
    bounds = (hand_on, fan_out, depth, patience, by_letter, sure, lend, tokens)
    given = (key, budget, deadline, hedges, heirs, replans, *bounds)
    terms = dict(zip(_TERMS, given, strict=True))
    folder = None if out is None else job_files.make_folder(out)
    shown = Shown(plan=plan, as_json=as_json)
    ended = trio.run(_ask, Where(home, url, token_file), wanted, terms, shown)
    if ended is not None:
        _tell(ended, folder, as_json=as_json)


def _need_one(goal: str, graph: Path | None, *, plan: bool) -> None:
    """Refuse to guess which of two plans is meant."""
    if bool(goal) == (graph is not None):
        raise typer.BadParameter("say what is to be done: a GOAL in words, or --graph FILE")
    if plan and not goal:
        raise typer.BadParameter("--plan is for goals; a graph is its own plan")


@dataclass(frozen=True, slots=True)
class Shown:
    """What is printed: the plan alone, and for whom."""

    plan: bool
    as_json: bool


async def _ask(
    where: Where, wanted: Wanted, terms: Mapping[str, Any], shown: Shown
) -> "Ended | None":
    async with where.client() as client:
        made = await planned(client, wanted, show=shown.plan, as_json=shown.as_json)
        if made is None:
            return None
        made |= {name: value for name, value in terms.items() if value is not None}
        # From here on there may be a job, whether or not this has been told of it yet.
        async with _cancelling_on_interrupt(where) as begun:
            job: str = (await client.call("POST", "/api/jobs", body=made))["job"]
            begun(job)
            await _followed(where, job, show=not shown.as_json)
    return await _ended(where, job)


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


async def _followed(where: Where, job: str, *, show: bool) -> None:
    """Follow a job to its end."""
    from meshnode.cli.following import Following
    from meshnode.cli.progress import Progress

    progress = Progress()
    following = Following(where, job, show=progress.take)
    following.patience_s = _PATIENCE_S
    if show:
        await _show(following, job, progress)
    else:
        await _follow(following, job)


async def _ended(where: Where, job: str) -> Ended:
    """Return what came of a job."""
    async with where.client() as client:
        status = await client.call("GET", f"/api/jobs/{job}")
        outputs = None
        if status["state"] == "completed":
            outputs = await client.call("GET", f"/api/jobs/{job}/outputs")
        return Ended(status, outputs, await client.content(f"/api/jobs/{job}/provenance"))


@asynccontextmanager
async def _cancelling_on_interrupt(where: Where) -> AsyncIterator[Callable[[str], None]]:
    """Let Ctrl-C cancel the job: who asked has gone.  A second one ends this at once.

    Gives what is to be called with the job once that is known; it is cancelled then.
    """
    import trio

    jobs: list[str] = []
    known = trio.Event()

    def begun(job: str) -> None:
        jobs.append(job)
        known.set()

    async def cancel() -> None:
        await known.wait()
        async with where.client() as client:
            await client.call("POST", f"/api/jobs/{jobs[0]}/cancel")

    async with trio.open_nursery() as nursery:

        async def listen(task_status: "trio.TaskStatus[None]") -> None:
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                task_status.started()
                await anext(signals)
                console(errors=True).print("cancelling…", markup=False)
                nursery.start_soon(cancel)
                await anext(signals)
                raise KeyboardInterrupt

        await nursery.start(listen)
        yield begun
        nursery.cancel_scope.cancel()


async def _follow(following: "Following", job: str) -> None:
    """Hear of the job until it has ended; say how to hear of it later if its node is gone."""
    from meshnode.cli.failure import CommandFailed
    from meshnode.cli.following import PASSING

    try:
        await following.run()
    except CommandFailed as error:
        if error.told not in PASSING:
            raise
        raise CommandFailed(
            f"job {job} is with its node, which tells no more: {error}",
            hint=f"once it is there: `meshnode jobs events {job} --follow`",
            told=error.told,
        ) from error


async def _show(following: "Following", job: str, progress: "Progress") -> None:
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
        await _follow(following, job)


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
            hint=f"`meshnode jobs outputs {job['job']} --partial` has what was accepted"
            if job.get("kept")
            else f"job {job['job']}",
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
