"""Twelve seeds of the rogues' gallery: whoever is in it, the books are in order."""

import pytest

from simulations.roles import ROLES
from simulations.scenarios import gallery

SEEDS = range(12)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("first", SEEDS[::4])
def test_adversaries_and_faults_break_no_books(first: int) -> None:
    for seed in range(first, first + 4):
        gallery.play(seed)


def test_every_adversary_is_among_the_seeds() -> None:
    seen = {name for seed in SEEDS for name in gallery.cast_of(seed)}
    assert seen == set(gallery.CAST)
    assert set(ROLES) - seen == {"honest", "welsher", "repudiator", "whitewasher"}
