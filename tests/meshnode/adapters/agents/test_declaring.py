"""What an owner may write of when an agent's answers are alike."""

from typing import Final

import pytest

from meshnode.adapters.agents.declaring import read_likeness
from meshnode.errors import ConfigError
from protocol.likeness import Likeness

NORMALISED: Final = Likeness("normalised")
LAX: Final = Likeness("numeric", relative_ppm=1_000_000)


def test_an_owner_writes_it_as_a_kind_or_as_a_table() -> None:
    assert read_likeness("normalised") == NORMALISED
    assert read_likeness({"kind": "numeric", "relative_ppm": 7}) == Likeness("numeric", 7)
    assert read_likeness("") is read_likeness(None) is read_likeness({}) is None
    assert read_likeness(LAX) is LAX


@pytest.mark.parametrize(
    "odd", ["fuzzy", 7, {"kind": "numeric", "ppm": 1}, {"relative_ppm": -1}, ["exact"]]
)
def test_what_is_no_likeness_is_refused(odd: object) -> None:
    with pytest.raises(ConfigError, match="like"):
        read_likeness(odd)
