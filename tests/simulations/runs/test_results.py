"""Outcomes in a file: what is there is not played again, and what is there fits."""

from pathlib import Path

import msgspec
import pytest

from meshnode.errors import ConfigError
from simulations.outcome import Outcome, Window
from simulations.runs import results, takes
from simulations.runs.results import Results
from simulations.scenario import Scenario
from tests.simulations.runs.tiny import FAILS, TINY


def outcome(seed: int, *, digest: str = "d") -> Outcome:
    return Outcome(
        scenario="tiny",
        seed=seed,
        nodes=2,
        digest=digest,
        virtual_s=1.5,
        replay="again",
        figures={"jobs": 3},
        windows=(Window(at_s=1.0),),
    )


def kept(path: Path) -> list[Outcome]:
    with Results(path, TINY, version="1") as found:
        return list(found.outcomes())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Results(tmp_path / "new" / "file", TINY, version="1") as made:
        made.add(outcome(1))
        made.add(outcome(2))
    return tmp_path / "new" / "file"


def test_what_was_kept_is_read(path: Path) -> None:
    assert kept(path) == [outcome(1), outcome(2)]


def test_what_was_not_played_to_its_end_is_played_again(path: Path) -> None:
    with Results(path, TINY, version="1") as found:
        found.add(outcome(3, digest=""))
        found.add(outcome(4))
    assert [one.seed for one in kept(path)] == [1, 2, 4]


def test_wherever_the_writer_was_cut_the_whole_lines_are_read(path: Path) -> None:
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with Results(path, TINY, version="1") as found:
            before = list(found.outcomes())
            found.add(outcome(9))
        assert len(before) == max(0, sum(end <= size for end in ends) - 1), size
        assert [one.seed for one in kept(path)] == [*(one.seed for one in before), 9]


def test_a_long_half_line_is_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_BLOCK_BYTES", 16)
    with path.open("ab") as file:
        file.write(b'{"scenario":' + b"x" * 100)
    assert [one.seed for one in kept(path)] == [1, 2]


@pytest.mark.parametrize(
    ("scenario", "says"),
    [
        (FAILS, "it holds outcomes of 'tiny', and 'fails' is to be played"),
        (msgspec.structs.replace(TINY, nodes=3), "'another form of it' is to be played"),
    ],
    ids=["another", "changed"],
)
def test_outcomes_of_another_scenario_are_refused(
    path: Path, scenario: Scenario, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Results(path, scenario, version="1")


def test_a_mended_story_is_the_same_scenario(path: Path) -> None:
    with Results(path, msgspec.structs.replace(TINY, story="Told well."), version="1") as found:
        assert len(list(found.outcomes())) == 2


def test_outcomes_of_other_code_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "code_hash", lambda: "f" * 64)
    with pytest.raises(ConfigError, match="other code: 1, and this is 2 "):
        Results(path, TINY, version="2")


@pytest.mark.parametrize("text", ["hello\n", "hello", '{"a": 1}\n', "\n"])
def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine"
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds no outcomes"):
        Results(path, TINY, version="1")
    assert path.read_text() == text


def test_a_damaged_line_is_named(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    with pytest.raises(ConfigError, match="line 2 is no outcome"):
        kept(path)


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    with Results(path, TINY, version="1"), pytest.raises(ConfigError, match="another run"):
        Results(path, TINY, version="1")
    kept(path)


def test_the_code_hash_is_of_what_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = Path.read_bytes

    def reading(path: Path) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    takes.code_hash.__wrapped__()
    root = Path(__file__).parents[3]
    names = {path.relative_to(root).as_posix() for path in read}
    assert {"simulations/player.py", "meshnode/node.py", "protocol/codec.py"} <= names
    assert "meshnode/services/broker.py" in names
    assert not [one for one in names if "/cli/" in one or "/runs/" in one or ".pyc" in one]
