"""An end that a majority had is the job's for ever, whoever wrote a later segment.

All walks within bounds are walked (:mod:`tests.meshnode.domain.ending_worlds`), and they
find what is wrong where an end counts by the segment that it stands in only: its heir
writes none, and a broker between the two may have one that nobody else ever saw.
"""

import os

import pytest

from tests.meshnode.domain.ending_worlds import Endings

#: Walks of minutes.
AT_NIGHT = [
    Endings(3, epochs=4),
    Endings(5, epochs=3, parts=False),
    Endings(5, epochs=4, parts=False),
] * (os.environ.get("HYPOTHESIS_PROFILE") == "nightly")


@pytest.mark.parametrize(
    "walk",
    [Endings(3, epochs=3), Endings(3, epochs=4, parts=False), *AT_NIGHT],
    ids=str,
)
def test_an_end_that_was_told_is_never_lost_nor_refused(walk: Endings) -> None:
    worlds = list(walk.worlds())
    assert [world.broken for world in worlds if world.broken] == []
    assert any(world.told for world in worlds)
    assert max(member.held for world in worlds for member in world.members) > 1


@pytest.mark.parametrize("count", [3, *([5] if AT_NIGHT else [])])
def test_the_walk_finds_an_end_that_counts_by_its_segment_only(count: int) -> None:
    walk = Endings(count, epochs=4, holds=False, parts=False)
    broken = next(world for world in walk.worlds() if world.broken)
    assert broken.broken == "an end that was told is lost"
    assert [epoch for epoch, _ in broken.told] == [1, 1]


def test_the_walk_finds_a_member_that_refuses_who_has_its_very_end() -> None:
    walk = Endings(3, epochs=4, shares=False, parts=False)
    broken = [world for world in walk.worlds() if world.broken]
    assert {world.broken for world in broken} == {"who has the same end is refused for ever"}
    assert any(not world.told for world in broken)
