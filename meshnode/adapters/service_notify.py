"""Telling systemd how the node is doing: ``sd_notify`` (Type=notify), in a few lines.

A datagram to the socket that ``$NOTIFY_SOCKET`` names.  Without that variable, and when
nobody reads the socket, nothing happens: a node never fails for want of its supervisor.
"""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import trio

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"


def notify(text: str, env: Mapping[str, str] = os.environ) -> None:
    """Send ``text``, such as ``READY=1``; assignments stand on lines of their own."""
    address = env.get(_SOCKET, "")
    if not address.startswith(("/", "@")):
        return
    where = "\0" + address[1:] if address[0] == "@" else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        sender.sendto(text.encode(), where)


def watchdog_s(env: Mapping[str, str] = os.environ) -> float | None:
    """Return how often the supervisor wants a sign of life; None if it doesn't."""
    wanted = env.get(_WATCHDOG, "")
    pid = env.get(_WATCHDOG_PID, "")
    if not wanted.isdecimal() or not int(wanted) or pid not in ("", str(os.getpid())):
        return None
    return int(wanted) / 1_000_000 / 2  # half, as its documentation asks for


async def keep_watchdog(env: Mapping[str, str] = os.environ) -> None:
    """Send signs of life until cancelled: a node whose event loop hangs sends none."""
    every_s = watchdog_s(env)
    while every_s is not None:
        notify("WATCHDOG=1", env)
        await trio.sleep(every_s)
