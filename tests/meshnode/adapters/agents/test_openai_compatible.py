"""A model on a server as an agent: a real HTTP server on loopback, well and badly behaved."""

import gc
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from meshnode.adapters.agents import measuring, openai_compatible
from meshnode.adapters.agents.measuring import measure
from meshnode.adapters.agents.openai_compatible import OpenAICompatibleAgent
from meshnode.adapters.agents.upstream import Upstream, make_spec
from meshnode.errors import (
    AgentError,
    AgentTimeout,
    ConfigError,
    OutputInvalid,
    TokensReached,
)
from meshnode.gateway.http import serve_http
from meshnode.ports import AgentCall, Chunk, Output

if TYPE_CHECKING:
    from meshnode.calls import Handover

KEY = "sk-verysecretkey123456"
Answer = Callable[[dict[str, Any]], Response]


#: httpx leaves generators of a response that is broken off to the collector; the fixture
#: below calls it while these are ignored.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*aclosing:ResourceWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


class Server:
    """What a test's server was asked, and how it answers."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Answer = whole("hello there")
        self.models: Response = JSONResponse({"data": [{"id": "tiny", "max_model_len": 4096}]})
        self.url = ""
        self.clients: list[object] = []

    async def chat(self, request: Request) -> Response:
        self.clients.append(request.client)
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.json())
        return self.answer(self.bodies[-1])

    async def listed(self, request: Request) -> Response:
        self.headers.append(dict(request.headers))
        return self.models


def whole(text: str, **more: Any) -> Answer:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 7, "completion_tokens": 2}
    return lambda _: JSONResponse({"choices": [choice], "usage": usage, **more})


def streamed(*lines: str, done: bool = True) -> Answer:
    async def body() -> AsyncGenerator[str, None]:
        for line in lines:
            yield f"data: {line}\n\n"
        if done:
            yield "data: [DONE]\n\n"

    return lambda _: StreamingResponse(body(), media_type="text/event-stream")


def piece(text: str, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


@pytest.fixture
async def server(nursery: trio.Nursery) -> AsyncIterator[Server]:
    made = Server()
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", made.chat, methods=["POST"]),
            Route("/v1/models", made.listed),
        ]
    )
    port = await nursery.start(partial(serve_http, app, emit=lambda *_, **__: None))
    made.url = f"http://127.0.0.1:{port}/v1"
    yield made
    nursery.cancel_scope.cancel()


@asynccontextmanager
async def agent(url: str, **more: Any) -> AsyncIterator[OpenAICompatibleAgent]:
    upstream = Upstream(base_url=url, model="tiny", **more)
    made = OpenAICompatibleAgent(
        make_spec(upstream, name="tiny", capability="text.generation@1"), upstream
    )
    try:
        yield made
    finally:
        await made.aclose()


class Rest:
    """What an award leaves."""

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens

    async def tokens(self) -> int | None:
        return self._tokens


async def ask(
    made: OpenAICompatibleAgent, value: Any, *, tokens: int | None = None
) -> tuple[list[str], Output]:
    chunks: list[str] = []
    under = cast("Handover", Rest(tokens))
    call = AgentCall("once", trio.current_time() + 30, handover=under)
    async with aclosing(made.run(value, call)) as items:
        async for item in items:
            if isinstance(item, Chunk):
                chunks.append(item.text)
            else:
                return chunks, item
    raise AssertionError("no output")


async def test_an_answer_is_streamed_and_metered(server: Server) -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
    server.answer = streamed(piece("Good "), piece("day", "stop"), usage)
    async with agent(server.url) as made:
        chunks, output = await ask(made, {"prompt": "Greet", "max_tokens": 9})
    assert chunks == ["Good ", "day"]
    assert output.value == {"text": "Good day", "finish_reason": "stop"}
    assert output.usage == {"tokens_in": 5, "tokens_out": 3}
    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Greet"}]
    assert (body["model"], body["max_tokens"], body["stream"]) == ("tiny", 9, True)
    assert server.headers[0]["idempotency-key"] == "once"
    assert "authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("tokens", "wanted", "expected"),
    [
        (None, None, None),
        (None, 200, 200),
        (90, None, 80),  # the prompt is guessed at two tokens, and eight around it
        (90, 200, 80),
        (90, 40, 40),
        (1_034, None, 1_024),
        (1_035, None, None),  # the server knows better how much there is room for
        (5_000, 2_000, 2_000),
    ],
)
async def test_an_answer_is_as_long_as_the_tokens_of_its_award_let_it_be(
    server: Server, tokens: int | None, wanted: int | None, expected: int | None
) -> None:
    given = {"prompt": "Greet!"} | ({"max_tokens": wanted} if wanted else {})
    async with agent(server.url) as made:
        await ask(made, given, tokens=tokens)
    (body,) = server.bodies
    assert body.get("max_tokens") == expected


async def test_what_leaves_no_token_for_an_answer_is_not_asked(server: Server) -> None:
    async with agent(server.url) as made:
        with pytest.raises(TokensReached, match=r"about 10 .* has 10 left.*tokens_max"):
            await ask(made, {"prompt": "Greet!"}, tokens=10)
    assert not server.bodies


async def test_no_connection_is_used_twice(server: Server) -> None:
    """One that the server closes when idle would lose the request that comes just then."""
    async with agent(server.url) as made:
        for _ in range(3):
            await ask(made, {"prompt": "Hi"})
    assert len(set(server.clients)) == 3


async def test_a_server_that_cannot_stream_answers_whole(server: Server) -> None:
    async with agent(server.url) as made:
        chunks, output = await ask(made, {"prompt": "Hi"})
    assert chunks == ["hello there"]
    assert output.usage == {"tokens_in": 7, "tokens_out": 2}


async def test_conversations_and_systems_are_joined(server: Server) -> None:
    async with agent(server.url, system="Be brief.") as made:
        messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        await ask(made, {"messages": messages, "system": "Rhyme.", "prompt": "c"})
    assert [m["content"] for m in server.bodies[0]["messages"]] == [
        "Be brief.\n\nRhyme.",
        "a",
        "b",
        "c",
    ]


async def test_only_what_the_owner_allows_is_passed_on(server: Server) -> None:
    async with agent(server.url, parameters=["seed"]) as made:
        await ask(made, {"prompt": "x", "seed": 3, "temperature": 2, "tools": ["x"]})
        assert "temperature" not in made.spec.input_schema["properties"]  # type: ignore[operator]
    assert server.bodies[0]["seed"] == 3
    assert not {"temperature", "tools"} & server.bodies[0].keys()


async def test_an_answer_is_held_to_its_schema(server: Server) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    server.answer = whole('{"n": 3}')
    async with agent(server.url, schema=schema) as made:
        assert (await ask(made, {"prompt": "x"}))[1].value == {"n": 3}
        assert server.bodies[0]["response_format"]["json_schema"]["schema"] == schema
        server.answer = whole("three")
        with pytest.raises(OutputInvalid, match="was asked for JSON and wrote 'three'"):
            await ask(made, {"prompt": "x"})


# --- the key -------------------------------------------------------------------------


async def test_the_key_goes_to_the_server_and_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    async with agent(server.url, key_env="TINY_KEY") as made:
        await made.open()
        await ask(made, {"prompt": "x"})
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
        said = {"error": {"message": f"Incorrect API key provided: {KEY}, Bearer {KEY}"}}
        server.answer = lambda _: JSONResponse(said, 401)
        with pytest.raises(AgentError, match="status 401") as caught:
            await ask(made, {"prompt": "x"})
    assert KEY not in caught.value.line()
    assert "TINY_KEY" in caught.value.hint


async def test_a_key_that_is_not_set_is_told_before_anything(server: Server) -> None:
    async with agent(server.url, key_env="NO_SUCH_KEY") as made:
        with pytest.raises(AgentError, match="the key for tiny is not set") as caught:
            await made.open()
    assert "NO_SUCH_KEY is not set" in caught.value.hint
    assert server.headers == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_url": "localhost:1"}, "is no URL"),
        ({"base_url": "http://user:hunter22@host/v1"}, "holds a secret"),
        ({"base_url": "http://host/v1?key=hunter22"}, "holds a secret"),
        ({"base_url": "http://host/v1/chat/completions"}, "is one call of the server"),
        ({"base_url": "http://host/v1/models/"}, "is one call of the server"),
        ({"key_env": "sk-hunter22"}, "names no environment variable"),
        ({"parameters": ["temprature"]}, "did you mean 'temperature'"),
    ],
)
def test_what_cant_be_is_refused_without_showing_secrets(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Upstream(**{"base_url": "http://host/v1", "model": "m", **changes})
    assert "hunter22" not in caught.value.line()


# --- servers that misbehave ----------------------------------------------------------


def hanging(_: dict[str, Any]) -> Response:
    async def body() -> AsyncGenerator[str, None]:
        yield f"data: {piece('one')}\n\n"
        await trio.sleep_forever()

    return StreamingResponse(body(), media_type="text/event-stream")


MISBEHAVED: dict[str, tuple[Answer, str]] = {
    "refuses": (lambda _: JSONResponse({"error": "overloaded"}, 429), "status 429.*overloaded"),
    "not loaded": (
        lambda _: JSONResponse({"error": {"message": "model is loading"}}, 503),
        "model is loading",
    ),
    "page": (lambda _: PlainTextResponse("<html>hi"), "sent no JSON .*'<html>hi'"),
    "other json": (lambda _: JSONResponse({"hello": 1}), "is no chat completion"),
    "no text": (
        lambda _: JSONResponse({"choices": [{"message": {"content": None}}]}),
        "without text",
    ),
    "redirect": (
        lambda _: Response(status_code=307, headers={"location": "http://127.0.0.1:9/"}),
        "it redirects elsewhere",
    ),
    "breaks off": (
        streamed(json.dumps({"error": {"message": "out of memory"}})),
        "out of memory",
    ),
    "streams no json": (streamed("{oops"), "streamed no JSON"),
    "streams a list": (streamed("[]"), "is no event"),
}


@pytest.mark.parametrize("what", MISBEHAVED)
async def test_a_server_that_misbehaves_is_named(what: str, server: Server) -> None:
    server.answer, why = MISBEHAVED[what]
    async with agent(server.url) as made:
        with pytest.raises(AgentError) as caught:
            await ask(made, {"prompt": "x"})
    assert re.search(why, caught.value.line())
    assert len(server.bodies) == 1, "what may have been read is not sent again"


async def test_a_server_that_falls_silent_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compatible, "SILENCE_S", 0.2)
    server.answer = hanging
    async with agent(server.url) as made:
        with pytest.raises(AgentTimeout, match="fell silent"):
            await ask(made, {"prompt": "x"})


async def test_an_answer_without_end_is_cut_off(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_compatible, "ANSWER_BYTES_MAX", 1_000)
    server.answer = streamed(*[piece("x" * 200)] * 50)
    async with agent(server.url) as made:
        with pytest.raises(OutputInvalid, match="doesn't stop answering"):
            await ask(made, {"prompt": "x"})


async def test_nobody_there_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_RETRY_S", 0.0)
    async with agent("http://127.0.0.1:9/v1") as made:
        with pytest.raises(AgentError, match="nothing answers where tiny") as caught:
            await ask(made, {"prompt": "x"})
    assert "http://127.0.0.1:9/v1/chat/completions" in caught.value.hint


REVEALING: dict[str, Callable[[str], Answer]] = {
    "in a page": lambda place: lambda _: PlainTextResponse(f"<html>{place} is down"),
    "in a refusal": lambda place: lambda _: JSONResponse({"error": f"{place} is full"}, 503),
    "of its input": lambda place: lambda _: JSONResponse({"error": f"{place}: too long"}, 400),
    "in a stream": lambda place: streamed(json.dumps({"error": f"{place} died"})),
    "in no stream": lambda place: streamed(f"{place}?"),
}


@pytest.mark.parametrize("how", REVEALING)
async def test_where_the_server_is_its_owner_is_told_and_no_caller(
    how: str, server: Server
) -> None:
    place = server.url.partition("//")[2].partition("/")[0]
    server.answer = REVEALING[how](place)
    async with agent(server.url) as made:
        with pytest.raises(AgentError) as caught:
            await ask(made, {"prompt": "x"})
    for part in (place, *place.split(":")):
        assert part not in str(caught.value)


async def test_what_was_wrong_with_its_input_a_caller_is_told(server: Server) -> None:
    server.answer = lambda _: JSONResponse({"error": "4097 tokens are too many"}, 400)
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match=r"status 400\): 4097 tokens are too many"):
            await ask(made, {"prompt": "x"})


async def test_a_refusal_that_is_not_about_the_input_is_the_owners(server: Server) -> None:
    server.answer = lambda _: JSONResponse({"error": "organisation org-7 owes money"}, 429)
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match=r"status 429\)$") as caught:
            await ask(made, {"prompt": "x"})
    assert "org-7 owes money" in caught.value.hint


async def test_a_base_url_without_its_end_is_told_with_the_whole(server: Server) -> None:
    async with agent(server.url.removesuffix("/v1")) as made:
        with pytest.raises(AgentError, match="404") as caught:
            await ask(made, {"prompt": "x"})
    assert f"{server.url}?" in caught.value.hint


async def test_a_model_that_loads_is_worth_another_try(server: Server) -> None:
    server.answer = lambda _: JSONResponse({"error": {"message": "Loading model"}}, 503)
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match="status 503") as caught:
            await ask(made, {"prompt": "x"})
    assert "Loading model; the server may" in caught.value.hint
    assert "try again in a minute" in caught.value.hint


# --- measuring -----------------------------------------------------------------------


async def test_a_model_is_measured(server: Server) -> None:
    told: list[str] = []
    async with agent(server.url) as made:
        found = await measure(made, told.append)
    assert found.calls == len(server.bodies) >= measuring.CALLS
    assert found.latency_ms >= 1
    assert found.context_tokens == 4096
    assert found.sample == "hello there"
    assert told


async def test_a_model_that_is_not_there_is_told_with_those_that_are(server: Server) -> None:
    server.models = JSONResponse({"data": [{"id": "tiny-chat"}, {"id": "huge"}]})
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match="has no model 'tiny'") as caught:
            await measure(made, lambda _: None)
    assert "load it there first, or name one that it has: tiny-chat" in caught.value.hint
    assert server.bodies == []


async def test_a_server_without_a_list_is_asked_all_the_same(server: Server) -> None:
    server.models = PlainTextResponse("nope", 404)
    async with agent(server.url) as made:
        assert (await measure(made, lambda _: None)).context_tokens == 0


async def test_a_wrong_key_is_told_at_once(server: Server) -> None:
    server.models = JSONResponse({"error": {"message": "bad key"}}, 401)
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match="status 401") as caught:
            await measure(made, lambda _: None)
    assert "bad key" in caught.value.hint
    assert "--key-env" in caught.value.hint


async def test_a_server_that_names_no_models_in_time_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LIST_S", 0.2)
    server.models = hanging({})
    async with agent(server.url) as made:
        with pytest.raises(AgentTimeout, match="has said nothing") as caught:
            await measure(made, lambda _: None)
    assert "--no-measure" in caught.value.hint
    assert server.bodies == []


async def test_a_model_that_hangs_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "FIRST_S", 0.2)
    server.answer = hanging
    async with agent(server.url) as made:
        with pytest.raises(AgentError, match="no whole answer within") as caught:
            await measure(made, lambda _: None)
    assert "loaded" in caught.value.hint
