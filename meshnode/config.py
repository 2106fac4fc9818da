"""What a node is told when it starts: one value, from a TOML file and the environment.

Reading files is the command line's business; this module turns text into settings
and says which setting is wrong.  ``MESHNODE_A__B=…`` overrides ``[a] b``.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from meshnode.config_tables import (
    ANYONE,
    FAMILY_PROBES,
    HOURS,
    INVITED,
    MEMBERS,
    SETTLEMENTS,
    AccessConfig,
    DirectoryConfig,
    HostConfig,
    HttpConfig,
    InboxConfig,
    KeysConfig,
    LedgerConfig,
    LogConfig,
    MailboxConfig,
    OrdersConfig,
    QuotaConfig,
    StandbyConfig,
    TrustConfig,
)
from meshnode.errors import ConfigError
from protocol.errors import Malformed
from protocol.invites import Invite, is_token, read_token
from protocol.keys import public_key
from protocol.limits import WORK_BITS_MAX
from protocol.signing import is_network

#: The tables are had from here.
__all__ = [
    "ANYONE",
    "ENV_PREFIX",
    "HOURS",
    "INVITED",
    "MEMBERS",
    "SETTLEMENTS",
    "AccessConfig",
    "DirectoryConfig",
    "HostConfig",
    "HttpConfig",
    "InboxConfig",
    "KeysConfig",
    "LedgerConfig",
    "LogConfig",
    "MailboxConfig",
    "NodeConfig",
    "OrdersConfig",
    "QuotaConfig",
    "StandbyConfig",
    "TrustConfig",
    "parse_config",
]

ENV_PREFIX: Final = "MESHNODE_"


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a node is told.

    Attributes:
        network: Id of the mesh: nodes of another one don't talk to this one.
        home: Folder of keys, store and token file.
        listen: Multiaddrs to listen on.
        join: Invites (``mesh1:…``), or addresses of nodes of the mesh, with ``/p2p/PEER``.
        specialists: Short names of built-in agents to host.
        functions: ``module:name`` of Python agents to host.
        drain_s: A node that is told to end finishes what it does for others for so long.
    """

    network: str = "meshnode"
    home: str = "~/.meshnode"
    listen: tuple[str, ...] = ("/ip4/127.0.0.1/tcp/0",)
    join: tuple[str, ...] = ()
    specialists: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    drain_s: float = 30.0
    http: HttpConfig = HttpConfig()
    directory: DirectoryConfig = DirectoryConfig()
    host: HostConfig = HostConfig()
    access: AccessConfig = AccessConfig()
    log: LogConfig = LogConfig()
    keys: KeysConfig = KeysConfig()
    quota: QuotaConfig = QuotaConfig()
    ledger: LedgerConfig = LedgerConfig()
    inbox: InboxConfig = InboxConfig()
    mailbox: MailboxConfig = MailboxConfig()
    orders: OrdersConfig = OrdersConfig()
    standby: StandbyConfig = StandbyConfig()
    trust: TrustConfig = TrustConfig()

    @property
    def invites(self) -> tuple[Invite, ...]:
        """The invites among ``join``."""
        return tuple(read_token(entry) for entry in self.join if is_token(entry))

    @property
    def is_public(self) -> bool:
        """Whether anybody may come: membership costs nothing then."""
        return ANYONE in self.access.admitted

    @property
    def join_addresses(self) -> tuple[str, ...]:
        """Where to find the mesh: the addresses of ``join``, and those in its invites."""
        plain = [entry for entry in self.join if not is_token(entry)]
        invited = [place for invite in self.invites for place in invite.dialled()]
        return tuple(dict.fromkeys([*plain, *invited]))

    @property
    def home_path(self) -> Path:
        """``home`` with ``~`` resolved."""
        return Path(self.home).expanduser()


def parse_config(text: str, *, env: Mapping[str, str], where: str) -> NodeConfig:
    """Return the settings in TOML ``text``, overridden by ``env``.

    Args:
        text: TOML; empty for the defaults.
        env: Environment; only names with the prefix count.
        where: Name of the file, for messages.

    Raises:
        ConfigError: Names file and setting, and what it should be.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{where} is not TOML: {exc}", hint="mend that line") from exc
    variables: dict[str, str] = {}  # setting -> variable that says it
    for name, value in sorted(env.items()):
        setting = name.removeprefix(ENV_PREFIX).lower()
        if name.startswith(ENV_PREFIX) and ("__" in setting or setting in _TOP):
            _override(raw, name, value)
            variables[setting.replace("__", ".")] = name
    _take_network(raw, where)
    try:
        config = msgspec.convert(raw, NodeConfig, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(
            f"{_blamed(str(exc), variables, where)}: {exc}",
            hint="see `meshnode config show` or `meshnode up --help` for the settings",
        ) from exc
    _check(config, where)
    return config


_PLACE: Final = re.compile(r" at `\$\.?(?P<path>[\w.]*)")
_UNKNOWN: Final = re.compile(r"unknown field `(?P<name>\w+)`")


def _blamed(trouble: str, variables: Mapping[str, str], where: str) -> str:
    """Return the variable that set what msgspec finds wrong, or else ``where``."""
    place = _PLACE.search(trouble)
    path = place["path"] if place else ""
    unknown = _UNKNOWN.search(trouble)
    setting = f"{path}.{unknown['name']}".lstrip(".") if unknown else path
    for said, variable in variables.items():
        if said == setting or (unknown and said.startswith(f"{setting}.")):
            return f"${variable}"
    return where


#: What holds several values: separated by commas in the environment.
_LISTS: Final = frozenset(
    {
        *("listen", "join", "specialists", "functions", "callers", "hours"),
        *("mdns_interfaces", "believed"),
    }
)
_TOP: Final = frozenset(NodeConfig.__struct_fields__)


def _override(raw: dict[str, Any], name: str, value: str) -> None:
    *path, last = name.removeprefix(ENV_PREFIX).lower().split("__")
    table = raw
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: {part} is not a table", hint="unset it")
    if last in _LISTS:
        table[last] = [item for item in value.split(",") if item]
    else:
        table[last] = value


def _take_network(raw: dict[str, Any], where: str) -> None:
    """Let an invite say which mesh it is for, where nothing else does."""
    entries = raw.get("join")
    tokens = [t for t in entries if isinstance(t, str)] if isinstance(entries, list) else []
    meshes = {_read_invite(t, where).network for t in tokens if is_token(t)}
    if len(meshes) > 1:
        raise ConfigError(
            f"{where}: join has invites to {len(meshes)} meshes: {', '.join(sorted(meshes))}",
            hint="a node is in one mesh: run a node for each, with a home of its own",
        )
    for network in meshes:
        if raw.setdefault("network", network) != network:
            raise ConfigError(
                f"{where}: the invite is for mesh {network!r}, this node is told to be in"
                f" {raw['network']!r:.60}",
                hint=f"leave the network out, or say {network}",
            )


def _read_invite(token: str, where: str) -> Invite:
    try:
        return read_token(token)
    except Malformed as exc:
        raise ConfigError(
            f"{where}: join: {exc}", hint="copy the whole word from `meshnode invite`"
        ) from exc


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_addresses(config: NodeConfig, where: str) -> None:
    addresses = [entry for entry in config.join if not is_token(entry)]
    for address in addresses:
        if not address.startswith("/"):
            raise ConfigError(
                f"{where}: join {address!r} is no invite, and not a multiaddr",
                hint="give the whole word from `meshnode invite`, an address such as"
                " /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW…, or @FILE",
            )
    for address in config.listen:
        if not address.startswith("/"):
            raise ConfigError(
                f"{where}: listen {address!r} is not a multiaddr",
                hint="write it like /ip4/0.0.0.0/tcp/4001",
            )
    for address in addresses:
        if "/p2p/" not in address:
            raise ConfigError(
                f"{where}: join {address!r} names no peer", hint="end it in /p2p/PEER"
            )


def _check(config: NodeConfig, where: str) -> None:
    if not is_network(config.network):
        raise ConfigError(
            f"{where}: network {config.network[:60]!r} is no network id",
            hint="use 1 to 32 of a-z 0-9 _ . -",
        )
    if not config.listen:
        raise ConfigError(f"{where}: listen is empty", hint="name at least one multiaddr")
    _check_addresses(config, where)
    if not 0 <= config.http.port < 65_536:  # noqa: PLR2004 - TCP ports
        raise ConfigError(
            f"{where}: http.port {config.http.port} is no port", hint="0 to 65535"
        )
    if not config.http.allow_remote and not _is_loopback(config.http.host):
        raise ConfigError(
            f"{where}: http.host {config.http.host[:60]!r} is open to other machines",
            hint="use 127.0.0.1, or set http.allow_remote = true",
        )
    _check_callers(config.access, where)
    _check_ledger(config.ledger, where)
    _check_interfaces(config.directory, where)
    _check_log(config.log, where)
    _check_hours(config.access, where)
    _check_quantities(config, where)
    _check_trust(config.trust, where)


def _check_trust(trust: TrustConfig, where: str) -> None:
    if not 0 <= trust.work_bits <= WORK_BITS_MAX:
        raise ConfigError(
            f"{where}: trust.work_bits is {trust.work_bits}",
            hint=f"0 to {WORK_BITS_MAX}; 8 is some 10 to 60 s of one core",
        )
    if not trust.spot_share <= 1:
        raise ConfigError(
            f"{where}: trust.spot_share is {trust.spot_share}",
            hint="0.03 is three calls in a hundred; 1 at most, and 0 for none",
        )
    if trust.family_probes not in FAMILY_PROBES:
        raise ConfigError(
            f"{where}: trust.family_probes is {trust.family_probes[:60]!r}",
            hint=f"say {', '.join(FAMILY_PROBES[:-1])} or {FAMILY_PROBES[-1]}",
        )


def _check_log(log: LogConfig, where: str) -> None:
    choices = {"form": ("human", "json"), "level": ("debug", "info", "warning")}
    for name, known in choices.items():
        value = getattr(log, name)
        if value not in known:
            raise ConfigError(
                f"{where}: log.{name} is {value[:60]!r}", hint=f"say {' or '.join(known)}"
            )


def _check_interfaces(directory: DirectoryConfig, where: str) -> None:
    for interface in directory.mdns_interfaces:
        try:
            IPv4Address(interface)
        except ValueError as exc:
            raise ConfigError(
                f"{where}: directory.mdns_interfaces: {interface[:60]!r} is no IPv4 address",
                hint="write the address that this machine has there, such as 192.168.1.20",
            ) from exc


def _check_callers(access: AccessConfig, where: str) -> None:
    for caller in access.admitted - {MEMBERS, INVITED, ANYONE}:
        try:
            public_key(caller)
        except Malformed as exc:
            raise ConfigError(
                f"{where}: access.callers: {caller[:60]!r} is nobody",
                hint=f"say {MEMBERS}, {INVITED}, {ANYONE} or a PeerId",
            ) from exc


def _check_ledger(ledger: LedgerConfig, where: str) -> None:
    if ledger.settlement not in SETTLEMENTS:
        raise ConfigError(
            f"{where}: ledger.settlement is {ledger.settlement[:60]!r}",
            hint=f"say {' or '.join(SETTLEMENTS)}",
        )
    for peer in ledger.believed:
        try:
            public_key(peer)
        except Malformed as exc:
            raise ConfigError(
                f"{where}: ledger.believed: {peer[:60]!r} is nobody", hint="say PeerIds"
            ) from exc


def _check_hours(access: AccessConfig, where: str) -> None:
    for entry in access.opening:
        span = HOURS.fullmatch(entry)
        if span is None or (span["opens"] is not None and span["opens"] == span["closes"]):
            raise ConfigError(
                f"{where}: access.hours: {entry[:60]!r} is no span of a week",
                hint="write it like mon-fri 20:00-08:00, sat-sun or 09:00-17:30",
            )
    if not access.time_zone:
        return
    try:
        ZoneInfo(access.time_zone)
    except (OSError, ValueError, KeyError) as exc:  # whatever the name makes of a path
        raise ConfigError(
            f"{where}: access.time_zone: {access.time_zone[:60]!r} is no time zone here",
            hint="such as Europe/Madrid or UTC; leave it out for this machine's own",
        ) from exc


def _check_quantities(config: NodeConfig, where: str) -> None:
    if not 0 <= config.drain_s < math.inf:
        raise ConfigError(
            f"{where}: drain_s is {config.drain_s}", hint="say seconds; 0 waits for nothing"
        )
    positive = {
        "directory.record_lifetime_s": config.directory.record_lifetime_s,
        "directory.digest_interval_s": config.directory.digest_interval_s,
        "directory.provide_interval_s": config.directory.provide_interval_s,
        "directory.neighbours_max": config.directory.neighbours_max,
    }
    for table in (
        "host",
        "inbox",
        "mailbox",
        "orders",
        "standby",
    ):  # all that they hold must be positive
        settings = getattr(config, table)
        for name in settings.__struct_fields__:
            if not isinstance(value := getattr(settings, name), bool):
                positive[f"{table}.{name}"] = value
    for name, value in positive.items():
        if not 0 < value < math.inf:  # false for NaN too
            raise ConfigError(
                f"{where}: {name} is {value}", hint="it must be positive and finite"
            )
    limits = {
        "ledger.owed_max_mc": config.ledger.owed_max_mc,
        "ledger.owing_max_mc": config.ledger.owing_max_mc,
        "ledger.stranger_first_mc": config.ledger.stranger_first_mc,
        "ledger.member_first_mc": config.ledger.member_first_mc,
        **{f"quota.{name}": v for name, v in msgspec.structs.asdict(config.quota).items()},
    }
    trust = msgspec.structs.asdict(config.trust)
    budgets = {f"trust.{k}": v for k, v in trust.items() if not isinstance(v, str)}
    for name, value in (limits | budgets).items():
        if not 0 <= value < math.inf:
            means = "none" if name in budgets else "no limit"
            raise ConfigError(f"{where}: {name} is {value}", hint=f"0 for {means}, or more")
