"""Let the heap of a big world lie on huge pages, where the kernel has them to give.

A thousand nodes are a gigabyte of small objects, and every jump of the clock wakes another
node, whose objects nobody touched for a while.  On pages of 4 KiB the processor then looks
up where they lie more often than it computes: in a virtual machine, where a page is looked
up twice, an hour of a thousand nodes took 152 s so and 122 s on pages of 2 MiB, side by
side.  Linux gives such pages only to who asks for them, since they can waste memory; of
what is asked for here nearly all is in use.

It is a hint.  Where there is no such call (another system, an older kernel), or no such
page to be had, all is as before; what a world does never depends on it.
"""

import ctypes
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_STATM: Final = Path("/proc/self/statm")
#: Of ``madvise(2)``, in Linux's ``mman-common.h``: on huge pages from now on (2.6.38), and
#: what is there already, at once (6.1).
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
#: Of x86-64 and of most others that have them.
PAGE_BYTES: Final = 2 * 1024 * 1024


def ask_for_huge_pages() -> int:
    """Ask for huge pages for all of this process's heap; return for how many bytes it did.

    Takes milliseconds, and what moving to them takes: call it as the heap grows, and not
    often.
    """
    try:
        maps = _MAPS.read_text("ascii", errors="replace")
        advise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return 0
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    asked_bytes = 0
    for first, last in heap_ranges(maps.splitlines()):
        advise(first, last - first, _MADV_HUGEPAGE)
        advise(first, last - first, _MADV_COLLAPSE)
        asked_bytes += last - first
    return asked_bytes


def resident_bytes() -> int:
    """Return how much of this process is in memory; 0 where that can't be told."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def heap_ranges(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Return from where to where the whole huge pages of the heap lie.

    Args:
        maps: The lines of ``/proc/PID/maps`` (proc_pid_maps(5)).
    """
    for line in maps:
        addresses, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        begin, end = (int(address, 16) for address in addresses.split("-"))
        first, last = -(-begin // PAGE_BYTES) * PAGE_BYTES, end // PAGE_BYTES * PAGE_BYTES
        if first < last:
            yield first, last
