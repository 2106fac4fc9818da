"""Whether every job has an end, and its owner knows it.

It is for when all is at rest and every deadline has passed.  That nobody tells another end
is :func:`simulations.heritage.read_stories`' to say, and so :mod:`simulations.money`'s.
"""

from collections.abc import Iterator
from typing import Final

from meshnode.domain.facts import Done
from simulations.checkers import kind_of
from simulations.estate import Estate
from simulations.heritage import Story, held, is_chartered, read_stories

_JOBS: Final = "job/"


def check_endings(mesh: Estate) -> Iterator[str]:
    """Yield each job without an end, and each owner that doesn't know one, a line each."""
    for member in mesh.members.values():
        for log, entries in member.disk.logs.items():
            plain = log.startswith(_JOBS) and not is_chartered(entries)
            if plain and kind_of(entries[-1]) != Done.KIND:
                yield f"job {log.removeprefix(_JOBS)} has no end at {member.name}"
    stories, _ = read_stories(mesh)
    known = {member.peer: held(member) for member in mesh.members.values()}
    for story in stories:
        there = known.get(story.owner, {}).get(story.charter)
        if not _has_end(story):
            yield f"job {story.job} has no end"
        elif there is None or not _has_end(there):
            name = mesh.name(story.owner)
            yield f"job {story.job} has ended, and {name}, whose it is, doesn't know it"


def _has_end(story: Story) -> bool:
    """Tell whether a story says that it has ended, and does."""
    events = story.segments[-1].events
    return story.ended and bool(events) and kind_of(events[-1]) == Done.KIND
