"""``meshnode bench session``: all ids in every run, and no ratio without the other side."""

import pytest

from meshnode.bench import session
from meshnode.bench.contest import ONE, TWO, Score
from meshnode.bench.figures import report
from meshnode.errors import ConfigError
from tests.meshnode.bench.figures import by_id, values_of

NAMES = ("", "autogen", "grpc", "libp2p", "tcp")


def test_the_figures_are_ours_by_autogens() -> None:
    scores = {
        (way, name): Score([[100.0 * (place + 1)] * 3], cpu_us=600.0)
        for way in (ONE, TWO)
        for place, name in enumerate(NAMES)
    }
    figures = by_id(session.figures(scores))
    assert figures["P1.one_process"].value == 0.5
    assert figures["P1.one_process"].holds is False
    assert figures["P1.two_processes"].goal == 0.4
    assert figures["P1.one_process.grpc.us"].value == 300
    assert figures["P1.one_process.us"].holds is None, "an absolute time has no goal"
    assert figures["P1.two_processes.cpu_us"].value == 200


def test_without_the_others_their_figures_are_there_and_empty() -> None:
    alone = {(way, ""): Score([[100.0]], cpu_us=1.0) for way in (ONE, TWO)}
    whole = {(way, name): Score([[100.0]]) for way in (ONE, TWO) for name in NAMES}
    figures = session.figures(alone)
    assert by_id(figures).keys() == by_id(session.figures(whole)).keys()
    assert set(values_of(figures)) == {
        "P1.one_process.us", "P1.one_process.cpu_us",
        "P1.two_processes.us", "P1.two_processes.cpu_us",
    }  # fmt: skip
    rows = {row["id"]: row for row in report("session", figures)["figures"]}
    assert rows["P1.one_process"]["holds"] is None
    assert rows["P1.one_process"]["value"] is None
    assert "--no-peers" in rows["P1.one_process"]["note"]


def test_a_profile_that_cannot_be_written_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(ConfigError, match="can't be written: there is no such folder"):
        session.run(lambda *_: None, quick=True, peers=False, profile="/nowhere/it.prof")
