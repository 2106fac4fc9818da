"""This node's own agents are measured, so that what its record claims of them is true.

An agent that has done nothing yet, or nothing for so long that its claim has lapsed, does its
own examples: how long they take is its latency, and how many come out as they say stands
beside it.  It is done once the node has been up for a while and the agent is free, since
nobody waits for it, and not again after a restart.  Whoever doesn't want that gives an agent
no examples, or says ``measure = false``.

Work for others measures as well (:mod:`meshnode.services.agents`); what it came to is kept too.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from meshnode.domain.declared import grouping
from meshnode.domain.likeness import equivalent
from meshnode.errors import MeshError, NotFound, StoreError
from meshnode.ports import Agent, AgentCall, AgentSpec, Delete, Put, Write
from meshnode.services.agents import AgentHost
from meshnode.services.context import Context
from protocol.codec import encode
from protocol.keys import digest
from protocol.likeness import EXACT
from protocol.limits import CLAIM_LIFETIME_MS, EXAMPLES_MAX
from protocol.records import Capability, Measured

MEASURED: Final = "measured"
#: What an agent does for others measures it too: it gets so long for that, seconds.
_FIRST_S: Final = 30.0
_AGAIN_S: Final = 600.0
_ROWS_MAX: Final = 1_000


class _Row(msgspec.Struct, frozen=True):
    """What was measured of an agent, and what that agent was."""

    agent: bytes
    measured: Measured


_ROW: Final = msgspec.msgpack.Decoder(_Row)


class Measuring:
    """See the module."""

    def __init__(self, context: Context, *, host: AgentHost) -> None:
        self._store = context.store
        self._clock = context.clock
        self._emit = context.emit
        self._host = host
        self._examines = context.config.host.measure
        self._rows: dict[str, _Row] = {}
        self._tried: dict[bytes, int] = {}  # agents -> when: who fails isn't tried for ever

    async def load(self) -> None:
        """Claim what was measured in lives before.

        Raises:
            StoreError: What is there can't be read.
        """
        for name, raw in await self._store.scan(MEASURED, count_max=_ROWS_MAX):
            try:
                self._rows[name] = _ROW.decode(raw)
            except msgspec.MsgspecError as exc:
                raise StoreError(f"{MEASURED}/{name} is no measurement: {exc}") from exc
        self._recall()

    async def run(self) -> None:
        """Measure what nothing is known of, now and then, until cancelled."""
        await trio.sleep(_FIRST_S)
        while True:
            try:
                await self.measure()
            except StoreError as exc:
                self._emit("agents.measures_unsaved", why=str(exc))
            await trio.sleep(_AGAIN_S)

    async def measure(self) -> None:
        """Measure the agents of which nothing is claimed, and write down what is known.

        Raises:
            StoreError: The disk refused; it is tried again.
        """
        self._recall()
        for capability in self._host.capabilities():
            name = capability.agent
            if self._examines and capability.examples and self._is_due(capability):
                try:
                    await self._examine(name, self._host.specs()[name])
                except (KeyError, NotFound):  # it was taken away meanwhile
                    continue
        await self._save()

    def _is_due(self, capability: Capability) -> bool:
        now_ms = self._clock.now_ms()
        if capability.measured.holds(now_ms=now_ms) or not self._host.free(capability.agent):
            return False
        agent = _fingerprint(capability)
        if now_ms < self._tried.get(agent, 0) + CLAIM_LIFETIME_MS:
            return False
        self._tried.pop(agent, None)
        self._tried[agent] = now_ms
        if len(self._tried) > _ROWS_MAX:
            del self._tried[next(iter(self._tried))]
        return True

    async def _examine(self, name: str, spec: AgentSpec) -> None:
        like = grouping(EXACT, [spec.like])
        right = 0
        examples = list(spec.examples)[:EXAMPLES_MAX]
        for number, example in enumerate(examples):
            call = AgentCall(
                f"measure/{name}/{number}", deadline_s=trio.current_time() + spec.timeout_s
            )
            try:
                output = await self._host.call(name, example.input, call)
            except NotFound:
                raise
            except MeshError as exc:
                self._emit("agents.example_failed", agent=name, why=exc.line())
            else:
                right += equivalent(output.value, example.output, like)
        self._host.examined(name, tried=len(examples), right=right)
        self._emit("agents.measured", agent=name, tried=len(examples), right=right)

    def _recall(self) -> None:
        """Claim again what was measured of agents that are as they were."""
        for capability in self._host.capabilities():
            row = self._rows.get(capability.agent)
            known = row is not None and row.agent == _fingerprint(capability)
            if row is not None and known and row.measured.at_ms > capability.measured.at_ms:
                self._host.recall(capability.agent, row.measured)

    async def _save(self) -> None:
        rows = {
            capability.agent: _Row(_fingerprint(capability), capability.measured)
            for capability in self._host.capabilities()
            if capability.measured.samples
        }
        writes = _changes(self._rows, rows)
        if writes:
            await self._store.commit(*writes)
            self._rows = rows
        else:
            await trio.lowlevel.checkpoint()


def _changes(before: dict[str, _Row], after: dict[str, _Row]) -> Sequence[Write]:
    gone: list[Write] = [Delete(MEASURED, name) for name in before if name not in after]
    return gone + [
        Put(MEASURED, name, msgspec.msgpack.encode(row))
        for name, row in after.items()
        if before.get(name) != row
    ]


def _fingerprint(capability: Capability) -> bytes:
    """Return what tells one agent from another of the same name: all but its measures."""
    return digest(encode(msgspec.structs.replace(capability, measured=Measured())))


def open_host(context: Context, agents: Sequence[Agent]) -> tuple[AgentHost, Measuring]:
    """Return a node's host, within what its owner allows, and who measures its agents.

    Raises:
        InputInvalid: An agent can't be hosted; names it.
    """
    allowed = context.config.host
    host = AgentHost(
        agents,
        calls_max=allowed.calls_max,
        input_bytes_max=allowed.input_bytes_max,
        run_s_max=allowed.run_s_max,
        emit=context.emit,
        now_ms=context.clock.now_ms,
    )
    return host, Measuring(context, host=host)
