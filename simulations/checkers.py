"""What must hold of a mesh whatever goes wrong, seen from outside.

A :class:`Watch` looks on while the mesh runs: it is told of every event as it happens
and compares it with what the *disks* hold at that moment, which is what a crash would
leave.  The functions look at what is left when everything has come to rest.  None of
them asks the code under test for its opinion where the bytes can be read instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshnode.domain.facts import Charged, from_event
from meshnode.domain.job import JobState
from meshnode.domain.provenance import Provenance, verify_provenance
from meshnode.errors import MeshError
from meshnode.ports import JsonValue
from meshnode.services.bodies import RECEIPT_ROW, RECEIPTS
from meshnode.services.events import Happening
from protocol.codec import decode_as
from protocol.errors import ProtocolError
from protocol.journal import decode_event
from protocol.keys import digest
from protocol.messages import read_message
from protocol.receipts import Acceptance, check_receipt
from simulations.agents import CallBook
from simulations.mesh import NETWORK, SimMesh

#: Events that say that a node is wrong, and not the world.
_BUGS: Final = frozenset({"session.bug", "job.stalled", "job.unreadable", "award.bug"})

_AWARDED: Final = "awarded"
_CHECK: Final = "check"


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
            event = decode_event(body)
            if event.kind == _AWARDED:
                ledger.awards.add(digest(event.data["award"]))
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
    return "" if number == _CHECK else f"{job}/{subtask}/{batch}"


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


@dataclass(slots=True)
class Shelf:
    """Every receipt that the disks of a mesh hold, read once for any number of jobs.

    Attributes:
        sides: Award (hex) -> name of a holder -> its bytes.
        paid_mc: Job -> award (hex) -> what the acceptance pays, millicredits.
        broken: Those that don't hold, one line each.
    """

    sides: dict[str, dict[str, bytes]] = field(default_factory=dict)
    paid_mc: dict[str, dict[str, int]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def read_receipts(mesh: SimMesh) -> Shelf:
    """Read and check the receipts on all disks."""
    shelf = Shelf()
    for member in mesh.members.values():
        for award, raw in member.disk.tables.get(RECEIPTS, {}).items():
            shelf.sides.setdefault(award, {})[member.name] = raw
    for award, held in shelf.sides.items():
        if len(set(held.values())) != 1:
            shelf.broken.append(f"{sorted(held)} hold different receipts of award {award[:12]}")
        for name, raw in held.items():
            try:
                accepted = _read_receipt(raw)
            except ProtocolError as exc:
                shelf.broken.append(f"{name}'s receipt of award {award[:12]}: {exc}")
                continue
            broker = mesh.name(accepted.h.issuer)
            if broker not in held:
                shelf.broken.append(
                    f"{sorted(held)} hold a receipt of {award[:12]} that the broker lacks"
                )
            shelf.paid_mc.setdefault(accepted.h.job, {})[award] = accepted.paid_mc
            break
    return shelf


def _read_receipt(raw: bytes) -> Acceptance:
    row = decode_as(raw, RECEIPT_ROW)
    return check_receipt(row.award, row.result, row.receipt, row.acceptance, network=NETWORK)[3]


def check_receipts(mesh: SimMesh, ending: Ending, shelf: Shelf | None = None) -> Iterator[str]:
    """Both sides hold the same receipts, one acceptance for each award, paid as charged."""
    if shelf is None:
        shelf = read_receipts(mesh)
        yield from shelf.broken
    paid_mc = sum(shelf.paid_mc.get(ending.job, {}).values())
    if paid_mc != ending.state.spent_mc:
        yield f"acceptances pay {paid_mc} mc, the job says {ending.state.spent_mc} mc"
    yield from _missing(mesh, ending, shelf.sides)
    yield from _charges(mesh, ending, shelf.sides)


def _charges(
    mesh: SimMesh, ending: Ending, sides: Mapping[str, Mapping[str, bytes]]
) -> Iterator[str]:
    """The journal charges each key once, with the acceptance that both sides hold."""
    log = mesh.members[ending.broker].disk.logs.get(f"job/{ending.job}", [])
    keys: set[str] = set()
    for body in log[1:]:
        fact = from_event(decode_event(body))
        if not isinstance(fact, Charged):
            continue
        accepted = read_message(fact.acceptance, Acceptance, network=NETWORK)
        held = sides.get(accepted.award.hex(), {}).get(ending.broker)
        if held is None or decode_as(held, RECEIPT_ROW).acceptance != fact.acceptance:
            yield f"the acceptance in the journal for {fact.unit} is not the one that is kept"
        if accepted.verdict != "rejected" and fact.key in keys:
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


def check_rest(mesh: SimMesh, book: CallBook) -> Iterator[str]:
    """Nobody works, nothing is reserved, and nothing escaped from anywhere."""
    yield from mesh.failures
    for peer, protocol, exc in mesh.world.network.handler_failures:
        yield f"{mesh.name(peer)}: {protocol} raised {exc!r}"
    for where, key in book.running:
        yield f"{where} still runs {key}"
    for member in mesh.members.values():
        if member.life is None:
            yield f"{member.name} is down"
            continue
        node = member.life.node
        if node.contractor.active:
            yield f"{member.name} holds {node.contractor.active} awards"
        if load := node.market.load():
            yield f"{member.name} believes in a load of {dict(load)}"
        for agent, spec in node.host.specs().items():
            if node.host.free(agent) != spec.concurrency_max:
                yield f"{member.name} has {node.host.free(agent)} slots for {agent} free"
