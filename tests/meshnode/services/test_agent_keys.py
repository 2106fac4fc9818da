"""The key by which an agent can make its own effects happen once.

In virtual time (a MockClock's).
"""

from collections.abc import AsyncIterator, Iterable

import trio

from meshnode.domain.units import Attempt, Unit
from meshnode.errors import AgentError
from meshnode.ports import AgentCall, Chunk, Output
from protocol.graph import Check
from simulations.mesh import SimMesh
from tests.meshnode.services.worlds import TextAgent, inputs, play, shouting, start, until


class Ledger:
    """Agents that do something beside their answer, and remember by which key."""

    def __init__(self) -> None:
        self.keys: dict[str, list[str]] = {}
        self.failures = 0

    async def work(self, text: str, call: AgentCall) -> AsyncIterator[Chunk | Output]:
        """Do it; the first so many calls fail after that."""
        self.keys.setdefault(text, []).append(call.idempotency_key)
        await trio.sleep(1)
        if self.failures:
            self.failures -= 1
            raise AgentError("the effect happened, the answer was lost")
        yield Output({"text": text})


def keys_of(job: str, units: Iterable[Unit], within: str = "") -> list[str]:
    """The keys of all calls of ``units``."""
    return sorted(
        f"{job}/{unit.name}/{within}{number}" for unit in units for number in range(unit.calls)
    )


def test_every_retry_of_an_item_has_its_key_at_every_node_and_no_other_item_has() -> None:
    ledger = Ledger()
    ledger.failures = 2

    async def story(mesh: SimMesh) -> None:
        hosted = [[TextAgent(ledger.work, concurrency_max=1)] for _ in range(3)]
        a, *_ = await start(mesh, a=[], b=hosted[0], c=hosted[1], d=hosted[2])
        words = list("abcdefgh")
        graph = shouting(len(words))
        job = await a.submit(graph, inputs(*words))
        await until(lambda: len(ledger.keys) == len(words))
        mesh.crash("b")  # and what it was doing is done again, there or elsewhere
        await mesh.restart("b")
        assert (state := await a.wait(job)).done is not None
        assert state.done.state == "completed"
        assert sum(map(len, ledger.keys.values())) > len(words), "something was done again"
        first = {text: keys[0] for text, keys in ledger.keys.items()}
        for text, keys in ledger.keys.items():
            assert set(keys) == {first[text]}, "each retry has the key of the first try"
        assert len(set(first.values())) == len(words)
        assert max(unit.calls for unit in state.units.values()) > 1, "there are batches"
        assert sorted(first.values()) == keys_of(job, state.units.values())
        other = await a.submit(graph, inputs(*words))
        await a.wait(other)
        assert {keys[-1].partition("/")[0] for keys in ledger.keys.values()} == {other}

    play(story)


def test_a_check_that_works_again_has_a_key_of_its_own_for_each_item() -> None:
    ledger, own = Ledger(), Ledger()

    async def story(mesh: SimMesh) -> None:
        options = {"deterministic": True, "concurrency_max": 1}
        slow = TextAgent(own.work, price_mc=9_000, **options)
        a, b = await start(mesh, a=[slow], b=[TextAgent(ledger.work, **options)])
        graph = shouting(9, checks=[Check(kind="recompute")])
        job = await a.submit(graph, inputs(*"abcdefghi"))
        state = await a.wait(job)
        # What its own agent had done itself, it doesn't check by that.
        checked = [
            unit
            for unit in state.units.values()
            if (unit.accepted or Attempt(0, 0)).peer == b.peer
        ]
        assert max(unit.calls for unit in checked) > 1, "there are batches"
        keys = [key for keys in own.keys.values() for key in keys if "/check-" in key]
        assert sorted(keys) == keys_of(job, checked, "check-")

    play(story)
