"""The filter of system calls, run as the kernel would, for machines that aren't this one."""

import errno
import struct

import pytest

from meshnode.adapters.seccomp import FAMILIES, call_filter
from meshnode.errors import NoSandbox

ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
#: Of the kernel's tables: the filter's own numbers are held against them.
SOCKET = {"x86_64": 41, "aarch64": 198}
KEYCTL = {"x86_64": 250, "aarch64": 219}
GETPID = {"x86_64": 39, "aarch64": 172}


def verdict(program: bytes, audit: int, number: int, argument: int = 0) -> int:
    """Return what the kernel would: classic BPF over ``struct seccomp_data``."""
    data = struct.pack("=IIQQ", number, audit, 0, argument)
    lines = [*struct.iter_unpack("=HBBI", program)]
    place, word = 0, 0
    for _ in lines:  # jumps go forward only, so it ends
        code, if_true, if_false, value = lines[place]
        place += 1
        if code == 0x20:
            (word,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return int(value)
        elif code in (0x15, 0x35):
            holds = word == value if code == 0x15 else word >= value
            place += if_true if holds else if_false
        else:
            pytest.fail(f"no such instruction: {code:#x}")
    pytest.fail("it ran off the end")


@pytest.mark.parametrize("machine", AUDIT)
def test_calls_are_judged_by_machine_number_and_kind_of_socket(machine: str) -> None:
    program, audit = call_filter(machine), AUDIT[machine]
    assert len(program) % 8 == 0
    assert len(program) // 8 <= 4096  # the kernel's limit
    assert verdict(program, audit, GETPID[machine]) == ALLOW
    assert verdict(program, audit, KEYCTL[machine]) == ERROR | errno.ENOSYS
    for family in range(50):
        told = verdict(program, audit, SOCKET[machine], family)
        assert told == (ALLOW if family in FAMILIES else ERROR | errno.EAFNOSUPPORT)


@pytest.mark.parametrize("machine", AUDIT)
def test_calls_in_the_numbers_of_another_machine_end_the_program(machine: str) -> None:
    program = call_filter(machine)
    others = {0x40000003, *AUDIT.values()} - {AUDIT[machine]}  # i386 among them
    for audit in others:
        assert verdict(program, audit, GETPID[machine]) == KILL


def test_calls_in_the_numbers_of_x32_are_not_there() -> None:
    program = call_filter("x86_64")
    for number in (0, 39, 250):
        told = verdict(program, AUDIT["x86_64"], 0x40000000 | number)
        assert told == ERROR | errno.ENOSYS


def test_a_machine_whose_calls_are_not_known_has_no_sandbox() -> None:
    with pytest.raises(NoSandbox, match="no sandbox for riscv64"):
        call_filter("riscv64")
