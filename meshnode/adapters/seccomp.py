"""The system calls that a program in a sandbox can't make.

Namespaces hide files, processes and the network.  They don't hide the kernel's keyrings,
sockets to the machine's hypervisor (``AF_VSOCK``, which no network namespace held for years)
and calls that attacks on the kernel begin with; and memory that belongs to no process
(``memfd_create``, ``shmget``) is in no limit of ours.  So these are refused, as if this
kernel didn't have them: programs fall back.

The filter is classic BPF, 8 bytes an instruction, made here without a library: a list of
numbers, each compared in turn.  Numbers are those of the kernel's own tables
(``arch/x86/entry/syscalls/syscall_64.tbl``, ``include/uapi/asm-generic/unistd.h``).
"""

import errno
import platform
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshnode.errors import NoSandbox

# linux/bpf_common.h, linux/seccomp.h: load a word, compare it, return.
_LOAD: Final = 0x20
_EQUAL: Final = 0x15
_AT_LEAST: Final = 0x35
_RETURN: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERROR: Final = 0x00050000
# struct seccomp_data: where the call's number, the machine and the first argument lie.
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16

#: Kinds of socket that may be made: unix, inet, inet6, netlink (which C libraries ask for the
#: machine's addresses).
FAMILIES: Final = (1, 2, 10, 16)


@dataclass(frozen=True, slots=True)
class _Machine:
    """How one kind of processor numbers its calls.

    Attributes:
        audit: Its ``AUDIT_ARCH_…``.
        foreign_from: Calls from here on are of another set (x32); 0 where there is none.
        socket: The number of ``socket``.
        refused: Name -> number of the calls that are refused.
    """

    audit: int
    foreign_from: int
    socket: int
    refused: Mapping[str, int]


_EVERYWHERE: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "memfd_secret": 447,
}
_MACHINES: Final[Mapping[str, _Machine]] = {
    "x86_64": _Machine(
        0xC000003E,
        0x40000000,
        41,
        {
            "shmget": 29,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "perf_event_open": 298,
            "memfd_create": 319,
            "bpf": 321,
            "userfaultfd": 323,
            **_EVERYWHERE,
        },
    ),
    "aarch64": _Machine(
        0xC00000B7,
        0,
        198,
        {
            "shmget": 194,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "perf_event_open": 241,
            "memfd_create": 279,
            "bpf": 280,
            "userfaultfd": 282,
            **_EVERYWHERE,
        },
    ),
}


def call_filter(machine: str = "") -> bytes:
    """Return the filter for this kind of processor, as ``bwrap --seccomp`` reads it.

    Args:
        machine: As ``uname -m`` says it; by default this machine's.

    Raises:
        NoSandbox: Its calls aren't known here.
    """
    name = machine or platform.machine()
    if name not in _MACHINES:
        raise NoSandbox(
            f"there is no sandbox for {name}", hint=f"there is one for {', '.join(_MACHINES)}"
        )
    known = _MACHINES[name]
    lines = [
        *_unless(_EQUAL, _MACHINE, known.audit),
        *_when(_AT_LEAST, _NUMBER, known.foreign_from or 0xFFFFFFFF, _ERROR | errno.ENOSYS),
    ]
    for number in known.refused.values():
        lines += _when(_EQUAL, _NUMBER, number, _ERROR | errno.ENOSYS)
    # Every other call but `socket` is allowed; of that the first argument is looked at.
    lines += [_line(_LOAD, _NUMBER), _line(_EQUAL, known.socket, 1, 0), _line(_RETURN, _ALLOW)]
    for family in FAMILIES:
        lines += _when(_EQUAL, _FIRST_ARGUMENT, family, _ALLOW)
    lines.append(_line(_RETURN, _ERROR | errno.EAFNOSUPPORT))
    return b"".join(lines)


def _when(test: int, where: int, value: int, verdict: int) -> list[bytes]:
    """Return ``verdict`` for a word that passes, and go on for any other."""
    return [_line(_LOAD, where), _line(test, value, 0, 1), _line(_RETURN, verdict)]


def _unless(test: int, where: int, value: int) -> list[bytes]:
    """Kill the process for a word that doesn't pass."""
    return [_line(_LOAD, where), _line(test, value, 1, 0), _line(_RETURN, _KILL)]


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
