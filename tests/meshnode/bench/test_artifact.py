"""``meshnode bench artifact``: rates the right way round, and what the broker really moves."""

import pytest

from meshnode.adapters.libp2p_transport import open_transport
from meshnode.bench.artifact import CountingTransport, broker_bytes, figures
from meshnode.bench.contest import ONE, TWO, Contestant, Score, entered
from meshnode.ports import Stream
from protocol.artifacts import PROTOCOL as ARTIFACTS
from tests.meshnode.bench.figures import by_id, values_of

SIZE = 64 * 1024 * 1024  # as the bench does: it is the limit of several things


async def test_the_broker_sends_nothing_on_and_fetches_one_copy() -> None:
    sent, fetched = await broker_bytes(SIZE)
    assert sent == 0
    assert SIZE < fetched < 1.01 * SIZE


async def test_what_a_transport_serves_and_fetches_is_counted_apart() -> None:
    async with open_transport(bytes(32)) as one, open_transport(bytes(31) + b"1") as two:
        serving, fetching = CountingTransport(one), CountingTransport(two)

        async def serve(stream: Stream) -> None:
            while data := await stream.receive():
                await stream.send(data + data)
            await stream.finish()

        for protocol in (ARTIFACTS, "/other/1"):
            serving.serve(protocol, serve)
            stream = await fetching.open(one.peer, protocol, addresses=one.addresses())
            await stream.send(b"12345")
            await stream.finish()
            while await stream.receive():
                pass
            await stream.aclose()
    assert (serving.sent_bytes, serving.fetched_bytes) == (10, 0)
    assert (fetching.sent_bytes, fetching.fetched_bytes) == (0, 10)


@pytest.mark.parametrize("module", ["artifact_hop", "beside.libp2p_bulk"])
async def test_64_mib_go_from_one_process_to_another(module: str) -> None:
    contestant = Contestant(module, f"meshnode.bench.{module}")
    async with entered(contestant, TWO, None) as entrant:
        await entrant.turn(1)
    assert entrant.score.calls == 1


def test_twice_the_rate_is_half_the_time() -> None:
    half_s, one_s = Score([[0.5e6]], cpu_us=3e5), Score([[1e6]], cpu_us=6e5)
    scores = {(TWO, ""): half_s, (TWO, "libp2p"): one_s}
    scores |= {(ONE, ""): one_s, (ONE, "libp2p"): one_s}
    made = by_id(figures(scores))
    assert made["P5.ratio"].value == 2
    assert made["P5.ratio"].holds
    assert made["P5.ratio.one_process"].value == 1
    assert not made["P5.ratio.one_process"].holds
    assert made["P5.two_processes.rate"].value == 128  # MiB/s
    assert made["P5.two_processes.cpu_ms"].value == 300


def test_alone_there_is_no_ratio() -> None:
    alone = {(way, ""): Score([[1e6]]) for way in (ONE, TWO)}
    assert set(values_of(figures(alone))) == {
        "P5.two_processes.rate", "P5.two_processes.cpu_ms",
        "P5.one_process.rate", "P5.one_process.cpu_ms",
    }  # fmt: skip
