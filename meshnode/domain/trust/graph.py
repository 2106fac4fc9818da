"""Who is trusted to tell of others: a walk from this node along receipts.

An edge i → k is worth max(0, a − 3 b): what i saw of k's work, paid for and signed by both.
A walk begins here, follows edges in proportion to their worth, ends at each node with
probability 0.5, and is at most 6 hops long (personalised PageRank).  What comes to a node is
its *flow*.

Two things bound what a group of invented nodes can gather, however many there are and whatever
edges they draw among themselves:

* what comes to the group comes over edges of others, which had to be earned, and every hop
  within it halves what is left;
* what comes to one node is clipped at the *reference*: the flow of the eighth largest, or an
  eighth of the largest where that is more.  What is over is lost, not passed on, so an
  attacker who is trusted much can't share out more than one full weight to its own.

So with F for what comes to the group and e for how many of it others have edges to,

    Σ flow / reference ≤ 2 min(e, F / reference)

whatever the size of the group.  Flow that would return here is dropped.

The walk is a tree as well: each node has one *before* it, from which most came when it was
first reached.  Where both of two nodes on one branch tell of an agent, the nearer is heard
(:mod:`~meshnode.domain.trust.hearsay`): a group that is trusted through one node has one voice.

Edges don't fade with time: where they do, honest nodes that rest lose to attackers that don't
(MeritRank).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nlargest
from typing import Final

from meshnode.domain.trust.rules import RULES, UNIT_MU, Rules

#: Flow below this is not followed: of one node no weight that matters comes of it, and so a
#: walk looks at 10,000 nodes at most with each hop, however many there are.
FLOW_MIN: Final = 1e-4


def edge_units(good_mu: int, bad_mu: int, rules: Rules = RULES) -> float:
    """Return what an edge is worth: max(0, a − 3 b), units.

    Args:
        good_mu: For, in millionths of a unit; over all agents of the node.
        bad_mu: Against.
        rules: See there.
    """
    return max(0.0, (good_mu - rules.edge_bad * bad_mu) / UNIT_MU)


class TrustGraph:
    """Edges between nodes, by their ids; what is asked of it is in the order of ids.

    Sums of floats depend on their order, so that is never the one in which edges came.
    """

    def __init__(self) -> None:
        self._edges: dict[str, dict[str, float]] = {}
        self._shares: dict[str, tuple[tuple[str, float], ...]] = {}

    def __len__(self) -> int:
        """Return how many nodes have edges."""
        return len(self._edges)

    def put(self, source: str, edges: Mapping[str, float]) -> None:
        """Replace the edges of a node: whom it trusts, units."""
        self._shares.pop(source, None)
        worth = {target: units for target, units in edges.items() if units > 0.0}
        worth.pop(source, None)
        if worth:
            self._edges[source] = worth
        else:
            self._edges.pop(source, None)

    def shares(self, source: str) -> tuple[tuple[str, float], ...]:
        """Return where a walk goes on from a node, by id, and with what share."""
        found = self._shares.get(source)
        if found is None:
            rows = sorted(self._edges.get(source, {}).items())
            total = sum(units for _, units in rows)
            found = self._shares[source] = tuple((one, units / total) for one, units in rows)
        return found


@dataclass(frozen=True, slots=True)
class Flows:
    """What comes to the nodes from one of them.

    Attributes:
        flow: Node -> what comes to it, at most the reference.
        reference: What is worth a full weight; 0 where nobody is trusted.
        before: Node -> the one before it on its branch; none for those trusted directly.
    """

    flow: dict[str, float]
    reference: float
    before: dict[str, str]

    def weight(self, node: str) -> float:
        """Return the flow as a part of the reference, from 0 to 1."""
        return self.flow.get(node, 0.0) / self.reference if self.reference else 0.0


def flows(graph: TrustGraph, me: str, rules: Rules = RULES) -> Flows:
    """Return what comes to every node from ``me``."""
    unbounded, _ = _walk(graph, me, float("inf"), rules)
    if not unbounded:
        return Flows({}, 0.0, {})
    largest = nlargest(rules.reference_rank, unbounded.values())
    reference = largest[0] / rules.reference_rank
    if len(largest) == rules.reference_rank:
        reference = max(reference, largest[-1])
    flow, before = _walk(graph, me, reference, rules)
    return Flows(flow, reference, before)


def _walk(
    graph: TrustGraph, me: str, most: float, rules: Rules
) -> tuple[dict[str, float], dict[str, str]]:
    """Return what comes to each node, with at most ``most`` to one, and who is before it.

    Shares are in the order of ids, so every front is in an order that only the graph gives.
    """
    came: dict[str, float] = {}
    before: dict[str, str] = {}
    front = dict(graph.shares(me))
    goes_on = 1.0 - rules.restart
    for _ in range(rules.hops_max):
        following: dict[str, float] = {}
        most_of: dict[str, float] = {}
        for node, offered in front.items():
            known = came.get(node, 0.0)
            front[node] = min(offered, most - known)
            came[node] = known + front[node]
        for node, flow in front.items():
            if flow < FLOW_MIN:
                continue
            passed = flow * goes_on
            for target, share in graph.shares(node):
                added = passed * share
                following[target] = following.get(target, 0.0) + added
                if target not in came and added > most_of.get(target, 0.0):
                    most_of[target] = added
                    before[target] = node
        following.pop(me, None)
        front = following
    before.pop(me, None)
    return {node: flow for node, flow in came.items() if flow > 0.0}, before
