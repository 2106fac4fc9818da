"""How artifacts stand in the store: their sizes, their chunks, and which jobs have them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

#: Hash -> :class:`Meta`.
META: Final = "artifact"
#: Hash/number -> bytes.
CHUNK: Final = "artifact_chunk"
#: Hash/PeerId of the job's broker, or name of its charter/job -> nothing.
GRANT: Final = "artifact_job"
#: Artifacts on the disk that are known to be what their names say, and jobs that are known
#: to have them.
NOTED_MAX: Final = 4096


K = TypeVar("K")


class Meta(msgspec.Struct, frozen=True):
    """What is known of an artifact without its bytes.

    Attributes:
        size: Bytes.
        expires_ms: Unix time from which nobody need keep it.
        broker: Whose room it takes: of the job that it was first kept for.
    """

    size: int
    expires_ms: int
    broker: str = ""


META_ROW: Final = msgspec.msgpack.Decoder(Meta)


def note(noted: OrderedDict[K, None], key: K) -> None:
    """Add ``key`` to what was seen lately; what was noted first is forgotten first."""
    noted[key] = None
    if len(noted) > NOTED_MAX:
        noted.popitem(last=False)


def grants(artifact: bytes, broker: str, job: str, *, charter: bytes = b"") -> Sequence[str]:
    """Return the keys of what says that a job has an artifact.

    Without a charter a job is its broker's: the same id from another broker is another
    job.  With one it is the charter's, whoever is its broker.
    """
    whose = [broker, charter.hex()] if charter else [broker]
    return [f"{artifact.hex()}/{one}/{job}" for one in whose]
