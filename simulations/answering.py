"""How a node of the simulated DHT answers: honestly, or as it likes.

A node of the DHT is anybody's.  It can't forge a record, since whoever asks checks the
signature; but it can name whom it likes as nearest, keep nothing of what it took, and
serve what it had long ago.  Each of these is a strategy that
:meth:`simulations.kademlia.SimKademlia.corrupt` gives to a node; a node without one
answers from its tables.
"""

from collections.abc import Sequence

from typing_extensions import override

from simulations.kademlia_table import key_of, nearest


class Answering:
    """What a node tells those who ask, given what it would tell them honestly.

    This one is honest; the others override what they lie about.
    """

    def closer(self, asker: str, target: int, honest: Sequence[str]) -> Sequence[str]:
        """Return whom it names as nearest to ``target``; they need not exist."""
        del asker, target
        return honest

    def keeps(self, peer: str) -> bool:
        """Tell whether it keeps what it just took of ``peer``; that it took it, it says."""
        del peer
        return True

    def record(self, asker: str, peer: str, honest: bytes | None) -> bytes | None:
        """Return what it serves as the record of ``peer``."""
        del asker, peer
        return honest

    def providers(self, asker: str, name: str, honest: Sequence[str]) -> Sequence[str]:
        """Return whom it lists under ``name``."""
        del asker, name
        return honest


class Eclipsing(Answering):
    """Names accomplices only, takes everything, keeps and serves nothing.

    Whoever asks learns the accomplices and, from them, nobody else.
    """

    def __init__(self, accomplices: Sequence[str], *, count: int = 20) -> None:
        """Name the ``count`` of ``accomplices`` that are nearest to what is looked for."""
        self._accomplices = {key_of(peer): peer for peer in accomplices}
        self._count = count

    @override
    def closer(self, asker: str, target: int, honest: Sequence[str]) -> Sequence[str]:
        named = nearest(self._accomplices, target, self._count)
        return [self._accomplices[key] for key in named]

    @override
    def keeps(self, peer: str) -> bool:
        return False

    @override
    def record(self, asker: str, peer: str, honest: bytes | None) -> bytes | None:
        return None

    @override
    def providers(self, asker: str, name: str, honest: Sequence[str]) -> Sequence[str]:
        return ()


class Replaying(Answering):
    """Serves the first record of each peer that it ever had, whatever came after."""

    def __init__(self) -> None:
        self._first: dict[str, bytes] = {}

    @override
    def record(self, asker: str, peer: str, honest: bytes | None) -> bytes | None:
        if honest is not None:
            return self._first.setdefault(peer, honest)
        return self._first.get(peer)
