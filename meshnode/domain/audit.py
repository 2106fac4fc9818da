"""One walk over a finished job's journal: fold an event, then hold it against the rest.

The checks of :mod:`meshnode.domain.provenance`, one method for each kind of event.
Each raises with what is wrong; which event it was, the caller knows.
"""

from typing import TypeVar

from meshnode.domain.audit_terms import Bound, result_beyond, result_says, says
from meshnode.domain.bindings import (
    Holder,
    artifacts,
    bind,
    is_inlined,
    list_length,
    slice_input,
)
from meshnode.domain.bounds import award_trouble
from meshnode.domain.elections import check_elected
from meshnode.domain.facts import (
    Awarded,
    Called,
    Charged,
    Delivered,
    Done,
    Elected,
    Expanded,
    Failed,
    Judged,
    Planned,
    Proposed,
    Replanned,
    Verified,
    from_event,
)
from meshnode.domain.hedges import hedges_max
from meshnode.domain.job import JobState
from meshnode.domain.replicas import check_judged
from meshnode.domain.units import CROWDED, SINGLE, Attempt, Unit, charge_key
from meshnode.domain.values import canonical, parse, pick
from protocol.errors import BadSignature, Malformed, WrongAudience
from protocol.graph import Source, SubTask
from protocol.journal import Event, Head, Segment
from protocol.keys import digest
from protocol.messages import (
    HASH_SIZE,
    Award,
    Cfp,
    Header,
    Message,
    Proposal,
    Result,
    StandingOffer,
    Ticket,
    read_message,
)
from protocol.receipts import Receipt, check_receipt
from protocol.records import CapabilityName

M = TypeVar("M", bound=Message)


class Audit:
    """The fold of a journal, and what was read on the way.

    Attributes:
        segment: Header of the segment that events are taken from now.
        state: The fold.
        awards: Unit and attempt -> the award and the terms that it binds.
        envelopes: Hashes of the signed messages whose signature was checked.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.state = JobState(segment.job)
        self.awards: dict[tuple[str, int], tuple[Award, Bound | None]] = {}
        self.envelopes: set[bytes] = set()
        self._message_ids: dict[tuple[str, bytes], bytes] = {}

    def go_on(self, segment: Segment) -> None:
        """Take what follows from a later ``segment``.

        Raises:
            Malformed: Nothing says that its writer may go on with the job.
        """
        _need(
            segment.charter == self.segment.charter
            and (bool(segment.charter) or segment.writer == self.segment.writer),
            "a segment goes on with a job that isn't its writer's",
        )
        self.segment = segment

    def take(self, event: Event) -> None:  # noqa: C901, PLR0912 - one arm for each kind
        """Fold ``event`` and check it.

        Raises:
            RemoteProtocolError: It doesn't fit; says how.
            InputInvalid: A value in it isn't what it should be.
        """
        self.state.apply(event)
        fact = from_event(event)
        if self.segment.charter and isinstance(fact, Replanned | Called | Awarded | Charged):
            elected = self.state.elected
            _need(
                elected is not None and elected.epoch == self.segment.epoch,
                "it is under a charter, and its broker was not elected",
            )
        match fact:
            case Planned():
                self._planned(fact)
            case Elected():
                check_elected(fact, self.segment, self.state.required_plan, at_ms=event.at_ms)
            case Replanned():
                self._replanned(fact)
            case Expanded():
                self._expanded(fact)
            case Called():
                self._called(fact)
            case Proposed():
                self._proposed(fact)
            case Awarded():
                self._awarded(fact)
            case Delivered():
                self._delivered(fact)
            case Verified():
                self._verified(fact)
            case Judged():
                check_judged(self.state, fact)
            case Charged():
                self._charged(fact)
            case Failed():
                self._failed(fact)
            case Done():
                self._done(fact)
            case _:
                pass  # progress, refusals and cancellations stand for themselves

    # --- the plan ---

    def _planned(self, fact: Planned) -> None:
        _need(fact.epoch == self.segment.epoch, "the plan is of another epoch")
        if not self.segment.charter:
            _need(
                fact.owner == self.segment.writer, "without a charter the owner is the broker"
            )
        _need(fact.budget_mc >= 0, "a negative budget")
        for task in self.state.tasks.values():
            for name, source in task.inputs.items():
                _need(
                    source.kind != "input" or source.name in fact.inputs,
                    f"sub-task {task.id}: {name} draws from an input that the job has not",
                )

    def _replanned(self, fact: Replanned) -> None:
        """The fold has refused a bad patch; what is left is whether there was a reason."""
        self._need_producers(self.state.tasks[fact.subtask])
        _need(bool(fact.code), "it doesn't say why")

    def _expanded(self, fact: Expanded) -> None:
        task = self.state.tasks[fact.subtask]
        self._need_producers(task)
        again = self.state.required_plan.again.get(fact.subtask)
        _need(again is None or again.sizes == fact.sizes, "it was cut otherwise before")
        if task.each:
            _need(all(size >= 1 for size in fact.sizes), "an empty batch")
            lengths = {list_length(self.state, task, name) for name in task.each}
            _need(
                lengths == {sum(fact.sizes)},
                f"batches of {sum(fact.sizes)} items for lists of {sorted(map(str, lengths))}",
            )
        else:
            _need(fact.sizes == [SINGLE], "a single call has one batch")
        for name, source in task.inputs.items():
            refs = fact.slices.get(name)
            if refs is not None:
                _need(len(refs) == len(fact.sizes), f"{name}: a slice for each batch")
                self._check_slices(task, name, source, fact)
            elif fact.sizes:
                _need(source.kind != "input", f"{name}: the job's input is not cut")
        _need(set(fact.slices) <= set(task.inputs), "a slice of what is not an input")

    def _check_slices(self, task: SubTask, name: str, source: Source, fact: Expanded) -> None:
        """Hold slices against what they were cut from, where its bytes or hash are known."""
        refs = fact.slices[name]
        _need(source.kind != "task", f"{name}: outputs are not cut by the broker")
        if source.kind == "value":
            cut = slice_input(
                parse(source.value), source, tuple(fact.sizes), mapped=name in task.each
            )
            own = [digest(canonical(piece)) for piece in cut]
            _need([ref.artifact for ref in refs] == own, f"{name}: another constant")
        elif name not in task.each:
            _need(
                len({ref.artifact for ref in refs}) <= 1, f"{name}: batches get different ones"
            )
            if not source.pointer and refs:
                whole = self.state.required_plan.inputs[source.name]
                _need(refs[0].artifact == whole.artifact, f"{name}: another job input")

    # --- contracts ---

    def _called(self, fact: Called) -> None:
        unit = self.state.units[fact.unit]
        task = self.state.tasks[unit.subtask]
        for peer, envelope in fact.cfps.items():
            cfp = self._read(envelope, Cfp, self.segment.writer, peer)
            self._need_work(cfp, unit)
            _need(
                _answers(task.capability, cfp.capability) and cfp.items == unit.calls,
                "the CFP asks for other work than the graph",
            )

    def _proposed(self, fact: Proposed) -> None:
        proposal = self._read(fact.proposal, Proposal, fact.peer, self.segment.writer)
        cfp = self._attempt(fact.unit, fact.attempt).called[fact.peer]
        self._need_work(proposal, self.state.units[fact.unit])
        _need(proposal.cfp == digest(cfp), "the proposal answers another CFP")
        said = (proposal.agent, proposal.capability, proposal.price_mc, proposal.eta_ms)
        noted = (fact.agent, fact.capability, fact.price_mc, fact.eta_ms)
        _need(said == noted, "the proposal says something else than the event")

    def _awarded(self, fact: Awarded) -> None:
        unit = self.state.units[fact.unit]
        attempt = unit.attempts[fact.attempt]
        if fact.hedge:
            most = hedges_max(self.state)
            _need(self.state.hedges <= most, f"more hedges than {most}")
        only = self.state.required_plan.only
        named = not only or f"{fact.peer}/{fact.agent}" in only
        _need(named, "the award is for another agent than the plan names")
        task = self.state.tasks[unit.subtask]
        self._need_producers(task)
        award = self._read(fact.award, Award, self.segment.writer, fact.peer)
        self._need_work(award, unit)
        terms = self._terms(fact, attempt, award)
        _need(
            (fact.agent, fact.price_cap_mc, fact.lease_ms, fact.replica, fact.wait_max_ms)
            == (
                award.agent,
                award.price_cap_mc,
                award.lease_ms,
                award.h.replica,
                award.wait_max_ms,
            ),
            "the award says something else than the event",
        )
        asked = (award.agent, award.capability)
        _need(
            terms is None or asked == (terms.agent, terms.capability),
            "the award is for another agent or capability than was offered",
        )
        _need(
            _answers(task.capability, award.capability),
            f"{award.capability} does not answer the graph's {task.capability}",
        )
        _need(
            (award.items, award.each) == (unit.calls, task.each),
            "the award has other items than the batch",
        )
        dear = terms is not None and award.price_cap_mc < terms.price_mc * award.items
        _need(not dear, "the cap is below the price")
        plan = self.state.required_plan
        _need(award.h.deadline_ms <= plan.deadline_ms, "it runs past the job's deadline")
        _need(len(fact.schema) == HASH_SIZE, "no hash of an output schema")
        self._check_ranked(fact)
        reserved_mc = self.state.reserved_mc()
        _need(
            self.state.spent_mc + reserved_mc <= plan.budget_mc,
            f"{self.state.spent_mc} mc spent and {reserved_mc} mc promised are more than the"
            f" budget of {plan.budget_mc} mc",
        )
        trouble = award_trouble(self.state, fact, award)
        _need(not trouble, trouble)
        self._check_bindings(unit, award)
        self.awards[fact.unit, fact.attempt] = (award, terms)

    def _check_ranked(self, fact: Awarded) -> None:
        """Hold the decision against what it says that it was made by."""
        if not fact.ranked:
            return
        _need(fact.ranked[0].peer == fact.peer, "another candidate than the first was taken")
        _need(
            not fact.considered or fact.considered >= len(fact.ranked),
            "more candidates are ranked than were considered",
        )
        for row in fact.ranked:
            _need(
                row.parts_ms in {0, row.finish_ms},
                f"the times of {row.peer[:60]} don't add up",
            )

    def _terms(self, fact: Awarded, attempt: Attempt, award: Award) -> Bound | None:
        """Return the proposal or standing offer that ``award`` binds; an order binds none."""
        broker = self.segment.writer
        if attempt.by_letter:
            _need(not (fact.proposal or fact.hedge or award.cfp), "an order binds an offer")
            return None
        _need(award.proposal == digest(fact.proposal), "the award binds another proposal")
        if not attempt.called:
            _need(not award.cfp, "the award names a CFP that was never sent")
            offer = self._read(fact.proposal, StandingOffer, fact.peer, broker)
            _need(award.items <= offer.items_max, "more items than the offer allows")
            return offer
        _need(award.cfp == digest(attempt.called[fact.peer]), "the award binds another CFP")
        made = attempt.proposals[fact.peer].proposal
        _need(made == fact.proposal, "the award binds a proposal that was not made")
        proposal = self._read(fact.proposal, Proposal, fact.peer, broker)
        _need(award.items <= proposal.items, "more items than the proposal covers")
        return proposal

    def _check_bindings(self, unit: Unit, award: Award) -> None:
        """Each input must be what the graph's producers made, byte for byte."""
        broker = self.segment.writer
        direct = bind(self.state, unit, Holder(broker))
        copies = bind(self.state, unit, Holder(broker, only=True))
        _need(set(award.inputs) == set(direct), "the award has other inputs than the graph")
        for name, binding in award.inputs.items():
            _need(
                is_inlined(binding, direct[name]) or is_inlined(binding, copies[name]),
                f"input {name!r} is not what the graph's producer made",
            )
        wanted = artifacts(award.inputs)
        for envelope in award.tickets:
            ticket = self._read(envelope, Ticket, broker, award.h.audience)
            part = wanted.get(ticket.artifact)
            _need(
                part is not None
                and part.holder == ticket.holder
                and ticket.h.job == self.state.job,
                "a ticket for what is not among the inputs",
            )

    def _delivered(self, fact: Delivered) -> None:
        unit = self.state.units[fact.unit]
        award, terms = self.awards[fact.unit, fact.attempt]
        envelope = unit.attempts[fact.attempt].award
        broker, contractor = award.h.issuer, award.h.audience
        result = self._read(fact.result, Result, contractor, broker)
        receipt = self._read(fact.receipt, Receipt, contractor, broker)
        self._need_work(result, unit, like=award.h)
        self._need_work(receipt, unit, like=award.h)
        _need(
            {result.award, receipt.award} == {digest(envelope)}, "they are about another award"
        )
        _need(receipt.result == digest(fact.result), "the receipt is about another result")
        _need(result.state == "completed", "the work was not completed")
        _need(
            says(fact) == result_says(award, result, receipt),
            "the result says something else than the event",
        )
        _need(set(award.lengths) <= set(result.lengths), "lengths that were asked are missing")
        trouble = result_beyond(award, terms, result, receipt)
        _need(not trouble, trouble)

    def _failed(self, fact: Failed) -> None:
        attempt = self._attempt(fact.unit, fact.attempt)
        _need(fact.peer in {"", attempt.peer}, "it blames another peer")
        could_wait = fact.code == CROWDED and not attempt.wait_max_ms
        _need(not could_wait, "it might have waited for any time")

    def _verified(self, fact: Verified) -> None:
        task = self.state.tasks[self.state.units[fact.unit].subtask]
        if fact.verdict == "verified":
            named = {check.kind for check in task.checks}
            _need(
                bool(fact.check) and set(fact.check.split("+")) <= named,
                f"verified by {fact.check[:60]!r}, which the graph doesn't name",
            )

    def _charged(self, fact: Charged) -> None:
        attempt = self._attempt(fact.unit, fact.attempt)
        delivered, found = attempt.delivered, attempt.verdict
        if delivered is None or found is None:
            raise Malformed("nothing was delivered or checked")
        award, _, _, accepted = check_receipt(
            attempt.award,
            delivered.result,
            delivered.receipt,
            fact.acceptance,
            network=self.segment.network,
        )
        self._note(fact.acceptance, accepted)
        _need(
            accepted.h.issuer == self.segment.writer
            and (accepted.h.epoch, accepted.h.charter) == self._epoch(),
            "it was accepted by another than the segment's broker",
        )
        _need(
            (accepted.verdict, accepted.check) == (found.verdict, found.check),
            "the acceptance has another verdict than the check",
        )
        _need(accepted.paid_mc == fact.paid_mc, "the event charges something else")
        key = charge_key(self.state.job, fact.unit, award.h.replica)
        _need(fact.key == key, f"charged as {fact.key[:80]!r} and not as {key!r}")

    # --- the end ---

    def _done(self, fact: Done) -> None:
        graph = self.state.graph
        if graph is None:
            raise Malformed("there is no plan")
        left = [unit.name for unit, _ in self.state.open_attempts()]
        _need(not left, f"it ends while {', '.join(left[:3])} go on")
        if fact.state != "completed":
            _need(self.state.cancelled is not None, "it ends early without a reason")
            return
        unfinished = [name for name in self.state.tasks if not self.state.finished(name)]
        _need(not unfinished, f"completed without {', '.join(unfinished[:3])}")
        _need(set(fact.outputs) == set(graph.outputs), "other outputs than the graph's")
        for name, source in graph.outputs.items():
            known = self._output_known(source)
            _need(
                known in {b"", fact.outputs[name].artifact},
                f"output {name!r} is not what the graph says",
            )

    def _output_known(self, source: Source) -> bytes:
        """Return the hash that an output must have, or nothing if only its bytes tell."""
        if source.kind == "value":
            return digest(canonical(pick(parse(source.value), source.pointer)))
        if source.pointer:
            return b""
        if source.kind == "input":
            ref = self.state.required_plan.inputs.get(source.name)
            return ref.artifact if ref else b""
        if self.state.tasks[source.name].each:
            return b""
        return self.state.outputs(source.name)[0][1].output

    def end(self, head: Head) -> None:
        """Hold the fold's end against the terminal head."""
        done = self.state.done
        if done is None:
            raise Malformed("the last event is not the job's end")
        if done.state != head.state:
            raise Malformed(
                f"event {self.state.seq - 1} (done): the job is {done.state}, and its head"
                f" signs {head.state}"
            )

    # --- reading ---

    def _epoch(self) -> tuple[int, bytes]:
        return self.segment.epoch, self.segment.charter

    def _attempt(self, unit: str, number: int) -> Attempt:
        return self.state.units[unit].attempts[number]

    def _read(self, envelope: bytes, kind: type[M], issuer: str, audience: str) -> M:
        """Return the message in ``envelope``, which must go from ``issuer`` to ``audience``."""
        message = read_message(envelope, kind, network=self.segment.network)
        if message.h.issuer != issuer:
            raise BadSignature(f"this {kind.TYPE} is signed by another than {issuer[:60]}")
        if message.h.audience != audience:
            raise WrongAudience(f"this {kind.TYPE} is for another than {audience[:60]}")
        self._note(envelope, message)
        return message

    def _note(self, envelope: bytes, message: Message) -> None:
        """Count a signature, and refuse one message id for two messages."""
        name = digest(envelope)
        self.envelopes.add(name)
        first = self._message_ids.setdefault((message.h.issuer, message.h.id), name)
        _need(first == name, f"two messages of {message.h.issuer} have one id")

    def _need_work(self, message: Message, unit: Unit, *, like: Header | None = None) -> None:
        """``message`` must be about ``unit``, by this segment's broker or in answer to it."""
        h = message.h
        epoch = (like.epoch, like.charter) if like else self._epoch()
        _need(
            (h.job, h.subtask) == (self.state.job, unit.name),
            f"this {message.TYPE} is about {h.job[:40]}, {h.subtask[:60]}",
        )
        _need(
            (h.epoch, h.charter) == epoch,
            f"this {message.TYPE} is of another epoch or charter",
        )

    def _need_producers(self, task: SubTask) -> None:
        for source in task.inputs.values():
            _need(
                source.kind != "task" or self.state.finished(source.name),
                f"{source.name} is not finished",
            )


def _answers(query: str, name: str) -> bool:
    return CapabilityName.parse(query).covers(CapabilityName.parse(name))


def _need(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not holds:
        raise Malformed(otherwise)
