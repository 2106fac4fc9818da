"""Model families, asked for as anything is asked: each question is a job that one agent may do.

A question is dressed as the last usual task for its capability was, like a gold task, so
nothing that a contractor gets says what it is for (:mod:`meshnode.domain.gold_tasks`).
"""

from typing import Final

from meshnode.domain.gold_tasks import each_of, gold_graph
from meshnode.errors import AgentError
from meshnode.ports import JsonValue
from meshnode.services.broker import Broker
from meshnode.services.context import Context
from meshnode.services.families import Families
from meshnode.services.golds import Golds
from meshnode.services.job_terms import Terms
from meshnode.services.market import Market
from protocol.likeness import EXACT

#: Whose idempotency keys these jobs have.
_CALLER: Final = "family"
_KEY_BYTES: Final = 12


class Asking:
    """Asks one agent, and no other."""

    def __init__(self, context: Context, *, broker: Broker, golds: Golds) -> None:
        self._token = context.entropy.token
        self._broker = broker
        self._golds = golds

    async def ask(self, agent: str, capability: str, value: dict[str, JsonValue]) -> JsonValue:
        """Return what ``agent`` makes of an input.

        Raises:
            AgentError: It gave no answer that could be taken.
            MeshError: It isn't there, or the job can't be made.
        """
        dress = self._golds.dress(capability)
        graph = gold_graph(dress, capability, list(value), EXACT)
        each = each_of(dress, value)
        inputs = {name: [part] if name in each else part for name, part in value.items()}
        terms = Terms(
            budget_mc=dress.budget_mc,
            deadline_s=dress.deadline_ms / 1000,
            idempotency_key=self._token(_KEY_BYTES).hex(),
            hedges_pct=0,
            replans_max=0,
            depth_max=dress.hops,
            fan_out_max=dress.fan_out,
            subtasks_max=dress.subtasks,
            only=(agent,),
        )
        job = await self._broker.submit(graph, inputs, terms, caller=_CALLER)
        state = await self._broker.wait(job)
        if state.done is None or state.done.state != "completed":
            raise AgentError(f"{agent} didn't answer: {state.done.text if state.done else ''}")
        answer = (await self._broker.outputs(job))["answer"]
        return answer[0] if each and isinstance(answer, list) and answer else answer


def open_families(
    context: Context, *, broker: Broker, market: Market, golds: Golds
) -> Families:
    """Return a node's; its broker judges by what they know."""
    asking = Asking(context, broker=broker, golds=golds)
    families = Families(context, declared=market.declared, ask=asking.ask)
    golds.beside = [*golds.beside, families.load]
    broker.judging.family = families.voice
    return families
