"""A neighbour that lies, floods or hangs up costs little and spoils nothing."""

from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from meshnode.config import DirectoryConfig
from meshnode.errors import Busy, MeshError
from meshnode.services.allowance import Allowance
from meshnode.services.sessions import Incoming, RequestFailed, Sessions
from protocol import limits
from protocol.catalogue import (
    DIGEST,
    PULL,
    PUSH,
    RECORDS_MAX,
    Pull,
    Push,
    summary,
)
from protocol.codec import encode
from protocol.errors import ErrorCode
from protocol.records import NodeRecord, sign_record
from simulations.clock import EPOCH_MS, SimClock
from tests.meshnode.services.mesh import (
    NETWORK,
    Mesh,
    capability,
    forged,
    identity,
    joined_mesh,
    open_mesh,
    signed,
)

CONFIG = DirectoryConfig(dht=False)


def push(*records: bytes) -> bytes:
    return encode(Push(records=list(records)))


async def stranger(mesh: Mesh, number: int = 66) -> Sessions:
    """Return the sessions of a peer that runs no directory service."""
    who = identity(number)

    def emit(name: str, **fields: object) -> None:
        """Hear nothing."""

    sessions = Sessions(
        mesh.network.transport(who.peer),
        network=NETWORK,
        clock=SimClock(),
        emit=emit,
        addresses=lambda peer: mesh.network.transport(peer).addresses(),
    )
    await mesh.nursery.start(sessions.run)
    return sessions


async def differ(incoming: Incoming) -> bytes:
    """Answer a digest with that of another catalogue, always."""
    return encode(summary({"x": 1}))


async def swallow(incoming: Incoming) -> bytes:
    """Answer a push."""
    return b""


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (forged(50), ErrorCode.BAD_SIGNATURE),
        (b"\xc4" * (limits.RECORD_SIZE_MAX + 1), ErrorCode.TOO_LARGE),
        (b"nonsense", ErrorCode.MALFORMED),
        (signed(50, network="other"), ErrorCode.WRONG_NETWORK),
    ],
)
async def test_a_record_that_breaks_the_rules_is_refused_counted_and_its_bringer_shunned(
    bad: bytes, code: ErrorCode, autojump_clock: MockClock
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 3, CONFIG)
        victim = nodes[1]
        liar = await stranger(mesh)
        with pytest.raises(RequestFailed) as told:
            await liar.request(victim.peer, PUSH, push(signed(51), bad), timeout_s=5)
        assert told.value.failure == code
        name = code.name.lower()
        assert victim.service.refused() == {name: 1}
        assert victim.count("directory.refused", code=name, source=liar.peer) == 1
        assert victim.count("directory.shunned", peer=liar.peer) == 1
        await trio.sleep(1)
        for node in nodes:
            assert identity(51).peer in node.known(), "what was good is kept and passed on"
            assert identity(50).peer not in node.known()
        for other in (nodes[0], nodes[2]):
            assert other.service.refused() == {}, "it went no further"
        with pytest.raises(Busy):
            await liar.request(victim.peer, PUSH, push(signed(52)), timeout_s=5)
        assert liar.peer not in victim.service.neighbours()


async def test_an_expired_record_is_refused_and_counted_but_nobodys_fault(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        late = await stranger(mesh)
        old = signed(50, issued_ms=EPOCH_MS - 10**7)
        await late.request(victim.peer, PUSH, push(old, signed(51)), timeout_s=5)
        assert victim.service.refused() == {"expired": 1}
        assert victim.known() == {victim.peer, identity(51).peer}
        assert victim.count("directory.shunned") == 0


async def test_a_capability_that_cannot_be_used_is_dropped_with_an_event(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (node,) = await joined_mesh(mesh, 1, CONFIG)
        other = await stranger(mesh)
        record = signed(50, schema=b'{"$ref": "http://elsewhere/"}')
        await other.request(node.peer, PUSH, push(record), timeout_s=5)
        assert [c.name for _, c in node.service.providers("x")] == ["x.fine@1"]
        assert not node.service.providers("odd")
        assert node.count("directory.capability_dropped", peer=identity(50).peer) == 1


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        (DIGEST, b"nonsense", ErrorCode.MALFORMED),
        (PULL, b"", ErrorCode.MALFORMED),
        (PULL, encode({"have": {"x": -1}}), ErrorCode.MALFORMED),
        (PUSH, b"\x80", ErrorCode.MALFORMED),
        (
            PUSH,
            encode({"more": False, "records": [b""] * (RECORDS_MAX + 1)}),
            ErrorCode.MALFORMED,
        ),
        (PUSH, push(*[b"x" * 51_000] * 4), ErrorCode.TOO_LARGE),
    ],
)
async def test_a_message_that_breaks_the_rules_blames_the_peer(
    method: str, body: bytes, code: ErrorCode, autojump_clock: MockClock
) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        liar = await stranger(mesh)
        with pytest.raises(RequestFailed) as told:
            await liar.request(victim.peer, method, body, timeout_s=5)
        assert told.value.failure == code
        assert victim.count("directory.shunned", peer=liar.peer) == 1
        assert victim.count("session.bug") == 0


async def test_a_flood_of_records_is_put_off_and_bounded(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        flooder = await stranger(mesh)
        for start in range(1000, 3000, RECORDS_MAX):
            crowd = push(*[signed(n) for n in range(start, start + RECORDS_MAX)])
            try:
                await flooder.request(victim.peer, PUSH, crowd, timeout_s=5)
            except Busy as exc:
                wait_s = exc.retry_after_ms / 1000
                break
        else:
            pytest.fail("nothing was put off")
        taken = len(victim.known())
        assert 512 <= taken <= 640
        # Who reconnects goes on with the same allowance.
        await flooder.drop(victim.peer)
        await trio.sleep(0.1)
        with pytest.raises(Busy):
            await flooder.request(victim.peer, PUSH, crowd, timeout_s=5)
        await trio.sleep(wait_s)
        await flooder.request(victim.peer, PUSH, crowd, timeout_s=5)
        assert len(victim.known()) == taken + RECORDS_MAX


async def test_questions_are_bounded_too(autojump_clock: MockClock) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        asker = await stranger(mesh)
        answered = 0
        for _ in range(1000):
            try:
                await asker.request(victim.peer, PULL, encode(Pull(have={})), timeout_s=5)
            except Busy:
                break
            answered += 1
        assert 128 <= answered <= 256


async def test_who_claims_to_know_more_is_asked_ever_more_rarely(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        liar = await stranger(mesh)
        pulled: list[float] = []

        async def lie(incoming: Incoming) -> bytes:
            pulled.append(trio.current_time())
            return encode(Push(records=[]))

        liar.handle(PULL, lie)
        liar.handle(DIGEST, differ)
        liar.handle(PUSH, swallow)
        for _ in range(300):
            await trio.sleep(1)
            claim = encode(Pull(have={identity(50).peer: 10**15}))
            await liar.request(victim.peer, PULL, claim, timeout_s=5)
        assert 3 <= len(pulled) <= 10
        honest = signed(50, issued_ms=SimClock().now_ms())
        await liar.request(victim.peer, PUSH, push(honest), timeout_s=5)
        assert identity(50).peer in victim.known(), "a claim hides nobody"


async def test_who_is_pulled_from_pulls_what_it_lacks_in_return(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (node,) = await joined_mesh(mesh, 1, CONFIG)
        other = await stranger(mesh)
        pulls = 0

        async def give(incoming: Incoming) -> bytes:
            nonlocal pulls
            pulls += 1
            return encode(Push(records=[signed(50)]))

        async def agree(incoming: Incoming) -> bytes:
            return incoming.body

        other.handle(PULL, give)
        other.handle(DIGEST, agree)
        other.handle(PUSH, swallow)
        await other.connect(node.peer)
        await trio.sleep(30)
        assert pulls == 0
        claim = encode(Pull(have={identity(50).peer: 1}))
        await other.request(node.peer, PULL, claim, timeout_s=5)
        await mesh.until(lambda: identity(50).peer in node.known(), within_s=1)
        await trio.sleep(1)
        assert pulls == 1


async def test_a_neighbour_that_is_busy_gets_the_news_later(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (node,) = await joined_mesh(mesh, 1, CONFIG)
        other = await stranger(mesh)
        got: list[float] = []

        async def busy_at_first(incoming: Incoming) -> bytes:
            got.append(trio.current_time())
            if len(got) < 3:
                raise Busy("it", retry_after_ms=2000)
            return b""

        async def agree(incoming: Incoming) -> bytes:
            return incoming.body

        other.handle(DIGEST, agree)
        other.handle(PUSH, busy_at_first)
        await other.connect(node.peer)
        await trio.sleep(60)
        assert len(got) == 3
        assert all(after - before >= 2 for before, after in pairwise(got))


async def test_an_answer_that_never_ends_or_repeats_itself_is_given_up(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (victim,) = await joined_mesh(mesh, 1, CONFIG)
        liar = await stranger(mesh)
        pulls = 0

        async def repeat(incoming: Incoming) -> bytes:
            nonlocal pulls
            pulls += 1
            return encode(Push(records=[signed(50)], more=True))

        liar.handle(PULL, repeat)
        liar.handle(DIGEST, differ)
        liar.handle(PUSH, swallow)
        await liar.connect(victim.peer)
        await trio.sleep(9)
        assert identity(50).peer in victim.known()
        assert 2 <= pulls <= 8


async def test_a_neighbour_that_answers_nothing_holds_nobody_up(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 6, CONFIG)
        frozen = nodes.pop()
        mesh.network.freeze(frozen.peer)
        nodes[0].offered.append(capability("text@1", agent="new"))
        nodes[0].service.changed()
        await mesh.until(lambda: all(n.service.providers("text") for n in nodes), within_s=1)
        await trio.sleep(30)
        assert all(frozen.peer not in node.service.neighbours() for node in nodes)
        mesh.network.thaw(frozen.peer)
        await mesh.until(lambda: bool(frozen.service.providers("text")), within_s=60)


async def test_a_peer_that_hangs_up_on_every_session_is_not_dialled_in_a_loop(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        (node,) = await joined_mesh(mesh, 1, CONFIG)
        rude = await stranger(mesh)
        rude.handle(PUSH, swallow)

        async def agree_and_hang_up(incoming: Incoming) -> bytes:
            mesh.nursery.start_soon(rude.drop, incoming.peer)
            return incoming.body

        rude.handle(DIGEST, agree_and_hang_up)
        record = NodeRecord(
            peer=rude.peer,
            sequence=1,
            issued_ms=EPOCH_MS,
            expires_ms=EPOCH_MS + 10**7,
            addresses=list(mesh.network.transport(rude.peer).addresses()),
            x25519=identity(66).x25519_public,
            capabilities=[],
        )
        bringer = await stranger(mesh, 67)
        envelope = sign_record(identity(66), NETWORK, record)
        await bringer.request(node.peer, PUSH, push(envelope), timeout_s=5)
        await trio.sleep(100)
        assert 2 <= node.count("session.opened", peer=rude.peer) <= 20


async def test_the_catalogue_goes_on_where_the_weather_breaks_connections(
    autojump_clock: MockClock,
) -> None:
    async with open_mesh() as mesh:
        nodes = await joined_mesh(mesh, 6, CONFIG)
        for round_number in range(20):
            for one, other in pairwise(nodes):
                mesh.network.break_link(one.peer, other.peer)
            changed = nodes[round_number % 6]
            changed.offered.append(
                capability(f"text.v{round_number}@1", agent=f"v{round_number}")
            )
            changed.service.changed()
            await trio.sleep(3)
        await mesh.until(
            lambda: all(len(node.service.providers("text")) == 20 for node in nodes),
            within_s=60,
        )
        assert all(node.count("session.bug") == 0 for node in nodes)


async def test_an_allowance_comes_back_with_time() -> None:
    allowance = Allowance("it", burst=10, per_s=2)
    allowance.take("a", 10, now_s=0.0)
    with pytest.raises(Busy) as told:
        allowance.take("a", 4, now_s=1.0)
    assert told.value.retry_after_ms == 1000
    allowance.take("b", 10, now_s=1.0)
    allowance.take("a", 4, now_s=2.0)
    allowance.sweep(now_s=2.0)
    with pytest.raises(Busy):
        allowance.take("a", 1, now_s=2.0)
    allowance.take("a", 30, now_s=100.0)
    with pytest.raises(MeshError):
        allowance.take("a", 1, now_s=105.0)
