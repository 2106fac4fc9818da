"""What ``meshnode bench simulation`` makes of what is played."""

from collections.abc import Iterator
from typing import Any

import pytest

from meshnode.bench import simulation
from simulations.outcome import Outcome

TINY = ((60, 4), (200, 400), 1)


def unheard(*_: object) -> None:
    """Hear of progress."""


@pytest.mark.timeout(120)
def test_everything_is_played_and_every_figure_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulation, "QUICK", TINY)
    figures = {figure.id: figure for figure in simulation.run(unheard, quick=True)}
    assert set(figures) == {"P8", "P8.memory", "P9", "R3", "R3.repeat"}
    assert figures["P8"].goal == pytest.approx(120 * 60 * 4 / 1000 / 60)
    assert figures["P9"].goal == pytest.approx(300 * 400 / 1_000_000)
    assert (figures["R3"].value, figures["R3"].n) == (0, 1)
    assert (figures["R3.repeat"].value, figures["R3.repeat"].n) == (0, 1)
    assert all((figure.value or 0) > 0 for figure in (figures["P8"], figures["P8.memory"]))


def outcomes(*told: tuple[str, str]) -> Any:
    """Return what plays takes and has, for each time that it is asked, these endings."""
    endings = iter(told)

    def play(takes: Any, **_: object) -> Iterator[Outcome]:
        digest, trouble = next(endings)
        for take in takes:
            yield Outcome(
                scenario="rough",
                seed=take.seed,
                nodes=20,
                digest=digest,
                virtual_s=1.0,
                replay="",
                troubles=(trouble,) if trouble else (),
            )

    return play


def test_a_seed_that_fails_or_differs_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "play_takes", outcomes(("a", "it rains"), ("b", "")))
    failed, differ = simulation._seeds(unheard, 5)
    assert (failed.value, failed.holds) == (5, False)
    assert "seed 0: it rains" in failed.note
    assert (differ.value, differ.n, differ.holds) == (3, 3, False)


def test_a_simulation_that_breaks_off_is_no_figure() -> None:
    with pytest.raises(simulation.ChildFailed, match="no scenario 'nowhere'"):
        simulation._child(unheard, "nowhere", "nowhere", 1, 1)
