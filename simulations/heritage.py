"""Jobs with standbys, as all disks together have them: one story each, and who owes what.

What a member holds of a job is its copies, or what it wrote itself, whichever is further;
the furthest of all is the job's story.  Who says that the job has ended must say so of
that one.  A charge in it by another than the owner is an advance (see
:mod:`meshnode.services.charges`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.domain.facts import Awarded, Charged, Elected, Judged, Planned, from_event
from meshnode.domain.ledger import Kind
from meshnode.services.ledger import advance_key
from protocol.journal import END, SegmentExport, decode_event, decode_segment
from protocol.keys import digest
from protocol.signing import peek
from simulations.checkers import kind_of
from simulations.estate import Estate, Holder

_HEADS: Final = "journal_head"
_COPIES: Final = "copy_head"
_KINDS: Final = frozenset({Planned.KIND, Awarded.KIND, Charged.KIND, Elected.KIND, Judged.KIND})

#: Key -> kind, peer and millicredits of a posting.
Postings = dict[str, tuple[Kind, str, int]]


@dataclass(frozen=True, slots=True)
class Story:
    """What became of a job with standbys.

    Attributes:
        job: Its id.
        charter: The charter's name.
        segments: Of its brokers, in order.
    """

    job: str
    charter: bytes
    segments: list[SegmentExport]

    @property
    def ended(self) -> bool:
        """Whether it says so."""
        return peek(self.segments[-1].head).t == END

    @property
    def reach(self) -> tuple[int, int]:
        """How far it goes: epoch, and events."""
        epoch = decode_segment(self.segments[-1].header).epoch
        return epoch, sum(len(segment.events) for segment in self.segments)

    @property
    def owner(self) -> str:
        """PeerId of whose job it is."""
        return next(fact.owner for fact in self.facts() if isinstance(fact, Planned))

    def facts(self) -> Iterator[Planned | Awarded | Charged | Judged]:
        """Yield what money depends on."""
        for segment in self.segments:
            for body in segment.events:
                if kind_of(body) in _KINDS:
                    fact = from_event(decode_event(body))
                    if isinstance(fact, Planned | Awarded | Charged | Judged):
                        yield fact


def is_chartered(entries: list[bytes]) -> bool:
    """Tell whether a log of a journal is of a job with standbys."""
    return bool(entries) and bool(decode_segment(entries[0]).charter)


def read_stories(mesh: Estate) -> tuple[list[Story], list[str]]:
    """Return the story of each job with standbys, and who tells another end of it."""
    told: dict[bytes, list[tuple[str, Story]]] = {}
    for member in mesh.members.values():
        for charter, story in held(member).items():
            told.setdefault(charter, []).append((member.name, story))
    found, troubles = [], []
    for stories in told.values():
        furthest = max((story for _, story in stories), key=lambda story: story.reach)
        found.append(furthest)
        troubles += [
            f"{name} has another end of job {story.job} than the newest of its brokers"
            for name, story in stories
            if story.ended and story.segments != furthest.segments
        ]
    return found, troubles


def held(member: Holder) -> dict[bytes, Story]:
    """Return the furthest that a member has of each job."""
    copies: dict[bytes, list[SegmentExport]] = {}
    for key, head in sorted(member.disk.tables.get(_COPIES, {}).items()):
        entries = member.disk.logs.get(f"copy/{key}", [])
        if entries:
            segment = SegmentExport(entries[0], list(entries[1:]), head)
            copies.setdefault(bytes.fromhex(key.partition("/")[0]), []).append(segment)
    found = {
        charter: Story(decode_segment(segments[0].header).job, charter, segments)
        for charter, segments in copies.items()
    }
    for log, entries in member.disk.logs.items():
        if not log.startswith("job/") or not is_chartered(entries):
            continue
        header, job = decode_segment(entries[0]), log.removeprefix("job/")
        before = [
            one
            for one in copies.get(header.charter, [])
            if header.parent and decode_segment(one.header).epoch < header.epoch
        ]
        head = member.disk.tables.get(_HEADS, {}).get(job, b"")
        own = SegmentExport(entries[0], list(entries[1:]), head)
        story = Story(job, header.charter, [*before, own])
        known = found.get(header.charter)
        if known is None or known.reach < story.reach:
            found[header.charter] = story
    return found


def advances(stories: list[Story]) -> Mapping[str, Postings]:
    """Return what the ledgers of owners and heirs must say beside receipts, by PeerId."""
    wanted: dict[str, Postings] = {}
    for story in stories:
        owner, awards = "", dict[tuple[str, int], bytes]()
        for fact in story.facts() if story.ended else ():
            if isinstance(fact, Planned):
                owner = fact.owner
            elif isinstance(fact, Awarded):
                awards[fact.unit, fact.attempt] = digest(fact.award)
            elif isinstance(fact, Judged):
                continue
            elif fact.paid_mc and (heir := peek(fact.acceptance).i) != owner:
                key = advance_key(awards[fact.unit, fact.attempt])
                wanted.setdefault(owner, {})[key] = ("spent", heir, fact.paid_mc)
                wanted.setdefault(heir, {})[key] = ("earned", owner, fact.paid_mc)
    return wanted
