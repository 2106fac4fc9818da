"""Answers of real agents: asked for once, in real time, and played back in virtual time."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import simulations.trial  # noqa: F401 - once for all runs: each drops what it imports itself
from meshnode import public  # noqa: F401 - the same
from meshnode.adapters.agents import openai_compatible  # noqa: F401 - the same
from simulations.answers import Answer, File, Question, keep_answer, locked
from tests.simulations.model_server import KEY, Model, serving


@pytest.fixture
def model() -> Iterator[Model]:
    with serving() as server:
        yield server


SUITE = """
import pytest, trio
from meshnode.adapters.agents.openai_compatible import OpenAICompatibleAgent
from meshnode.adapters.agents.upstream import Upstream, make_spec
from simulations.answers import recorded

upstream = Upstream(base_url="URL", model="tiny", key_env="TINY_KEY")
spec = make_spec(upstream, name="tiny", capability="text.generation@1")
TINY = recorded(OpenAICompatibleAgent(spec, upstream), "answers/tiny.json")

async def say(mesh, prompt):
    end = await mesh.submit("text.generation@1", {"prompt": prompt}, budget_mc=10)
    print("said:", end.state, end.result and end.result["text"], "in", end.took_s)
    return end
"""
TWICE = """
async def test_it(mesh):
    mesh.add(agents=[TINY], n=3)
    first = await say(mesh, "hello")
    second = await say(mesh, "hello")
    assert first.result["text"] == "You said hello, number 1"
    assert second.result["text"] == "You said hello, number 2"
    print("trace", mesh.world.trace.digest())
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)


def play(pytester: pytest.Pytester, model: Model, test: str, *options: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=SUITE.replace("URL", model.url) + test)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-s", *options)


def said(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "said:" in line or "trace" in line]


def answers(pytester: pytest.Pytester) -> Path:
    return pytester.path / "answers" / "tiny.json"


def test_what_was_recorded_is_played_back_and_the_run_is_the_same(
    pytester: pytest.Pytester, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = play(pytester, model, TWICE, "--record-answers")
    recording.assert_outcomes(passed=1)
    assert model.asked == ["hello", "hello"]
    assert model.keys == {f"Bearer {KEY}"}
    kept = answers(pytester).read_text("utf-8")

    monkeypatch.delenv("TINY_KEY")  # who plays back needs neither key …
    model.server_close()  # … nor server
    playing = play(pytester, model, TWICE)
    playing.assert_outcomes(passed=1)
    assert said(playing) == said(recording)
    assert len(said(playing)) == 3
    assert len(model.asked) == 2
    assert answers(pytester).read_text("utf-8") == kept


def test_only_what_is_missing_is_asked_for(pytester: pytest.Pytester, model: Model) -> None:
    play(pytester, model, TWICE, "--record-answers").assert_outcomes(passed=1)
    more = TWICE + '    await say(mesh, "hello")\n    await say(mesh, "good night")\n'
    play(pytester, model, more, "--record-answers").assert_outcomes(passed=1)
    assert model.asked == ["hello", "hello", "hello", "good night"]
    play(pytester, model, more).assert_outcomes(passed=1)
    assert len(model.asked) == 4


def test_the_file_is_easy_to_read_and_says_nothing_else(
    pytester: pytest.Pytester, model: Model
) -> None:
    test = TWICE + '    await say(mesh, "apple")\n'
    play(pytester, model, test, "--record-answers").assert_outcomes(passed=1)
    text = answers(pytester).read_text("utf-8")
    assert KEY not in text
    assert "127.0.0.1" not in text
    held = json.loads(text)
    assert [question["input"]["prompt"] for question in held["questions"]] == ["apple", "hello"]
    (answer,) = held["questions"][0]["answers"]
    assert answer.keys() == {"took_s", "output", "usage", "chunks"}
    assert answer["output"]["text"] == "You said apple, number 3"
    assert round(answer["took_s"], 3) == answer["took_s"]
    assert answer["usage"] == {"tokens_in": 5, "tokens_out": 3}
    assert [chunk for _, chunk in answer["chunks"]] == ["You said ", "apple", ", number 3"]
    assert re.search(r'^ +\[[0-9.]+, "You said "\],$', text, re.MULTILINE), text
    # Whoever records the same again makes the same file, but for the times.
    answers(pytester).unlink()
    model.asked.clear()
    play(pytester, model, test, "--record-answers").assert_outcomes(passed=1)
    timeless = [
        re.sub(r"[0-9.]{3,}", "", said) for said in (text, answers(pytester).read_text())
    ]
    assert timeless[0] == timeless[1]


TAKES_LONG = """
async def test_it(mesh):
    mesh.add(agents=[TINY], n=2)
    assert 100 < (await say(mesh, "hello")).took_s < 102
"""


def test_what_an_answer_took_passes_in_virtual_time(
    pytester: pytest.Pytester, model: Model
) -> None:
    play(pytester, model, TWICE, "--record-answers").assert_outcomes(passed=1)
    held = json.loads(answers(pytester).read_text("utf-8"))
    held["questions"][0]["answers"][0]["took_s"] = 100
    answers(pytester).write_text(json.dumps(held))
    test = TAKES_LONG.replace('(mesh, "hello")', '(mesh, "hello", deadline_s=200)')
    suite = test.replace("say(mesh,", "long(mesh,") + (
        "\nasync def long(mesh, prompt, deadline_s):\n"
        '    return await mesh.submit("text.generation@1", {"prompt": prompt},'
        " deadline_s=deadline_s)\n"
    )
    play(pytester, model, suite).assert_outcomes(passed=1)


def test_a_question_that_nobody_recorded_ends_the_test_and_says_how_to(
    pytester: pytest.Pytester, model: Model
) -> None:
    play(pytester, model, TWICE, "--record-answers").assert_outcomes(passed=1)
    for more, told in (
        ('    await say(mesh, "bye")\n', "answers/tiny.json has no answer of 'tiny' to"),
        (
            '    await say(mesh, "hello")\n',
            "answers/tiny.json has no answer number 3 (it has 2)",
        ),
    ):
        result = play(pytester, model, TWICE + more)
        result.assert_outcomes(failed=1)
        text = result.stdout.str()
        assert f"NotRecorded: {told}" in text
        assert '{"prompt":"' in text
        assert text.count("said: ") == 2, "it ends at once"
        assert "pytest test_it.py::test_it --mesh-seed=0 --record-answers" in text
    assert len(model.asked) == 2


def test_the_same_work_has_the_same_answer_whoever_does_it(
    pytester: pytest.Pytester, model: Model
) -> None:
    test = """
@pytest.mark.mesh(seeds=3)
async def test_it(mesh):
    mesh.add(agents=[TINY], n=3)
    mesh.add(name="desk")
    await mesh.ready()
    def crash():
        mesh.crash(mesh.working()[0])
    mesh.book.on_begin.append(lambda *_: len(mesh.book.begun) == 1 and mesh.later(0, crash))
    end = await mesh.submit("text.generation@1", {"prompt": "hello"}, by="desk0")
    assert end.result["text"] == "You said hello, number 1"
    assert len(mesh.book.begun) == 2
"""
    play(pytester, model, test, "--record-answers").assert_outcomes(passed=3)
    assert model.asked == ["hello"], "asked once for three seeds and two nodes each"


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("leak", "what 'tiny' was asked or said holds the value of $TINY_KEY: not recorded"),
        (KEY, "what 'tiny' was asked or said holds the value of $TINY_KEY: not recorded"),
        ("fail", "refused (status 500)"),
    ],
)
def test_what_cannot_be_recorded_ends_the_test(
    pytester: pytest.Pytester, model: Model, prompt: str, told: str
) -> None:
    test = f"""
async def test_it(mesh):
    mesh.add(agents=[TINY], n=2)
    await say(mesh, {prompt!r})
    raise RuntimeError("never reached")
"""
    result = play(pytester, model, test, "--record-answers")
    result.assert_outcomes(failed=1)
    assert "NotRecorded: " in result.stdout.str()
    assert told in result.stdout.str()
    assert model.asked == [prompt]
    assert not answers(pytester).exists()


def test_processes_that_record_side_by_side_lose_nothing(
    pytester: pytest.Pytester, model: Model
) -> None:
    test = """
@pytest.mark.parametrize("word", "abcdef")
async def test_it(mesh, word):
    mesh.add(agents=[TINY], n=2)
    await say(mesh, word)
    await say(mesh, "all")
"""
    play(pytester, model, test, "--record-answers", "-n", "2").assert_outcomes(passed=6)
    held = json.loads(answers(pytester).read_text("utf-8"))
    asked = {q["input"]["prompt"]: len(q["answers"]) for q in held["questions"]}
    assert asked == {**dict.fromkeys("abcdef", 1), "all": 1}


def test_an_answer_that_another_process_kept_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    mine, theirs = Answer(1.0, "mine"), Answer(2.0, "theirs")

    def keep(value: str, answer: Answer) -> None:
        keep_answer(path, "tiny", value, (0, answer))

    with locked(tmp_path):
        others = [
            threading.Thread(target=keep, args=("else", mine)),
            threading.Thread(target=keep, args=("same", mine)),
        ]
        for other in others:
            other.start()
            other.join(0.2)  # they wait for us
        path.write_bytes(msgspec.json.encode(File([Question("tiny", "same", [theirs])])))
    for other in others:
        other.join()
    held = msgspec.json.decode(path.read_bytes(), type=File)
    assert [(q.input, q.answers) for q in held.questions] == [
        ("else", [mine]),
        ("same", [theirs]),
    ]


def test_a_file_that_holds_something_else_is_told(
    pytester: pytest.Pytester, model: Model
) -> None:
    answers(pytester).parent.mkdir()
    answers(pytester).write_text('{"questions": 3}')
    result = play(pytester, model, TWICE)
    result.assert_outcomes(failed=1)
    assert "tiny.json holds no recorded answers" in result.stdout.str()
