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

from meshnode.errors import ConfigError
from protocol.errors import Malformed
from protocol.invites import Invite, is_token, read_token
from protocol.keys import public_key
from protocol.signing import is_network

ENV_PREFIX: Final = "MESHNODE_"

#: Whom ``access.callers`` may name beside PeerIds.
MEMBERS: Final = "members"
INVITED: Final = "invited"
ANYONE: Final = "anyone"

_DAY: Final = "mon|tue|wed|thu|fri|sat|sun"
_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
#: One entry of ``access.hours``: days, a span of the day, or both.
HOURS: Final = re.compile(
    rf"(?=.)(?:(?P<first>{_DAY})(?:-(?P<last>{_DAY}))?)?(?:(?:^|(?<=[a-z]) )"
    rf"(?P<opens>{_TIME})-(?P<closes>{_TIME}|24:00))?"
)


class HttpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The local HTTP interface.

    Attributes:
        host: Address to listen on; loopback unless ``allow_remote``.
        port: 0 picks a free one.
        allow_remote: Listen on an address that other machines reach.
    """

    host: str = "127.0.0.1"
    port: int = 0
    allow_remote: bool = False


class DirectoryConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How this node finds others.

    Attributes:
        dht: Use the Kademlia DHT.
        catalogue: Exchange catalogues with neighbours.
        record_lifetime_s: After this long without renewal our record is worth nothing.
        neighbours_max: Peers to exchange catalogues with.
        digest_interval_s: How often neighbours compare what they hold.
        provide_interval_s: How often the DHT is told again, jittered.
        mdns: Find nodes of the same mesh on the local network, and be found by them.
        mdns_interfaces: Addresses of the network interfaces for that; empty for all.
    """

    dht: bool = True
    catalogue: bool = True
    record_lifetime_s: float = 600.0
    neighbours_max: int = 8
    digest_interval_s: float = 10.0
    provide_interval_s: float = 120.0
    mdns: bool = False
    mdns_interfaces: tuple[str, ...] = ()


class HostConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the machine's owner allows others to use.

    Attributes:
        calls_max: Agent calls that run at once, all agents together.
        awards_max: Awards held at once, waiting ones included.
        per_peer_max: Of those, from one broker.
        lease_s: An award whose broker is silent for this long is stopped.
        input_bytes_max: Largest input of one call; an agent may say less, not more.
        inputs_bytes_max: Inputs in memory, of all awards together; an award waits for room.
        run_s_max: Longest run of one call; an agent may say less, not more.
        artifact_bytes_max: Bytes of artifacts kept.
        artifact_peer_bytes_max: Of those, for the jobs of one broker other than this node.
        artifact_lifetime_s: How long an artifact is kept.
        history_s: How long receipts, and ended jobs with their journals, are kept;
            receipts for eight days at least.
    """

    calls_max: int = 4
    awards_max: int = 64
    per_peer_max: int = 32
    lease_s: float = 30.0
    input_bytes_max: int = 64 * 1024**2
    inputs_bytes_max: int = 512 * 1024**2
    run_s_max: float = 3_600.0
    artifact_bytes_max: int = 2 * 1024**3
    artifact_peer_bytes_max: int = 1024**3
    artifact_lifetime_s: float = 86_400.0
    history_s: float = 31_536_000.0


class AccessConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may have this node work for them, and when.

    Attributes:
        callers: ``members`` of its mesh, those whom it ``invited`` and who invited it,
            ``anyone``, or PeerIds; several in a list. The node itself always may.
        hours: When it works for others, such as ``mon-fri 20:00-08:00`` or ``sat-sun``;
            several in a list. Nothing said is always.
        time_zone: Whose clock the hours go by, such as ``Europe/Madrid``; empty takes
            this machine's.
    """

    callers: str | tuple[str, ...] = MEMBERS
    hours: str | tuple[str, ...] = ()
    time_zone: str = ""

    @property
    def admitted(self) -> frozenset[str]:
        """``callers`` as a set."""
        given = (self.callers,) if isinstance(self.callers, str) else self.callers
        return frozenset(given)

    @property
    def opening(self) -> tuple[str, ...]:
        """``hours`` as a list; empty for always."""
        return (self.hours,) if isinstance(self.hours, str) else self.hours


class QuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much others may have this node do; 0 is no limit.

    Attributes:
        calls_per_hour: Calls of agents taken on in a clock hour, all callers together.
        calls_per_day: Calls taken on in the last 24 clock hours.
        run_s_per_day: Seconds that agents ran in the last 24 clock hours; what was begun
            is finished.
        caller_calls_per_hour: As calls_per_hour, for each caller.
        caller_calls_per_day: As calls_per_day, for each caller.
        caller_run_s_per_day: As run_s_per_day, for each caller.
    """

    calls_per_hour: int = 0
    calls_per_day: int = 0
    run_s_per_day: float = 0.0
    caller_calls_per_hour: int = 0
    caller_calls_per_day: int = 0
    caller_run_s_per_day: float = 0.0


class InboxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Letters for this node's owner, and from him.

    Attributes:
        letters_max: Letters kept; who writes when there are as many is told to wait.
        bytes_max: Bytes of those.
        sender_letters_max: Of those, from one sender.
        sender_bytes_max: Bytes of those.
        outbox_letters_max: Own letters that wait to be delivered.
    """

    letters_max: int = 1_000
    bytes_max: int = 64 * 1024**2
    sender_letters_max: int = 100
    sender_bytes_max: int = 8 * 1024**2
    outbox_letters_max: int = 1_000


class MailboxConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keeping letters for others who are away; they are sealed, and can't be read here.

    Attributes:
        enabled: Do so, and tell the mesh.
        letters_max: Letters kept, all together.
        bytes_max: Bytes of those.
        peer_letters_max: Of those, from one node, and for one node.
        peer_bytes_max: Bytes of those.
        keep_s: How long one is kept at most.
    """

    enabled: bool = False
    letters_max: int = 10_000
    bytes_max: int = 256 * 1024**2
    peer_letters_max: int = 500
    peer_bytes_max: int = 16 * 1024**2
    keep_s: float = 604_800.0


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the node tells of what happens in it.

    Attributes:
        form: ``human``, or ``json``: one object a line, as ``/api/events`` has them.
        level: ``debug``, ``info`` or ``warning``, and what matters more.
        file: Where it goes; empty for stderr. A full one is put aside as FILE.1.
    """

    form: str = "human"
    level: str = "info"
    file: str = ""


class KeysConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The node's secrets.

    Attributes:
        passphrase_file: File that holds the passphrase of the key file, for a node whose
            key is protected; as a service, the credential meshnode.passphrase does too.
    """

    passphrase_file: str = ""


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
    inbox: InboxConfig = InboxConfig()
    mailbox: MailboxConfig = MailboxConfig()

    @property
    def invites(self) -> tuple[Invite, ...]:
        """The invites among ``join``."""
        return tuple(read_token(entry) for entry in self.join if is_token(entry))

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
    {"listen", "join", "specialists", "functions", "callers", "hours", "mdns_interfaces"}
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


def _check(config: NodeConfig, where: str) -> None:
    if not is_network(config.network):
        raise ConfigError(
            f"{where}: network {config.network[:60]!r} is no network id",
            hint="use 1 to 32 of a-z 0-9 _ . -",
        )
    if not config.listen:
        raise ConfigError(f"{where}: listen is empty", hint="name at least one multiaddr")
    addresses = [entry for entry in config.join if not is_token(entry)]
    for address in (*config.listen, *addresses):
        if not address.startswith("/"):
            raise ConfigError(
                f"{where}: {address!r} is not a multiaddr",
                hint="write it like /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW…",
            )
    for address in addresses:
        if "/p2p/" not in address:
            raise ConfigError(
                f"{where}: join {address!r} names no peer", hint="end it in /p2p/PEER"
            )
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
    _check_interfaces(config.directory, where)
    _check_log(config.log, where)
    _check_hours(config.access, where)
    _check_quantities(config, where)


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
    for table in ("host", "inbox", "mailbox"):  # all that they hold must be positive
        settings = getattr(config, table)
        for name in settings.__struct_fields__:
            if not isinstance(value := getattr(settings, name), bool):
                positive[f"{table}.{name}"] = value
    for name, value in positive.items():
        if not 0 < value < math.inf:  # false for NaN too
            raise ConfigError(
                f"{where}: {name} is {value}", hint="it must be positive and finite"
            )
    for name in config.quota.__struct_fields__:
        value = getattr(config.quota, name)
        if not 0 <= value < math.inf:
            raise ConfigError(
                f"{where}: quota.{name} is {value}", hint="0 for no limit, or more"
            )
