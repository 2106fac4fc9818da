"""``meshnode demo``: the main job, end to end, on real parts and real files.

Several node processes find each other, one of them takes a task graph, specialists do
the work, and a report with its provenance comes back.  Everything goes through what
any user has: the ``meshnode`` command, and a node's HTTP interface.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import httpx
import trio
from rich.console import Console
from rich.live import Live

from meshnode.cli.demo_files import Folder, own_repository, read_folder
from meshnode.cli.demo_mesh import LIAR, LocalMesh, Member, local_mesh
from meshnode.cli.demo_view import account, dealings, live
from meshnode.domain.graph_files import graph_to_value, parse_graph
from meshnode.domain.provenance import Provenance, verify_provenance
from meshnode.errors import MeshError, NoProvider
from protocol.graph import TaskGraph

GRAPH_FILE: Final = "demo_review.toml"

_DISCOVERY_S: Final = 30.0
_POLL_S: Final = 0.25
_DEADLINE_S: Final = 900.0
_HTTP_S: Final = 60.0
#: Of a demo whose broker is killed: who can go on, after so many finished units, and when
#: one of them must have taken it over.
_STANDBYS: Final = 2
_UNITS_BEFORE: Final = 5
_TAKEN_OVER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the demo was asked for.

    Attributes:
        path: Folder to review, or None for this program's own repository.
        nodes: Processes.
        out: Folder for report and provenance.
        as_json: Lines for programs instead of a picture.
        kill_broker: Kill the node that takes the job, in the middle of it.
        liar: Have one more node that lies, and do the review twice.
    """

    path: Path | None
    nodes: int
    out: Path
    as_json: bool
    kill_broker: bool = False
    liar: bool = False


@dataclass(slots=True)
class _Show:
    """What the user sees while it runs."""

    as_json: bool
    started_s: float
    nodes: list[str] = field(default_factory=list)
    job: Mapping[str, Any] | None = None
    live: Live | None = None
    first_result_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return trio.current_time() - self.started_s

    def say(self, event: str, **fields: object) -> None:
        """Print a line for programs; people see the picture."""
        if self.as_json:
            sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
            sys.stdout.flush()
        self.draw()

    def member(self, member: Member) -> None:
        """A node is up."""
        self.nodes.append(member.name)
        self.say(
            "node",
            name=member.name,
            pid=member.process.pid,
            peer_id=member.peer,
            specialists=list(member.specialists),
            elapsed_s=round(self.elapsed_s, 2),
        )

    def draw(self) -> None:
        """Show how it stands."""
        if self.live is not None:
            self.live.update(live(self.job, self.nodes, self.elapsed_s))


async def run_demo(options: Options) -> dict[str, Any]:
    """Run the demo and return what ``--json`` ends with; SIGTERM ends it, mesh and all.

    Raises:
        MeshError: What went wrong, named.
    """
    result: dict[str, Any] = {}
    trouble = MeshError("the demo was ended by a signal")

    async def end_when_told(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
            scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_when_told, nursery.cancel_scope)
        try:
            result = await _run(options)
        except MeshError as exc:  # leaves as itself, not in the nursery's group
            trouble = exc
        nursery.cancel_scope.cancel()
    if not result:
        raise trouble
    return result


async def _run(options: Options) -> dict[str, Any]:
    folder = read_folder(options.path or own_repository())
    graph = parse_graph(
        files("meshnode.cli").joinpath(GRAPH_FILE).read_text("utf-8"), where=GRAPH_FILE
    )
    show = _Show(options.as_json, trio.current_time())
    console = Console(stderr=options.as_json)
    if not options.as_json:
        console.print(
            f"Reviewing [bold]{folder.path.resolve()}[/]:"
            f" {len(folder.documents)} documents, {len(folder.code)} code files"
        )
    picture = Live(console=console, refresh_per_second=8)
    with (
        tempfile.TemporaryDirectory(prefix="meshnode-demo-") as home,
        nullcontext() if options.as_json else picture,
    ):
        show.live = None if options.as_json else picture
        standbys = _STANDBYS if options.kill_broker else 0
        async with local_mesh(
            Path(home),
            nodes=options.nodes,
            told=show.member,
            standbys=standbys,
            liar=options.liar,
        ) as mesh:
            result = await _review(mesh, graph, folder, show, options)
        show.draw()
    return result


async def _review(
    mesh: LocalMesh, graph: TaskGraph, folder: Folder, show: _Show, options: Options
) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(await _client(mesh.desk))
        await _discovered(client, mesh, graph)
        show.say("discovered", elapsed_s=round(show.elapsed_s, 2))
        body = {
            "graph": graph_to_value(graph),
            "inputs": folder.inputs(),
            "deadline_s": _DEADLINE_S,
            "idempotency_key": "demo",
        }
        if options.liar:
            body["assurance"] = "economy"
        if options.kill_broker:
            body["standbys"] = [member.peer for member in mesh.standbys(_STANDBYS)]
        job = (await _call(client, "POST", "/api/jobs", body)).json()["job"]
        show.say("job", job=job, elapsed_s=round(show.elapsed_s, 2))
        if options.kill_broker:
            await _follow(client, job, mesh, show, units_max=_UNITS_BEFORE)
            mesh.desk.process.kill()
            show.say("killed", name=mesh.desk.name, elapsed_s=round(show.elapsed_s, 2))
            heir, client = await _heir(mesh, job, stack)
            show.say("taken_over", name=heir.name, elapsed_s=round(show.elapsed_s, 2))
        status = await _follow(client, job, mesh, show)
        provenance = (await _call(client, "GET", f"/api/jobs/{job}/provenance")).content
        if status["state"] != "completed":
            error = status.get("error") or {}
            raise MeshError(f"the job {status['state']}: {error.get('message', 'no reason')}")
        outputs = (await _call(client, "GET", f"/api/jobs/{job}/outputs")).json()
        caught = {}
        if options.liar:
            again = {**body, "idempotency_key": "demo again"}
            second = (await _call(client, "POST", "/api/jobs", again)).json()["job"]
            await _follow(client, second, mesh, show)
            caught = {"liar": await _of_liar(client, mesh, [job, second])}
            show.say("liar", **caught["liar"])
    made = _Made(outputs["report"], provenance, verify_provenance(provenance))
    account_of_it = account(made.proved, mesh.name_of, folder.left_out)
    result = _keep(options.out, made, account_of_it)
    return {
        **result,
        **caught,
        "brokers": [mesh.name_of(peer) for peer in made.proved.brokers],
        "elapsed_s": round(show.elapsed_s, 2),
        "first_result_s": round(show.first_result_s or show.elapsed_s, 2),
        "processes": len(mesh.members),
    }


@dataclass(frozen=True, slots=True)
class _Made:
    """What a finished demo consists of."""

    report: str
    provenance: bytes
    proved: Provenance


async def _discovered(client: httpx.AsyncClient, mesh: LocalMesh, graph: TaskGraph) -> None:
    """Wait until the desk knows everyone that hosts something.

    Raises:
        NoProvider: A capability of the graph has no provider by then.
    """
    expected = {member.peer for member in mesh.members if member.specialists}
    agents: list[dict[str, Any]] = []
    with trio.move_on_after(_DISCOVERY_S):
        while not expected <= {agent["peer"] for agent in agents}:
            await trio.sleep(_POLL_S)
            agents = (await _call(client, "GET", "/api/agents")).json()["agents"]
    offered = {agent["capability"] for agent in agents}
    for task in graph.subtasks:
        if task.capability not in offered:
            raise NoProvider(f"after {_DISCOVERY_S:g} s nobody offers {task.capability}")


async def _of_liar(
    client: httpx.AsyncClient, mesh: LocalMesh, jobs: list[str]
) -> dict[str, Any]:
    """Return what became of the node that lied: in each job, and what is thought of it."""
    (peer,) = [member.peer for member in mesh.members if member.name == LIAR]
    rows = []
    for job in jobs:
        lines = (await _call(client, "GET", f"/api/jobs/{job}/events")).text.splitlines()
        rows.append(dealings(peer, [json.loads(line) for line in lines if line]))
    known = (await _call(client, "GET", "/api/reputation")).json()["agents"]
    its = [
        {name: row[name] for name in ("capability", "credibility", "state")}
        for row in known
        if row["agent"].startswith(f"{peer}/")
    ]
    return {"jobs": rows, "reputation": its}


async def _client(member: Member) -> httpx.AsyncClient:
    """Return who asks a node."""
    token = (await trio.Path(member.ready["token_file"]).read_text("ascii")).strip()
    return httpx.AsyncClient(
        base_url=member.ready["http"],
        headers={"Authorization": f"Bearer {token}"},
        timeout=_HTTP_S,
    )


async def _heir(
    mesh: LocalMesh, job: str, stack: AsyncExitStack
) -> tuple[Member, httpx.AsyncClient]:
    """Wait until a standby goes on with the job; return it, and who asks it.

    Raises:
        MeshError: Nobody does.
    """
    asked = [
        (member, await stack.enter_async_context(await _client(member)))
        for member in mesh.standbys(_STANDBYS)
    ]
    with trio.move_on_after(_TAKEN_OVER_S):
        while True:
            for member, client in asked:
                listed = (await _call(client, "GET", "/api/jobs")).json()["jobs"]
                if any(row["job"] == job for row in listed):
                    return member, client
            await trio.sleep(_POLL_S)
    raise MeshError(f"within {_TAKEN_OVER_S:g} s nobody went on with job {job}")


async def _follow(
    client: httpx.AsyncClient, job: str, mesh: LocalMesh, show: _Show, *, units_max: int = 0
) -> dict[str, Any]:
    """Watch the job to its end, or to so many finished units; return its last status."""
    while True:
        status: dict[str, Any] = (await _call(client, "GET", f"/api/jobs/{job}")).json()
        for row in status["subtasks"]:
            row["node_name"] = mesh.name_of(row["node"]) if row["node"] else ""
        show.job = status
        show.draw()
        done = [row for row in status["subtasks"] if row["state"] == "completed"]
        if done and show.first_result_s is None:
            show.first_result_s = show.elapsed_s
            first = done[0]
            show.say("first_result", unit=first["id"], elapsed_s=round(show.elapsed_s, 2))
        if status["state"] != "running" or 0 < units_max <= len(done):
            return status
        await trio.sleep(_POLL_S)


async def _call(
    client: httpx.AsyncClient, method: str, path: str, body: object = None
) -> httpx.Response:
    """Ask the desk.

    Raises:
        MeshError: It refuses, with its reason, or doesn't answer.
    """
    try:
        response = await client.request(method, path, json=body)
    except httpx.HTTPError as exc:
        raise MeshError(f"the demo's desk does not answer: {exc!r}") from exc
    if response.is_error:
        error = response.json().get("error", {})
        raise MeshError(str(error.get("message", response.text)), hint=error.get("hint", ""))
    return response


def _keep(out: Path, made: _Made, account_of_it: str) -> dict[str, Any]:
    """Write report and provenance into ``out``; return what is said of them."""
    out.mkdir(parents=True, exist_ok=True)
    report = out / "report.md"
    report.write_text(made.report + account_of_it, encoding="utf-8")
    journal = out / "provenance.journal"
    journal.write_bytes(made.provenance)
    proved = made.proved
    return {
        "job": proved.job,
        "state": proved.state,
        "subtasks": [
            {
                "id": row.unit,
                "capability": row.capability,
                "node": row.peer,
                "state": row.state,
                "verdict": row.verdict,
                "check": row.check,
                "ms": row.ms,
                "cost_mc": row.cost_mc,
                "output": row.output.hex(),
            }
            for row in proved.rows
        ],
        "report": str(report),
        "provenance": str(journal),
        "cost_mc": proved.cost_mc,
        "signatures": proved.signatures,
    }
