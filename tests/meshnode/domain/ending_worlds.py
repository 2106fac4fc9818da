"""What members can come to that elect, write, ship and end a job; walked through.

A world is a sorted tuple of members, which are all alike, and the end that was told.  Time
is left out: any lease may have lapsed, so any member may be elected that enough others
may grant it to, and a broker may go on writing until it grants another.  Whoever doesn't
hear, crashes or is cut off is one that takes no part in the next steps.

That nobody waits for ever can't be seen in one step.  What is: who has an end is refused a
later epoch by nobody that has the same one, since what refuses it then never changes.

Bounded are epochs, and what a broker writes: that it was elected, something, and the end.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from typing_extensions import override

from meshnode.domain.failover import Asked, Mandate, Position, Promise, Rules, Seat
from tests.meshnode.domain.walks import walk_through

_ELECTED, _WORK, _END = range(3)
#: Every lease has lapsed by then.
_LATE_MS = 1_000

#: Events as (epoch of the segment, what).
Story = tuple[tuple[int, int], ...]


class Member(NamedTuple):
    """One of them.

    Attributes:
        promised: The highest epoch that it granted.
        acts: The epoch in which it is the broker; 0 for none.
        heard: The epoch of the newest broker that shipped to it.
        held: The newest epoch whose broker is known here to have had this very end.
        story: Its journal.
    """

    promised: int = 0
    acts: int = 0
    heard: int = 0
    held: int = 0
    story: Story = ()

    @property
    def has_ended(self) -> bool:
        return bool(self.story) and self.story[-1][1] == _END


class World(NamedTuple):
    members: tuple[Member, ...]
    told: Story = ()
    broken: str = ""


class Endings:
    """All worlds of so many members and epochs."""

    def __init__(
        self,
        count: int,
        *,
        epochs: int,
        holds: bool = True,
        parts: bool = True,
        shares: bool = True,
    ) -> None:
        """Begin.

        Args:
            count: Members.
            epochs: The highest.
            holds: Whether an end counts by the broker that it was had from.
            parts: Whether brokers write more than an end, and ship less than a segment.
            shares: Whether an asker's end counts by what is known of it where it is asked.
        """
        self._names = tuple("ABCDEFG"[:count])
        self._rules = Rules(Mandate(self._names, 1, 2, 1))
        self._said = f"{count} members, {epochs} epochs{', in parts' * parts}"
        self._epochs = epochs
        self._holds = holds
        self._parts = parts
        self._shares = shares

    @override
    def __str__(self) -> str:
        return self._said

    def worlds(self) -> Iterator[World]:
        """Each world once, with those that break a claim."""
        return walk_through(World(tuple(Member() for _ in self._names)), self._steps)

    def _steps(self, world: World) -> Iterator[World]:
        for place, member in enumerate(world.members):
            yield from self._elect(world, place)
            if member.acts:
                yield from self._write(world, place)
                yield from self._ship(world, place)
                yield from self._tell(world, place)

    def _position(self, member: Member) -> Position:
        if not member.story:
            return Position(0, 0)
        position = Position(member.story[-1][0], len(member.story))
        held = member.has_ended and self._holds
        return position.held_by(member.held) if held else position

    def _elect(self, world: World, place: int) -> Iterator[World]:
        members = world.members
        epoch = 1 + max(member.promised for member in members)
        if epoch > self._epochs:
            return
        willing = [
            number
            for number, member in enumerate(members)
            if number != place and self._grants(number, member, epoch, members[place])
        ]
        if members[place].has_ended and any(
            number not in willing and member.story == members[place].story
            for number, member in enumerate(members)
            if number != place
        ):
            # It may have to tell the end to a third one, and the other is over.
            yield world._replace(broken="who has the same end is refused for ever")
        winner = members[place]._replace(promised=epoch, acts=epoch, heard=epoch)
        if winner.has_ended:
            winner = winner._replace(held=epoch)
        else:
            winner = winner._replace(story=(*winner.story, (epoch, _ELECTED)))
        lost = world.told and winner.story != world.told
        broken = "an end that was told is lost" if lost else ""
        for granting in {
            tuple(members[number] for number in chosen)
            for chosen in combinations(willing, self._rules.mandate.majority - 1)
        }:
            others = list(members)
            others.remove(members[place])
            after = [winner]
            for member in granting:
                others.remove(member)
                after.append(member._replace(promised=epoch, acts=0))
            yield World(tuple(sorted([*others, *after])), world.told, broken)

    def _grants(self, number: int, member: Member, epoch: int, asker: Member) -> bool:
        if self._shares and asker.has_ended and asker.story == member.story:
            asker = asker._replace(held=max(asker.held, member.held))
        asked = Asked(epoch, self._names[number - 1], 0, self._position(asker))
        promise = Promise(member.promised, "", 0)
        seat = Seat(self._names[number], promise, self._position(member))
        return self._rules.may_grant(seat, asked, now_ms=_LATE_MS)

    def _write(self, world: World, place: int) -> Iterator[World]:
        member = world.members[place]
        if not member.has_ended:
            for what in range(member.story[-1][1] + 1, _END + 1) if self._parts else (_END,):
                story = (*member.story, (member.acts, what))
                yield _with(world, place, member._replace(story=story))

    def _ship(self, world: World, place: int) -> Iterator[World]:
        broker = world.members[place]
        for number, member in enumerate(world.members):
            if number == place or broker.acts < max(
                member.promised, member.heard, member.story[-1][0] if member.story else 0
            ):
                continue
            for story in _nexts(member.story, broker.story, parts=self._parts):
                whole = broker.has_ended and story == broker.story
                held = broker.acts if whole else member.held
                yield _with(
                    world,
                    number,
                    member._replace(heard=broker.acts, acts=0, held=held, story=story),
                )

    def _tell(self, world: World, place: int) -> Iterator[World]:
        broker = world.members[place]
        if not broker.has_ended or world.told == broker.story:
            return
        having = [
            member
            for number, member in enumerate(world.members)
            if number == place or (member.heard == broker.acts and member.story == broker.story)
        ]
        if len(having) >= self._rules.mandate.majority:
            broken = "two ends were told" if world.told else ""
            yield world._replace(told=broker.story, broken=broken)


def _nexts(here: Story, there: Story, *, parts: bool) -> Iterator[Story]:
    """Yield what a member may have after the next shipment of another's story."""
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    if common == len(there):
        if common == len(here):
            yield here
        return
    ends = common
    while ends < len(there) and there[ends][0] == there[common][0]:
        ends += 1
    # What takes the place of another story comes by segments, what is added in any parts.
    for count in range(common + 1, ends + 1) if common == len(here) and parts else (ends,):
        yield there[:count]


def _with(world: World, place: int, member: Member) -> World:
    members = [*world.members[:place], member, *world.members[place + 1 :]]
    return world._replace(members=tuple(sorted(members)))
