"""The tables of a node's settings; :mod:`meshnode.config` reads and checks them."""

import re
from typing import Final

import msgspec

#: Whom ``access.callers`` may name beside PeerIds.
MEMBERS: Final = "members"
INVITED: Final = "invited"
ANYONE: Final = "anyone"

#: What ``ledger.settlement`` may be.
SETTLEMENTS: Final = ("none", "manual")
#: What ``trust.family_probes`` may be.
FAMILY_PROBES: Final = ("public", "always", "never")

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
        measure: Agents of which nothing is known do their examples, so that the node's record
            can say how quick they are; once a week, if they do nothing else.
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
    measure: bool = True
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


class LedgerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Credit between this node and each other one, in millicredits; 0 is no limit.

    Attributes:
        owed_max_mc: What one peer may owe this node, with what it has in work here and
            hasn't accepted yet: beyond that it is refused until it settles.
        owing_max_mc: What this node may owe one peer, with what that has in work for it:
            beyond that others are asked.
        stranger_first_mc: What a buyer of whom nothing is known may have of work that it
            hasn't accepted: all that can be lost to it.  It grows by a quarter of what it
            settles; one call may always be had.
        member_first_mc: The same for who is in your mesh, where only members may call, and
            for whom you invited by name, or who invited you.
        settlement: ``none`` keeps balances only; ``manual`` lets you say what you paid, and
            confirm what others say that they paid you.
        believed: PeerIds whose word that they paid is enough, without your confirming it,
            and who may have any amount of work before they accept it.
    """

    owed_max_mc: int = 0
    owing_max_mc: int = 0
    stranger_first_mc: int = 1_000
    member_first_mc: int = 0
    settlement: str = "none"
    believed: tuple[str, ...] = ()


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
        peer_letters_max: Of those, from one node, and for one node; an eighth of it from
            one for one.
        peer_bytes_max: Bytes of those.
        keep_s: How long one is kept at most.
    """

    enabled: bool = False
    letters_max: int = 10_000
    bytes_max: int = 256 * 1024**2
    peer_letters_max: int = 500
    peer_bytes_max: int = 16 * 1024**2
    keep_s: float = 604_800.0


class OrdersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Work that others order by letter, for when this node is back.

    Attributes:
        enabled: Do such work, and tell the mesh.
        waiting_max: Orders kept that aren't done.
        peer_waiting_max: Of those, from one node.
    """

    enabled: bool = False
    waiting_max: int = 256
    peer_waiting_max: int = 32


class StandbyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Standing by for others' jobs, to go on with them when their brokers are gone.

    Attributes:
        enabled: Do so, and tell the mesh.
        jobs_max: Jobs at once; no owner has more of them than are left for others.
    """

    enabled: bool = False
    jobs_max: int = 100


class TrustConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom this node believes: which agents of others are right, and what names cost.

    Attributes:
        golds_per_hour: Tasks whose answer it knows (`meshnode gold add`), given to known
            agents while no work of yours waits for it; 0 gives none.
        golds_mc_per_day: What those may cost in a day, all together, millicredits.
        spot_share: Of the calls that others do for this node, and of what those cost, for
            each capability: so large a part more may go into asking agents for examples that
            stand in records, and into probing model families; 0 asks for none.
        family_probes: Where model families are probed without your asking, within
            spot_share: ``public`` where anybody may call this node, ``always`` or ``never``.
        work_bits: Proof of work that a name costs where anybody may come: each bit more
            doubles it, 8 are some 10 to 60 s of one core, once; 0 asks for none.
        work_always: Prove it for this node's own name also where it works for members of
            its mesh only: for who buys in public meshes.
    """

    golds_per_hour: float = 0.0
    golds_mc_per_day: int = 1_000
    spot_share: float = 0.03
    family_probes: str = "public"
    work_bits: int = 8
    work_always: bool = False


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
