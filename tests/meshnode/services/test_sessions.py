"""Sessions over the simulated network, in virtual time (a MockClock's)."""

from dataclasses import replace
from typing import Any

import pytest
import trio

from meshnode.errors import Busy, StoreError, StreamLost, Unreachable
from meshnode.services.sessions import Incoming, RequestFailed, RequestTimeout
from protocol import limits
from protocol.errors import ErrorCode, Malformed
from simulations.network import SimNetwork
from tests.meshnode.services.sides import Side, echo, hang, play
from tests.meshnode.services.worlds import STILL, until


def test_what_the_stream_did_not_take_at_once_is_not_overtaken() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        network.set_weather(replace(STILL, window_bytes=1000))
        b.sessions.handle("m", echo)
        answers: dict[int, bytes] = {}

        async def ask(size: int) -> None:
            answers[size] = await a.ask("b", bytes(size))

        await a.ask("b")
        async with trio.open_nursery() as nursery:
            for size in (5_000, 7_000):  # both before the writer has its turn
                nursery.start_soon(ask, size)
        assert answers == {size: bytes(size) for size in (5_000, 7_000)}
        assert a.count("session.violation") == b.count("session.violation") == 0

    play(story)


def test_what_comes_while_a_session_ends_blames_nobody() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", echo)
        await a.ask("b")
        session = a.sessions._sessions["b"]
        session.stop("enough")
        session._take(b"\xff" * 8)  # against the protocol, were it still spoken
        await until(session.ended.is_set)
        session._take(b"\xff" * 8)
        assert a.count("session.violation") == 0
        session._held = b"what the stream had no room for"
        session.wake()  # there is nobody left to write it

    play(story)


def test_an_answer_comes_back_and_the_session_stays() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", echo)
        assert await a.ask("b", b"one") == b"one"
        assert await a.ask("b", b"two") == b"two"
        assert a.count("session.opened") == b.count("session.opened") == 1

    play(story)


def test_a_frozen_peer_is_noticed_within_ten_seconds() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", hang)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(StreamLost):
                    await a.ask("b", timeout_s=600)
                assert 5 < trio.current_time() - frozen_s <= 10

            nursery.start_soon(ask)
            await until(lambda: bool(a.sessions.connected()))
            await trio.sleep(1)
            network.freeze("b")
            frozen_s = trio.current_time()

    play(story)


def test_a_peer_that_thaws_is_spoken_with_again() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", echo)
        await a.ask("b")
        network.freeze("b")
        await until(lambda: not a.sessions.connected())
        network.thaw("b")
        await trio.sleep(2)
        assert await a.ask("b", b"again") == b"again"

    play(story)


def test_a_streamed_answer_arrives_whole_and_in_order() -> None:
    async def count(incoming: Incoming) -> bytes:
        for number in range(200):
            await incoming.item(b"%d" % number)
        return b"end"

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", count)
        items: list[bytes] = []
        assert await a.ask("b", on_item=items.append) == b"end"
        assert items == [b"%d" % number for number in range(200)]

    play(story)


def test_what_the_asker_raises_over_a_piece_is_its_own_and_the_session_stays() -> None:
    gave_up: list[bool] = []

    async def count(incoming: Incoming) -> bytes:
        try:
            for number in range(3):
                await incoming.item(b"%d" % number)
            await trio.sleep_forever()
        finally:
            gave_up.append(True)
        return b""

    def fussy(item: bytes) -> None:
        heard.append(item)
        if item == b"1":
            raise KeyError(item)

    heard: list[bytes] = []

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", count)
        b.sessions.handle("n", echo)
        others: list[bytes] = []

        async def ask_too() -> None:
            others.append(await a.sessions.request("b", "n", b"meanwhile", timeout_s=10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_too)
            with pytest.raises(KeyError, match="1"):
                await a.ask("b", on_item=fussy)
        assert heard == [b"0", b"1"], "and it is told no more"
        await until(lambda: bool(gave_up))  # nobody works for an answer that isn't wanted
        assert others == [b"meanwhile"]
        assert await a.sessions.request("b", "n", b"again", timeout_s=10) == b"again"
        assert a.count("session.opened") == 1
        assert a.count("session.closed") == a.count("session.violation") == 0

    play(story)


def test_what_the_asker_finds_malformed_in_a_piece_ends_its_request_alone() -> None:
    async def one(incoming: Incoming) -> bytes:
        await incoming.item(b"?")
        return b"end"

    def strict(_: bytes) -> None:
        raise Malformed("no progress message")

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", one)
        with pytest.raises(Malformed):
            await a.ask("b", on_item=strict)
        assert a.sessions.connected() == ["b"]

    play(story)


def test_a_reader_that_is_gone_holds_the_sender_at_its_credit() -> None:
    sent: list[int] = []

    async def flood(incoming: Incoming) -> bytes:
        while True:
            await incoming.item(bytes(1000))
            sent.append(len(sent))

    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", flood)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await a.ask("b", on_item=lambda _: None)

            await a.sessions.connect("b")
            nursery.start_soon(ask)
            network.cut_one_way("a", "b")  # the request is on its way, no credit will be
            network.mend_one_way("a", "b")
            await until(lambda: len(sent) > 50)
            network.freeze("a")
            await trio.sleep(1)
            stood = len(sent)
            await trio.sleep(3)
            assert len(sent) == stood, "nothing more without credit"
            nursery.cancel_scope.cancel()

    play(story)


def test_two_that_dial_at_once_end_with_one_session() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        a.sessions.handle("m", echo)
        b.sessions.handle("m", echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ask, "b", b"1")
            nursery.start_soon(b.ask, "a", b"2")
        await trio.sleep(15)
        assert a.sessions._sessions["b"].machine.role == "dialler", "the smaller name's stays"
        assert b.sessions._sessions["a"].machine.role == "listener"
        for asker, other in ((a, "b"), (b, "a")):
            assert await asker.ask(other, b"still") == b"still"

    for seed in range(10):
        play(story, seed=seed)


def test_what_runs_on_the_session_that_goes_ends_first() -> None:
    async def slow(incoming: Incoming) -> bytes:
        await trio.sleep(5)
        return incoming.body

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        a.sessions.handle("m", slow)
        b.sessions.handle("m", slow)
        answers: list[bytes] = []

        async def ask(side: Side, other: str) -> None:
            answers.append(await side.ask(other, b"x"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, a, "b")
            nursery.start_soon(ask, b, "a")
        assert answers == [b"x", b"x"]

    for seed in range(10):
        play(story, seed=seed)


def test_a_request_given_up_is_cancelled_at_the_other_end() -> None:
    ended_s: list[float] = []

    async def hangs(_: Incoming) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            ended_s.append(trio.current_time())
        return b""

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", hangs)
        begun_s = trio.current_time()
        with pytest.raises(RequestTimeout):
            await a.ask("b", timeout_s=2)
        await trio.sleep(0.5)
        assert ended_s
        assert ended_s[0] - begun_s < 2.1

    play(story)


def test_the_end_of_a_session_ends_what_is_served_on_it() -> None:
    cancelled = trio.Event()

    async def hangs(_: Incoming) -> bytes:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        return b""

    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", hangs)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(StreamLost):
                    await a.ask("b")

            nursery.start_soon(ask)
            await trio.sleep(1)
            network.break_link("a", "b")
        await cancelled.wait()

    play(story)


def test_a_closing_node_lets_what_runs_finish_and_takes_no_more() -> None:
    async def slow(incoming: Incoming) -> bytes:
        await trio.sleep(3)
        return incoming.body

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", slow)
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await a.ask("b", b"in time"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.sleep(1)
            await b.sessions.aclose()
            await trio.sleep(0.5)
            with pytest.raises(Unreachable):
                await b.ask("a")
        assert answers == [b"in time"]

    play(story)


def test_a_bug_in_a_handler_ends_its_request_and_nothing_else() -> None:
    async def buggy(incoming: Incoming) -> bytes:
        await trio.lowlevel.checkpoint()
        if incoming.body == b"bad":
            raise RuntimeError("a bug")
        return incoming.body

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", buggy)
        with pytest.raises(RequestFailed) as caught:
            await a.ask("b", b"bad")
        assert caught.value.failure == ErrorCode.INTERNAL
        assert "a bug" not in str(caught.value), "what went wrong here is not the asker's"
        assert b.count("session.bug") == 1
        assert await a.ask("b", b"good") == b"good"
        assert a.count("session.opened") == 1

    play(story)


def test_who_answers_promptly_refuses_as_others_do_and_answers_this_node_too() -> None:
    errors: list[Exception] = [
        Busy("it", retry_after_ms=700),
        Malformed("no such thing"),
        StoreError("the disk is full", hint="make room"),
        RuntimeError("a bug"),
    ]

    def answer(incoming: Incoming) -> bytes:
        if incoming.body == b"bad":
            raise errors.pop(0)
        return incoming.peer.encode()

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", hang)
        b.sessions.handle_promptly("m", answer)
        with pytest.raises(Busy) as busy:
            await a.ask("b", b"bad")
        assert busy.value.retry_after_ms == 700
        with pytest.raises(RequestFailed) as refused:
            await a.ask("b", b"bad")
        assert refused.value.failure == ErrorCode.MALFORMED
        with pytest.raises(Busy):
            await a.ask("b", b"bad")
        assert b.count("session.held_up") == 1
        with pytest.raises(RequestFailed) as caught:
            await a.ask("b", b"bad")
        assert caught.value.failure == ErrorCode.INTERNAL
        assert b.count("session.bug") == 1
        assert await a.ask("b") == b"a"
        assert b.count("session.opened") == 1, "the session stayed"
        assert await b.ask("b") == b"b"
        b.sessions.handle("m", echo)
        assert await a.ask("b", b"bad") == b"bad", "who answers last is who was named last"

    play(story)


def test_an_unknown_method_is_refused_with_its_code() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        del b
        with pytest.raises(RequestFailed) as caught:
            await a.ask("b")
        assert caught.value.failure == ErrorCode.UNKNOWN_TYPE

    play(story)


def test_requests_beyond_the_limit_are_busy_and_not_lost() -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", hang)
        busy: list[Busy] = []

        async def ask() -> None:
            try:
                with pytest.raises(RequestTimeout):
                    await a.ask("b", timeout_s=5)
            except Busy as exc:
                busy.append(exc)

        async with trio.open_nursery() as nursery:
            for _number in range(limits.REQUESTS_MAX + 3):
                nursery.start_soon(ask)
        assert len(busy) == 3

    play(story)


def test_nobody_there_is_unreachable_and_said_at_once() -> None:
    async def story(network: SimNetwork, a: Side, b: Side) -> None:
        network.crash(b.name)
        with pytest.raises(Unreachable):
            await a.ask("b", timeout_s=60)
        assert trio.current_time() < 10

    play(story)


@pytest.mark.parametrize("after_ms", range(1, 41, 3))
def test_a_dial_that_is_given_up_leaves_no_half_of_a_session(after_ms: int) -> None:
    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        with trio.move_on_after(after_ms / 1000):
            await a.sessions.connect("b")
        await trio.sleep(2)
        assert bool(a.sessions.connected()) == bool(b.sessions.connected())

    play(story)


def test_an_answer_that_waits_for_room_goes_on_once_there_is_some() -> None:
    async def pour(incoming: Incoming) -> bytes:
        for _ in range(limits.CREDIT_INITIAL):
            await incoming.item(bytes(250_000))
        return b"done"

    async def story(_: SimNetwork, a: Side, b: Side) -> None:
        b.sessions.handle("m", pour)
        async with trio.open_nursery() as nursery:
            for _number in range(4):  # more than may wait in all; the last has sent nothing yet

                async def ask() -> None:
                    assert await a.ask("b", on_item=lambda _: None) == b"done"

                nursery.start_soon(ask)

    play(story)


def test_names_that_are_made_up_are_not_remembered_for_ever() -> None:
    async def story(_: SimNetwork, a: Side, __: Side) -> None:
        for number in range(1_100):
            with pytest.raises(Unreachable):
                await a.ask(f"nobody{number}")
        assert len(a.sessions._failed_s) == 1_024
        before = a.count("session.dial_failed")
        with pytest.raises(Unreachable):
            await a.ask("nobody1099")
        assert a.count("session.dial_failed") == before, "the last is not dialled again yet"

    play(story)


def test_too_many_streams_to_a_peer_are_no_path_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(_: SimNetwork, a: Side, __: Side) -> None:
        async def full(*_: Any, **__: Any) -> Any:
            await trio.lowlevel.checkpoint()
            raise Busy("the connection to b")

        monkeypatch.setattr(type(a.sessions._transport), "open", full)
        with pytest.raises(Unreachable):
            await a.sessions.connect("b")

    play(story)
