"""A model behind an OpenAI-compatible server as an agent: Ollama, vLLM, llama.cpp, hosted.

The key is read from an environment variable when a call is made, and is in no file, log
or error: what the server says is scrubbed of it before anybody sees it.  Where the server
is, and what it says of itself, is the owner's to know: it stands in an error's hint, which
stays on this node, and a caller is told what kind of failure it was.  A caller may set
only the parameters that the owner allows.  Answers are streamed; a server that can't
stream answers whole.  Nothing is sent twice: a request that may have been read is not
repeated, only a connection that could not be made.
"""

import json
import os
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx
import trio

from meshnode.adapters.agents.answer_tokens import answer_tokens
from meshnode.adapters.agents.signature import convert
from meshnode.adapters.agents.upstream import Upstream
from meshnode.errors import AgentError, AgentTimeout, OutputInvalid
from meshnode.ports import AgentCall, AgentSpec, Chunk, JsonValue, Output

CONNECT_S: Final = 5.0
#: A server that has sent nothing for so long hangs; loading a model takes its time.
SILENCE_S: Final = 120.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
_ERROR_BYTES_MAX: Final = 64 * 1024
_ERROR_SHOWN: Final = 500
#: Model tokens of an answer that any server's model has room for.
_HOLDS_TOKENS: Final = 1_024
#: Statuses with which a server says what is wrong with what it was sent.
_OF_INPUT: Final = frozenset({400, 413, 422})
_CONNECT_TRIES: Final = 3
_RETRY_S: Final = 0.5


@dataclass(slots=True)
class Answered:
    """What an answer took, filled in when it has ended.

    Attributes:
        usage: Tokens, where the server counts them.
        finish: Why it ended: ``stop``, ``length``, ….
        first_s: Until the first piece, seconds.
    """

    usage: dict[str, int] = field(default_factory=dict)
    finish: str = ""
    first_s: float = 0.0


class OpenAICompatibleAgent:
    """An :class:`~meshnode.ports.Agent` that asks a model on a server."""

    def __init__(self, spec: AgentSpec, upstream: Upstream) -> None:
        """Describe it; nobody is asked yet."""
        self._spec = spec
        self.upstream = upstream
        self._http: httpx.AsyncClient | None = None

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""
        return self._spec

    async def open(self) -> None:
        """See that the key is there; the server may come up later.

        Raises:
            AgentError: The environment variable of the key isn't set.
        """
        await trio.lowlevel.checkpoint()
        self._key()

    async def run(
        self, value: JsonValue, call: AgentCall
    ) -> AsyncGenerator[Chunk | Output, None]:
        """Ask once.

        Raises:
            AgentError: The server can't be reached, refuses, or says nothing of sense.
            AgentTimeout: It fell silent.
            OutputInvalid: The answer is not of the schema.
            TokensReached: Its award leaves no model token for an answer.
        """
        told, pieces, size = Answered(), list[str](), 0
        body = await self._within(self.body(value), call)
        async with aclosing(self.ask(body, told, call.idempotency_key)) as answer:
            async for piece in answer:
                size += len(piece)
                if size > ANSWER_BYTES_MAX:
                    raise OutputInvalid(f"{self.upstream.model} doesn't stop answering")
                pieces.append(piece)
                yield Chunk(piece)
        yield Output(self._output("".join(pieces), told.finish), told.usage)

    async def aclose(self) -> None:
        """Close connections; idempotent."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # --- asking ---

    def body(self, value: JsonValue) -> dict[str, Any]:
        """Return the request for an input."""
        given = convert(value, dict[str, Any])
        upstream = self.upstream
        messages = list(given.get("messages", ()))
        systems = [text for text in (upstream.system, given.get("system", "")) if text]
        if systems:
            messages.insert(0, {"role": "system", "content": "\n\n".join(systems)})
        if "prompt" in given:
            messages.append({"role": "user", "content": given["prompt"]})
        body: dict[str, Any] = {"model": upstream.model, "messages": messages}
        body |= {name: given[name] for name in upstream.parameters if name in given}
        if upstream.schema is not None:
            form = {"name": "answer", "strict": True, "schema": dict(upstream.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return {**body, "stream": True, "stream_options": {"include_usage": True}}

    async def _within(self, body: dict[str, Any], call: AgentCall) -> dict[str, Any]:
        """Return ``body``, its answer no longer than the award's model tokens let it be.

        A server may refuse a number beyond what its model can hold, so none is named that
        is near that, or may be.
        """
        most = await answer_tokens(call, body["messages"])
        holds = self._spec.measures.context_tokens // 2 or _HOLDS_TOKENS
        if most is None or most > body.get("max_tokens", holds):
            return body
        return {**body, "max_tokens": most}

    async def ask(
        self, body: Mapping[str, Any], told: Answered, key: str = ""
    ) -> AsyncGenerator[str, None]:
        """Yield the pieces of the answer to ``body``.

        Raises:
            AgentError: As :meth:`run`.
        """
        began_s = trio.current_time()
        headers = {"Idempotency-Key": key} if key else {}
        response = await self._send("POST", "/chat/completions", body, headers)
        try:
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                yield _whole(await self._read(response), told)
                return
            async with aclosing(self._events(response)) as events:
                async for event in events:
                    text = _piece(event, told, self._scrub)
                    if text:
                        told.first_s = told.first_s or trio.current_time() - began_s
                        yield text
        finally:
            with trio.CancelScope(shield=True):
                await response.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """Return what ``/models`` lists; empty where the server has no such list.

        Raises:
            AgentError: It can't be reached, or refuses the key.
        """
        response = await self._send("GET", "/models", None, {}, refuse=False)
        try:
            if response.status_code in (401, 403):
                await self._refuse(response)
            if response.status_code >= 400:  # noqa: PLR2004 - HTTP
                return []
            listed = await self._read(response)
        finally:
            await response.aclose()
        found = listed.get("data") if isinstance(listed, dict) else None
        return (
            [each for each in found if isinstance(each, dict)]
            if isinstance(found, list)
            else []
        )

    async def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        *,
        refuse: bool = True,
    ) -> httpx.Response:
        http = self._client()
        key = self._key()
        sent = {**headers, **({"Authorization": f"Bearer {key}"} if key else {})}
        url = self.upstream.base_url.rstrip("/") + path
        for left in reversed(range(_CONNECT_TRIES)):
            request = http.build_request(method, url, json=body, headers=sent)
            try:
                response = await http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                # Nothing was sent: the one case in which trying again repeats nothing.
                if left:
                    await trio.sleep(_RETRY_S)
                    continue
                why = self._scrub(str(error)) or "no connection"
                raise AgentError(
                    f"nothing answers where {self.upstream.model} should be",
                    hint=f"{url}: {why}; is the server running, and is the URL right (it"
                    " ends in /v1)?",
                ) from error
            except httpx.HTTPError as error:
                raise self._broken(error) from error
            if refuse and response.status_code != 200:  # noqa: PLR2004 - HTTP
                await self._refuse(response)
            return response
        raise AssertionError  # the last try returns or raises

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
            local = urlsplit(self.upstream.base_url).hostname in (
                "127.0.0.1",
                "::1",
                "localhost",
            )
            # A redirect would take prompt and key to another server than the owner named.
            # No connection is kept: one that the server closed meanwhile can't be told from
            # one whose request it has read, and a request is never sent twice.
            self._http = httpx.AsyncClient(
                timeout=timeout,
                follow_redirects=False,
                trust_env=not local,
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._http

    def _key(self) -> str:
        name = self.upstream.key_env
        key = os.environ.get(name, "").strip() if name else ""
        if name and not key:
            raise AgentError(
                f"the key for {self.upstream.model} is not set",
                hint=f"the environment variable {name} is not set: export {name}=…",
            )
        return key

    async def _refuse(self, response: httpx.Response) -> None:
        """Raise what the server's refusal means."""
        try:
            said = await self._read(response, size_max=_ERROR_BYTES_MAX)
        except AgentError:
            said = None
        finally:
            await response.aclose()
        status = response.status_code
        why = self._scrub(_message(said))
        server = urlsplit(self.upstream.base_url).netloc
        hints = {
            401: "is the key right? it is read from "
            + (self.upstream.key_env or "nowhere: name its variable with --key-env"),
            403: "does the key allow this model?",
            404: self._where_hint(),
            429: "the server limits how much may be asked",
            503: "the server may still be loading the model: try again in a minute",
        }
        hint = hints.get(status, "see the server's log")
        if 300 <= status < 400:  # noqa: PLR2004 - HTTP
            why, hint = "it redirects elsewhere", "name the server that answers itself"
        kind = f"the server of {self.upstream.model} refused (status {status})"
        if status in _OF_INPUT:  # it speaks of what it was sent
            raise AgentError(f"{kind}: {why}"[:_ERROR_SHOWN], hint=f"{server}; {hint}")
        raise AgentError(kind, hint=f"{server}: {why}; {hint}"[:_ERROR_SHOWN])

    def _where_hint(self) -> str:
        base = self.upstream.base_url.rstrip("/")
        if base.endswith("/v1"):
            return "is the URL right, and the model's name?"
        return f"is it {base}/v1?"

    async def _read(
        self, response: httpx.Response, *, size_max: int = ANSWER_BYTES_MAX
    ) -> JsonValue:
        data = bytearray()
        try:
            async with aclosing(_bytes(response)) as pieces:
                async for piece in pieces:
                    data += piece
                    if len(data) > size_max:
                        raise OutputInvalid(f"the server sent more than {size_max} bytes")
        except httpx.HTTPError as error:
            raise self._broken(error) from error
        try:
            return cast("JsonValue", json.loads(data))
        except (ValueError, RecursionError) as error:
            shown = self._scrub(data[:120].decode(errors="replace"))
            raise AgentError(
                "the server sent no JSON",
                hint=f"but {shown!r}; is the URL right (it ends in /v1)?",
            ) from error

    async def _events(self, response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the data of events; read to the end, so that nothing is broken off."""
        buffer, done = bytearray(), False
        try:
            async with aclosing(_bytes(response)) as pieces:
                async for piece in pieces:
                    buffer += piece
                    if len(buffer) > ANSWER_BYTES_MAX:
                        raise OutputInvalid("the server sent a line without end")
                    *lines, rest = bytes(buffer).split(b"\n")
                    buffer[:] = rest
                    for line in lines:
                        data = line.strip().removeprefix(b"data:").strip()
                        done = done or data == b"[DONE]"
                        if done or not line.startswith(b"data:") or not data:
                            continue
                        yield self._event(data)
        except httpx.HTTPError as error:
            raise self._broken(error) from error

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            shown = self._scrub(data[:120].decode(errors="replace"))
            raise AgentError("the server streamed no JSON", hint=f"but {shown!r}") from error
        if not isinstance(event, dict):
            raise AgentError("the server streamed something that is no event")
        return event

    def _broken(self, error: httpx.HTTPError) -> AgentError:
        server = urlsplit(self.upstream.base_url).netloc
        if isinstance(error, httpx.TimeoutException):
            return AgentTimeout(
                f"{self.upstream.model} fell silent for {SILENCE_S:g} s",
                hint=f"{server}; is the model loaded, and not too large for the machine?",
            )
        why = self._scrub(str(error)) or type(error).__name__
        return AgentError(
            f"the connection to {self.upstream.model} broke", hint=f"{server}: {why}"
        )

    def _scrub(self, text: str) -> str:
        """Return ``text`` without key and address, on one line."""
        key = os.environ.get(self.upstream.key_env, "").strip() if self.upstream.key_env else ""
        where = urlsplit(self.upstream.base_url)
        for secret in (key, where.netloc, where.hostname):
            if secret:
                text = text.replace(secret, "…")
        text = re.sub(r"(?i)\b(bearer|api[-_ ]?key)\b\S*\s+\S{8,}", r"\1 …", text)
        text = re.sub(r"\b(sk|key)-[A-Za-z0-9_-]{8,}", "…", text)
        return " ".join(text.split())[:_ERROR_SHOWN]

    def _output(self, text: str, finish: str) -> JsonValue:
        if self.upstream.schema is None:
            return {"text": text, **({"finish_reason": finish} if finish else {})}
        try:
            return cast("JsonValue", json.loads(text))
        except (ValueError, RecursionError) as error:
            raise OutputInvalid(
                f"{self.upstream.model} was asked for JSON and wrote {text[:100]!r}",
                hint="does the server support response_format json_schema?",
            ) from error


def _bytes(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Return the pieces; httpx types its generator as a mere iterator, which has no close."""
    return cast("AsyncGenerator[bytes, None]", response.aiter_bytes())


def _message(said: JsonValue) -> str:
    """Return what a server's error says: servers differ in where they put it."""
    if isinstance(said, dict):
        error = said.get("error", said)
        if isinstance(error, dict):
            error = error.get("message", error)
        return error if isinstance(error, str) else json.dumps(error)
    return "it didn't say why" if said is None else json.dumps(said)


def _piece(event: Mapping[str, Any], told: Answered, scrub: Any) -> str:  # noqa: ANN401 - a function of text
    if "error" in event:
        raise AgentError("the server broke off", hint=scrub(_message(dict(event))))
    _note_usage(event, told)
    choices = event.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    told.finish = choices[0].get("finish_reason") or told.finish
    delta = choices[0].get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    return text if isinstance(text, str) else ""


def _whole(answer: JsonValue, told: Answered) -> str:
    try:
        whole: Any = answer
        _note_usage(whole, told)
        told.finish = whole["choices"][0].get("finish_reason") or ""
        text = whole["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise AgentError(
            "the server's answer is no chat completion", hint="is it an OpenAI-compatible one?"
        ) from error
    if not isinstance(text, str):
        raise AgentError("the model answered without text")
    return text


def _note_usage(event: Mapping[str, Any], told: Answered) -> None:
    usage = event.get("usage")
    if isinstance(usage, dict):
        names = {"prompt_tokens": "tokens_in", "completion_tokens": "tokens_out"}
        told.usage = {
            ours: usage[theirs]
            for theirs, ours in names.items()
            if isinstance(usage.get(theirs), int) and usage[theirs] >= 0
        }
