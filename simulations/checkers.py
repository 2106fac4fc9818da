"""What must hold of a mesh whatever goes wrong, seen from outside.

A :class:`Watch` looks on while the mesh runs: it is told of every event as it happens
and compares it with what the *disks* hold at that moment, which is what a crash would
leave.  The functions look at what is left when everything has come to rest.  None of
them asks the code under test for its opinion where the bytes can be read instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import trio

from meshnode.domain.facts import Charged, from_event
from meshnode.domain.job import JobState
from meshnode.domain.provenance import Provenance, verify_provenance
from meshnode.errors import MeshError
from meshnode.node import Node
from meshnode.ports import JsonValue
from meshnode.services.bodies import OFFERS, RECEIPT_ROW, RECEIPTS, OffersBody
from meshnode.services.events import Happening
from meshnode.services.receipts import DUE
from protocol.codec import decode_as, encode
from protocol.errors import ProtocolError
from protocol.journal import decode_event
from protocol.keys import digest
from protocol.messages import read_message
from protocol.receipts import Acceptance, check_receipt
from simulations.agents import CallBook
from simulations.ledgers import amounts
from simulations.mesh import NETWORK, Down, Member, SimMesh

#: Events that say that a node is wrong, and not the world.
_BUGS: Final = frozenset(
    {"session.bug", "job.stalled", "job.unreadable", "award.bug", "task.bug"}
)

#: How long nobody may have anything to do before all is at rest, seconds.
QUIET_S: Final = 4.0

_AWARDED: Final = "awarded"
#: A node doesn't dial again at once whom it could not dial, seconds.
_AGAIN_S: Final = 2.0


class _Kind(msgspec.Struct):
    kind: str


_KIND: Final = msgspec.msgpack.Decoder(_Kind)
_CHECK: Final = "check-"


def kind_of(body: bytes) -> str:
    """Return the kind of a journal's event, unproved: all of it costs ten times that."""
    return _KIND.decode(body).kind


@dataclass(slots=True)
class _Ledger:
    """The awards in one job's journal on its broker's disk, read as far as it goes."""

    read: int = 0
    awards: set[bytes] = field(default_factory=set)


class Watch:
    """Looks on; what it finds is in ``troubles``.

    Attributes:
        troubles: What must not be, one line each.
        begun: Award (hex) -> lives that began it, as ``node/life``.
    """

    def __init__(self, mesh: SimMesh, book: CallBook) -> None:
        self.troubles: list[str] = []
        self.begun: dict[str, list[str]] = {}
        self._mesh = mesh
        self._book = book
        self._stopped: dict[tuple[str, str], None] = {}
        self._ledgers: dict[str, _Ledger] = {}
        mesh.observers.append(self._see)
        book.on_begin.append(self._call_begins)

    def _see(self, name: str, happening: Happening) -> None:
        fields = happening.fields
        if happening.name in _BUGS:
            told = " ".join(f"{key}={value}" for key, value in sorted(fields.items()))
            self.troubles.append(f"{name}: {happening.name} {told}")
        elif happening.name == "award.begun":
            self._award_begins(name, fields)
        elif happening.name == "award.stopped":
            self._award_stopped(name, f"{fields['job']}/{fields['unit']}")

    def _award_begins(self, name: str, fields: Mapping[str, object]) -> None:
        """An award is done once in a life, and only what both sides had written down."""
        award = str(fields["award"])
        life = f"{name}/{self._mesh.members[name].lives}"
        lives = self.begun.setdefault(award, [])
        if life in lives:
            self.troubles.append(f"{life} began award {award[:12]} twice")
        lives.append(life)
        if award not in self._mesh.members[name].disk.tables.get("award", {}):
            self.troubles.append(f"{name} began award {award[:12]} without writing it down")
        broker = self._mesh.name(str(fields["broker"]))
        if bytes.fromhex(award) not in self._written(broker, str(fields["job"])):
            self.troubles.append(f"{broker} sent award {award[:12]} before writing it down")

    def _written(self, broker: str, job: str) -> set[bytes]:
        """Return the awards that the broker's disk holds for ``job``."""
        ledger = self._ledgers.setdefault(job, _Ledger())
        log = self._mesh.members[broker].disk.logs.get(f"job/{job}", [])
        for body in log[max(1, ledger.read) :]:
            if kind_of(body) == _AWARDED:
                ledger.awards.add(digest(decode_event(body).data["award"]))
        ledger.read = len(log)
        return ledger.awards

    def _award_stopped(self, name: str, work: str) -> None:
        """A cancel is acknowledged: from now on that work doesn't run there."""
        self._stopped[name, work] = None
        if any(node == name and _work_of(key) == work for node, key in self._book.running):
            self.troubles.append(f"{name} says that it stopped {work}, and it runs")

    def _call_begins(self, name: str, key: str) -> None:
        work = _work_of(key)
        if work and (name, work) in self._stopped:
            self.troubles.append(f"{name} began {key} after it said that it had stopped")


def _work_of(key: str) -> str:
    """Return ``job/subtask/batch`` of an agent call's key; empty for a broker's own check."""
    job, subtask, batch, number = key.split("/")
    return "" if number.startswith(_CHECK) else f"{job}/{subtask}/{batch}"


# --- when all is at rest -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ending:
    """How a job ended, and what was wanted.

    Attributes:
        broker: Name of its node.
        job: Job id.
        state: The broker's fold.
        outputs: Its outputs, if it completed.
        export: Its exported journal.
        wanted: The right outputs, or None if nobody knows.
        deadline_ms: When it had to be over, by the broker's clock.
    """

    broker: str
    job: str
    state: JobState
    outputs: Mapping[str, JsonValue] | None
    export: bytes
    wanted: Mapping[str, JsonValue] | None
    deadline_ms: int


def check_ending(ending: Ending) -> Iterator[str]:
    """The job is over in time, within budget, its outputs right, its story verifies."""
    state, done = ending.state, ending.state.done
    if done is None:
        yield "the job has not ended"
        return
    if state.ended_ms > ending.deadline_ms:
        yield f"it ended {state.ended_ms - ending.deadline_ms} ms after it had to"
    wrong = ending.wanted is not None and ending.outputs != ending.wanted
    if done.state == "completed" and wrong:
        yield f"its outputs are {ending.outputs}, wanted {ending.wanted}"
    if state.spent_mc > state.required_plan.budget_mc:
        yield f"it spent {state.spent_mc} of {state.required_plan.budget_mc} mc"
    if state.reserved_mc():
        yield f"{state.reserved_mc()} mc are reserved after the end"
    try:
        proved = verify_provenance(ending.export)
    except (ProtocolError, MeshError) as exc:
        yield f"its provenance does not verify: {exc}"
        return
    yield from _agrees(ending, proved)


def _agrees(ending: Ending, proved: Provenance) -> Iterator[str]:
    state = ending.state
    if (proved.state, proved.cost_mc) != (state.done and state.done.state, state.spent_mc):
        yield "what the journal proves is not what the broker says"
    if done_twice := [row.unit for row in proved.rows if row.attempts < 1 and row.output]:
        yield f"outputs without an attempt: {done_twice}"


def check_receipts(mesh: SimMesh, ending: Ending) -> Iterator[str]:
    """Both sides hold the same receipts, one acceptance for each award, paid as charged.

    It looks at the job's own awards only; that nobody holds others, and whether money is
    lost anywhere, :func:`simulations.money.check_money` says of all jobs at once.
    """
    sides = _sides(mesh, ending)
    paid_mc = 0
    for award, held in sides.items():
        if len(set(held.values())) != 1:
            yield f"{sorted(held)} hold different receipts of award {award[:12]}"
        if ending.broker not in held:
            yield f"{sorted(held)} hold a receipt of {award[:12]} that the broker lacks"
            continue
        try:
            paid_mc += _paid_mc(held[ending.broker], ending.job)
        except ProtocolError as exc:
            yield f"the receipt of award {award[:12]} does not hold: {exc}"
    if paid_mc != ending.state.spent_mc:
        yield f"acceptances pay {paid_mc} mc, the job says {ending.state.spent_mc} mc"
    yield from _missing(mesh, ending, sides)
    yield from _charges(mesh, ending, sides)


def _sides(mesh: SimMesh, ending: Ending) -> dict[str, dict[str, bytes]]:
    """Return award -> node -> its receipt, of every award of the job that has one."""
    sides: dict[str, dict[str, bytes]] = {}
    attempts = [attempt for unit in ending.state.units.values() for attempt in unit.attempts]
    for attempt in attempts:
        if not attempt.award:
            continue
        award = digest(attempt.award).hex()
        for name in (ending.broker, mesh.name(attempt.peer)):
            raw = mesh.members[name].disk.tables.get(RECEIPTS, {}).get(award)
            if raw is not None:
                sides.setdefault(award, {})[name] = raw
    return sides


def _charges(
    mesh: SimMesh, ending: Ending, sides: Mapping[str, Mapping[str, bytes]]
) -> Iterator[str]:
    """The journal charges each key once, with the acceptance that both sides hold."""
    log = mesh.members[ending.broker].disk.logs.get(f"job/{ending.job}", [])
    keys: set[str] = set()
    for body in log[1:]:
        if kind_of(body) != Charged.KIND:
            continue
        fact = from_event(decode_event(body))
        assert isinstance(fact, Charged)
        accepted = read_message(fact.acceptance, Acceptance, network=NETWORK)
        held = sides.get(accepted.award.hex(), {}).get(ending.broker)
        if held is None or decode_as(held, RECEIPT_ROW).acceptance != fact.acceptance:
            yield f"the acceptance in the journal for {fact.unit} is not the one that is kept"
        if accepted.verdict == "rejected":
            continue  # it charged nothing, and another attempt at the same work may
        if fact.key in keys:
            yield f"{fact.key} is charged twice"
        keys.add(fact.key)


def _missing(
    mesh: SimMesh, ending: Ending, sides: Mapping[str, Mapping[str, bytes]]
) -> Iterator[str]:
    """Every charge has reached the contractor as a receipt."""
    for unit in ending.state.units.values():
        for attempt in unit.attempts:
            if attempt.paid_mc is None:
                continue
            award, contractor = digest(attempt.award).hex(), mesh.name(attempt.peer)
            if contractor not in sides.get(award, {}):
                yield f"{contractor} was never given its receipt of {unit.name}"


def _paid_mc(raw: bytes, job: str) -> int:
    """Return what a whole receipt pays for ``job``."""
    row = decode_as(raw, RECEIPT_ROW)
    accepted = check_receipt(
        row.award, row.result, row.receipt, row.acceptance, network=NETWORK
    )[3]
    return accepted.paid_mc if accepted.h.job == job else 0


def check_rest(mesh: SimMesh, book: CallBook) -> Iterator[str]:
    """Nobody works, nothing is reserved, and nothing escaped from anywhere."""
    yield from mesh.failures
    for peer, protocol, exc in mesh.world.network.handler_failures:
        yield f"{mesh.name(peer)}: {protocol} raised {exc!r}"
    for where, key in book.running:
        yield f"{where} still runs {key}"
    for member in mesh.members.values():
        if member.life is None:
            if not member.retired:
                yield f"{member.name} is down"
            continue
        yield from _check_member(member, member.life.node)


def _check_member(member: Member, node: Node) -> Iterator[str]:
    if node.contractor.active:
        yield f"{member.name} holds {node.contractor.active} awards"
    if load := node.market.load():
        yield f"{member.name} believes in a load of {dict(load)}"
    if (said := node.ledger.balances.amounts()) != (held := amounts(member)):
        yield f"{member.name} believes in balances of {said}, its disk has {held}"
    for agent, spec in node.host.specs().items():
        if node.host.free(agent) != spec.concurrency_max:
            yield f"{member.name} has {node.host.free(agent)} slots for {agent} free"


async def come_to_rest(mesh: SimMesh, book: CallBook, *, limit_s: float) -> None:
    """Wait until all has been quiet for a while, but no longer than ``limit_s``."""
    quiet_s = 0.0
    with trio.move_on_after(limit_s):
        while quiet_s < QUIET_S:
            await trio.sleep(1.0)
            due = any(member.disk.tables.get(DUE) for member in mesh.members.values())
            is_quiet = not due and not any(check_rest(mesh, book))
            quiet_s = quiet_s + 1.0 if is_quiet else 0.0


# --- who is there --------------------------------------------------------------------


async def check_answers(mesh: SimMesh, *, timeout_s: float = 8.0) -> list[str]:
    """Every node answers its owner and its neighbour: each is asked by the one before it.

    As many questions as nodes, all at once.  Who can't be dialled is asked by its owner
    alone.  Who doesn't answer is asked once more: a connection that hangs half open is
    found out by the first question.
    """
    up = [member for member in mesh.members.values() if member.life is not None]
    found: dict[str, str] = {}

    async def ask(asker: Member, asked: Member) -> None:
        await ask_once(asker, asked)
        if found.pop(asked.name, None) is not None:
            await trio.sleep(_AGAIN_S)
            await ask_once(asker, asked)

    async def ask_once(asker: Member, asked: Member) -> None:
        with trio.move_on_after(timeout_s):
            try:
                await mesh.ask(asked.name, lambda node: node.broker.jobs())
                if asked.listens and asker is not asked:
                    question = partial(_ask_nothing, asked.peer, timeout_s)
                    await mesh.ask(asker.name, question)
            except (Down, MeshError) as exc:
                found[asked.name] = f"{asked.name} did not answer {asker.name}: {exc}"
            return
        found[asked.name] = f"{asked.name} did not answer {asker.name} in {timeout_s:g} s"

    async with trio.open_nursery() as nursery:
        for asker, asked in zip(up, up[1:] + up[:1], strict=True):
            nursery.start_soon(ask, asker, asked)
    return [found[member.name] for member in up if member.name in found]


async def _ask_nothing(peer: str, timeout_s: float, node: Node) -> None:
    """Ask ``peer`` for offers of nothing, which costs it nothing."""
    await node.sessions.request(peer, OFFERS, encode(OffersBody([])), timeout_s=timeout_s)
