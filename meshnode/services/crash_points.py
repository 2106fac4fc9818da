"""Where a node can be told to die, to see that nothing is lost there.

What a node has done for good is what it has committed; between two commits it only sends.
So every place at which a crash makes a difference is just before or just after a commit,
and a :class:`MortalStore` around the node's store can reach all of them, in a real process
(``MESHNODE_CRASH_AT``) and in virtual time (``mesh.crash(name, at=…)``) alike.  No other
code knows of it.

A crash point is written ``SIDE:LABEL#NUMBER``, such as ``after:award.taken#2``.

* ``before`` the commit, nothing of it is on the disk, and all is that was sent earlier;
  ``after`` it, all is on the disk, and nobody has been told.
* The label says what the commit holds (:data:`LABELS`).
* The number says which commit of that kind it is, from the first, 1, which need not be
  written.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast

import msgspec
from typing_extensions import override

from meshnode.domain.facts import KINDS, Elected
from meshnode.errors import ConfigError
from meshnode.ports import Append, Delete, Put, Store, Write

#: In the environment of a real node: where it dies.
VARIABLE: Final = "MESHNODE_CRASH_AT"

Side: TypeAlias = Literal["before", "after"]
_SIDES: Final = ("before", "after")

#: What is put into a table -> its label.
_PUT: Final = {
    "artifact": "artifact.kept",
    "award": "award.taken",
    "commission": "order.kept",
    "inbox_letter": "letter.kept",
    "job": "job.row",
    "mailbox_sealed": "letter.deposited",
    "outbox_letter": "letter.written",
    "receipt": "receipt.kept",
    "result": "result.kept",
}
#: What is deleted from a table -> its label.
_DELETED: Final = {
    "acceptance_due": "acceptance.settled",
    "commission": "order.answered",
    "mailbox_sealed": "letter.collected",
    "outbox_due": "letter.settled",
}
_JOB_LOG: Final = "job/"

_ROWS: Final = sorted([*_PUT.values(), *_DELETED.values()])

#: What a commit may hold that a job needs: an event of its journal (``job.KIND``), or a row
#: on its broker or a contractor.
JOB_LABELS: Final = (
    *(f"job.{kind}" for kind in KINDS if kind != Elected.KIND),
    *(label for label in _ROWS if not label.startswith(("letter.", "order."))),
)
#: What a commit may hold that a letter needs, at its sender, its reader or a mailbox.
LETTER_LABELS: Final = tuple(label for label in _ROWS if label.startswith("letter."))
#: What a commit may hold that an order needs at its contractor, beside both of those.
ORDER_LABELS: Final = tuple(label for label in _ROWS if label.startswith("order."))
#: What a commit may hold that a job with standbys needs beside that.
STANDBY_LABELS: Final = (f"job.{Elected.KIND}",)
#: All that a commit may hold.
LABELS: Final = (*JOB_LABELS, *STANDBY_LABELS, *LETTER_LABELS, *ORDER_LABELS)


class _Kind(msgspec.Struct):
    kind: str


_KIND: Final = msgspec.msgpack.Decoder(_Kind)


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A place to die at.

    Attributes:
        side: Of the commit.
        label: What the commit holds; one of :data:`LABELS`.
        number: Which such commit, from 1.
    """

    side: Side
    label: str
    number: int = 1

    @override
    def __str__(self) -> str:
        """Return it as :func:`read_crash_point` reads it."""
        return f"{self.side}:{self.label}#{self.number}"


def read_crash_point(text: str, *, where: str = "") -> CrashPoint:
    """Return the crash point that ``text`` names.

    Args:
        text: See the module.
        where: What said so, for the message.

    Raises:
        ConfigError: There is none such; says what there is.
    """
    side, _, place = text.partition(":")
    label, marked, number = place.partition("#")
    said = f"{where}: " if where else ""
    if side not in _SIDES:
        raise ConfigError(
            f"{said}{text[:80]!r} is no crash point", hint="such as after:award.taken#2"
        )
    if label not in LABELS:
        raise ConfigError(
            f"{said}there is no crash point at {label[:60]!r}",
            hint=f"there are {', '.join(LABELS)}",
        )
    if marked and not (number.isdecimal() and int(number)):
        raise ConfigError(
            f"{said}{number[:20]!r} is no number of a commit", hint="the first is 1"
        )
    return CrashPoint(cast("Side", side), label, int(number) if marked else 1)


def labels_of(writes: Sequence[Write]) -> Iterator[str]:
    """Yield what a commit of ``writes`` holds; a label as often as it holds it."""
    for write in writes:
        match write:
            case Put(table) if table in _PUT:
                yield _PUT[table]
            case Delete(table) if table in _DELETED:
                yield _DELETED[table]
            case Append(log, seq, value) if log.startswith(_JOB_LOG) and seq:
                yield f"job.{_KIND.decode(value).kind}"  # entry 0 is the segment's header


class MortalStore:
    """A store in whose commits the node may die; see :class:`meshnode.ports.Store`.

    Attributes:
        doom: Where it dies next, or None.
        read: As the store's own, as are the others.
    """

    def __init__(
        self, store: Store, die: Callable[[CrashPoint], None], doom: CrashPoint | None = None
    ) -> None:
        """Stand in for ``store``.

        Args:
            store: Where commits go.
            die: Ends the node.  Where that can't end the caller's own task, the store must
                refuse it from then on.
            doom: Where it dies.
        """
        self.doom = doom
        self._store = store
        self._die = die
        self._passed = 0
        self.read = store.read
        self.scan = store.scan
        self.log = store.log
        self.drop_log = store.drop_log
        self.aclose = store.aclose

    def dies_at(self, doom: CrashPoint | None) -> None:
        """Die at ``doom`` instead; commits are counted from now on."""
        self.doom, self._passed = doom, 0

    async def commit(self, *writes: Write) -> None:
        """See :meth:`meshnode.ports.Store.commit`."""
        reached = self._reached(writes) if self.doom is not None else None
        if reached is None:
            await self._store.commit(*writes)
            return
        if reached.side == "after":
            await self._store.commit(*writes)
        self._die(reached)
        await self._store.commit(*writes)  # it is gone, and says so

    def _reached(self, writes: Sequence[Write]) -> CrashPoint | None:
        """Return the doom if it is at the commit of ``writes``."""
        doom = self.doom
        if doom is None or doom.label not in labels_of(writes):
            return None
        self._passed += 1
        if self._passed < doom.number:
            return None
        self.dies_at(None)
        return doom
