"""A door for clients of OpenAI's API: ``/v1/models`` and ``/v1/chat/completions``.

``model`` is a capability, which goes straight to an agent that offers it, or ``mesh``,
which plans the user's last message as a goal.  Every answer is a job like any other; the
``mesh`` object of a response names it, with what it cost and what was verified.

A streamed answer is what the agent streams, passed on as it comes, and it always equals
the final output: if another contractor had to take over, or the output turned out to be
another text, the stream ends in an error and not in ``[DONE]``.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from meshnode.domain.values import parse
from meshnode.errors import CannotPlan, JobFailed, MeshError, NoProvider
from meshnode.gateway.api_streams import EventsResponse
from meshnode.gateway.auth import status_of
from meshnode.gateway.openai_requests import Chat, ChatRefused, read_chat
from meshnode.gateway.openai_tasks import (
    graph_of_call,
    input_of,
    streams_text,
    text_of_outputs,
)
from meshnode.node import JobJournal, Node
from meshnode.ports import JsonValue, WallClock
from protocol.errors import Malformed
from protocol.graph import TaskGraph
from protocol.records import Capability, CapabilityName

MESH: Final = "mesh"
#: A comment is sent after this much silence, so that proxies keep the stream, seconds.
_QUIET_S: Final = 10.0

#: Reasons of a failure that paying more would mend, and nothing else.
_UNPAID: Final = frozenset({"budget.exceeded"})

View = dict[str, JsonValue]
Handler = Callable[[Request], Awaitable[Response]]


def openai_routes(node: Node, clock: WallClock) -> list[BaseRoute]:
    """Return the routes under ``/v1``."""
    door = _Door(node, clock)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/v1/models", door.models),
        ("GET", "/v1/models/{model:path}", door.model),
        ("POST", "/v1/chat/completions", door.chat),
    )
    return [Route(path, _in_their_shape(do), methods=[method]) for method, path, do in table]


@dataclass(slots=True)
class _Answer:
    """A job on its way to a client.

    Attributes:
        journal: Of the job.
        streams: What its agent streams is text of the answer.
        sent: Text that the client has.
        chars: How much that is.
        run: Which writing of the text it is the beginning of.
    """

    journal: JobJournal
    streams: bool
    sent: list[str] = field(default_factory=list)
    chars: int = 0
    run: str = ""


@dataclass(frozen=True, slots=True)
class _Task:
    """What a conversation asks for.

    Attributes:
        graph: What is done.
        inputs: Of the graph.
        asked: Fingerprint of the goal that it was planned from, if it was.
        streams: What its agent streams is text of the answer.
    """

    graph: TaskGraph
    inputs: Mapping[str, JsonValue]
    asked: str = ""
    streams: bool = False


class _Door:
    """One method for each route."""

    def __init__(self, node: Node, clock: WallClock) -> None:
        self._node = node
        self._clock = clock

    # --- models ---

    async def models(self, _: Request) -> Response:
        """List ``mesh`` and every capability that is known."""
        await trio.lowlevel.checkpoint()
        names = [MESH, *sorted(self._offered())]
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """Tell of one model."""
        await trio.lowlevel.checkpoint()
        name: str = request.path_params["model"]
        known = MESH if name == MESH else self._find(name).name
        return JSONResponse(self._model(known))

    def _model(self, name: str) -> View:
        return {"id": name, "object": "model", "created": 0, "owned_by": "meshnode"}

    def _offered(self) -> dict[str, Capability]:
        return {
            capability.name: capability
            for record in self._node.known()
            for capability in record.capabilities
        }

    def _find(self, model: str) -> Capability:
        """Return the one capability that ``model`` names, or is the beginning of.

        Raises:
            NoProvider: There is none, or several; names the nearest.
        """
        offered = self._offered()
        if model in offered:
            return offered[model]
        try:
            query = CapabilityName.parse(model)
        except Malformed:
            found: list[str] = []
        else:
            found = [name for name in offered if query.covers(CapabilityName.parse(name))]
        if len(found) == 1:
            return offered[found[0]]
        near = found or get_close_matches(model, sorted(offered), n=5, cutoff=0.0)
        raise NoProvider(
            f"the model {model[:100]!r} {'is ambiguous' if found else 'does not exist'}",
            hint=f"use mesh, or one of: {', '.join(near)}" if near else "no agent is known yet",
        )

    # --- chat ---

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        key = request.headers.get("idempotency-key", "")
        chat = read_chat(await request.body(), idempotency_key=key)
        task = await self._task(chat)
        terms = replace(chat.terms, asked=task.asked)
        job = await self._node.submit(task.graph, task.inputs, terms)
        answer = _Answer(await self._node.journal(job), task.streams)
        if chat.stream:
            return EventsResponse(self._cancelling(answer, self._stream(chat, answer)))
        try:
            return JSONResponse(await self._whole(chat, answer))
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self._leave(answer)
            raise

    async def _task(self, chat: Chat) -> _Task:
        if chat.model != MESH:
            capability = self._find(chat.model)
            value = input_of(chat, _schema(capability.input_schema))
            streams = streams_text(_schema(capability.output_schema))
            return _Task(graph_of_call(capability.name, value), {}, streams=streams)
        plan = await self._node.planner.plan(chat.goal)
        if plan.assembled.missing:
            wants = ", ".join(f"{w.field} of {w.step}" for w in plan.assembled.missing)
            raise CannotPlan(
                f"the message doesn't say: {wants}",
                hint="say it, or put the text behind a colon",
            )
        return _Task(plan.assembled.graph, plan.assembled.inputs, asked=plan.asked)

    async def _whole(self, chat: Chat, answer: _Answer) -> View:
        text = await self._text(answer)
        choice: View = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        return {
            **self._head(chat, answer, "chat.completion"),
            "choices": [choice],
            "usage": _usage(answer.journal),
            "mesh": _told(answer.journal),
        }

    async def _text(self, answer: _Answer) -> str:
        """Wait for the end of the job, and return its answer.

        Raises:
            JobFailed: It has none.
        """
        job = answer.journal.job
        done = (await self._node.wait(job)).done
        if done is None or done.state != "completed":
            code, why = (done.code, done.text or done.code) if done else ("", "")
            raise JobFailed(f"job {job} did not complete: {why}", job=job, reason=code)
        return text_of_outputs(await self._node.outputs(job))

    def _head(self, chat: Chat, answer: _Answer, kind: str) -> View:
        return {
            "id": f"chatcmpl-{answer.journal.job}",
            "object": kind,
            "created": answer.journal.state.planned_ms // 1000,
            "model": chat.model,
        }

    async def _stream(self, chat: Chat, answer: _Answer) -> AsyncGenerator[bytes, None]:
        head = self._head(chat, answer, "chat.completion.chunk")
        usage: View = {"usage": None} if chat.usage else {}

        def chunk(delta: View, finish: str | None = None) -> bytes:
            choice: View = {"index": 0, "delta": delta, "finish_reason": finish}
            return _event({**head, "choices": [choice], **usage})

        yield chunk({"role": "assistant", "content": ""})
        try:
            with self._node.events.watch() as onlooker:
                for before in self._node.streamed(answer.journal.job):
                    if text := _piece(answer, before.name, before.fields):
                        yield chunk({"content": text})
                while answer.journal.done is None:
                    with trio.move_on_after(_QUIET_S) as quiet:
                        happening = await onlooker.next()
                        if text := _piece(answer, happening.name, happening.fields):
                            yield chunk({"content": text})
                    if quiet.cancelled_caught:
                        yield b": still at work\n\n"
            rest = _rest(await self._text(answer), "".join(answer.sent))
        except MeshError as exc:
            yield _event(_error(exc))
            return
        if rest:
            yield chunk({"content": rest})
        yield chunk({}, "stop")
        if chat.usage:
            told = {"usage": _usage(answer.journal), "mesh": _told(answer.journal)}
            yield _event({**head, "choices": [], **told})
        yield b"data: [DONE]\n\n"

    async def _cancelling(
        self, answer: _Answer, pieces: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        """Pass ``pieces`` on; a client that leaves before the end ends the job."""
        try:
            async for piece in pieces:
                yield piece
        finally:
            with trio.CancelScope(shield=True):
                await pieces.aclose()
                await self._leave(answer)

    async def _leave(self, answer: _Answer) -> None:
        if answer.journal.done is None:
            await self._node.cancel(answer.journal.job)


def _schema(schema: bytes) -> dict[str, JsonValue]:
    value = parse(schema)
    return value if isinstance(value, dict) else {}


def _piece(answer: _Answer, name: str, fields: Mapping[str, object]) -> str:
    """Return the new text of the answer that an event of telemetry brings, or nothing."""
    if name != "award.progress" or fields.get("job") != answer.journal.job:
        return ""
    text, run = fields.get("text"), str(fields.get("run"))
    answer.run = answer.run or run
    # What is written anew begins again, and can't follow on what the client has; nor can
    # what comes after a piece that was missed.  The rest is sent when the answer is there.
    if not answer.streams or not isinstance(text, str) or run != answer.run:
        return ""
    if fields.get("offset") != answer.chars:
        return ""
    answer.chars += len(text)
    answer.sent.append(text)
    return text


def _rest(text: str, sent: str) -> str:
    """Return what the client of a stream doesn't have yet.

    Raises:
        JobFailed: What it has is not the beginning of the answer.
    """
    if text == sent.strip():
        return ""  # space around it is no other text
    if not text.startswith(sent):
        raise JobFailed("the answer is another text than what was streamed", reason="retried")
    return text[len(sent) :]


def _usage(journal: JobJournal) -> View:
    """Return the tokens that agents metered; agents that use no model meter none."""
    read, written = journal.tokens()
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
    }


def _told(journal: JobJournal) -> View:
    """Return what the mesh says of an answer beside its text."""
    state = journal.state
    done = [unit.accepted for unit in state.units.values() if unit.accepted is not None]
    agents = {f"{attempt.peer}/{attempt.agent}" for attempt in done}
    verdicts = {attempt.verdict.verdict for attempt in done if attempt.verdict is not None}
    return {
        "job": journal.job,
        "cost_mc": state.spent_mc,
        "agents": [*sorted(agents)],
        "verdicts": [*sorted(verdicts)],
    }


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


# --- errors in their shape ------------------------------------------------------------


def _error(error: MeshError) -> dict[str, Any]:
    status = status_of(error)
    kind = "invalid_request_error" if status < 500 else "server_error"  # noqa: PLR2004 - HTTP
    message = error.line()
    param = error.param or None if isinstance(error, ChatRefused) else None
    return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}


def _in_their_shape(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except BaseExceptionGroup as group:
            known = group.subgroup(MeshError)
            if known is None:
                raise
            error: BaseException = known
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            assert isinstance(error, MeshError)
            return _refusal(error)
        except MeshError as exc:
            return _refusal(exc)

    return handle


def _refusal(error: MeshError) -> Response:
    status = status_of(error)
    if isinstance(error, JobFailed):
        # Clients ask again by themselves after a 5xx: what a budget can't pay it can't then.
        status = 402 if error.reason in _UNPAID else 502
    return JSONResponse(_error(error), status)
