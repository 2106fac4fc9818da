"""The door for OpenAI's clients, with OpenAI's client."""

import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
import trio
import trio.testing
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk
from trio.testing import MockClock

from meshnode.gateway.openai_requests import read_chat
from meshnode.services.job_terms import Terms
from tests.meshnode.gateway.api_nodes import TOKEN, Desk, open_desk, stream

ASK: list[Any] = [{"role": "user", "content": "one two three"}]


#: The client leaves its generators to the collector; :func:`chunks` calls it at once.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:.*aclosing:ResourceWarning"
)


async def chunks(stream: AsyncStream[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    try:
        return [chunk async for chunk in stream]
    finally:
        await stream.close()
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with open_desk() as opened:
        yield opened


def client(desk: Desk, token: str = TOKEN) -> AsyncOpenAI:
    http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(desk.app, raise_app_exceptions=False),
        base_url="http://127.0.0.1",
    )
    return AsyncOpenAI(
        api_key=token, base_url="http://127.0.0.1/v1", http_client=http, max_retries=0
    )


async def test_models_are_the_mesh_and_what_is_offered(
    autojump_clock: MockClock, desk: Desk
) -> None:
    names = [model.id async for model in client(desk).models.list()]
    assert names[0] == "mesh"
    assert {"text.upper@1", "text.join@1", "test.tell@1"} <= set(names)
    assert (await client(desk).models.retrieve("text.upper")).id == "text.upper@1"


async def test_a_capability_answers_and_says_what_it_took(
    autojump_clock: MockClock, desk: Desk
) -> None:
    made = await client(desk).chat.completions.create(model="test.tell@1", messages=ASK)
    assert made.choices[0].message.content == "one two three"
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (2, 3)
    assert made.model_extra is not None
    told = made.model_extra["mesh"]
    assert (told["cost_mc"], told["verdicts"]) == (3, ["unverified"])
    assert told["agents"] == [f"{desk.worker.peer}/tell"]
    assert made.id == f"chatcmpl-{told['job']}"


async def test_a_stream_brings_the_answer_piece_by_piece(
    autojump_clock: MockClock, desk: Desk
) -> None:
    stream = await client(desk).chat.completions.create(
        model="test.tell", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    found = await chunks(stream)
    pieces = [c.choices[0].delta.content or "" for c in found if c.choices]
    assert len([piece for piece in pieces if piece]) >= 2
    assert "".join(pieces).split() == ["one", "two", "three"]
    assert [c.choices[0].finish_reason for c in found if c.choices][-1] == "stop"
    assert found[-1].usage is not None
    assert found[-1].usage.total_tokens == 5


async def test_a_stream_that_turns_out_otherwise_ends_in_an_error(
    autojump_clock: MockClock, desk: Desk
) -> None:
    messages: list[Any] = [{"role": "user", "content": "lie to me please"}]
    stream = await client(desk).chat.completions.create(
        model="test.tell@1", messages=messages, stream=True
    )
    with pytest.raises(openai.APIError, match="another text than what was streamed"):
        await chunks(stream)
    gc.collect()


async def test_the_mesh_plans_the_last_message(autojump_clock: MockClock, desk: Desk) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "ignored by plans"},
        {"role": "user", "content": 'Return "small letters here" in capitals (upper)'},
    ]
    made = await client(desk).chat.completions.create(model="mesh", messages=messages)
    assert made.choices[0].message.content == "SMALL LETTERS HERE"


async def test_json_in_the_message_is_the_agents_input(
    autojump_clock: MockClock, desk: Desk
) -> None:
    messages: list[Any] = [{"role": "user", "content": json.dumps({"texts": ["a", "b"]})}]
    made = await client(desk).chat.completions.create(model="text.join", messages=messages)
    assert made.choices[0].message.content == "a-b"


async def test_the_same_key_is_answered_once(autojump_clock: MockClock, desk: Desk) -> None:
    made = [
        await client(desk).chat.completions.create(
            model="text.upper", messages=ASK, extra_headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    ]
    assert made[0].id == made[1].id
    assert made[0].choices == made[1].choices


REFUSED: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
    ({"model": "text.uper"}, openai.NotFoundError, r"does not exist.*text\.upper@1"),
    ({"model": "text"}, openai.NotFoundError, "is ambiguous"),
    ({"model": "test.nap"}, openai.BadRequestError, "can't be made the input"),
    ({"n": 2}, openai.BadRequestError, "n should be 1"),
    ({"tools": [{"type": "function"}]}, openai.BadRequestError, "'tools' is not supported"),
    ({"messages": []}, openai.BadRequestError, "at least one"),
    (
        {"messages": [{"role": "assistant", "content": "x"}]},
        openai.BadRequestError,
        "should be the user's",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        openai.BadRequestError,
        "should be text",
    ),
    ({"extra_body": {"mesh": {"budget": 1}}}, openai.BadRequestError, "mesh has no 'budget'"),
    ({"extra_body": {"mesh": {"deadline_s": -1}}}, openai.BadRequestError, "deadline_s"),
    (
        {"model": "mesh", "messages": [{"role": "user", "content": "Water my plants"}]},
        openai.NotFoundError,
        "nothing here can serve",
    ),
    ({"model": "test.fail"}, openai.InternalServerError, "no luck with one two three"),
]


@pytest.mark.parametrize(("changes", "kind", "why"), REFUSED)
async def test_what_cant_be_is_refused_as_clients_expect(
    changes: dict[str, Any],
    kind: type[openai.APIStatusError],
    why: str,
    autojump_clock: MockClock,
    desk: Desk,
) -> None:
    asked = {"model": "text.upper", "messages": ASK, **changes}
    with pytest.raises(kind, match=why) as caught:
        await client(desk).chat.completions.create(**asked)
    assert isinstance(caught.value.body, dict)
    assert {"message", "type", "param", "code"} <= set(caught.value.body)


async def test_what_a_budget_cant_pay_is_not_asked_for_again(
    autojump_clock: MockClock, desk: Desk
) -> None:
    """A 5xx would be: clients repeat those by themselves, each time as another job."""
    asking = client(desk).with_options(max_retries=2)
    with pytest.raises(openai.APIStatusError, match="mc of the budget are left") as caught:
        await asking.chat.completions.create(
            model="test.tell", messages=ASK, extra_body={"mesh": {"budget_mc": 1}}
        )
    assert caught.value.status_code == 402
    assert len(await desk.node.broker.jobs()) == 1


async def test_a_wrong_key_is_an_authentication_error(
    autojump_clock: MockClock, desk: Desk
) -> None:
    with pytest.raises(openai.AuthenticationError):
        await client(desk, "w" * 43).models.list()


async def test_a_deadline_ends_it(autojump_clock: MockClock, desk: Desk) -> None:
    messages: list[Any] = [{"role": "user", "content": "word " * 100}]
    with pytest.raises(openai.APIStatusError, match=r"(?i)deadline|time"):
        await client(desk).chat.completions.create(
            model="test.tell", messages=messages, extra_body={"mesh": {"deadline_s": 5}}
        )


async def test_a_client_that_leaves_ends_its_job(autojump_clock: MockClock, desk: Desk) -> None:
    body = {"model": "test.tell", "stream": True}
    body |= {"messages": [{"role": "user", "content": "word " * 500}]}
    async with stream(desk.app, "/v1/chat/completions", body=json.dumps(body).encode()) as told:
        pieces, left = told
        await pieces.receive()
        left.set()
    (row, *_) = await desk.node.broker.jobs()
    with trio.fail_after(60):
        state = await desk.node.wait(row[0])
    assert state.done is not None
    assert state.done.state == "cancelled"


@pytest.mark.parametrize(("stream", "pct"), [(True, 0), (False, Terms().hedges_pct)])
def test_an_answer_that_is_streamed_is_written_by_one(stream: bool, pct: int) -> None:
    body = {
        "model": "test.tell",
        "messages": [{"role": "user", "content": "x"}],
        "stream": stream,
    }
    assert read_chat(json.dumps(body).encode()).terms.hedges_pct == pct
