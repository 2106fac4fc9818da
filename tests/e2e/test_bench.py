"""``meshnode bench`` measures what users would pick instead, in an environment it makes."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from meshnode.bench.contest import ONE, TWO, Contestant, entered, started
from meshnode.bench.extra import Extra, extra_environment


@pytest.fixture(scope="module")
def extra() -> Iterator[Extra]:
    """The extra environment; made here if no bench has made it on this machine.

    Where it can't be made (``PeersMissing`` says why) these tests fail.
    """
    with extra_environment(lambda *_: None) as made:
        yield made


@pytest.mark.parametrize("way", [ONE, TWO])
@pytest.mark.parametrize("name", ["autogen", "grpc", "a2a"])
async def test_what_is_measured_beside_us_works(extra: Extra, name: str, way: str) -> None:
    contestant = Contestant(name, f"meshnode.bench.beside.{name}_hop", extra=True)
    async with entered(contestant, way, extra) as entrant:
        await entrant.turn(3)
    assert entrant.score.calls == 3


async def test_dask_distributed_works_beside_us(extra: Extra) -> None:
    contestant = Contestant("dask", "meshnode.bench.beside.dask_hop", extra=True)
    async with started(contestant, ("2",), extra) as (child, _):
        answer = await child.answer(30.0, calls=5)
    assert len(answer["ns"]) == 1, "one map is one measurement"
    assert answer["ns"][0] > 0


def test_our_side_alone_is_one_line_of_json() -> None:
    command = [sys.executable, "-m", "meshnode", "bench", "session", "--quick"]
    done = subprocess.run(
        [*command, "--no-peers", "--json"], capture_output=True, text=True, check=True
    )
    printed = json.loads(done.stdout)
    assert printed["name"] == "session"
    figures = {row["id"]: row for row in printed["figures"]}
    assert figures["P1.one_process"]["holds"] is None
    assert figures["P1.one_process.us"]["value"] > 0
    assert figures["P1.one_process.us"]["n"] >= 1000
