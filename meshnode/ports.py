"""What a node needs from the world, and no more.

Each port has a real adapter (``meshnode.adapters``) and an in-memory one
(``simulations``), and both pass the same contract suite (``tests/contracts``).
Everything above this module takes ports as arguments and cannot tell which it
was given.

Durations are Trio's clock (a ``MockClock`` replaces it); wall time is
:class:`WallClock`; chance is a ``random.Random`` handed in, and keys and nonces
come from :class:`Entropy`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from meshnode.calls import AgentCall, Checkpoint, Handover, JsonValue, Left, Work
from meshnode.confinement import Confinement, Finished
from meshnode.writes import (
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Add,
    Append,
    Delete,
    Once,
    Put,
    Write,
    check_table,
    check_text,
    check_write,
    read_sum,
)
from protocol.likeness import Likeness

#: What stores, agents and sandboxes are told has modules of its own, and is had from here.
__all__ = [
    "KEY_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "Add",
    "AgentCall",
    "Append",
    "Checkpoint",
    "Confinement",
    "Delete",
    "Finished",
    "Handover",
    "JsonValue",
    "Left",
    "Once",
    "Put",
    "Work",
    "Write",
    "check_table",
    "check_text",
    "check_write",
    "read_sum",
]


class Started(Protocol):
    """What ``nursery.start`` hands to a service, to be told that it runs.

    Trio's own ``TaskStatus`` is hidden from type checkers by the old stubs that
    libp2p's dependencies bring along.
    """

    def started(self) -> None:
        """Let the one who started the service go on."""


# --- transport -------------------------------------------------------------------


class Stream(Protocol):
    """An ordered, reliable, two-way pipe of bytes to one authenticated peer.

    One task may send while another receives; not two of either at once.
    Cancelling ``send`` or ``receive`` leaves the connection usable for others.
    """

    @property
    def peer(self) -> str:
        """The other side's PeerId, proved by the transport's handshake."""

    async def send(self, data: bytes) -> None:
        """Send all of ``data``; waits while the peer doesn't read.

        Raises:
            StreamLost: The peer is gone or reset the stream.
        """

    def send_nowait(self, data: bytes) -> bool:
        """Send all of ``data`` if that needs no waiting; else send nothing, return False.

        Never while another task sends.  A peer that doesn't read, or more than some
        64 KiB at once, is a reason to wait.

        Raises:
            StreamLost: As :meth:`send`.
        """

    async def receive(self, size_max: int = 65_536) -> bytes:
        """Return 1 to ``size_max`` bytes, or ``b""`` once the peer has finished sending.

        Raises:
            StreamLost: The connection broke, or the stream was reset or closed here.
        """

    def deliver_to(self, take: Callable[[bytes], None], /) -> bool:
        """Hand what comes to ``take`` at once, from now on, if this transport can.

        It saves a turn of the scheduler for each message.  ``take`` must neither raise nor
        take long.  :meth:`receive` then tells of the end alone: ``b""``, or ``StreamLost``.

        Returns:
            False if it can't: the stream is received from as before.
        """

    def mind_silence(self, limit_s: float, on_silence: Callable[[], None], /) -> bool:
        """Call ``on_silence`` once the peer has been silent for long, if this transport can.

        A transport that knows by itself that its peer is alive (a simulated one does) spares
        a thousand idle sessions their heartbeats.

        Args:
            limit_s: How long a peer that beats may be silent, seconds.
            on_silence: Called at most once; must neither raise nor take long.

        Returns:
            False if it can't: whoever wants to know has to ask the peer.
        """

    async def finish(self) -> None:
        """Say that nothing more will be sent; receiving goes on."""

    async def aclose(self) -> None:
        """End both directions at once; idempotent, never raises."""


Handler = Callable[[Stream], Awaitable[None]]


class Transport(Protocol):
    """Opens and accepts streams between peers named by PeerId."""

    @property
    def peer(self) -> str:
        """This node's PeerId."""

    def addresses(self) -> Sequence[str]:
        """Return the multiaddrs (without ``/p2p/…``) where others can dial this node."""

    async def open(self, peer: str, protocol: str, *, addresses: Sequence[str] = ()) -> Stream:
        """Open a stream to ``peer``, dialling when there is no connection yet.

        Args:
            peer: Whom to reach.
            protocol: Protocol id, such as ``/meshnode/session/1``.
            addresses: Where to dial, beside what the transport knows already.

        Raises:
            Unreachable: No address answered as ``peer`` within the dial limit.
            StreamLost: Connected, but the peer doesn't speak ``protocol``.
        """

    def serve(self, protocol: str, handler: Handler, *, per_peer_max: int = 32) -> None:
        """Run ``handler`` in a new task for each incoming stream of ``protocol``.

        Streams over ``per_peer_max`` at once from one peer are reset.  An exception
        that escapes ``handler`` closes that stream and nothing else.
        The stream is closed when ``handler`` returns.
        """

    async def disconnect(self, peer: str) -> None:
        """Drop every connection to ``peer``; its streams raise ``StreamLost``."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A node that somebody says is there.

    Attributes:
        peer: Its PeerId, which it has to prove when it is dialled.
        addresses: Multiaddrs to dial, without ``/p2p``.
    """

    peer: str
    addresses: Sequence[str]


# --- directory -------------------------------------------------------------------


class Directory(Protocol):
    """Finds strangers: signed records by peer, and providers by capability.

    A lossy hint store.  What it returns is unverified bytes: the caller checks
    signature, network, freshness and sequence.
    """

    async def publish(self, record: bytes, names: Sequence[str]) -> None:
        """Store this node's record and list the node as a provider of each of ``names``.

        Args:
            record: Signed record envelope of this node.
            names: Capability names, and prefixes of them, to be found under.

        Raises:
            Unreachable: No directory peer took it.  Call again later, with jitter.
        """

    async def providers(self, name: str, *, count_max: int = 20) -> Sequence[str]:
        """Return PeerIds that were listed under ``name``; may be stale or incomplete."""

    async def record(self, peer: str) -> bytes | None:
        """Return the freshest record found for ``peer``, or None."""


# --- store -----------------------------------------------------------------------


class Store(Protocol):
    """Durable tables and logs with one writer.

    ``table`` is ``[a-z_]{1,32}``; keys are text of 1 to 512 bytes and sort by code point.
    """

    async def commit(self, *writes: Write) -> None:
        """Apply all ``writes`` or none; durable (survives power loss) when it returns.

        Concurrent callers share one fsync (group commit).  Cancelling the call does
        not undo a write that was already handed over.

        Raises:
            StoreError: An ``Append`` with the wrong ``seq``, an ``Add`` to what is no sum, or
                the disk refused.
        """

    async def read(self, table: str, key: str) -> bytes | None:
        """Return ``table[key]`` as of the last commit, or None."""

    async def scan(
        self, table: str, prefix: str = "", *, count_max: int = 10_000
    ) -> Sequence[tuple[str, bytes]]:
        """Return the entries of ``table`` whose key starts with ``prefix``, in key order."""

    async def log(self, log: str, *, start: int = 0) -> Sequence[bytes]:
        """Return the entries of ``log`` from ``start`` on."""

    async def drop_log(self, log: str) -> None:
        """Delete a log with all its entries; durable when it returns."""

    async def aclose(self) -> None:
        """Finish pending commits and release the file; idempotent."""


# --- clock and chance ------------------------------------------------------------


class WallClock(Protocol):
    """Unix time; only for what crosses machines, such as a record's expiry."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds."""

    def ahead_s(self, zone: str) -> int:
        """Return by how much local time is ahead of UTC now, seconds.

        Args:
            zone: Name of a time zone that this machine knows; empty for its own.
        """


class Entropy(Protocol):
    """Bytes that nobody can guess (or, in a simulation, that a seed fixes)."""

    def token(self, size: int) -> bytes:
        """Return ``size`` random bytes."""


# --- agents ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """One input of an agent and the output it gives, as JSON values."""

    input: JsonValue
    output: JsonValue


@dataclass(frozen=True, slots=True)
class Measures:
    """What was measured of an agent before it was offered.

    Attributes:
        samples: Calls that it is made of; 0 where nothing was measured.
        latency_ms: Median of one call, milliseconds.
        tokens_per_s: How fast a model writes one answer; 0 for what writes no tokens.
        context_tokens: What a model can hold; 0 where that isn't known.
        at_ms: When, Unix time; 0 says as it is hosted.
    """

    samples: int = 0
    latency_ms: int = 0
    at_ms: int = 0
    tokens_per_s: int = 0
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What an agent can do and on which terms; the source of its capability record.

    Attributes:
        name: Local name, ``[a-z0-9_-]{1,64}``; with the peer it names the agent.
        capability: Hierarchical name with major version, ``text.summarization@1``.
        description: One to three sentences for a person and for matching by meaning.
        input_schema: JSON Schema (2020-12) of the input, an object.
        output_schema: JSON Schema of the output.
        examples: Inputs with their outputs.
        price_mc: Price of one call (one item of a map), in millicredits.
        concurrency_max: Calls that run at once; more wait.
        timeout_s: Longest run of one call, seconds.
        input_bytes_max: Largest input of one call as JSON, bytes.
        output_bytes_max: Largest output of one call as JSON, bytes.
        model_family: Declared family, such as ``smollm2``; empty for plain code.
        deterministic: The same input always gives the same output.
        measures: What was measured of it before it was offered.
        like: When two of its answers say the same; None if it doesn't say.
        checks: Kinds of checks that its outputs are made for: ``quoted``, ``program``.
    """

    name: str
    capability: str
    description: str
    input_schema: Mapping[str, JsonValue]
    output_schema: Mapping[str, JsonValue]
    examples: Sequence[Example] = ()
    price_mc: int = 0
    concurrency_max: int = 1
    timeout_s: float = 60.0
    input_bytes_max: int = 4 * 1024 * 1024
    output_bytes_max: int = 4 * 1024 * 1024
    model_family: str = ""
    deterministic: bool = False
    measures: Measures = Measures()
    like: Likeness | None = None
    checks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed output (text), shown as progress."""

    text: str


@dataclass(frozen=True, slots=True)
class Output:
    """The whole output of a run; always the last thing an agent yields.

    Attributes:
        value: What the output schema describes.
        usage: Metering, such as ``{"tokens_in": 10, "tokens_out": 20}``.
    """

    value: JsonValue
    usage: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Agent(Protocol):
    """Something that turns a JSON value into another: a function, a command, a model."""

    @property
    def spec(self) -> AgentSpec:
        """What it offers."""

    async def open(self) -> None:
        """Load what it needs; called once, before the first run, in the hosting node.

        Raises:
            AgentError: It can't work here; the message says what to install.
        """

    def run(self, value: JsonValue, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """Yield any number of :class:`Chunk`, then exactly one :class:`Output`.

        The host checks input and output against the schemas, holds the limits and
        cancels the iteration when time is up; the agent must then release what it
        holds (a child process must end).

        Raises:
            AgentError: It failed; the message is shown to the caller.
        """

    async def aclose(self) -> None:
        """Release everything; idempotent."""


# --- sandbox ---------------------------------------------------------------------


class Sandbox(Protocol):
    """Runs programs that nobody answers for.

    A program in it has no network, sees the system's programs and what it was given, writes
    into a folder of its own, and ends with the call, whatever it does.  Where that can't be
    held nothing is run.
    """

    async def check(self, within: Confinement, program: str = "") -> str:
        """Run something in it, and return what holds it, such as ``bubblewrap 0.8.0``.

        Args:
            within: What is to be run in later.
            program: What is to be found there; empty for nothing.

        Raises:
            NoSandbox: There is none here, or not such a one; says what is missing.
        """

    async def run(
        self,
        argv: Sequence[str],
        within: Confinement,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run ``argv`` to its end, and return how it ended.

        Args:
            argv: Command and arguments; no shell.
            within: What it may see and take.
            stdin: What it reads.
            env: Its environment, beside where programs and its folder are.

        Raises:
            NoSandbox: There is none here, or it can't be made so.
            AgentTimeout: It was killed after ``within.timeout_s``.
            OutputInvalid: It was killed for writing too much.
            AgentError: It was killed for holding too much memory.
        """


# --- meaning ---------------------------------------------------------------------


class Embedder(Protocol):
    """Turns texts into vectors whose product tells how alike they are in meaning."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector of length 1 for each text, all of one dimension.

        Raises:
            AgentError: There is no model here; the message says what to install.
        """


class Labour(Protocol):
    """Proofs of work for a name (protocol/spec/32-work.md), beside the loop."""

    async def bits(self, network: str, peer: str, nonce: bytes) -> int:
        """Return what a proof is worth; one at a time, some 50 to 250 ms of one core."""

    async def search(self, network: str, peer: str, bits: int) -> bytes:
        """Return a nonce worth ``bits``, found at the lowest priority; may take minutes."""


# --- settlement ------------------------------------------------------------------


class Settlement(Protocol):
    """How what nodes owe each other is paid, outside the mesh.

    The ledger only hears of it: here a payment is made, or noted that it was, and looked
    for when another node says that it has made one.
    """

    @property
    def method(self) -> str:
        """Its name, as payments carry it."""

    async def pay(self, peer: str, amount_mc: int, reference: str, /) -> None:
        """Pay ``peer``, unless that was done before under the same ``reference``.

        Raises:
            NoSettlement: It isn't paid, and says why.
        """

    async def came(self, peer: str, amount_mc: int, reference: str, /) -> bool | None:
        """Tell whether a payment of ``peer`` came; None if only the owner can say."""


# --- events ----------------------------------------------------------------------

#: ``emit(name, **fields)``: telemetry, such as ``emit("contract.awarded", peer=…)``.
Emit = Callable[..., None]
