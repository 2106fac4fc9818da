"""Which keys have ended, who goes on for them, and how much of that is kept.

What is kept of a key is the same whatever order its statements come in: a revocation
alone, or else its rotations, the earliest to each heir and of two heirs at most.  So
nodes that have heard the same agree, and two that compare find nothing to say.

Anybody may invent keys and end them, so statements about keys that this node knows for
another reason come first: they take the place of those about strangers.

Specified in protocol/spec/22-lifecycle.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocol import limits
from protocol.keys import digest
from protocol.lifecycle import Statement


@dataclass(frozen=True, slots=True)
class Heard:
    """A statement, and when this node had it.

    Attributes:
        said: It.
        at_ms: Unix time.
        known: Whether this node knew the key for another reason then.
    """

    said: Statement
    at_ms: int
    known: bool

    @property
    def from_ms(self) -> int:
        """From when the key has ended, Unix time."""
        return self.said.from_ms or self.at_ms

    @property
    def order(self) -> tuple[bool, int, bytes]:
        """The least of two to one heir is kept: the earliest time that is named."""
        return self.said.from_ms == 0, self.said.from_ms, digest(self.said.envelope)


@dataclass(slots=True)
class Change:
    """What a statement changed.

    Attributes:
        kept: What is to be kept from now on.
        gone: What need not be kept any more.
    """

    kept: list[Heard] = field(default_factory=list)
    gone: list[Heard] = field(default_factory=list)


class Fates:
    """See the module."""

    def __init__(self, count_max: int = limits.STATEMENTS_MAX) -> None:
        self._count_max = count_max
        self._count = 0
        #: Key that ended -> heir, or empty for a revocation -> statement.
        self._by_key: dict[str, dict[str, Heard]] = {}

    # --- asking ---

    @property
    def ended(self) -> Mapping[str, object]:
        """The keys that have ended, as a view that stays up to date."""
        return self._by_key

    def all(self) -> list[Heard]:
        """Return all that is kept, in the order in which their keys ended here."""
        return [heard for of in self._by_key.values() for heard in of.values()]

    def of(self, peer: str) -> list[Heard]:
        """Return what is kept about ``peer``."""
        return list(self._by_key.get(peer, {}).values())

    def ended_ms(self, peer: str) -> int | None:
        """Return from when the key of ``peer`` has ended, Unix time; None if it hasn't."""
        return min((heard.from_ms for heard in self.of(peer)), default=None)

    def follower(self, peer: str) -> str:
        """Return who goes on for ``peer``, or empty: nobody does, or it hasn't ended."""
        heirs = list(self._by_key.get(peer, {}))
        return heirs[0] if len(heirs) == 1 else ""

    def heir(self, peer: str) -> str:
        """Return who stands for ``peer`` now: its newest heir, or ``peer`` itself."""
        path = [peer]
        for _ in range(limits.ROTATIONS_MAX):
            follower = self.follower(path[-1])
            if not follower:
                break
            if follower in path:
                return peer
            path.append(follower)
        return path[-1]

    def path(self, peer: str) -> list[Statement]:
        """Return the rotations by which :meth:`heir` comes from ``peer`` to its heir."""
        end, rotations = self.heir(peer), []
        while peer != end:
            (heard,) = self.of(peer)
            rotations.append(heard.said)
            peer = heard.said.heir
        return rotations

    # --- learning ---

    def take(self, said: Statement, *, at_ms: int, known: bool) -> Change | None:
        """Learn ``said``; return what that changed, or None if nothing.

        Args:
            said: Verified.
            at_ms: When this node had it, Unix time.
            known: Whether this node knows the key for another reason.
        """
        heard, of = Heard(said, at_ms, known), self._by_key.get(said.peer, {})
        wanted = _kept({**of, said.heir: _earlier(of.get(said.heir), heard)})
        if wanted == of:
            return None
        change = Change(
            kept=[one for one in wanted.values() if one not in of.values()],
            gone=[one for one in of.values() if one not in wanted.values()],
        )
        if not self._make_room(len(wanted) - len(of), said.peer, known=known, change=change):
            return None
        self._count += len(wanted) - len(of)
        self._by_key[said.peer] = wanted
        return change

    def _make_room(self, more: int, peer: str, *, known: bool, change: Change) -> bool:
        """Let go of statements about strangers until ``more`` fit; tell whether they do."""
        while self._count + more > self._count_max:
            victim = next(
                (
                    key
                    for key, of in self._by_key.items()
                    if key != peer and not any(heard.known for heard in of.values())
                ),
                None,
            )
            if victim is None or not known:
                return False
            gone = self._by_key.pop(victim)
            self._count -= len(gone)
            change.gone.extend(gone.values())
        return True


def _earlier(there: Heard | None, new: Heard) -> Heard:
    return new if there is None or new.order < there.order else there


def _kept(of: dict[str, Heard]) -> dict[str, Heard]:
    """Return what says as much as all of ``of``: a revocation, or two rotations."""
    if "" in of:
        return {"": of[""]}
    return {heir: of[heir] for heir in sorted(of)[: limits.STATEMENTS_OF_KEY_MAX]}
