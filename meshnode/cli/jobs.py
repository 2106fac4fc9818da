"""``meshnode jobs``: the jobs of the node that runs here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.cli.asking import Where, answer_of, asked
from meshnode.cli.job_ids import Job, answer_about, whole
from meshnode.cli.options import Home, Json, TokenFile, Url
from meshnode.cli.printing import console, plain, say_json, table, units_table, when
from meshnode.cli.progress import SUPERSEDED
from meshnode.domain.wording import count_of

if TYPE_CHECKING:
    from meshnode.cli.client import NodeClient


def list_(
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The newest so many.")] = 20,
    running: Annotated[bool, typer.Option("--running", help="Only those that go on.")] = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """List the node's jobs, the newest first; a gold task has a mark.

    Such a job asks an agent what this node knows, and looks like any other to it.

    Examples:
      meshnode jobs list
      meshnode jobs list --running --json
    """
    query = {"limit": str(limit), "running": str(int(running))}
    jobs = answer_of(Where(home, url, token_file), "GET", "/api/jobs", **query)["jobs"]
    if as_json:
        say_json({"jobs": jobs})
        return
    rows = [
        (job["job"], plain(job["name"], size_max=50) + " (gold)" * job["gold"],
         when(job["planned_ms"], utc=True), job["state"],
         _cost(job["cost_mc"]), _took(job["elapsed_s"]))
        for job in jobs
    ]  # fmt: skip
    if rows:
        titles = ("job", "name", "asked (UTC)", "state", "mc", "s")
        console().print(table(titles, rows, right="mc s"))
    else:
        print("no jobs" + (" are running" if running else " yet: see `meshnode ask`"))


def show(
    job: Job,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Show how a job stands: each unit of work, who does it, what it cost, what failed.

    Examples:
      meshnode jobs show 95402ad5
    """
    told = answer_about(job, Where(home, url, token_file), "GET")
    if as_json:
        say_json(told)
        return
    out = console()
    out.print(units_table(told["subtasks"]))
    for unit in told["subtasks"]:
        for attempt in unit["attempts"]:
            why = plain(attempt["text"] or attempt["code"], size_max=200)
            ended = "was stopped" if attempt["code"] == SUPERSEDED else "failed"
            out.print(f"{unit['id']} {ended} at {attempt['node'][-8:]}: {why}", markup=False)
    for patch in told["replanned"]:
        went = f"went on with {patch['capability']} instead of {patch['was']}"
        out.print(plain(f"{patch['subtask']} {went}: {patch['code']}"), markup=False)
    for row in told["costs"]["below"]:
        who = row["peer"][-8:] or "not accounted for"
        made = f"{count_of(row['awards'], 'award')}, {row['cost_mc']} mc"
        out.print(plain(f"{row['subtask']} was handed on to {who}: {made}"), markup=False)
    cost = f"{told['cost_mc']} of {told['budget_mc']} mc, {told['elapsed_s']:.1f} s"
    out.print(f"\njob {told['job']} {told['state']}: {cost}", markup=False)
    if told.get("tokens_max"):
        used = f"{told['tokens_used']} of {told['tokens_max']} model tokens"
        out.print(f"{used} were used", markup=False)
    if told["epoch"]:
        whose = "its owner" if told["broker"] == told["owner"] else told["broker"]
        out.print(f"its broker, number {told['epoch']}, is {whose}", markup=False)
    if told["error"]:
        out.print(plain(told["error"]["message"] or told["error"]["code"]), markup=False)
        if told["kept"]:
            kept = f"the outputs of {count_of(told['kept'], 'unit')} were accepted"
            out.print(f"{kept}: `meshnode jobs outputs {told['job']} --partial`", markup=False)


def explain(
    job: Job,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Say in words why a job went as it did, from its journal.

    The plan; for each unit who was chosen among whom and why, what failed and whose
    fault that is; where the time went, what it cost, and what is left of a job that
    goes on.

    Examples:
      meshnode jobs explain 95402ad5
    """
    told = answer_about(job, Where(home, url, token_file), "GET", "/explain")
    if as_json:
        say_json(told)
        return
    out = console()
    for section in told["words"]:
        out.print(f"\n{plain(section['title'])}", style="bold", markup=False)
        for line in section["lines"]:
            out.print(f"  {plain(line)}", markup=False, soft_wrap=True)


def cancel(
    job: Job,
    *,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """End a job early; what is done already stays paid.

    Examples:
      meshnode jobs cancel 95402ad5
    """
    told = answer_about(job, Where(home, url, token_file), "POST", "/cancel")
    if as_json:
        say_json(told)
    else:
        print(f"job {told['job']} is being cancelled")


def resume(
    job: Job,
    *,
    budget: Annotated[
        int | None,
        typer.Option(metavar="MC", min=0, help="Of the new job; the old one's by default."),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds until it must be done.")
    ] = None,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
    as_json: Json = False,
) -> None:
    """Go on with a job that failed or was cancelled, as a new job.

    Sub-tasks that are finished aren't run, or paid, again.  A job that hasn't ended
    goes on by itself; one that is held up (by a full disk, say) is tried again at once.

    Examples:
      meshnode jobs resume 95402ad5
      meshnode jobs resume 95402ad5 --budget 500 --deadline 3600
    """
    terms = {"budget_mc": budget, "deadline_s": deadline}
    body = {name: value for name, value in terms.items() if value is not None}
    told = answer_about(job, Where(home, url, token_file), "POST", "/resume", body=body)
    if as_json:
        say_json(told)
    elif told["resumes"]:
        print(f"job {told['job']} goes on with what job {told['resumes']} left")
    else:
        print(f"job {told['job']} has not ended and goes on")


def outputs(
    job: Job,
    *,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep outputs and signed provenance there."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="What was accepted of a job that ended otherwise."),
    ] = False,
    home: Home = "",
    url: Url = "",
    token_file: TokenFile = "",
) -> None:
    """Print what a completed job returned, as JSON; with --out keep it and its provenance.

    With --partial, of any job that has ended: by sub-task, the units whose outputs were
    accepted.

    Examples:
      meshnode jobs outputs 95402ad5
      meshnode jobs outputs 95402ad5 --out result
      meshnode jobs outputs 95402ad5 --partial
    """
    from meshnode.cli.job_files import keep, make_folder

    folder = None if out is None else make_folder(out)

    async def ask(client: "NodeClient") -> tuple[dict[str, Any], dict[str, Any], bytes]:
        name = await whole(client, job)
        status: dict[str, Any] = await client.call("GET", f"/api/jobs/{name}")
        query = "?partial=1" if partial else ""
        made: dict[str, Any] = await client.call("GET", f"/api/jobs/{name}/outputs{query}")
        proof = await client.content(f"/api/jobs/{name}/provenance") if folder else b""
        return status, made, proof

    status, made, proof = asked(ask, Where(home, url, token_file))
    if folder is not None:
        keep(folder, status, made, proof)
    say_json(made)


# --- pieces ---------------------------------------------------------------------------


def _cost(amount_mc: int | None) -> str:
    return "-" if amount_mc is None else str(amount_mc)


def _took(elapsed_s: float | None) -> str:
    return "-" if elapsed_s is None else f"{elapsed_s:.1f}"
