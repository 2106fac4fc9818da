"""A supervisor is told what it wants to know, and its absence is no trouble."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from meshnode.adapters.service_notify import keep_watchdog, notify, watchdog_s


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.setblocking(False)
        yield made


def env_of(heard: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(heard.getsockname()), **more}


def test_what_is_told_arrives(heard: socket.socket) -> None:
    notify("READY=1", env_of(heard))
    assert heard.recv(100) == b"READY=1"


def test_an_abstract_socket_does_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0meshnode-test-{os.getpid()}")
        heard.setblocking(False)
        notify("READY=1", {"NOTIFY_SOCKET": f"@meshnode-test-{os.getpid()}"})
        assert heard.recv(100) == b"READY=1"


@pytest.mark.parametrize("where", ["", "relative", "/nowhere/at/all", "@nobody-listens"])
def test_nobody_to_tell_is_no_trouble(where: str) -> None:
    notify("READY=1", {"NOTIFY_SOCKET": where})
    notify("READY=1", {})


def test_a_full_socket_blocks_nobody(heard: socket.socket) -> None:
    for _ in range(10_000):
        notify("STATUS=" + "x" * 1_000, env_of(heard))


@pytest.mark.parametrize(
    ("env", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_signs_of_life_are_sent_twice_as_often_as_asked(
    env: dict[str, str], every_s: float | None
) -> None:
    assert watchdog_s(env) == every_s


async def test_signs_of_life_go_on(heard: socket.socket, autojump_clock: MockClock) -> None:
    with trio.move_on_after(100):
        await keep_watchdog(env_of(heard, WATCHDOG_USEC="20000000"))
    told = []
    while True:
        try:
            told.append(heard.recv(100))
        except BlockingIOError:
            break
    assert told == [b"WATCHDOG=1"] * 10


async def test_nobody_who_watches_ends_it_at_once() -> None:
    await keep_watchdog({})
