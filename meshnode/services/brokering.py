"""A broker with all that it works with, put together."""

from dataclasses import dataclass

from meshnode.ports import Embedder, Sandbox
from meshnode.services.agents import AgentHost
from meshnode.services.artifacts import Artifacts
from meshnode.services.awards import Awards
from meshnode.services.broker import Broker
from meshnode.services.charges import Charges
from meshnode.services.checking import Checking
from meshnode.services.context import Context
from meshnode.services.contracts import Contracts
from meshnode.services.experience import Experience
from meshnode.services.job_runner import Tools
from meshnode.services.judging import Judging
from meshnode.services.ledger import Ledger
from meshnode.services.market import Market
from meshnode.services.orders import Orders
from meshnode.services.panels import Panels
from meshnode.services.receipts import Receipts
from meshnode.services.reputation import Reputation
from meshnode.services.sessions import Sessions
from meshnode.services.successions import Successions


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a broker needs of its node; see each of them."""

    sessions: Sessions
    market: Market
    orders: Orders
    artifacts: Artifacts
    host: AgentHost
    ledger: Ledger
    receipts: Receipts
    successions: Successions
    reputation: Reputation
    sandbox: Sandbox | None
    embedder: Embedder | None


def open_broker(context: Context, around: Surroundings) -> Broker:
    """Return the broker of a node."""
    market, artifacts, ledger = around.market, around.artifacts, around.ledger
    around.receipts.acknowledged = market.refusals.settled
    experience = Experience(around.reputation)
    checking = Checking(context, artifacts=artifacts, host=around.host, sandbox=around.sandbox)
    tools = Tools(
        market=market,
        awards=Awards(context, sessions=around.sessions, market=market, orders=around.orders),
        contracts=Contracts(
            context,
            market=market,
            artifacts=artifacts,
            ledger=ledger,
            experience=experience,
        ),
        checking=checking,
        receipts=around.receipts,
        charges=Charges(context, receipts=around.receipts, ledger=ledger),
        successions=around.successions,
        experience=experience,
        judging=Judging(
            context,
            experience=experience,
            market=market,
            checking=checking,
            embedder=around.embedder,
        ),
    )
    broker = Broker(context, artifacts=artifacts, tools=tools)
    tools.judging.arbiters = Panels(
        context,
        broker=broker,
        market=market,
        checking=checking,
        reputation=around.reputation,
    )
    return broker
