"""``jobs events`` tells each event in a line for people."""

import json

from trio.testing import MockClock

from meshnode.cli.job_lines import _TOLD, event_line
from meshnode.domain.facts import KINDS, Elected, to_event
from meshnode.gateway.api_views import event_view
from tests.meshnode.gateway.api_nodes import open_desk


def test_every_kind_of_event_is_a_line_of_its_own() -> None:
    assert set(_TOLD) == set(KINDS)


async def test_a_real_job_is_told_in_lines(autojump_clock: MockClock) -> None:
    async with open_desk() as desk:
        job = await desk.submit()
        await desk.ended(job)
        told = (await desk.http.get(f"/api/jobs/{job}/events")).text.splitlines()
        who: dict[tuple[str, int], str] = {}
        lines = [event_line(json.loads(line), who) for line in told]
        explained = (await desk.http.get(f"/api/jobs/{job}/explain")).json()
    assert "planned: shout: 2 sub-tasks, at most 1000000 mc" in lines[0]
    assert lines[-1].endswith("the job completed")
    assert [int(line.split()[1]) for line in lines] == [*range(len(lines))]
    text = "\n".join(lines)
    assert f"upper/0            {desk.worker.peer[-8:]} is given it, for at most" in text
    assert f"upper/0            {desk.worker.peer[-8:]} paid " in text
    assert "ready: one call" in text
    assert explained["state"] == "completed"
    assert explained["spent_mc"] == 7
    words = " ".join(line for section in explained["words"] for line in section["lines"])
    assert f"Job {job} (shout) completed" in words
    assert f"done by {desk.worker.peer[-8:]}'s upper for" in words


def test_what_peers_wrote_obeys_nobody_and_telemetry_has_no_number() -> None:
    failed = {
        "seq": 3, "at_ms": 1_000, "kind": "failed", "unit": "a/0", "attempt": 1,
        "peer": "x" * 20, "code": "agent.failed", "text": "\x1b[2Jgone\nfor good",
        "blame": "peer",
    }  # fmt: skip
    line = event_line(failed)
    assert "\x1b" not in line
    assert "\n" not in line
    assert line.startswith("00:00:01.000     3  a/0 ")
    assert line.endswith("another is preferred from then on (attempt 2)")
    held = {"progress": {"at_ms": 0, "event": "job.held_up", "fields": {"why": "disk full"}}}
    assert event_line(held).split() == ["00:00:00.000", "job.held_up:", "disk", "full"]


def test_an_election_names_the_broker() -> None:
    peer = "12D3KooWLSZa9aH2u7PQZFxXtBy8cJP3P1knDWmYZNw9YYP6KZTW"
    fact = Elected(epoch=2, broker=peer, charter=b"c", certificate=b"d")
    view = event_view(to_event(fact, seq=3, at_ms=0))
    assert event_line(view).endswith(f"{peer[-8:]} is the job's broker, epoch 2")


def test_of_two_that_do_the_same_each_event_names_its_own() -> None:
    base = {"seq": 1, "at_ms": 0, "unit": "a/0", "agent": "x", "price_cap_mc": 5}
    who: dict[tuple[str, int], str] = {}
    for attempt, peer in enumerate(("quick", "slow")):
        event_line({**base, "kind": "awarded", "attempt": attempt, "peer": peer}, who)
    line = {**base, "kind": "delivered", "size": 1, "price_mc": 5, "run_ms": 1}
    assert "quick" in event_line({**line, "attempt": 0}, who)
    assert "slow" in event_line({**line, "attempt": 1}, who)
