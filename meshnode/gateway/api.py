"""The node's own API under ``/api``: what the command line and programs talk to.

Thin: it reads a request, asks the node, and shows the answer.  Every failure is JSON,
``{"error": {"code", "message", "hint"}}``, with a status that says whose fault it is;
what a peer or a journal did wrong never becomes this node's 500.

    GET  /api/node                     who this is, and whether it works for others now
    GET  /api/agents?capability=C      who can do what; this node's own agents included;
         …&probe=1                     only those that answer now
         …&near=WORDS                  those whose capability is near in meaning
    POST /api/agents/reload            host what the files in the home say now
    POST /api/plan                     a graph for a goal in words, nothing spent:
                                       {goal, files: [{path, text}], inputs, partial}
    POST /api/jobs                     take a job: {graph, inputs, budget_mc, deadline_s,
                                       idempotency_key, asked, hedges_pct, replans_max,
                                       standbys, depth_max, fan_out_max, subtasks_max,
                                       patience_s, by_letter_s, assurance, lends_golds,
                                       tokens_max}
                                       -> 201 {job}; ``standbys`` is a number or PeerIds;
                                       ``asked`` as the plan has it, if the graph is one
    GET  /api/jobs?limit=N             the newest jobs (100);
         …&begins=HEX                  of those whose ids begin so;
         …&running=1                   of those that go on
    GET  /api/jobs/JOB                 how one stands
    GET  /api/jobs/JOB/events?last_seq=N&follow=1   its events after number N, as lines, or
                                       as server-sent events to who accepts those;
         …?since=N                     from number N on
    GET  /api/jobs/JOB/explain         why it went as it did, and in words
    POST /api/jobs/JOB/cancel          -> 202
    POST /api/jobs/JOB/resume          go on with it, as a new job if it ended early:
                                       {budget_mc, deadline_s} -> {job, resumes}
    GET  /api/jobs/JOB/outputs         what a completed job returns;
         …?partial=1                   what was accepted of a job that ended otherwise
    GET  /api/jobs/JOB/provenance      an ended job's signed journal, bytes
    GET  /api/events?follow=1          telemetry, as lines
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.domain.wording import how_to_get
from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Conflict
from meshnode.gateway.api_answers import answer as _answer
from meshnode.gateway.api_answers import blaming as _blaming
from meshnode.gateway.api_owner import owner_view
from meshnode.gateway.api_requests import (
    BadRequest,
    read_count,
    read_flag,
    read_query,
    read_resumption,
    read_start,
    read_submission,
    read_wish,
)
from meshnode.gateway.api_streams import (
    EVENT_STREAM,
    EventsResponse,
    LinesResponse,
    as_message,
    job_lines,
    telemetry_lines,
)
from meshnode.gateway.api_views import (
    explanation_view,
    job_view,
    known_agents,
    plan_view,
    program_version,
)
from meshnode.node import JobJournal, Node
from meshnode.ports import Agent, JsonValue, WallClock
from protocol.errors import Malformed
from protocol.records import CapabilityName

#: How long a question for a capability looks beyond what is known here, seconds.
SEARCH_S: Final = 5.0
_JOBS_LISTED: Final = 100
_JOB: Final = re.compile(r"[0-9a-f]{1,64}")

Handler = Callable[[Request], Awaitable[Response]]


def api_routes(
    node: Node, clock: WallClock, *, wrapped: Callable[[], Sequence[Agent]] | None = None
) -> list[BaseRoute]:
    """Return the routes of ``node``'s API.

    Args:
        node: Whose it is.
        clock: Wall time.
        wrapped: Reads the agents in the node's home, to be hosted from now on.
    """
    return _Api(node, clock, wrapped).routes()


class _Api:
    """One method for each route."""

    def __init__(
        self, node: Node, clock: WallClock, wrapped: Callable[[], Sequence[Agent]] | None
    ) -> None:
        self._node = node
        self._clock = clock
        self._wrapped = wrapped
        self._hosts: set[str] = set()  # names of agents that came from the home
        if wrapped is not None:
            self._hosts = {agent.spec.name for agent in wrapped()} & node.host.specs().keys()

    def routes(self) -> list[BaseRoute]:
        """Return them all."""
        table: Sequence[tuple[str, str, Handler]] = (
            ("GET", "/api/node", self.node),
            ("GET", "/api/agents", self.agents),
            ("POST", "/api/agents/reload", self.reload),
            ("POST", "/api/plan", self.plan),
            ("POST", "/api/jobs", self.submit),
            ("GET", "/api/jobs", self.jobs),
            ("GET", "/api/jobs/{job}", self.job),
            ("GET", "/api/jobs/{job}/events", self.job_events),
            ("GET", "/api/jobs/{job}/explain", self.explain),
            ("POST", "/api/jobs/{job}/cancel", self.cancel),
            ("POST", "/api/jobs/{job}/resume", self.resume),
            ("GET", "/api/jobs/{job}/outputs", self.outputs),
            ("GET", "/api/jobs/{job}/provenance", self.provenance),
            ("GET", "/api/events", self.events),
        )
        return [Route(path, _blaming(do), methods=[method]) for method, path, do in table]

    # --- the node ---

    async def node(self, request: Request) -> Response:
        """Say who this is."""
        read_query(request.query_params.multi_items())
        node = self._node
        return _answer(
            {
                "peer_id": node.peer,
                "network": node.config.network,
                "addresses": [*node.addresses],
                "agents": [*sorted(node.host.specs())],
                "connected": [*node.sessions.connected()],
                "version": program_version(),
                "draining": node.draining,
                **owner_view(node),
            }
        )

    async def agents(self, request: Request) -> Response:
        """List agents; looks further for a capability that nobody is known to offer.

        With ``probe=1`` it always looks further, dials whoever it finds, and lists those
        that answer.
        """
        query = read_query(request.query_params.multi_items(), "capability", "probe", "near")
        wanted = query.get("capability", "")
        probe = query.get("probe", "0") == "1"
        node = self._node
        if near := query.get("near", ""):
            return _answer({"agents": await self._nearest(near, wanted)})
        if not wanted and not probe:
            told = [*known_agents(node, CapabilityName(""))]
            return _answer({"agents": [*told], "advice": node.advice.text()})
        name = _capability(wanted)
        found = known_agents(node, name)
        if wanted and (probe or not found):
            await node.directory.search(wanted, timeout_s=SEARCH_S)
            found = known_agents(node, name)
        if probe:
            answering = await node.reach(str(agent["peer"]) for agent in found)
            found = [agent for agent in known_agents(node, name) if agent["peer"] in answering]
        nearest: list[JsonValue] = [] if found else [*node.market.nearest(wanted)]
        return _answer({"agents": [*found], "nearest": nearest, "advice": node.advice.text()})

    async def reload(self, request: Request) -> Response:
        """Host what the files in the home say now, and nothing else of the home."""
        read_query(request.query_params.multi_items())
        node = self._node
        if self._wrapped is None:
            raise Conflict("this node hosts no files of its home", hint="start it anew")
        found = {
            agent.spec.name: agent for agent in await trio.to_thread.run_sync(self._wrapped)
        }
        for name in self._hosts & node.host.specs().keys():
            await node.remove_agent(name)
        self._hosts = set()
        for name, agent in found.items():
            node.add_agent(agent)
            self._hosts.add(name)
        return _answer({"agents": [*sorted(node.host.specs())]})

    async def _nearest(self, words: str, wanted: str) -> list[JsonValue]:
        """Return the agents whose capability is near ``words``, the nearest first."""
        query = _capability(wanted)
        found: list[JsonValue] = []
        for name, score in await self._node.planner.near(words):
            agents = known_agents(self._node, CapabilityName.parse(name))
            if not query.path or query.covers(CapabilityName.parse(name)):
                found += [{**agent, "near": score} for agent in agents]
        return found

    async def events(self, request: Request) -> Response:
        """Tell what happens in the node."""
        query = read_query(request.query_params.multi_items(), "follow")
        follow = read_flag(query.get("follow", "1"), "follow")
        return LinesResponse(telemetry_lines(self._node.events, follow=follow))

    async def plan(self, request: Request) -> Response:
        """Turn a goal in words into a graph; spends nothing."""
        read_query(request.query_params.multi_items())
        wish = read_wish(await request.body())
        with self._node.advice.given():
            plan = await self._node.planner.plan(
                wish.goal, files=wish.files, inputs=wish.inputs, partial=wish.partial
            )
        return _answer(plan_view(plan))

    # --- jobs ---

    async def submit(self, request: Request) -> Response:
        """Take a job."""
        read_query(request.query_params.multi_items())
        traceparent = request.headers.get("traceparent", "")
        wanted = read_submission(await request.body(), traceparent=traceparent)
        job = await self._node.submit(wanted.graph, wanted.inputs, wanted.terms)
        return _answer({"job": job}, 201, {"location": f"/api/jobs/{job}"})

    async def jobs(self, request: Request) -> Response:
        """List the newest jobs."""
        query = read_query(request.query_params.multi_items(), "limit", "begins", "running")
        limit = read_count(query.get("limit", str(_JOBS_LISTED)), "limit")
        running = read_flag(query.get("running", "0"), "running")
        rows = await self._node.broker.jobs(begins=query.get("begins", ""))
        rows = [(job, row) for job, row in rows if not (running and row.done)]
        listed: list[JsonValue] = [
            {
                "job": job,
                "name": row.name,
                "gold": row.gold,
                "planned_ms": row.planned_ms,
                "ended": row.done,
                "state": row.state or ("ended" if row.done else "running"),
                "cost_mc": row.spent_mc if row.done else None,
                "elapsed_s": (row.ended_ms - row.planned_ms) / 1000 if row.ended_ms else None,
            }
            for job, row in rows[:limit]
        ]
        return _answer({"jobs": listed})

    async def job(self, request: Request) -> Response:
        """Say how a job stands."""
        read_query(request.query_params.multi_items())
        journal = await self._journal(request)
        durable = journal.state.done is None or journal.done is not None
        return _answer(job_view(journal.state, self._clock.now_ms(), durable=durable))

    async def job_events(self, request: Request) -> Response:
        """Tell a job's events."""
        query = read_query(request.query_params.multi_items(), "since", "last_seq", "follow")
        since = read_start(query, request.headers.get("last-event-id", ""))
        as_events = EVENT_STREAM in request.headers.get("accept", "")
        follow = as_events or read_flag(query.get("follow", "0"), "follow")
        journal = await self._journal(request)
        journal.check_start(since)
        if not as_events:
            return LinesResponse(job_lines(journal, self._node, since=since, follow=follow))
        if journal.done is not None and not journal.events(since):
            return Response(status_code=204)  # or its client would ask again for ever
        told = job_lines(journal, self._node, since=since, follow=follow, form=as_message)
        return EventsResponse(told)

    async def explain(self, request: Request) -> Response:
        """Say why a job went as it did."""
        read_query(request.query_params.multi_items())
        journal = await self._journal(request)
        now_ms = self._clock.now_ms()
        told = await trio.to_thread.run_sync(
            explanation_view, journal.job, journal.events(), now_ms
        )
        return _answer(told)

    async def cancel(self, request: Request) -> Response:
        """End a job early."""
        read_query(request.query_params.multi_items())
        journal = await self._journal(request)
        if (done := journal.state.done) is not None:
            raise Conflict(
                f"job {journal.job} has ended already: {done.state}", hint="nothing to cancel"
            )
        await self._node.cancel(journal.job)
        return _answer({"job": journal.job, "state": "cancelling"}, 202)

    async def resume(self, request: Request) -> Response:
        """Go on with a job."""
        read_query(request.query_params.multi_items())
        budget_mc, deadline_s = read_resumption(await request.body())
        journal = await self._journal(request)
        job = await self._node.broker.resume(
            journal.job, budget_mc=budget_mc, deadline_s=deadline_s
        )
        return _answer({"job": job, "resumes": journal.job if job != journal.job else ""})

    async def outputs(self, request: Request) -> Response:
        """Return what a job was for."""
        query = read_query(request.query_params.multi_items(), "partial")
        partial = read_flag(query.get("partial", "0"), "partial")
        journal = await self._ended(request)
        done = journal.state.done
        if partial:
            return _answer(await self._node.broker.partial_outputs(journal.job))
        if done is not None and done.state != "completed":
            why, hint = done.text or done.code, how_to_get(journal.state.kept())
            raise Conflict(f"job {journal.job} {done.state}: {why}", hint=hint)
        return _answer(await self._node.outputs(journal.job))

    async def provenance(self, request: Request) -> Response:
        """Return the signed journal."""
        read_query(request.query_params.multi_items())
        journal = await self._ended(request)
        name = f'attachment; filename="{journal.job}.provenance"'
        return Response(
            await journal.export(),
            media_type="application/octet-stream",
            headers={"content-disposition": name, "cache-control": "no-store"},
        )

    async def _journal(self, request: Request) -> JobJournal:
        job: str = request.path_params["job"]
        if not _JOB.fullmatch(job):
            raise NotFound(f"there is no job {job[:80]!r} here", hint="see GET /api/jobs")
        return await self._node.journal(job)

    async def _ended(self, request: Request) -> JobJournal:
        journal = await self._journal(request)
        if journal.done is None:
            raise Conflict(
                f"job {journal.job} has not ended", hint="follow its events until done"
            )
        return journal


def _capability(text: str) -> CapabilityName:
    try:
        return CapabilityName.parse(text) if text else CapabilityName("")
    except Malformed as exc:
        raise BadRequest(str(exc), hint="dotted lower-case words, perhaps @VERSION") from exc
