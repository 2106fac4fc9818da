"""A task for one agent and no other, for what its answer shows: dressed as any task is.

Model families are probed so, and records' examples are checked.  Like a gold task it is
dressed as the last usual one for that capability was (:mod:`meshnode.domain.gold_tasks`), so
nothing that a contractor gets says what it is for.  Unlike a gold's, its answer isn't right or
wrong for whoever is charged: it is taken, and paid, as an answer that nobody checks, unless it
breaks the agent's own schema.
"""

from typing import Final

from meshnode.domain.gold_tasks import each_of, gold_graph
from meshnode.domain.job import JobState
from meshnode.domain.plan_parts import GoldPlan
from meshnode.errors import AgentError
from meshnode.ports import JsonValue
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.golds import Golds
from meshnode.services.job_keys import KEYS, read_key
from meshnode.services.job_terms import Terms
from protocol.likeness import EXACT

_KEY_BYTES: Final = 12


class SingleTasks:
    """See the module.

    Attributes:
        broker: Whose jobs they are.
    """

    def __init__(self, context: Context, *, broker: Broker, golds: Golds, caller: str) -> None:
        """Ask for ``caller``, whose idempotency keys the jobs have."""
        self.broker = broker
        self._context = context
        self._golds = golds
        self._caller = caller

    def key(self) -> str:
        """Return a key for one task."""
        return self._context.entropy.token(_KEY_BYTES).hex()

    async def begin(
        self,
        agent: str,
        capability: str,
        value: dict[str, JsonValue],
        *,
        key: str,
        price_max_mc: int,
    ) -> str:
        """Have ``agent`` make something of an input; return the job, which is durable.

        Args:
            agent: ``peer/name``.
            capability: Full name.
            value: The input.
            key: See :meth:`key`.
            price_max_mc: If it asks for more now, it isn't given the task; it isn't told.

        Raises:
            MeshError: The agent isn't there, or the job can't be made.
        """
        dress = self._golds.dress(capability)
        each = each_of(dress, value)
        inputs = {name: [part] if name in each else part for name, part in value.items()}
        token = self._context.entropy.token
        trace = f"00-{token(16).hex()}-{token(8).hex()}-01" if dress.traced else ""
        terms = Terms(
            budget_mc=dress.budget_mc,
            deadline_s=dress.deadline_ms / 1000,
            idempotency_key=key,
            traceparent=trace,
            hedges_pct=0,
            replans_max=0,
            depth_max=dress.hops,
            fan_out_max=dress.fan_out,
            subtasks_max=dress.subtasks,
            tokens_max=dress.tokens,
            only=(agent,),
            gold=GoldPlan(
                expected=[],
                numbered=dress.numbered,
                verdict=dress.verdict,
                check=dress.check,
                price_max_mc=price_max_mc,
            ),
        )
        graph = gold_graph(dress, capability, list(value), EXACT)
        return await self.broker.submit(graph, inputs, terms, caller=self._caller)

    async def job_of(self, key: str) -> str:
        """Return the job that was begun with a key; empty if none was.

        Raises:
            StoreError: It can't be read.
        """
        raw = await self._context.store.read(KEYS, f"{self._caller}/{key}")
        return read_key(raw)[0] if raw is not None else ""

    async def answer(self, state: JobState) -> JsonValue:
        """Return the answer of a job that has ended.

        Raises:
            AgentError: There is none that could be taken.
            MeshError: It can't be had any more.
        """
        if state.done is None or state.done.state != "completed":
            text = state.done.text if state.done else ""
            raise AgentError(f"there is no answer: {text}")
        answer = (await self.broker.outputs(state.job))["answer"]
        mapped = any(task.each for task in state.tasks.values())
        return answer[0] if mapped and isinstance(answer, list) and answer else answer
