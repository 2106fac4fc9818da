"""A sandbox by bubblewrap: namespaces of the kernel, limits, and a filter of system calls.

What holds a program, and why each is there:

- *Namespaces* (``--unshare-all``): no network, no sight of others' processes, shared memory
  or mounts; and no namespaces of its own in which it would be powerful
  (``--disable-userns``).
- *Its view*: ``/usr`` and what it was given, read-only; ``/tmp`` and ``/dev/shm`` in memory,
  bounded; nothing else can be written.
- *Limits* (``prlimit``, inside): set in the namespace, so that processes are counted there
  and not with everything else that the same user runs.
- *Death*: the first process of a process namespace takes all others along, whatever sessions
  they have moved into.  It dies with bwrap, and bwrap with the node (``--die-with-parent``).
- *A filter* of system calls (:mod:`meshnode.adapters.seccomp`) for what namespaces don't hold.
- *A watch* over the memory of all its processes together, for which the kernel has no limit
  without a cgroup, and a cgroup isn't ours to make.

A node that runs as root gives its sandboxes to ``nobody``: the kernel counts no processes
of root, and root's files are readable for root in whatever namespace.

See docs/sandbox.md.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import outcome
import trio

from meshnode.adapters.agents.child_process import Child, Limits, kill_group, see_through
from meshnode.adapters.seccomp import call_filter
from meshnode.confinement import Confinement, Finished
from meshnode.errors import AgentError, MeshError, NoSandbox

#: The folder that a program may write into, and where it starts.
FOLDER: Final = "/tmp"  # noqa: S108 - a file system of the program's own
ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": FOLDER,
    "TMPDIR": FOLDER,
    "LANG": "C.UTF-8",
}
#: The user and group as whom sandboxes run: inside always, outside where the node is root.
_NOBODY: Final = 65534
_PRLIMIT: Final = "/usr/bin/prlimit"
#: Open files of one process.
_FILES_MAX: Final = 256
#: Files that can be given: each takes a descriptor of the node's while the program starts.
GIVEN_MAX: Final = 64
#: Folders of a system that has merged them into /usr, as links, and of one that hasn't.
_SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = ("ld.so.cache", "alternatives")
#: What names and certificates are looked up in.
_ETC_NETWORK: Final = ("resolv.conf", "hosts", "nsswitch.conf", "ssl", "ca-certificates")
#: How often its memory is looked at, seconds.
_LOOK_S: Final = 0.1
_PROBE_S: Final = 20.0
_NAMESPACES: Final = ("user", "pid", "net", "ipc", "uts", "mnt")
#: Asked of a shell in the sandbox: its limit of open files, its namespaces, the program.
_QUESTION: Final = (
    f"ulimit -n; (cd /proc/self/ns; readlink {' '.join(_NAMESPACES)});"
    ' [ -z "$1" ] || command -v "$1" >/dev/null || echo unseen'
)


class Bubblewrap:
    """A :class:`~meshnode.ports.Sandbox`; one serves any number of runs at once."""

    async def check(self, within: Confinement, program: str = "") -> str:
        """Run something in it, and return what holds it; see the port.

        Raises:
            NoSandbox: There is none here, or not such a one; says what is missing.
        """
        return await trio.to_thread.run_sync(probe, within, program)

    async def run(
        self,
        argv: Sequence[str],
        within: Confinement,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run ``argv`` to its end, and return how it ended; see the port.

        A program that a signal ended has 128 and the signal's number as its exit code.

        Raises:
            NoSandbox: There is none here, or it can't be made so.
            AgentTimeout: It was killed after ``within.timeout_s``.
            OutputInvalid: It was killed for writing too much.
            AgentError: It was killed for holding too much memory, or isn't there.
        """
        with _command(argv, within) as (command, fds):
            child, pidfd = _start(command, fds, {**ENVIRONMENT, **(env or {})})
        limits = Limits(within.timeout_s, within.output_bytes_max)
        try:
            finished = await _watched(
                child, partial(see_through, argv[0], child, stdin, limits), within
            )
        finally:
            os.close(pidfd)
        return _judged(argv[0], finished)


# --- what bwrap is told ---------------------------------------------------------------


@contextmanager
def _command(
    argv: Sequence[str], within: Confinement
) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield what is run, and the descriptors that it is handed; they are closed after."""
    if len(within.files) > GIVEN_MAX:
        raise NoSandbox(f"a sandbox is given {GIVEN_MAX} files at most")
    fds: list[int] = []
    try:
        fds.append(_holding(call_filter()))
        options = [*_options(within), "--seccomp", str(fds[0])]
        for name, content in within.files.items():
            fds.append(_holding(content))
            options += ["--file", str(fds[-1]), f"{FOLDER}/{_inside(name)}"]
        # Last: what is mounted above has its place by now.
        options += ["--remount-ro", "/"]
        yield [_bwrap(), *options, "--", *_limits(within), *argv], tuple(fds)
    finally:
        for fd in fds:
            os.close(fd)


def _bwrap() -> str:
    found = shutil.which("bwrap")
    if found is None:
        raise NoSandbox(
            "there is no sandbox here: bwrap was not found",
            hint="install bubblewrap 0.8 or later",
        )
    return found


def _options(within: Confinement) -> list[str]:
    size = str(within.disk_bytes_max)
    options = ["--unshare-all", "--unshare-user", "--disable-userns"]
    options += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    options += ["--uid", str(_NOBODY), "--gid", str(_NOBODY), "--hostname", "sandbox"]
    options += ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    for name in _ETC + (_ETC_NETWORK if within.network else ()):
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    if within.network:
        options += ["--share-net"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    options += ["--size", size, "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108 - its own
    options += ["--size", size, "--tmpfs", FOLDER, "--chdir", FOLDER]
    for shown in within.reads:
        options += ["--ro-bind", readable(shown), shown]
    return options


def _limits(within: Confinement) -> list[str]:
    return [
        _PRLIMIT,
        f"--as={within.memory_bytes_max}",
        f"--cpu={within.cpu_s_max}",
        f"--nproc={within.processes_max + 1}",  # with the first process, which is bwrap's
        f"--fsize={within.disk_bytes_max}",
        f"--nofile={_FILES_MAX}",
        "--core=0",
        "--",
    ]


def readable(path: str) -> str:
    """Return ``path`` if a sandbox can have it to read.

    Raises:
        NoSandbox: It isn't absolute, or would stand in the place of what holds the sandbox.
    """
    parts = Path(path).parts
    own = ("proc", "sys", "dev")
    if not path.startswith("/") or ".." in parts:
        raise NoSandbox(f"{path!r} can't be read in a sandbox", hint="give its whole path")
    if len(parts) == 1 or parts[1] in own or path.rstrip("/") == FOLDER:
        raise NoSandbox(f"{path} can't be read in a sandbox", hint="name folders below it")
    return path


def _inside(name: str) -> str:
    parts = Path(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise NoSandbox(f"{name[:60]!r} can't name a file in a sandbox")
    return name


def _holding(content: bytes) -> int:
    """Return a descriptor from which ``content`` is read."""
    try:
        fd = os.memfd_create("meshnode-sandbox")
    except OSError as error:  # as it is in a sandbox of this kind
        raise NoSandbox(
            f"there is no sandbox here: it can't be told its files: {error}"
        ) from error
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


# --- its process ----------------------------------------------------------------------


def _start(command: list[str], fds: tuple[int, ...], env: dict[str, str]) -> tuple[Child, int]:
    """Start it on this very thread; return it, and the descriptor of its process.

    What dies with its parent dies with the *thread* that started it.  Trio starts processes
    on threads that it lets go after ten idle seconds: a program would then be killed in the
    middle of its work.  So this waits, for the milliseconds that a start takes.
    """
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for written_here in (True, False, False):
            reading, writing = os.pipe()
            ours.append(writing if written_here else reading)
            theirs.append(reading if written_here else writing)
            if os.geteuid() == 0:  # so that its program may open /dev/stdin and the others
                os.fchown(theirs[-1], _NOBODY, _NOBODY)
        popen = subprocess.Popen(  # noqa: S603 - no shell, and the sandbox is the point
            command,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            **_how(fds, env),
        )
    except OSError as error:
        for fd in ours:
            os.close(fd)
        raise _not_started(error) from error
    finally:
        for fd in theirs:
            os.close(fd)
    pidfd = os.pidfd_open(popen.pid)

    async def wait() -> int:
        if popen.returncode is None:
            await trio.lowlevel.wait_readable(pidfd)
        return popen.wait()

    stdin, stdout, stderr = (trio.lowlevel.FdStream(fd) for fd in ours)
    return Child(popen.pid, stdin, stdout, stderr, wait, partial(_kill, popen.pid)), pidfd


def _how(fds: tuple[int, ...], env: dict[str, str]) -> dict[str, Any]:
    """Return how bwrap is started: with nothing of the node's but what it is handed."""
    how: dict[str, Any] = {
        "env": env,
        "cwd": "/",
        "close_fds": True,
        "pass_fds": fds,
        "start_new_session": True,
    }
    if os.geteuid() == 0:
        how |= {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
    return how


async def _kill(pid: int) -> None:
    """Kill bwrap, and what it has started should it not have said yet to die with it.

    It is stopped first: else it could start that between our look and its death.
    """
    if not _is_ours(pid):  # it was waited for: all died with it
        return
    os.kill(pid, signal.SIGSTOP)
    await trio.to_thread.run_sync(_stopped, pid)
    children = _children(pid)
    kill_group(pid)
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _is_ours(pid: int) -> bool:
    """Tell whether ``pid`` is still a child of ours, if a dead one."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _stopped(pid: int) -> None:
    """Return when a child of ours has stopped, or has ended."""
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


async def _watched(
    child: Child, work: Callable[[], Awaitable[Finished]], within: Confinement
) -> Finished:
    """Return what ``work`` does, and end it once the processes hold too much together."""
    too_much = False

    async def watch() -> None:
        nonlocal too_much
        while True:
            await trio.sleep(_LOOK_S)
            if _held_bytes(child.pid) > within.memory_bytes_max:
                too_much = True
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        # Captured, so that a failure leaves the nursery as itself and not in a group.
        done = await outcome.acapture(work)
        nursery.cancel_scope.cancel()
    if too_much:
        raise AgentError(f"it held more than {within.memory_bytes_max} bytes of memory")
    return done.unwrap()


def _held_bytes(pid: int) -> int:
    """Return what a process and its descendants hold; what several share counts for each."""
    held = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError, ValueError):  # it has ended meanwhile
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith(("RssAnon:", "RssShmem:")):
                    held += int(line.split()[1]) * 1024
        waiting += _children(one)
    return held


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def _judged(name: str, finished: Finished) -> Finished:
    """Return how it ended, unless it never began."""
    said = finished.stderr_tail
    if finished.returncode == 1 and said.startswith("bwrap: "):
        raise _refused(said)
    if finished.returncode in (126, 127) and said.startswith("prlimit: "):
        raise AgentError(
            f"{name} can't be run in the sandbox: {said.removeprefix('prlimit: ')}",
            hint="is it in /usr, or among the folders that may be read?",
        )
    return finished


# --- whether there is one -------------------------------------------------------------


def probe(within: Confinement = Confinement(), program: str = "") -> str:  # noqa: B008 - frozen
    """Run something in a sandbox and see that it is held; return what holds it.

    Blocks for as long as it takes, some 50 ms.

    Args:
        within: What is to be run in later.
        program: What is to be found there; empty for nothing.

    Raises:
        NoSandbox: There is none here, or not such a one; says what is missing.
    """
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        raise NoSandbox("there is no sandbox here: the kernel doesn't say whose child is whose")
    with _command(["/bin/sh", "-c", _QUESTION, "sh", program], within) as (command, fds):
        told = _asked(command, fds).split()
    if told[-1:] == ["unseen"]:
        raise NoSandbox(
            f"{program} can't be run in the sandbox: it isn't there",
            hint="is it in /usr, or in a folder that may be read?",
        )
    outside = [str(Path("/proc/self/ns", name).readlink()) for name in _NAMESPACES]
    if len(told) != len(outside) + 1 or told[0] != str(_FILES_MAX):
        raise NoSandbox("there is no sandbox here: what ran in it saw no limits")
    for name, one, other in zip(_NAMESPACES, told[1:], outside, strict=True):
        if one == other and not (name == "net" and within.network):
            raise NoSandbox(f"there is no sandbox here: what ran in it shared our {name}")
    return _asked([_bwrap(), "--version"], ()).strip()


def _asked(command: list[str], fds: tuple[int, ...]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PROBE_S,
            **_how(fds, dict(ENVIRONMENT)),
        )
    except subprocess.TimeoutExpired as error:
        raise NoSandbox("there is no sandbox here: bwrap hangs") from error
    except OSError as error:
        raise _not_started(error) from error
    if done.returncode != 0:
        raise _refused(done.stderr.decode(errors="replace").strip())
    stdout: bytes = done.stdout
    return stdout.decode(errors="replace")


def _not_started(error: OSError) -> MeshError:
    return NoSandbox(f"there is no sandbox here: bwrap can't be started: {error}")


def _refused(said: str) -> MeshError:
    return NoSandbox(
        f"the sandbox can't be made: {said.removeprefix('bwrap: ')[:300]}",
        hint="may this user make namespaces here, and read what is to be read?",
    )
