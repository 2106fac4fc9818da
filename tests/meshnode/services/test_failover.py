"""A job with standbys outlives its broker, whoever that is.

Real nodes in virtual time (a MockClock's).
"""

from typing import Any

import msgspec
import pytest
import trio

from meshnode.config import StandbyConfig
from meshnode.domain.provenance import verify_provenance
from meshnode.errors import NoStandbys
from meshnode.node import Node, Terms
from meshnode.services import shipping
from meshnode.services.journal_copies import copied, drop, grow, key_of, read_copies
from meshnode.services.seat import Seat
from protocol.charter import Epoch
from protocol.journal import Head, SegmentExport, chain_of, sign_head
from protocol.shipping import Ship
from simulations.mesh import CONFIG, NETWORK, SimMesh
from tests.meshnode.services.worlds import (
    TextAgent,
    answers_after,
    inputs,
    never,
    play,
    shouting,
    start,
    until,
)

WITH = msgspec.structs.replace(CONFIG, standby=StandbyConfig(enabled=True))
WORDS = [f"word {n}" for n in range(8)]


async def mesh_of(mesh: SimMesh, *agents: TextAgent) -> list[Node]:
    """The owner's node a, standbys c and d, and a worker for each agent: w0, w1 and so on."""
    workers = {f"w{n}": [agent] for n, agent in enumerate(agents)}
    (owner,) = await start(mesh, CONFIG, a=[])
    standbys = await start(mesh, WITH, c=[], d=[])
    others = await start(mesh, CONFIG, **workers)
    everyone = [owner, *standbys, *others]
    for one in everyone:
        await until(lambda one=one: len(one.known()) >= len(everyone) - 1)  # type: ignore[misc]
    return everyone


def terms(mesh: SimMesh, **fields: Any) -> Terms:
    return Terms(standbys=(mesh.peer("c"), mesh.peer("d")), **fields)


async def broker_of(mesh: SimMesh, job: str, *names: str) -> str:
    """Wait until one of those nodes goes on with the job; return its name."""
    found: list[str] = []

    def goes_on() -> bool:
        for name in names:
            if mesh.up(name):
                journal = mesh.node(name).broker._journals.get(job)
                if journal is not None and not journal.following:
                    found.append(name)
                    return True
        return False

    await until(goes_on, within_s=60.0)
    return found[0]


def test_a_job_with_standbys_completes_and_they_have_its_journal() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent(), TextAgent())
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        found = verify_provenance(await (await owner.journal(job)).export())
        assert found.brokers == (owner.peer,)
        await trio.sleep(5)
        for name in ("c", "d"):
            seats = mesh.node(name).successions._seats
            (seat,) = seats.all()
            assert seat.over
            copies = await mesh.node(name).successions._standbys.segments(seat.chartered.name)
            assert copies == (await owner.journal(job)).segments

    play(story)


def test_a_standby_finishes_what_a_dead_broker_began() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        mesh.crash("a")
        name = await broker_of(mesh, job, "c", "d")
        state = await mesh.node(name).wait(job)
        assert state.done is not None
        assert state.done.state == "completed", state.done
        made = await mesh.node(name).outputs(job)
        assert made == {"said": [word.upper() for word in WORDS]}
        calls = sorted(call for agent in agents for call in agent.calls)
        assert calls == sorted(WORDS), "nothing is done twice"
        found = verify_provenance(await (await mesh.node(name).journal(job)).export())
        assert found.brokers == (mesh.peer("a"), mesh.peer(name))

    play(story)


def test_the_owner_comes_back_and_has_what_a_standby_made_of_its_job() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        mesh.crash("a")
        name = await broker_of(mesh, job, "c", "d")
        await mesh.restart("a")
        state = await mesh.node("a").wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert await mesh.node("a").outputs(job) == {"said": [word.upper() for word in WORDS]}
        exports = [await (await mesh.node(n).journal(job)).export() for n in ("a", name)]
        assert exports[0] == exports[1]
        calls = sorted(call for agent in agents for call in agent.calls)
        assert calls == sorted(WORDS)

    play(story)


def test_a_handle_at_an_owner_that_was_cut_off_follows() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        rest = [mesh.peer(name) for name in mesh.members if name != "a"]
        mesh.world.network.partition([mesh.peer("a")], rest)
        await broker_of(mesh, job, "c", "d")
        mesh.world.network.partition()
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        assert (await owner.journal(job)).following
        assert await owner.outputs(job) == {"said": [word.upper() for word in WORDS]}
        calls = sorted(call for agent in agents for call in agent.calls)
        assert calls == sorted(WORDS)

    play(story)


def test_without_a_majority_a_job_stands_still_and_goes_on_when_it_is_back() -> None:
    async def story(mesh: SimMesh) -> None:
        agent = TextAgent(answers_after(2.0))
        owner, *_ = await mesh_of(mesh, agent)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(3)
        mesh.crash("c")
        mesh.crash("d")
        await trio.sleep(10)
        at = len((await owner.journal(job)).events())
        await trio.sleep(20)
        assert len((await owner.journal(job)).events()) == at, "nobody decides alone"
        await mesh.restart("c")
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"

    play(story)


def test_who_agrees_to_stand_by_is_asked_first() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent())
        w0 = mesh.peer("w0")  # whose owner doesn't want it
        unwilling = Terms(standbys=(w0, mesh.peer("c")))
        job = await owner.submit(shouting(), inputs("one"), unwilling)
        await owner.wait(job)  # c alone makes the majority
        mesh.crash("c")
        with pytest.raises(NoStandbys, match="1 of the job's 3 members"):
            await owner.submit(shouting(), inputs("one"), unwilling)
        with pytest.raises(NoStandbys, match="1 standbys"):
            await owner.submit(shouting(), inputs("one"), Terms(standbys=1))
        assert all(seat.over for seat in owner.successions._seats.all())

    play(story)


def test_standbys_are_chosen_among_those_that_offer_it() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent(never))
        job = await owner.submit(shouting(), inputs("one"), Terms(standbys=2))
        seat = owner.successions._seats.of_job(job)
        assert seat is not None
        assert set(seat.chartered.charter.standbys) == {mesh.peer("c"), mesh.peer("d")}
        with pytest.raises(NoStandbys, match="2 nodes are known"):
            await owner.submit(shouting(), inputs("one"), Terms(standbys=3))

    play(story)


async def with_another_story(mesh: SimMesh, name: str, *events: bytes) -> None:
    """Let a member have other events of the first segment, under its writer's signature."""
    node = mesh.node(name)
    standbys = node.successions._standbys
    (seat,) = node.successions._seats.all()
    charter = seat.chartered.name
    copy = await standbys._copy(charter)
    (segment,) = copy.segments
    kept = [*segment.events, *events] if events else segment.events[:-1]
    chain = chain_of(segment.header, kept)
    head = Head(job=seat.job, epoch=1, count=len(kept), chain=chain, at_ms=1)
    signed = sign_head(mesh.identity("a"), NETWORK, head)
    made = SegmentExport(segment.header, kept, signed)
    context = node.broker._context
    key = key_of(charter, 1)
    await drop(context, key)
    await context.store.commit(*grow(key, made, first=0))
    copy.become([made], key)


@pytest.mark.parametrize("events", [[], [b"one that nobody else has"]])
@pytest.mark.parametrize("part", [2, 256])
def test_a_member_that_has_another_story_is_told_the_brokers(
    events: list[bytes], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_EVENTS_MAX", part)

    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        mesh.crash("a")
        await with_another_story(mesh, "d", *events)
        assert await broker_of(mesh, job, "c", "d") == "c"
        state = await mesh.node("c").wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        await trio.sleep(3)
        (seat,) = mesh.node("d").successions._seats.all()
        copies = await mesh.node("d").successions._standbys.segments(seat.chartered.name)
        assert copies == (await mesh.node("c").journal(job)).segments
        on_disk = await read_copies(mesh.node("d").broker._context, seat.chartered.name)
        assert on_disk == copies

    play(story)


def test_an_owner_goes_on_from_its_own_journal_after_an_epoch_without_work() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(12.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        rest = [mesh.peer(name) for name in mesh.members if name != "a"]
        mesh.world.network.partition([mesh.peer("a")], rest)
        (seat,) = mesh.node("c").successions._seats.all()
        await until(lambda: seat.newest[0] == 2)
        mesh.crash("c")  # which has shipped nothing of its epoch
        mesh.world.network.partition()
        state = await owner.wait(job)
        assert state.done is not None
        assert state.done.state == "completed"
        proved = verify_provenance(await (await owner.journal(job)).export())
        assert proved.brokers in {(owner.peer, owner.peer), (owner.peer, mesh.peer("d"))}
        mesh.crash("a")
        again = await mesh.restart("a")
        assert await again.outputs(job) == {"said": [word.upper() for word in WORDS]}

    play(story)


def test_a_standby_forgets_when_the_charter_has_expired() -> None:
    async def story(mesh: SimMesh) -> None:
        owner, *_ = await mesh_of(mesh, TextAgent())
        job = await owner.submit(shouting(), inputs("one"), terms(mesh, deadline_s=60.0))
        await owner.wait(job)
        await trio.sleep(5)
        node = mesh.node("c")
        context, standbys = node.broker._context, node.successions._standbys
        await standbys.forget_old()
        assert await context.store.scan("seat")
        assert len(await copied(context)) == 1
        node.successions._seats._clock = mesh.world.clock(skew_ms=2 * 3_600_000)
        await standbys.forget_old()
        assert await context.store.scan("seat") == []
        assert await copied(context) == {}
        assert not [name for name in mesh.members["c"].disk.logs if name.startswith("copy/")]
        await trio.sleep(3_700)  # and it goes on looking
        assert mesh.up("c")

    play(story)


def test_a_broker_that_dies_while_a_standby_writes_leaves_it_able_to_go_on() -> None:
    async def story(mesh: SimMesh) -> None:
        agents = [TextAgent(answers_after(3.0)) for _ in range(2)]
        owner, *_ = await mesh_of(mesh, *agents)
        job = await owner.submit(shouting(8), inputs(*WORDS), terms(mesh))
        await trio.sleep(1.5)
        for name in ("c", "d"):  # whoever asks goes away while the disk writes
            node = mesh.node(name)
            (seat,) = node.successions._seats.all()
            copy = await node.successions._standbys._copy(seat.chartered.name)
            commit, cut = node.broker._context.store.commit, trio.CancelScope()

            async def cut_off(*writes: Any, commit: Any = commit, cut: Any = cut) -> None:
                with trio.CancelScope(shield=True):
                    await commit(*writes)
                cut.cancel()
                await trio.lowlevel.checkpoint()

            context = node.successions._standbys._context
            context.store.commit = cut_off  # type: ignore[method-assign]
            event = (await owner.journal(job)).segments[-1].events[-1]
            ship = signed_ship(mesh, seat, copy.segments[-1], event)
            with cut:
                won = Epoch(seat.chartered, 1, mesh.peer("a"))
                await node.successions._standbys._take(seat, copy, ship, won)
            context.store.commit = commit  # type: ignore[method-assign]
            assert await read_copies(context, seat.chartered.name) == copy.segments

    play(story)


def signed_ship(mesh: SimMesh, seat: Seat, segment: SegmentExport, event: bytes) -> Ship:
    """One event more, as the owner would ship it."""
    events = [*segment.events, event]
    chain = chain_of(segment.header, events)
    head = Head(job=seat.job, epoch=1, count=len(events), chain=chain, at_ms=1)
    signed = sign_head(mesh.identity("a"), NETWORK, head)
    return Ship(b"", segment.header, len(events) - 1, [event], signed, [], [])
