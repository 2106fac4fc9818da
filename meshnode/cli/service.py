"""``meshnode service``: a systemd unit for the node, made for this installation."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from meshnode.cli.options import Json
from meshnode.cli.printing import say_json

#: A node drains for 30 s by default and closes in a few more.
_UNIT: Final = """\
[Unit]
Description=meshnode, a node of a peer-to-peer mesh
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} up --home {home}
Restart=on-failure
RestartSec=5
# SIGTERM goes to the node alone, which lets its agents finish: longer than drain_s.
KillMode=mixed
TimeoutStopSec=60
# Longer than a busy machine holds the node up, shorter than users wait.
WatchdogSec=120
UMask=0077
{rest}"""

_SYSTEM: Final = """\
# A user of its own (useradd --system meshnode); the home is /var/lib/meshnode.  A
# DynamicUser's home could be entered by nobody but the service: `sudo -u meshnode
# meshnode peers --home /var/lib/meshnode` is how the node is talked to.
User=meshnode
StateDirectory=meshnode
StateDirectoryMode=0700
# For a key that `meshnode keys protect` protects:
#LoadCredential=meshnode.passphrase:/etc/meshnode/passphrase

# Nothing but its home and the network.  MemoryDenyWriteExecute is left out: the
# libraries of some specialists make code while they run.
CapabilityBoundingSet=
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome={protect_home}
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
LimitNOFILE=16384

[Install]
WantedBy=multi-user.target
"""

_USER: Final = """\
NoNewPrivileges=yes
LimitNOFILE=16384

[Install]
WantedBy=default.target
"""


def service(
    *,
    user: Annotated[
        bool, typer.Option("--user", help="For your own services, not the machine's.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a systemd unit that runs a node of this installation.

    Examples:
      sudo useradd --system meshnode
      meshnode service | sudo tee /etc/systemd/system/meshnode.service
      meshnode service --user > ~/.config/systemd/user/meshnode.service

    The node's settings are node.toml in its home: /var/lib/meshnode, or ~/.meshnode with
    --user.  Start it with `systemctl enable --now meshnode`; `journalctl -u meshnode`
    shows its log.
    """
    text = unit(user=user)
    if as_json:
        say_json({"unit": text, "name": "meshnode.service"})
    else:
        print(text, end="")


def unit(*, user: bool) -> str:
    """Return the unit: ``%S`` and ``%h`` are systemd's words for the homes of each kind."""
    command = _command()
    if user:
        return _UNIT.format(command=command, home="%h/.meshnode", rest=_USER)
    # An installation in somebody's home must stay readable.
    protect = "read-only" if Path(command).is_relative_to("/home") or _in_root() else "yes"
    rest = _SYSTEM.format(protect_home=protect)
    return _UNIT.format(command=command, home="%S/meshnode", rest=rest)


def _in_root() -> bool:
    return Path(sys.prefix).is_relative_to(Path("~root").expanduser())


def _command() -> str:
    """Return this installation's program; beside its Python, where pip puts it."""
    beside = Path(sys.executable).with_name("meshnode")
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    return f"{sys.executable} -m meshnode"
