"""Who is believed how far, under ``/api``, and from what.

GET  /api/reputation                   all agents that this node knows, the most credible
                                       first; …?capability=C  those of one capability
GET  /api/reputation/AGENT?limit=N     one of them: what each number is made of, in words
                                       too, and the newest N pieces of evidence (20), the
                                       newest first, with the receipts behind them

Buyers are in :mod:`meshnode.gateway.api_buyers`.

AGENT is ``PEER/NAME``, or PEER for all agents of a node.  PEER is a PeerId, the end of one
that only one peer here has, or the name of an invited one.

Units are what ``docs/trust.md`` means by that: one answer that was shown to be right or wrong.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meshnode.domain.spot_checks import told as told_of_examples
from meshnode.domain.trust.accounts import Account, told
from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import availability
from meshnode.domain.trust.evidence import Evidence
from meshnode.domain.trust.rules import UNIT_MU
from meshnode.errors import NotFound
from meshnode.gateway.api_answers import Handler, answer, blaming
from meshnode.gateway.api_buyers import buyer_routes
from meshnode.gateway.api_peers import who_is_meant
from meshnode.gateway.api_requests import read_count, read_query
from meshnode.gateway.api_views import examples_view
from meshnode.node import Node
from meshnode.ports import JsonValue
from protocol.messages import read_message
from protocol.receipts import Acceptance, Receipt

_EVENTS: Final = 20
_EVENTS_MAX: Final = 2_000


def reputation_routes(node: Node) -> list[BaseRoute]:
    """Return the routes of what ``node`` knows of agents."""
    api = _Reputation(node)
    table: tuple[tuple[str, str, Handler], ...] = (
        ("GET", "/api/reputation", api.agents),
        ("GET", "/api/reputation/{agent:path}", api.agent),
    )
    routes = [Route(path, blaming(do), methods=[method]) for method, path, do in table]
    return [*routes, *buyer_routes(node)]


class _Reputation:
    """One method for each route."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def agents(self, request: Request) -> Response:
        """Tell how every agent stands."""
        query = read_query(request.query_params.multi_items(), "capability")
        wanted = query.get("capability")
        rows = [
            self._row(capability, agent)
            for capability, agent in self._known()
            if wanted is None or capability == wanted
        ]
        rows.sort(key=lambda row: (-_number(row["credibility"]), str(row["agent"])))
        return answer({"agents": [*rows]})

    async def agent(self, request: Request) -> Response:
        """Tell what one agent's credibility is made of, in each of its capabilities."""
        query = read_query(request.query_params.multi_items(), "limit")
        limit = min(read_count(query.get("limit", str(_EVENTS)), "limit"), _EVENTS_MAX)
        text, _, name = request.path_params["agent"].partition("/")
        peer = await who_is_meant(self._node, text)
        meant = [
            (capability, agent)
            for capability, agent in self._known()
            if agent.partition("/")[0] == peer and name in {"", agent.partition("/")[2]}
        ]
        if not meant:
            called = f" called {name[:60]!r}" if name else ""
            raise NotFound(
                f"no agent{called} of {peer} is known here", hint="see `meshnode reputation`"
            )
        return answer({"accounts": [await self._account(*one, limit) for one in meant]})

    def _known(self) -> list[tuple[str, str]]:
        """Return capability and agent of all that evidence or the catalogue has."""
        offered = {
            (capability.name, f"{record.peer}/{capability.agent}")
            for record in self._node.known()
            for capability in record.capabilities
        }
        return sorted(offered.union(self._node.reputation.known()))

    def _row(self, capability: str, agent: str) -> dict[str, JsonValue]:
        book = self._node.reputation.book(capability)
        standing, imported = book.standing(agent), book.imported(agent)
        return {
            **self._named(capability, agent),
            "credibility": book.credibility(agent),
            "availability": availability(standing, book.rules),
            "seen_for": standing.for_mu / UNIT_MU,
            "seen_against": standing.bad_mu / UNIT_MU,
            "heard_for": imported.good_mu / UNIT_MU,
            "heard_against": imported.bad_mu / UNIT_MU,
            "events": standing.events,
            "state": _state(book, agent),
            "overclaims": self._node.spots.of(capability, agent).overclaims,
        }

    def _named(self, capability: str, agent: str) -> dict[str, JsonValue]:
        peer = agent.partition("/")[0]
        return {
            "capability": capability,
            "agent": agent,
            "name": self._node.members.name_of(peer),
            "peer_is": self._node.members.standing(peer),
        }

    async def _account(self, capability: str, agent: str, limit: int) -> JsonValue:
        account, events = await self._node.reputation.account(capability, agent)
        newest = events[::-1][:limit]
        asked = self._node.spots.of(capability, agent)
        return {
            **self._named(capability, agent),
            **_account_view(account),
            "state": _state(self._node.reputation.book(capability), agent),
            "lines": [*told(account), *filter(None, [told_of_examples(asked)])],
            "overclaims": asked.overclaims,
            "examples": examples_view(asked),
            "evidence": [await self._evidence(event) for event in newest],
        }

    async def _evidence(self, event: Evidence) -> JsonValue:
        return {
            "kind": event.kind,
            "at_ms": event.at_ms,
            "source": event.source.hex(),
            "receipt": await self._receipt(event.source),
        }

    async def _receipt(self, award: bytes) -> JsonValue:
        """Return what the receipt of an award says; nothing where none is kept."""
        row = await self._node.receipts.row(award) if award else None
        if row is None:
            return None
        network = self._node.config.network
        half = read_message(row.receipt, Receipt, network=network)
        accepted = read_message(row.acceptance, Acceptance, network=network)
        return {
            "job": half.h.job,
            "unit": half.h.subtask,
            "verdict": accepted.verdict,
            "check": accepted.check,
            "cost_mc": half.cost_mc,
            "paid_mc": accepted.paid_mc,
            "latency_ms": half.latency_ms,
        }


def _account_view(account: Account) -> dict[str, JsonValue]:
    standing = account.standing
    return {
        "credibility": account.credibility,
        "availability": account.availability,
        "seen": {
            "for_mu": standing.for_mu,
            "against_mu": standing.bad_mu,
            "unchecked_mu": standing.weak_mu,
            "in_time_mu": standing.up_mu,
            "late_mu": standing.down_mu,
            "golds_owed": standing.owed,
            "taken_alone": standing.exposed,
            "events": standing.events,
        },
        "heard": {
            "for_mu": account.imported.good_mu,
            "against_mu": account.imported.bad_mu,
            "from": [
                {
                    "rater": share.rater,
                    "weight": share.weight,
                    "for_mu": share.good_mu,
                    "against_mu": share.bad_mu,
                }
                for share in account.heard
            ],
        },
        "parts": [
            {
                "kind": part.kind,
                "count": part.count,
                "for_mu": part.good_mu,
                "against_mu": part.bad_mu,
            }
            for part in account.parts
        ],
    }


def _state(book: Book, agent: str) -> str:
    """Say what an agent's standing means for work."""
    standing = book.standing(agent)
    if standing.equivocated:
        return "banned"
    if book.is_blocked(agent):
        return "blocked"
    if standing.owed:
        return "owes golds"
    return "alone" if book.may_stand_alone(agent) else "with others"


def _number(value: JsonValue) -> float:
    assert isinstance(value, float)
    return value
