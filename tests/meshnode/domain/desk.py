"""What a simulated broker signs: calls, awards with their tickets, and acceptances."""

import msgspec

from meshnode.domain.attempts import inputs_were_lost
from meshnode.domain.bindings import Holder, artifacts, bind
from meshnode.domain.facts import Awarded, Charged
from meshnode.domain.job import JobState
from meshnode.domain.step_kinds import Call, Charge, MakeAward
from meshnode.domain.units import charge_key
from protocol.keys import digest
from protocol.messages import Award, Budget, Cfp, Header, Ticket
from protocol.receipts import Acceptance
from protocol.records import CallLimits, Capability, Measured
from tests.meshnode.domain.contractors import Pen

SCHEMA = b"{}"
LEASE_MS = 30_000


def declared(name: str, **fields: object) -> Capability:
    """A capability as a record declares it."""
    made: dict[str, object] = {
        "agent": "agent",
        "name": name,
        "description": "",
        "examples": [],
        "input_schema": SCHEMA,
        "output_schema": SCHEMA,
        "price_mc": 0,
        "limits": CallLimits(concurrency=1, timeout_ms=1, input_bytes=1, output_bytes=1),
        "measured": Measured(),
    }
    return Capability(**{**made, **fields})  # type: ignore[arg-type]  # its fields


class Desk:
    """Signs in the broker's name."""

    def __init__(self, pen: Pen) -> None:
        self.pen = pen
        self.broker = pen.identity.peer

    def cfps(self, state: JobState, step: Call, now_ms: int) -> dict[str, bytes]:
        """A CFP for each candidate."""
        unit = state.units[step.unit]
        cfps: dict[str, bytes] = {}
        for candidate in step.candidates:
            cfp = Cfp(
                h=self.about(state, candidate.peer, step.unit, now_ms),
                capability=candidate.capability,
                items=unit.calls,
                input_bytes=0,
                timeout_ms=1,
                price_max_mc=0,
            )
            cfps[candidate.peer] = self.pen.sign(cfp)
        return cfps

    def award(self, state: JobState, step: MakeAward, now_ms: int) -> Awarded:
        """The fact of a signed award."""
        unit = state.units[step.unit]
        task = state.tasks[unit.subtask]
        candidate, current = step.candidate, unit.attempt(step.attempt)
        bindings = bind(state, unit, Holder(self.broker, only=inputs_were_lost(unit)))
        cfp = current.called.get(candidate.peer, b"") if current else b""
        wanted = {
            source.pointer
            for other in state.tasks.values()
            for name in other.each
            if (source := other.inputs[name]).kind == "task" and source.name == task.id
        }
        h = self.about(state, candidate.peer, step.unit, now_ms)
        # Drawn by chance where answers are compared; any that is new does here.
        replica = 1_000 + step.attempt if state.required_plan.theta_ppm else 0
        h = msgspec.structs.replace(h, replica=replica)
        award = Award(
            h=msgspec.structs.replace(
                h, budget=Budget(subtasks=step.subtasks, tokens=step.tokens)
            ),
            cfp=digest(cfp) if cfp else b"",
            proposal=digest(step.proposal),
            agent=candidate.agent,
            capability=candidate.capability,
            inputs=bindings,
            each=list(task.each),
            items=unit.calls,
            price_cap_mc=step.price_cap_mc,
            timeout_ms=60_000,
            lease_ms=LEASE_MS,
            lengths=[] if task.each else sorted(wanted),
            tickets=[
                self.pen.sign(
                    Ticket(
                        h=self.about(state, candidate.peer, step.unit, now_ms),
                        artifact=name,
                        holder=p.holder,
                    )
                )
                for name, p in sorted(artifacts(bindings).items())
                if p.holder != candidate.peer
            ],
            wait_max_ms=step.wait_max_ms,
        )
        return Awarded(
            unit=step.unit,
            attempt=step.attempt,
            peer=candidate.peer,
            agent=candidate.agent,
            award=self.pen.sign(award),
            proposal=step.proposal,
            schema=digest(SCHEMA),
            price_cap_mc=step.price_cap_mc,
            lease_ms=LEASE_MS,
            ranked=list(step.ranked),
            considered=step.considered,
            hedge=step.hedge,
            subtasks=step.subtasks,
            tokens=step.tokens,
            replica=replica,
            wait_max_ms=step.wait_max_ms,
        )

    def charge(self, state: JobState, step: Charge, now_ms: int) -> Charged:
        """The fact of the broker's half of the receipt."""
        name = step.unit
        attempt = state.units[name].attempts[step.attempt]
        delivered, found = attempt.delivered, attempt.verdict
        assert delivered is not None
        assert found is not None
        paid_mc = 0 if found.verdict == "rejected" else delivered.price_mc
        h = self.about(state, attempt.peer, name, now_ms)
        acceptance = Acceptance(
            h=msgspec.structs.replace(h, replica=attempt.replica),
            award=digest(attempt.award),
            receipt=digest(delivered.receipt),
            verdict=found.verdict,
            check=found.check,
            paid_mc=paid_mc,
        )
        return Charged(
            key=charge_key(state.job, name, attempt.replica),
            unit=name,
            attempt=attempt.number,
            paid_mc=paid_mc,
            acceptance=self.pen.sign(acceptance),
        )

    def about(self, state: JobState, audience: str, unit: str, now_ms: int) -> Header:
        """A header of this job."""
        return self.pen.header(
            audience,
            now_ms,
            job=state.job,
            subtask=unit,
            deadline_ms=state.required_plan.deadline_ms,
            idempotency_key=f"{state.job}/{unit}",
            epoch=state.elected.epoch if state.elected else 0,
            charter=state.elected.charter if state.elected else b"",
        )
