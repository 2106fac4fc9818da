"""A job that changes hands whenever its broker is killed: a segment for each broker."""

from collections.abc import Callable

import msgspec
from typing_extensions import override

from meshnode.domain.elections import left_behind
from meshnode.domain.facts import Elected
from meshnode.domain.job import JobState, fold
from protocol.charter import (
    Charter,
    Chartered,
    Grant,
    read_charter,
    sign_charter,
    sign_grant,
    write_certificate,
)
from protocol.journal import SegmentExport, decode_event, export
from protocol.keys import digest
from protocol.messages import Budget
from tests.meshnode.domain.contractors import NETWORK, Pen
from tests.meshnode.domain.desk import Desk
from tests.meshnode.domain.exports import START_MS, signed_segment
from tests.meshnode.domain.journals import Killed, Run

LEASE_MS = 30_000
#: A job changes hands so often at most: each time costs what was only called.
CHANGES_MAX = 6
DAY_MS = 86_400_000


def certificate(charter: bytes, chartered: Chartered, epoch: int, pens: list[Pen]) -> bytes:
    """Grants of ``epoch`` to the first of ``pens`` by all of them."""
    grant = Grant(
        charter=chartered.name,
        epoch=epoch,
        broker=pens[0].identity.peer,
        asked_ms=START_MS,
        until_ms=START_MS + LEASE_MS,
    )
    order = {peer: place for place, peer in enumerate(chartered.members)}
    pens = sorted(pens, key=lambda pen: order[pen.identity.peer])
    return write_certificate(charter, [sign_grant(p.identity, chartered, grant) for p in pens])


class Succession(Run):
    """A :class:`Run` with a charter.

    Attributes:
        members: The owner's pen, and those of its standbys.
        segments: (epoch, pen, number of its first event).
    """

    def __init__(self, run: Run) -> None:
        """Take over what ``run`` was to do."""
        self.__dict__.update(run.__dict__)
        self.members = [self.pen, Pen("standby 1"), Pen("standby 2")]
        self.charter = sign_charter(
            self.pen.identity,
            NETWORK,
            Charter(
                job=self.job,
                owner=self.broker,
                standbys=[pen.identity.peer for pen in self.members[1:]],
                budget=Budget(cost_mc=self.planned.budget_mc),
                first_epoch=1,
                lease_ms=LEASE_MS,
                skew_ms=0,
                issued_ms=START_MS,
                expires_ms=START_MS + DAY_MS,
            ),
        )
        self.chartered = read_charter(self.charter, network=NETWORK, now_ms=START_MS)
        self.planned = msgspec.structs.replace(self.planned, epoch=1)
        self.segments: list[tuple[int, Pen, int]] = []

    @override
    def run(self) -> JobState:
        kill_after, self.kill_after = self.kill_after, lambda _: False
        self.record(self.planned)
        self.segments.append((1, self.pen, 0))
        self._elect(1)
        self.kill_after = kill_after
        while self.state.done is None:
            self._guarded(self._turn)
        return self.state

    def _elect(self, epoch: int) -> None:
        others = [pen for pen in self.members if pen is not self.pen]
        self.record(
            Elected(
                epoch=epoch,
                broker=self.broker,
                charter=self.chartered.name,
                certificate=certificate(
                    self.charter, self.chartered, epoch, [self.pen, others[epoch % 2]]
                ),
            ),
            *left_behind(self.state),
        )

    @override
    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Killed:
            self.kills += 1
            if self.state.done is not None:
                return
            self.state = fold(self.job, [decode_event(body) for body in self.events])
            self.busy.clear()
            self._queue.clear()
            if self.kills >= CHANGES_MAX:
                self.kill_after = lambda _: False
            self._take_over()

    def _take_over(self) -> None:
        epoch = self.segments[-1][0] + 1
        self.pen = self.members[epoch % len(self.members) - 1]
        self.desk = Desk(self.pen)
        for contractor in self.contractors.values():
            contractor.offer = (b"", 0)  # it was for the broker before
        self.segments.append((epoch, self.pen, len(self.events)))
        kill_after, self.kill_after = self.kill_after, lambda _: False
        self._elect(epoch)
        self.kill_after = kill_after

    def parts(self) -> list[SegmentExport]:
        """Every segment under its writer's signature."""
        made: list[SegmentExport] = []
        ends = [first for _, _, first in self.segments[1:]] + [len(self.events)]
        for (epoch, pen, first), end in zip(self.segments, ends, strict=True):
            done = self.state.done.state if self.state.done and end == len(self.events) else ""
            made.append(
                signed_segment(
                    pen,
                    self.job,
                    self.events[first:end],
                    done,
                    epoch=epoch,
                    charter=self.chartered.name,
                    parent=digest(made[-1].head) if made else b"",
                )
            )
        return made

    @override
    def export(self) -> bytes:
        return export(self.parts())
