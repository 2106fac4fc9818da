"""What looks at agents by tasks of its own: model families, and spot checks, put together."""

from meshnode.errors import MeshError
from meshnode.ports import JsonValue
from meshnode.services.broker import Broker
from meshnode.services.brokering import Surroundings
from meshnode.services.context import Context
from meshnode.services.families import Families, Reply
from meshnode.services.golds import Golds
from meshnode.services.single_tasks import SingleTasks
from meshnode.services.spot_checks import SpotChecks
from meshnode.services.unasked_probes import UnaskedProbes


def open_families(
    context: Context, broker: Broker, around: Surroundings, golds: Golds
) -> tuple[Families, SpotChecks]:
    """Return a node's; its broker judges by what families are known, and tells of its jobs."""
    market = around.market
    questions = SingleTasks(context, broker=broker, golds=golds, caller="family")

    async def ask(
        agent: str, capability: str, value: dict[str, JsonValue], price_max_mc: int
    ) -> Reply:
        key = questions.key()
        job = await questions.begin(
            agent, capability, value, key=key, price_max_mc=price_max_mc
        )
        state = await broker.wait(job)
        try:
            return Reply(await questions.answer(state), state.spent_mc)
        except MeshError as exc:
            return Reply(None, state.spent_mc, why=exc.line())

    families = Families(context, declared=market.declared, ask=ask)
    broker.judging.family = families.voice
    spots = SpotChecks(
        context,
        market=market,
        reputation=around.reputation,
        tasks=SingleTasks(context, broker=broker, golds=golds, caller="spot"),
        probes=UnaskedProbes(context, families=families, market=market),
    )
    broker.on_end.append(spots.ended)
    golds.beside = [*golds.beside, families.load, spots.run]
    return families, spots
