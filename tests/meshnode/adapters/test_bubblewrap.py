"""What tries to get out of the sandbox doesn't: each way is really tried.

Where it can be, the same is done where it is allowed, so that it is the sandbox that stops it.
"""

import errno
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from meshnode.adapters.bubblewrap import GIVEN_MAX, Bubblewrap, probe
from meshnode.confinement import Confinement
from meshnode.errors import AgentError, NoSandbox
from tests.meshnode.adapters.sandboxed import (
    PLAIN,
    bwrap_that,
    open_folder,
    running,
    said,
    some_run,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


async def test_a_program_reads_what_it_is_given_and_its_end_is_told() -> None:
    finished = await Bubblewrap().run(
        ["/bin/sh", "-c", 'cat - given/file; echo "$SAID $PWD $HOME" >&2; exit 3'],
        Confinement(files={"given/file": b"and this"}),
        stdin=b"this ",
        env={"SAID": "so"},
    )
    assert (finished.returncode, finished.stdout) == (3, b"this and this")
    assert finished.stderr_tail == "so /tmp /tmp"


async def test_a_signal_is_told_as_shells_do() -> None:
    finished = await Bubblewrap().run(["/bin/sh", "-c", "kill -9 $$"], PLAIN)
    assert finished.returncode == 128 + 9


# --- the network ----------------------------------------------------------------------

DIAL = "say(try_(socket.create_connection, ('127.0.0.1', {port}), 5))"
DIAL_UNIX = "say(try_(socket.socket(socket.AF_UNIX).connect, '{name}'))"


async def test_it_has_no_network_unless_it_may() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dial = DIAL.format(port=server.getsockname()[1])
        assert await said(dial) == "ECONNREFUSED"
        assert "socket" in await said(dial, network=True)


async def test_it_reaches_no_socket_that_has_a_name_only() -> None:
    name = f"\0meshnode-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        dial = DIAL_UNIX.format(name=name.replace("\0", "\\0"))
        assert await said(dial) == "ECONNREFUSED"
        assert await said(dial, network=True) is None


@pytest.mark.parametrize(
    "family", [40, 38, 17, 31], ids=["vsock", "alg", "packet", "bluetooth"]
)
async def test_it_makes_no_socket_that_namespaces_do_not_hold(family: int) -> None:
    for network in (False, True):
        made = await said(f"say(try_(socket.socket, {family}, 2))", network=network)
        assert made == "EAFNOSUPPORT"


# --- files ----------------------------------------------------------------------------


async def test_it_reads_what_it_may_and_writes_nothing_that_stays(folder: Path) -> None:
    (folder / "data").write_text("shown")
    (folder / "data").chmod(0o666)
    own = f"own-{folder.name}"
    script = f"""
places = ["/", "/usr", "/usr/bin", "/bin", "/etc", "/dev", "/proc", "{folder}"]
written = {{p: try_(open, p + "/escaped", "w") for p in places}}
written["over"] = try_(open, "{folder}/data", "w")
written["gone"] = try_(os.unlink, "{folder}/data")
open("/tmp/{own}", "w").write("x")
say([open("{folder}/data").read(), sorted(set(map(str, written.values())))])
"""
    shown, errors = await said(script, reads=[str(folder)])
    assert shown == "shown"
    assert set(errors) <= {"EROFS", "EACCES", "ENOENT", "EPERM"}
    assert [path.name for path in folder.iterdir()] == ["data"]
    assert (folder / "data").read_text() == "shown"
    assert not Path("/tmp", own).exists()  # noqa: S108 - of this machine, not of the sandbox


async def test_all_that_is_mounted_is_read_only_but_its_own_folders(folder: Path) -> None:
    script = """
rows = [line.split() for line in open("/proc/self/mountinfo")]
say([row[4] for row in rows if "rw" in row[5].split(",")])
"""
    writable = set(await said(script, reads=[str(folder)], network=True))
    devices = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
    assert writable <= {"/tmp", "/dev/shm", "/dev/pts", "/proc"} | devices  # noqa: S108 - its own
    assert "/dev/shm" in writable  # noqa: S108 - its own


async def test_it_sees_no_home_and_nothing_else_of_the_machine(folder: Path) -> None:
    (folder / "secret").write_text("hush")
    hidden = [str(path) for path in (Path.home(), Path(__file__), folder / "secret")]
    hidden += ["/root", "/home", "/var", "/sys", "/run", "/etc/passwd"]
    assert await said(f"say([p for p in {hidden} if os.path.exists(p)])") == []
    assert await said("say(sorted(os.listdir('/tmp')))") == []


async def test_a_link_in_what_it_may_read_leads_nowhere(folder: Path) -> None:
    (folder / "shown").mkdir()
    (folder / "secret").write_text("hush")
    (folder / "shown" / "link").symlink_to("../secret")
    (folder / "shown" / "root").symlink_to("/proc/1/root" + str(folder / "secret"))
    script = f"say([try_(open, '{folder}/shown/' + n) for n in ('link', 'root')])"
    assert set(await said(script, reads=[str(folder / "shown")])) <= {"ENOENT", "EACCES"}


async def test_it_mounts_nothing_and_makes_no_namespace() -> None:
    script = """
libc = ctypes.CDLL(None, use_errno=True)
def call(f, *a):
    return f(*a) and errno.errorcode[ctypes.get_errno()]
new_user, new_mount, remount, bind, writable = 0x10000000, 0x20000, 32, 4096, 0
say([call(libc.unshare, new_user), call(libc.unshare, new_mount),
     call(libc.mount, b"none", b"/usr", None, remount | bind, None),
     call(libc.mount, b"none", b"/tmp", b"tmpfs", 0, None)])
"""
    assert set(await said(script)) <= {"EPERM", "ENOSPC"}


async def test_it_has_no_powers_and_can_get_none() -> None:
    script = """
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
say({n: status[n].split()[0] for n in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid")})
"""
    assert await said(script) == {
        "CapEff": "0" * 16,
        "CapBnd": "0" * 16,
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Uid": "65534",
    }


async def test_outside_it_is_not_root() -> None:
    mark = f"600.{os.getpid()}1"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Bubblewrap().run, ["sleep", mark], PLAIN)
        await some_run(mark, 1)
        uids = [Path(f"/proc/{pid}").stat().st_uid for pid in running(mark)]
        nursery.cancel_scope.cancel()
    assert uids
    assert 0 not in uids


# --- other processes ------------------------------------------------------------------


async def test_it_sees_no_process_but_its_own() -> None:
    script = f"""
seen = [p for p in os.listdir("/proc") if p.isdigit()]
say([len(seen), try_(os.kill, {os.getpid()}, 0), os.path.exists("/proc/{os.getpid()}/environ")])
"""
    assert await said(script) == [2, "ESRCH", False]


async def test_it_has_a_session_of_its_own_and_no_terminal() -> None:
    session, terminal = await said("say([os.getsid(0), try_(open, '/dev/tty')])")
    assert session != 0  # 0: one from outside, whose terminal it could type into
    assert terminal == "ENXIO"


async def test_it_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    script = """
say([sorted(os.environ), [p for p in os.listdir("/proc") if p.isdigit()
     and "hush" in str(try_(lambda: open(f"/proc/{p}/environ").read()))]])
"""
    assert await said(script) == [["HOME", "LANG", "PATH", "PWD", "TMPDIR"], []]


async def test_it_inherits_no_descriptor(folder: Path) -> None:
    (folder / "secret").write_text("hush")
    fd = os.open(folder / "secret", os.O_RDWR)
    os.set_inheritable(fd, True)
    script = """
def held(pid):
    return {n: try_(os.readlink, f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
say([held("self"), held(1)])
"""
    try:
        own, first = await said(script)
    finally:
        os.close(fd)
    assert {"0", "1", "2"} < own.keys()
    assert len(own) == 4  # with the one that lists them, which is gone by then
    kinds = {target.partition(":")[0] for target in [*own.values(), *first.values()]}
    assert kinds <= {"pipe", "anon_inode", "ENOENT"}


# --- the kernel -----------------------------------------------------------------------

CALLS = {
    "x86_64": {"shmget": 29, "add_key": 248, "request_key": 249, "keyctl": 250,
               "perf_event_open": 298, "memfd_create": 319, "bpf": 321, "userfaultfd": 323},
    "aarch64": {"shmget": 194, "add_key": 217, "request_key": 218, "keyctl": 219,
                "perf_event_open": 241, "memfd_create": 279, "bpf": 280, "userfaultfd": 282},
}  # fmt: skip


async def test_calls_that_namespaces_do_not_hold_are_not_there() -> None:
    numbers = {**CALLS[platform.machine()], "io_uring_setup": 425, "memfd_secret": 447}
    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
def call(number):
    return libc.syscall(number, 0, 0, 0, 0, 0) == -1 and errno.errorcode[ctypes.get_errno()]
say({{name: call(number) for name, number in {numbers}.items()}})
"""
    assert await said(script) == dict.fromkeys(numbers, "ENOSYS")


# --- where there is none --------------------------------------------------------------


def test_there_is_one_here_and_it_says_what_holds_it() -> None:
    assert probe().startswith("bubblewrap 0.")
    assert probe(Confinement(network=True), "sh").startswith("bubblewrap 0.")


async def test_nothing_runs_where_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(NoSandbox, match="bwrap was not found") as caught:
        probe()
    assert "install bubblewrap" in caught.value.hint
    with pytest.raises(NoSandbox, match="bwrap was not found"):
        await Bubblewrap().run(["/bin/sh", "-c", f"touch {folder}/ran"], PLAIN)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('while [ "$1" != -- ]; do shift; done; shift; exec "$@"', "shared our user"),
        ('while [ "$1" != prlimit ]; do shift; done', "no limits"),
        ('while [ "$1" != /bin/sh ]; do shift; done; exec "$@"', "no limits"),
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions"),
        ("echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "Unknown option"),
    ],
)
async def test_one_that_does_not_hold_is_none(
    script: str, why: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap_that(folder, script.replace("prlimit", "/usr/bin/prlimit"), monkeypatch)
    with pytest.raises(NoSandbox, match=why):
        await Bubblewrap().check(PLAIN)


def test_where_even_its_filter_can_not_be_made_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_: str) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "memfd_create", refused)  # as in a sandbox of this kind
    with pytest.raises(NoSandbox, match="Function not implemented"):
        probe()


async def test_what_bwrap_refuses_is_no_end_of_the_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bwrap_that(folder, "echo 'bwrap: Creating new namespace failed' >&2; exit 1", monkeypatch)
    with pytest.raises(NoSandbox, match="Creating new namespace failed"):
        await Bubblewrap().run(["true"], PLAIN)


async def test_a_program_that_is_not_in_it_is_named(folder: Path) -> None:
    program = folder / "program"
    program.write_text("#!/bin/sh\necho 1\n")
    program.chmod(0o755)
    with pytest.raises(NoSandbox, match="program can't be run in the sandbox"):
        await Bubblewrap().check(PLAIN, str(program))
    with pytest.raises(AgentError, match="program can't be run in the sandbox: failed to exec"):
        await Bubblewrap().run([str(program)], PLAIN)
    shown = Confinement(reads=[str(folder)])
    await Bubblewrap().check(shown, str(program))
    assert (await Bubblewrap().run([str(program)], shown)).stdout == b"1\n"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "data",
        "/",
        "//",
        "/proc",
        "/proc/1",
        "/dev",
        "/dev/",
        "/sys/x",
        "/tmp",  # noqa: S108 - a name, nothing is written
        "/tmp/",  # noqa: S108 - a name, nothing is written
        "/a/../proc",
    ],
)
async def test_what_would_stand_in_its_place_can_not_be_read(path: str) -> None:
    with pytest.raises(NoSandbox, match="can't be read in a sandbox"):
        await Bubblewrap().run(["true"], Confinement(reads=[path]))


async def test_what_is_to_be_read_and_is_not_there_is_told() -> None:
    with pytest.raises(NoSandbox, match="/no/such/folder"):
        await Bubblewrap().check(Confinement(reads=["/no/such/folder"]))


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a\0b"])
async def test_a_file_is_given_inside_its_folder_only(name: str) -> None:
    with pytest.raises(NoSandbox, match="can't name a file"):
        await Bubblewrap().run(["true"], Confinement(files={name: b""}))


async def test_too_many_files_are_refused_and_no_descriptor_is_lost() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - they are names, not paths
    files = {str(n): b"x" for n in range(GIVEN_MAX)}
    told = await said("say(len(os.listdir('.')))", files=files)
    assert told == GIVEN_MAX
    with pytest.raises(NoSandbox, match="64 files at most"):
        await said("", files={**files, "more": b""})
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - the same
