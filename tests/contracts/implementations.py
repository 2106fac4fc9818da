"""Which implementations of the ports the contract suites run against.

Each is a module with two async context managers of the same shape:

* ``transports(count)`` yields ``count`` transports, none connected yet, each of
  which reaches every other through ``open(peer, protocol, addresses=other.addresses())``;
* ``directories(count)`` yields ``count`` :class:`Participant` of one directory.

A module may have only one of them; the lists at the end say which suites it is for.

A suite neither sleeps nor reads a clock, so it holds for virtual time and for
real sockets alike; what takes too long there is a failure (:data:`LIMIT_S`).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from meshnode.ports import Directory, Transport

#: Longest that any one claim may take, seconds; far above what a slow machine needs.
LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Participant:
    """One node of a directory under test.

    Attributes:
        peer: Its PeerId.
        directory: Its way into the directory.
        signed_record: Returns a record of this peer, valid now, with the given sequence;
            the same sequence gives the same bytes.
    """

    peer: str
    directory: Directory
    signed_record: Callable[[int], bytes]


Transports = Callable[[int], AbstractAsyncContextManager[Sequence[Transport]]]
Directories = Callable[[int], AbstractAsyncContextManager[Sequence[Participant]]]

_MODULES: Final = {
    "simulated": "tests.contracts.simulated_ports",
    "libp2p": "tests.contracts.libp2p_ports",
    "kademlia": "tests.contracts.kademlia_ports",
}
#: Those that are directories and nothing else.
_NO_TRANSPORTS: Final = ("kademlia",)

#: The names of those that exist: directories, and those that have transports, too.
DIRECTORIES: Final = tuple(name for name, module in _MODULES.items() if find_spec(module))
IMPLEMENTATIONS: Final = tuple(name for name in DIRECTORIES if name not in _NO_TRANSPORTS)


def implementation(name: str) -> ModuleType:
    """Return the module that supplies the ports called ``name``."""
    return import_module(_MODULES[name])
