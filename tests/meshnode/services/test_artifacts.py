"""Artifacts between three nodes: who may read what, and what is believed.

Node a made the artifact for a job that node c brokers, node b wants to read it.
In virtual time (a MockClock's).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import pytest
import trio

from meshnode.errors import ArtifactError, Busy, StoreError
from meshnode.node import Node
from meshnode.ports import Stream
from meshnode.services.artifacts import Wanted
from meshnode.services.signer import Topic
from protocol import limits
from protocol.artifacts import PROTOCOL, Fetch, Found, encode_message
from protocol.keys import digest
from protocol.limits import CHUNK_SIZE
from simulations.mesh import CONFIG, SimMesh
from tests.meshnode.services.worlds import play, start, told

#: Over a chunk, and not a multiple of one.
DATA = bytes(range(256)) * 3_000
NAME = digest(DATA)
#: Longer than a ticket's.
LIFETIME_S = 500


@dataclass
class Scene:
    mesh: SimMesh
    maker: Node
    reader: Node
    broker: Node

    def ticket(
        self,
        *,
        signer: Node | None = None,
        artifact: bytes = NAME,
        holder: Node | None = None,
        reader: Node | None = None,
        job: str = "job",
    ) -> bytes:
        return (signer or self.broker).artifacts.ticket(
            artifact,
            holder=(holder or self.maker).peer,
            reader=(reader or self.reader).peer,
            topic=Topic(job=job),
        )

    async def fetch(self, ticket: bytes, *, by: Node | None = None) -> bytes:
        wanted = Wanted(NAME, len(DATA), self.maker.peer, ticket)
        return await (by or self.reader).artifacts.fetch(wanted, timeout_s=60)


def scene(story: Callable[[Scene], Awaitable[None]]) -> None:
    async def told_in(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(CONFIG.host, artifact_lifetime_s=LIFETIME_S)
        config = msgspec.structs.replace(CONFIG, host=host)
        maker, reader, broker = await start(mesh, config, a=[], b=[], c=[])
        await maker.artifacts.put(DATA, job="job", broker=broker.peer)
        await story(Scene(mesh, maker, reader, broker))

    play(told_in)


def test_a_reader_with_a_ticket_gets_the_bytes() -> None:
    async def story(here: Scene) -> None:
        assert await here.fetch(here.ticket()) == DATA
        assert await here.reader.artifacts.local(NAME) is None, "fetched, not kept"

    scene(story)


def test_the_jobs_broker_needs_no_ticket() -> None:
    async def story(here: Scene) -> None:
        assert await here.fetch(b"", by=here.broker) == DATA

    scene(story)


@pytest.mark.parametrize(
    "ticket",
    [
        lambda _: b"",
        lambda _: b"\x80",
        lambda here: here.ticket(signer=here.reader),
        lambda here: here.ticket(signer=here.maker),
        lambda here: here.ticket(reader=here.broker),
        lambda here: here.ticket(holder=here.broker),
        lambda here: here.ticket(artifact=digest(b"another")),
        lambda here: here.ticket(job="another"),
        lambda here: here.ticket()[:-1] + bytes([here.ticket()[-1] ^ 1]),
    ],
    ids=[
        "none",
        "garbage",
        "signed by the reader",
        "signed by the holder",
        "another reader's",
        "another holder's",
        "another artifact's",
        "another job's",
        "forged",
    ],
)
def test_without_a_ticket_that_holds_nothing_is_given(ticket: Callable[[Scene], bytes]) -> None:
    async def story(here: Scene) -> None:
        with pytest.raises(ArtifactError):
            await here.fetch(ticket(here))

    scene(story)


def test_a_ticket_lapses() -> None:
    async def story(here: Scene) -> None:
        ticket = here.ticket()
        await trio.sleep(300 + limits.SKEW_MS_MAX / 1000 + 1)
        with pytest.raises(ArtifactError, match="expired"):
            await here.fetch(ticket)

    scene(story)


def lies(answer: list[bytes]) -> Callable[[Stream], Awaitable[None]]:
    async def serve(stream: Stream) -> None:
        await stream.receive()
        for piece in answer:
            await stream.send(piece)
        await stream.finish()

    return serve


@pytest.mark.parametrize(
    "answer",
    [
        [encode_message(Found(len(DATA))), DATA[:-1] + b"!"],
        [encode_message(Found(len(DATA))), DATA[:-1]],
        [encode_message(Found(len(DATA))), DATA, b"more"],
        [encode_message(Found(len(DATA) - 1)), DATA[:-1]],
        [b"\xff\xff\xff\xff"],
        [],
    ],
    ids=["corrupted", "short", "long", "another size", "no frame", "nothing"],
)
def test_bytes_that_are_not_the_artifact_are_refused(answer: list[bytes]) -> None:
    async def story(here: Scene) -> None:
        transport = here.mesh.world.network.transport(here.maker.peer)
        transport.serve(PROTOCOL, lies(answer))
        with pytest.raises(ArtifactError):
            await here.fetch(here.ticket())

    scene(story)


def test_a_holder_that_does_not_answer_is_given_up() -> None:
    async def story(here: Scene) -> None:
        async def hang(_: Stream) -> None:
            await trio.sleep_forever()

        here.mesh.world.network.transport(here.maker.peer).serve(PROTOCOL, hang)
        begun_s = trio.current_time()
        wanted = Wanted(NAME, 10, here.maker.peer, here.ticket())
        with pytest.raises(ArtifactError, match="did not come"):
            await here.reader.artifacts.fetch(wanted, timeout_s=600)
        assert trio.current_time() - begun_s < 15

    scene(story)


def test_a_reader_that_says_nothing_holds_nobody_up() -> None:
    async def story(here: Scene) -> None:
        transport = here.mesh.world.network.transport(here.reader.peer)
        for first in (b"", b"\x00", b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc"):
            stream = await transport.open(here.maker.peer, PROTOCOL)
            if first:
                await stream.send(first)
            await trio.sleep(10)
        assert await here.fetch(here.ticket()) == DATA

    scene(story)


def test_many_chunks_come_in_order_from_any_offset() -> None:
    async def story(here: Scene) -> None:
        data = b"".join(number.to_bytes(4, "big") for number in range(24 * CHUNK_SIZE // 4 + 3))
        ref = await here.maker.artifacts.put(data, job="job", broker=here.broker.peer)
        here.maker.artifacts._memory.clear()  # so that it comes from the disk
        ticket = here.ticket(artifact=ref.artifact)
        wanted = Wanted(ref.artifact, len(data), here.maker.peer, ticket)
        assert await here.reader.artifacts.fetch(wanted, timeout_s=60) == data
        transport = here.mesh.world.network.transport(here.reader.peer)
        for offset in (0, 1, CHUNK_SIZE, 10 * CHUNK_SIZE - 1, 11 * CHUNK_SIZE + 7, len(data)):
            stream = await transport.open(here.maker.peer, PROTOCOL)
            await stream.send(encode_message(Fetch(ticket, ref.artifact, offset)))
            said = encode_message(Found(len(data)))
            came = b""
            while more := await stream.receive():
                came += more
            assert came == said + data[offset:]
            await stream.aclose()

    scene(story)


def test_a_reader_that_leaves_in_the_middle_is_no_failure_of_the_holder() -> None:
    async def story(here: Scene) -> None:
        data = bytes(24 * CHUNK_SIZE)
        ref = await here.maker.artifacts.put(data, job="job", broker=here.broker.peer)
        here.maker.artifacts._memory.clear()
        transport = here.mesh.world.network.transport(here.reader.peer)
        stream = await transport.open(here.maker.peer, PROTOCOL)
        ticket = here.ticket(artifact=ref.artifact)
        await stream.send(encode_message(Fetch(ticket, ref.artifact, 0)))
        await stream.receive()
        await stream.aclose()
        await trio.sleep(5)
        assert await here.fetch(here.ticket()) == DATA

    scene(story)


def test_a_chunk_that_is_missing_is_noticed_although_the_rest_was_hashed_before() -> None:
    async def story(here: Scene) -> None:
        here.maker.artifacts._memory.clear()
        assert await here.fetch(here.ticket()) == DATA
        here.reader.artifacts._memory.clear()
        chunks = here.mesh.members["a"].disk.tables["artifact_chunk"]
        del chunks[max(key for key in chunks if key.startswith(NAME.hex()))]
        with pytest.raises(ArtifactError, match="hash"):
            await here.fetch(here.ticket())
        assert told(here.maker, "artifact.damaged")

    scene(story)


def test_damage_on_the_holders_disk_is_noticed_there() -> None:
    async def story(here: Scene) -> None:
        here.mesh.crash("a")
        chunks = here.mesh.members["a"].disk.tables["artifact_chunk"]
        key = sorted(chunks)[1]
        chunks[key] = b"!" + chunks[key][1:]
        maker = await here.mesh.restart("a")
        await trio.sleep(1)
        with pytest.raises(ArtifactError, match="hash"):
            await here.fetch(here.ticket())
        assert told(maker, "artifact.damaged")

    scene(story)


def test_what_is_held_survives_a_restart() -> None:
    async def story(here: Scene) -> None:
        here.mesh.crash("a")
        await here.mesh.restart("a")
        await trio.sleep(2)
        assert await here.fetch(here.ticket()) == DATA

    scene(story)


def test_what_is_past_its_time_goes_with_all_that_belongs_to_it() -> None:
    async def story(here: Scene) -> None:
        disk = here.mesh.members["a"].disk
        await trio.sleep(LIFETIME_S + 61)
        for table in ("artifact", "artifact_chunk", "artifact_job"):
            assert not disk.tables[table], table
        assert await here.maker.artifacts.local(NAME) is None

    scene(story)


def test_an_artifact_that_another_job_still_wants_stays() -> None:
    async def story(here: Scene) -> None:
        await trio.sleep(LIFETIME_S - 100)
        await here.maker.artifacts.put(DATA, job="later", broker=here.broker.peer)
        await trio.sleep(200)
        assert await here.maker.artifacts.local(NAME) == DATA
        assert await here.fetch(here.ticket(job="later")) == DATA

    scene(story)


def test_who_keeps_nothing_rests_until_there_is_something_to_lapse() -> None:
    async def story(here: Scene) -> None:
        collect = here.maker.artifacts.collect_garbage
        looks: list[float] = []

        async def counted_at_maker() -> int:
            looks.append(trio.current_time())
            return await collect()

        here.maker.artifacts.collect_garbage = counted_at_maker  # type: ignore[method-assign]
        await trio.sleep(LIFETIME_S + 61)
        assert await here.maker.artifacts.local(NAME) is None
        seen = len(looks)
        await trio.sleep(3_600)
        assert len(looks) <= seen + 1, "nothing is there"
        await here.maker.artifacts.put(DATA, job="later", broker=here.broker.peer)
        await trio.sleep(LIFETIME_S + 61)
        assert await here.maker.artifacts._store.scan("artifact") == []

    scene(story)


def test_a_disk_that_refuses_garbage_collection_ends_nothing() -> None:
    async def story(here: Scene) -> None:
        await trio.sleep(LIFETIME_S - 30)
        here.mesh.fill_disk("a", count=5)
        await trio.sleep(120)
        assert here.mesh.up("a")

    scene(story)


def test_artifacts_take_no_more_room_than_the_owner_gives_and_less_again_later() -> None:
    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(
            CONFIG.host, artifact_lifetime_s=LIFETIME_S, artifact_bytes_max=1_000
        )
        (node,) = await start(mesh, msgspec.structs.replace(CONFIG, host=host), a=[])

        async def put(number: int) -> None:
            await node.artifacts.put(bytes([number]) * 400, job="job", broker=node.peer)

        await put(1)
        mesh.crash("a")
        node = await mesh.restart("a")  # what is there counts after a restart too
        await put(1)
        await put(2)
        with pytest.raises(Busy, match="room"):
            await put(3)
        assert await node.artifacts.local(digest(bytes([3]) * 400)) is None
        await trio.sleep(LIFETIME_S + 61)
        await put(3)

    play(story)


def test_one_broker_takes_no_more_room_than_its_share_and_leaves_the_rest_to_others() -> None:
    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(
            CONFIG.host, artifact_lifetime_s=LIFETIME_S, artifact_peer_bytes_max=1_000
        )
        (node,) = await start(mesh, msgspec.structs.replace(CONFIG, host=host), a=[])

        async def put(number: int, size: int, broker: str) -> None:
            data = bytes([number]) * size
            await node.artifacts.put(data, job="job", broker=broker)

        await put(1, 600, "greedy")
        await put(2, 400, "greedy")
        assert node.artifacts.is_full("greedy")
        with pytest.raises(Busy, match="one broker's"):
            await put(3, 1, "greedy")
        await put(1, 600, "greedy")  # what is here takes no more
        await put(1, 600, "modest")  # nor does what another keeps here
        assert not node.artifacts.is_full("modest")
        await put(4, 1_000, "modest")
        await put(5, 2_000, node.peer)
        mesh.crash("a")
        node = await mesh.restart("a")
        with pytest.raises(Busy, match="one broker's"):
            await put(6, 1, "greedy")
        await trio.sleep(LIFETIME_S + 61)
        await put(6, 1_000, "greedy")

    play(story)


def test_a_write_that_the_disk_refuses_takes_no_room() -> None:
    async def story(mesh: SimMesh) -> None:
        host = msgspec.structs.replace(CONFIG.host, artifact_bytes_max=1_000)
        (node,) = await start(mesh, msgspec.structs.replace(CONFIG, host=host), a=[])
        for _ in range(5):
            mesh.fill_disk("a")
            with pytest.raises(StoreError):
                await node.artifacts.put(bytes(400), job="job", broker=node.peer)
        await node.artifacts.put(bytes(400), job="job", broker=node.peer)

    play(story)


def test_another_broker_that_calls_its_job_the_same_takes_nobodys_right() -> None:
    async def story(here: Scene) -> None:
        await here.maker.artifacts.put(DATA, job="job", broker=here.reader.peer)
        third = await here.mesh.start("d")
        ticket = here.ticket(reader=third)
        await trio.sleep(5)
        assert await here.fetch(ticket, by=third) == DATA
        assert await here.fetch(b"", by=here.broker) == DATA

    scene(story)


@pytest.mark.parametrize("ahead_s", [-400, 400])
def test_a_ticket_counts_by_the_clock_of_the_broker(ahead_s: int) -> None:
    async def story(mesh: SimMesh) -> None:
        maker, reader = await start(mesh, a=[], b=[])
        broker = await mesh.start("c", skew_ms=ahead_s * 1000)
        await maker.artifacts.put(DATA, job="job", broker=broker.peer)
        await trio.sleep(5)
        await broker.sessions.connect(maker.peer)
        await trio.sleep(1)
        here = Scene(mesh, maker, reader, broker)
        ticket = here.ticket()
        assert await here.fetch(ticket) == DATA

    play(story)
