"""Streamed text at the broker: every piece has its place, and no two writings are mixed.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator
from hashlib import sha256

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.units import Attempt, Unit
from meshnode.ports import AgentCall, Chunk, Output
from meshnode.services.token_streams import KEPT_CHARS_MAX, Piece, TokenStream
from protocol.errors import Malformed
from protocol.keys import digest
from protocol.messages import Progress
from simulations.mesh import SimMesh
from tests.meshnode.domain.contractors import Pen
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, told, until

PEN = Pen("contractor")


def heard(seq: int, whole: str, since: int, *, hashed: bool = True) -> Progress:
    """What a contractor says that has streamed ``whole``, and told all before ``since``."""
    return Progress(
        h=PEN.header("broker", 0),
        award=digest(b"award"),
        seq=seq,
        items_done=0,
        offset=len(whole),
        checkpoint=sha256(whole.encode()).digest() if hashed and whole else b"",
        text=whole[since:],
    )


def fresh(*, again: bool = False) -> TokenStream:
    return TokenStream("say/0", 0, again=again)


def place(piece: Piece) -> tuple[int, str, bool]:
    return piece.offset, piece.text, piece.restarted


@given(st.lists(st.text(max_size=5), max_size=8), st.data())
def test_pieces_add_up_to_the_text_however_often_a_session_breaks(
    chunks: list[str], data: st.DataObject
) -> None:
    stream, whole, told_to, text = fresh(), "", 0, ""
    for seq, chunk in enumerate(chunks, 1):
        whole += chunk
        if data.draw(st.booleans(), label="the session broke"):
            told_to = data.draw(st.integers(0, told_to), label="and it tells again from")
        piece = stream.take(heard(seq, whole, told_to))
        assert piece.offset == len(text)
        assert not piece.restarted
        text += piece.text
        told_to = len(whole)
    assert text == whole == "".join(piece.text for piece in stream.so_far())


@pytest.mark.parametrize("hashed", [True, False])
def test_another_writing_is_another_run_and_said_to_be_one(hashed: bool) -> None:
    stream = fresh()
    one = stream.take(heard(1, "once upon", 0, hashed=hashed))
    two = stream.take(heard(2, "once upon a time", 9, hashed=hashed))
    assert (place(one), place(two)) == ((0, "once upon", False), (9, " a time", False))
    anew = stream.take(heard(1, "long ago and far away, there", 0, hashed=hashed))
    assert place(anew) == (0, "long ago and far away, there", True)
    assert one.run == two.run != anew.run
    assert place(stream.take(heard(2, "long ago and far away, there was", 28, hashed=hashed))) \
        == (28, " was", False)  # fmt: skip


def test_a_writing_whose_first_words_were_missed_is_known_by_its_hash() -> None:
    stream = fresh()
    stream.take(heard(1, "once upon", 0))
    anew = stream.take(heard(2, "long ago and far away", 0))
    assert place(anew) == (0, "long ago and far away", True), "it counts on, as the first did"


def test_what_is_missing_shows_in_the_offset() -> None:
    stream, whole = fresh(), "x" * 30
    one = stream.take(heard(1, whole[:10], 0))
    two = stream.take(heard(5, whole, 20))
    assert (two.offset, two.run, two.restarted) == (20, one.run, False)
    assert [place(piece) for piece in stream.so_far()] == [(20, "x" * 10, False)]


def test_text_after_text_that_was_told_before_is_said_to_be_anew() -> None:
    piece = fresh(again=True).take(heard(3, "abc", 0))
    assert place(piece) == (0, "abc", True)


def test_so_much_is_kept_and_no_more() -> None:
    stream, whole, step = fresh(), "", "0123456789" * 100
    for seq in range(1, KEPT_CHARS_MAX // len(step) + 5):
        whole += step
        stream.take(heard(seq, whole, len(whole) - len(step)))
    kept = list(stream.so_far())
    text = "".join(piece.text for piece in kept)
    assert len(text) == KEPT_CHARS_MAX
    assert whole.endswith(text)
    assert kept[0].offset == len(whole) - KEPT_CHARS_MAX


def test_more_text_than_was_streamed_is_the_contractors_fault() -> None:
    lie = Progress(h=PEN.header("broker", 0), award=digest(b""), seq=1, items_done=0, text="x")
    with pytest.raises(Malformed):
        fresh().take(lie)


def test_an_agent_that_is_begun_again_is_told_as_restarted() -> None:
    """Given an agent that writes another text each time, and a node that is restarted."""
    written: list[int] = []

    async def write(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        written.append(len(written))
        for _number in range(10):
            yield Chunk(f"{written[-1]} ")
            await trio.sleep(1)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        a, _ = await start(mesh, a=[], b=[TextAgent(write)])
        job = await a.submit(shouting(), inputs("x"))

        def texts() -> list[tuple[str, int, str, bool]]:
            return [
                (str(f["run"]), int(str(f["offset"])), str(f["text"]), bool(f["restarted"]))
                for f in told(a, "award.progress")
            ]

        await until(lambda: len(texts()) >= 4)
        mesh.crash("b")
        await mesh.restart("b")
        await a.wait(job)
        runs = list(dict.fromkeys(run for run, *_ in texts()))
        assert len(runs) == len(written) == 2
        for number, run in enumerate(runs):
            of_run = [row[1:] for row in texts() if row[0] == run]
            offset = 0
            for at, text, _ in of_run:
                assert at == offset
                offset += len(text)
            assert "".join(text for _, text, _ in of_run).split() == [str(number)] * 10 \
                or not number  # fmt: skip
            assert [again for *_, again in of_run] == [bool(number)] + [False] * (
                len(of_run) - 1
            )
        assert a.streamed(job) == [], "nothing is kept of what has ended"

    play(story)


def test_a_broken_session_is_not_seen_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Progress] = []
    honest = TokenStream.take

    def take(self: TokenStream, progress: Progress) -> Piece:
        heard.append(progress)
        return honest(self, progress)

    monkeypatch.setattr(TokenStream, "take", take)
    words = [f"word{number} " for number in range(20)]

    async def write(text: str, _: AgentCall) -> AsyncIterator[Chunk | Output]:
        for word in words:
            yield Chunk(word)
            await trio.sleep(1)
        yield Output({"text": text})

    async def story(mesh: SimMesh) -> None:
        a, b = await start(mesh, a=[], b=[TextAgent(write)])
        job = await a.submit(shouting(), inputs("x"))
        for count in (3, 8):
            await until(lambda: len(told(a, "award.progress")) >= count)  # noqa: B023 - now
            mesh.world.network.break_link(a.peer, b.peer)
        state = await a.wait(job)
        assert len(state.units["say/0"].attempts) == 1
        pieces = told(a, "award.progress")
        assert "".join(str(piece["text"]) for piece in pieces) == "".join(words)
        assert len({piece["run"] for piece in pieces}) == 1
        assert not any(piece["restarted"] for piece in pieces)
        assert sum(len(one.text) for one in heard) > len("".join(words)), "some came twice"
        whole = "".join(words)
        for one in heard:
            assert one.checkpoint == sha256(whole[: one.offset].encode()).digest()

    play(story)


def test_two_that_do_the_same_work_at_once_are_two_writings() -> None:
    async def story(mesh: SimMesh) -> None:
        (a,) = await start(mesh, a=[])
        awards = a.broker._tools.awards
        unit, first, second = (
            Unit("say/0", "say", 0, 1),
            Attempt(0, 0),
            Attempt(1, 0, hedge=True),
        )
        one, other = (awards._stream("job", unit, each) for each in (first, second))
        one.take(heard(1, "hello ", 0))
        other.take(heard(1, "good day", 0))
        one.take(heard(2, "hello world", 6))
        pieces = awards.so_far("job")
        assert [(each.attempt, each.text) for each in pieces] == [
            (0, "hello world"),
            (1, "good day"),
        ]

    play(story)
