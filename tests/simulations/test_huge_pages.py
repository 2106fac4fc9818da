"""Which parts of a process's memory are its heap, and that Linux takes the hint."""

import mmap
import subprocess
import sys
from pathlib import Path

from simulations.huge_pages import (
    PAGE_BYTES,
    ask_for_huge_pages,
    heap_ranges,
    resident_bytes,
)

ROOT = Path(__file__).parents[2]

MAPS = """\
00400000-00c00000 r-xp 00000000 fe:00 1234                               /usr/bin/python3
00d00000-01300000 rw-p 00100000 fe:00 1234                               /usr/bin/python3
01f00000-02500000 rw-p 00000000 00:00 0                                  [heap]
7f0000100000-7f0000900000 rw-p 00000000 00:00 0
7f0001000000-7f0001100000 rw-p 00000000 00:00 0
7f0002000000-7f0002800000 ---p 00000000 00:00 0
7f0003000000-7f0003800000 rw-s 00000000 00:01 0
7ffc00000000-7ffc00800000 rw-p 00000000 00:00 0                          [stack]
"""

#: Prints whether Linux has huge pages for who asks, and how much of the heap lay on them
#: before it was asked for, and after.
GROWN = """
import mmap
from pathlib import Path
from simulations.huge_pages import ask_for_huge_pages
def huge_kb():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0])
with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as probe:
    probe.write(bytes([1]) * (8 << 20))
    try:
        probe.madvise(25)
        there = 1
    except OSError:
        there = 0
heap = [bytes(400) for _ in range(100_000)]
before = huge_kb()
ask_for_huge_pages()
print(there, before, huge_kb())
"""


def test_heap_is_what_is_private_nameless_and_holds_whole_huge_pages() -> None:
    assert list(heap_ranges(MAPS.splitlines())) == [
        (0x02000000, 0x02400000),
        (0x7F0000200000, 0x7F0000800000),
    ]


def test_a_grown_heap_is_asked_for() -> None:
    heap = [bytes(400) for _ in range(100_000)]  # 40 MB
    asked_bytes = ask_for_huge_pages()
    assert asked_bytes % PAGE_BYTES == 0
    assert asked_bytes >= sum(map(len, heap)) // 2


def test_linux_moves_the_heap_if_it_has_huge_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    there, before_kb, after_kb = map(int, done.stdout.split())
    assert (after_kb - before_kb > 20_000) == bool(there)


def test_what_is_in_memory_is_told() -> None:
    before_bytes = resident_bytes()
    # Memory of its own: what other tests let go of may lie there for a list.
    with mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held.write(bytes([1]) * 40_000_000)
        assert resident_bytes() - before_bytes >= 30_000_000
