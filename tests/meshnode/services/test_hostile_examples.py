"""Examples in records are bytes that a peer chose: none of them ends a node that looks at them.

In virtual time (a MockClock's).
"""

import msgspec
import pytest
import trio

from meshnode.services import spot_checks, spot_examples
from meshnode.services.spot_examples import Examples
from protocol.records import Capability, Sample
from simulations.mesh import SimMesh
from tests.meshnode.services.test_spot_checks import (
    SOON_S,
    asked,
    claim,
    config,
    examples,
    known,
    work,
)
from tests.meshnode.services.worlds import TextAgent, play, start, told, until

GOOD = Sample(input=b'{"text":"one"}', output=b'{"text":"ONE"}')
HOSTILE = [
    pytest.param(Sample(input=GOOD.input, output=b"not json"), id="no JSON"),
    pytest.param(
        Sample(input=GOOD.input, output=b'"\\ud83d"'), id="half a pair in what comes out"
    ),
    pytest.param(
        Sample(input=b'{"\\ud83d":1,"text":"one"}', output=b"{}"), id="half a pair in a name"
    ),
    pytest.param(Sample(input=b'{"text": "one"}', output=GOOD.output), id="another encoding"),
    pytest.param(Sample(input=GOOD.input, output=b"[" * 1_500), id="too deep"),
]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spot_checks, "_WITHIN_S", SOON_S)


async def showing(mesh: SimMesh, *samples: Sample) -> None:
    """Start Ada's node, and Bob's whose record shows these examples and claims them right."""
    a, b = await start(mesh, config(), ada=[], bob=[TextAgent(examples=examples())])
    honest = b.host.capabilities

    def capabilities() -> list[Capability]:
        return [msgspec.structs.replace(one, examples=list(samples)) for one in honest()]

    b.directory._capabilities = capabilities
    claim(b)
    await known(a, b)


@pytest.mark.parametrize("sample", HOSTILE)
def test_a_node_lives_on_whatever_stands_in_a_record(sample: Sample) -> None:
    async def story(mesh: SimMesh) -> None:
        await showing(mesh, sample)
        a = mesh.node("ada")
        await work(a, mesh.node("bob"), 6)
        assert not asked(a), "there is nothing to ask for"
        assert told(a, "directory.capability_dropped")
        assert not told(a, "task.bug")
        assert a.planner.offers()

    play(story)


@pytest.mark.parametrize("sample", HOSTILE)
def test_what_is_no_example_hides_none_that_is(sample: Sample) -> None:
    async def story(mesh: SimMesh) -> None:
        await showing(mesh, sample, GOOD)
        a = mesh.node("ada")
        await work(a, mesh.node("bob"), 4)
        assert len(asked(a)) == 2
        assert not told(a, "task.bug")

    play(story)


@pytest.mark.parametrize("sample", HOSTILE[:3])
def test_a_check_that_a_record_spoils_ends_alone(
    sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had got by whoever looks at records first."""
    monkeypatch.setattr(spot_examples, "_usable", lambda _: [sample])

    async def story(mesh: SimMesh) -> None:
        await showing(mesh, GOOD)
        a, b = mesh.node("ada"), mesh.node("bob")
        await work(a, mesh.node("bob"), 4)
        assert told(a, "spots.not_compared") or told(a, "spots.not_asked")
        assert not told(a, "task.bug")
        row = a.spots.rows.of("text.shout@1", f"{b.peer}/shout")
        assert (row.out, row.own) == (None, [])

    play(story)


def test_a_bug_in_a_check_ends_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Examples, "choose", choose)

    async def story(mesh: SimMesh) -> None:
        await showing(mesh, GOOD)
        a = mesh.node("ada")
        await work(a, mesh.node("bob"), 2)
        await until(lambda: bool(told(a, "task.bug")))
        await work(a, mesh.node("bob"), 2)
        await trio.sleep(1.0)

    play(story)
