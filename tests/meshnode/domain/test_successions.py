"""A journal of several brokers proves as much as that of one, and who they were."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain.elections import CHANGED
from meshnode.domain.facts import Elected, from_event, to_event
from meshnode.domain.provenance import verify_provenance
from protocol.errors import RemoteProtocolError
from protocol.journal import decode_event, encode_event, export
from protocol.keys import digest
from tests.meshnode.domain.contractors import Pen
from tests.meshnode.domain.exports import signed_segment
from tests.meshnode.domain.random_graphs import evaluate
from tests.meshnode.domain.random_runs import random_run
from tests.meshnode.domain.reviews import finished_run
from tests.meshnode.domain.successions import Succession, certificate


def succession(seed: int, *, every: int) -> Succession:
    """A random job whose broker is killed after every so many events."""
    run, _, _ = random_run(seed)
    handed_on = Succession(run)
    handed_on.kill_after = lambda count: count % every == 0
    handed_on.run()
    return handed_on


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((5, 13, 29)))
def test_whoever_goes_on_with_a_job_its_journal_holds(seed: int, every: int) -> None:
    run, graph, inputs = random_run(seed)
    handed_on = Succession(run)
    handed_on.kill_after = lambda count: count % every == 0
    state = handed_on.run()
    found = verify_provenance(handed_on.export())
    assert found.brokers == tuple(pen.identity.peer for _, pen, _ in handed_on.segments)
    assert found.cost_mc == state.spent_mc
    assert state.done is not None
    if state.done.state == "completed":
        made = {name: handed_on.outputs()[name] for name in graph.outputs}
        assert made == evaluate(graph, inputs)


@pytest.fixture(scope="module")
def handed_on() -> Succession:
    """A job of at least three brokers, with calls that a change of hands cut off."""
    for seed in range(100):
        made = succession(seed, every=7)
        closed = [from_event(decode_event(body)) for body in made.events]
        if len(made.segments) > 2 and any(
            getattr(fact, "code", "") == CHANGED for fact in closed
        ):
            return made
    raise AssertionError("no such job")


def refused(made: Succession, match: str, **changes: object) -> None:
    """See that ``made`` with its second broker's election changed is refused."""
    events, first = list(made.events), made.segments[1][2]
    event = decode_event(events[first])
    fact = from_event(event)
    assert isinstance(fact, Elected)
    wrong = msgspec.structs.replace(fact, **changes)
    made.events[first] = encode_event(to_event(wrong, seq=event.seq, at_ms=event.at_ms))
    try:
        with pytest.raises(RemoteProtocolError, match=match):
            verify_provenance(made.export())
    finally:
        made.events = events


def test_a_broker_without_a_majority_is_none(handed_on: Succession) -> None:
    verify_provenance(handed_on.export())
    epoch, pen, _ = handed_on.segments[1]
    alone = certificate(handed_on.charter, handed_on.chartered, epoch, [pen])
    refused(handed_on, "majority", certificate=alone)


def test_a_certificate_is_for_its_own_epoch_and_broker(handed_on: Succession) -> None:
    (first, owner, _), (second, pen, _), *_ = handed_on.segments
    charter, chartered = handed_on.charter, handed_on.chartered
    of_first = certificate(charter, chartered, first, [owner, pen])
    refused(handed_on, "another epoch, broker", certificate=of_first)
    of_owner = certificate(charter, chartered, second, [owner, pen])
    refused(handed_on, "another epoch, broker", certificate=of_owner)
    refused(handed_on, "another epoch, broker", broker=owner.identity.peer)


def test_who_was_not_elected_does_nothing(handed_on: Succession) -> None:
    parts = handed_on.parts()
    first = handed_on.segments[1][2]
    kept = handed_on.events
    handed_on.events = [*kept[:first], *kept[first + 1 :]]
    renumbered = [
        encode_event(msgspec.structs.replace(decode_event(body), seq=seq))
        for seq, body in enumerate(handed_on.events)
    ]
    handed_on.events = renumbered
    before = handed_on.segments
    handed_on.segments = [
        (epoch, pen, at if at <= first else at - 1) for epoch, pen, at in before
    ]
    try:
        with pytest.raises(RemoteProtocolError, match=r"not elected|for another"):
            verify_provenance(handed_on.export())
    finally:
        handed_on.events, handed_on.segments = kept, before
    assert handed_on.parts() == parts


def test_a_job_without_a_charter_has_one_writer() -> None:
    run = finished_run()
    middle = len(run.events) // 2
    whys = {"broker": "accepted by another", "standby 1": "isn't its writer's"}
    for other, why in whys.items():
        first = signed_segment(run.pen, run.job, run.events[:middle])
        rest = signed_segment(
            Pen(other),
            run.job,
            run.events[middle:],
            "completed",
            epoch=1,
            parent=digest(first.head),
        )
        with pytest.raises(RemoteProtocolError, match=why):
            verify_provenance(export([first, rest]))
