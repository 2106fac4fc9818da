"""What ``meshnode bench survive`` makes of a day of churn."""

from typing import Any

import pytest

from meshnode.bench import survive_churn

TINY = (30, 60)


def unheard(*_: object) -> None:
    """Hear of progress."""


@pytest.mark.timeout(120)
def test_a_short_day_is_played_and_every_figure_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survive_churn, "QUICK", TINY)
    figures = {one.id: one for one in survive_churn.churn_figures(unheard, quick=True)}
    assert set(figures) == {"R16", "R16.audit", "R16.wall", "R16.memory", "R16.objects"}
    assert figures["R16"].holds
    assert figures["R16.audit"].holds, figures["R16.audit"].note
    assert figures["R16.wall"].goal == pytest.approx(1_800 * 30 * 60 / 1_000 / 1_440)


def line(share: float, rss_mib: int = 0, objects: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = {"share": share}
    told |= {"rss_bytes": rss_mib << 20, "disk_bytes": 0} if rss_mib else {}
    return told | ({"objects": objects} if objects else {})


def test_memory_is_compared_where_it_was_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    last = {
        "completed_share": 1.0, "jobs": 1, "awards": 1, "lives": 1, "troubles": ["it rained"],
        "wall_s": 1.0, "cpu_s": 1.0, "rss_bytes": 300 << 20,
    }  # fmt: skip
    lines = [
        line(0.1, 10), line(0.5, 100, 1_000), line(0.6), line(0.9, 170), line(1.0, 130, 1_100),
        last,
    ]  # fmt: skip
    monkeypatch.setattr(survive_churn, "_play", lambda *_: lines)
    figures = {one.id: one for one in survive_churn.churn_figures(unheard, quick=True)}
    assert figures["R16.memory"].value == 30
    assert figures["R16.objects"].value == pytest.approx(1.1)
    assert not figures["R16.objects"].holds
    assert (figures["R16.audit"].value, figures["R16.audit"].note) == (1, "it rained")
    assert not figures["R16.audit"].holds
