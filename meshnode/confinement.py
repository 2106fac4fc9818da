"""What a program in a sandbox may see and take, and how it ended.

Plain values, so that the port, its adapter and whoever has something checked in a sandbox
mean the same by a limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended: its exit code (negative: the signal), output, end of stderr."""

    returncode: int
    stdout: bytes
    stderr_tail: str


@dataclass(frozen=True, slots=True)
class Confinement:
    """What one run in a sandbox may see and take.

    Attributes:
        reads: Folders and files, absolute, that it may read beside the system's programs.
        files: Name -> content of what lies in its folder when it starts.
        network: It may use the machine's network; else it has none at all.
        timeout_s: Longest run; then all its processes are killed.
        output_bytes_max: Most that it may write to stdout.
        memory_bytes_max: Most that its processes may hold together, and the address space
            of each.
        cpu_s_max: Processor time of each process.
        processes_max: Processes and threads at once.
        disk_bytes_max: Most that it may write into its folder, which is in memory and gone
            with the run.
    """

    reads: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    network: bool = False
    timeout_s: float = 60.0
    output_bytes_max: int = 4 * 1024 * 1024
    memory_bytes_max: int = 1024 * 1024 * 1024
    cpu_s_max: int = 300
    processes_max: int = 64
    disk_bytes_max: int = 64 * 1024 * 1024
