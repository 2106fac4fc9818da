"""Others' word: how far it counts, and that no group of invented nodes makes it count more."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.domain.trust.book import Book
from meshnode.domain.trust.credibility import Imported, good_units
from meshnode.domain.trust.evidence import Evidence, Standing, fold
from meshnode.domain.trust.graph import TrustGraph, edge_units, flows
from meshnode.domain.trust.hearsay import (
    Deal,
    Envelopes,
    Tally,
    agreement,
    deal_of,
    imported,
    rater_weights,
    shares,
    witnessed,
)
from meshnode.domain.trust.rules import RULES, UNIT_MU, Kind, mu
from protocol.errors import RemoteProtocolError
from protocol.keys import digest
from protocol.receipts import Verdict
from tests.protocol import samples

LIMIT_MU = mu(RULES.import_max)

names = st.sampled_from([f"n{number}" for number in range(12)])
tallies = st.builds(Tally, st.integers(0, 80 * UNIT_MU), st.integers(0, 80 * UNIT_MU))
told = st.dictionaries(names, st.dictionaries(names, tallies, max_size=8), max_size=12)
weighed = st.dictionaries(names, st.floats(0.0, 1.0), max_size=12)


def graph_of(edges: dict[str, dict[str, float]]) -> TrustGraph:
    graph = TrustGraph()
    for source, to in edges.items():
        graph.put(source, to)
    return graph


@given(told, weighed, st.one_of(st.just(""), names))
def test_whatever_is_imported_stays_within_its_limit(
    said: dict[str, dict[str, Tally]], weights: dict[str, float], inviter: str
) -> None:
    for agent, found in imported(said, weights, inviter=inviter).items():
        assert 0 <= found.good_mu + found.bad_mu <= LIMIT_MU
        rows = shares(agent, said, weights, inviter=inviter)
        for row in rows:
            most = RULES.inviter_max if row.rater == inviter else RULES.rater_max
            assert row.good_mu + row.bad_mu <= row.weight * mu(most)
        if sum(row.good_mu + row.bad_mu for row in rows) <= LIMIT_MU:
            assert found.good_mu == sum(row.good_mu for row in rows), "it is made of these"


@given(told, weighed)
def test_the_order_in_which_it_came_changes_nothing(
    said: dict[str, dict[str, Tally]], weights: dict[str, float]
) -> None:
    turned = {rater: dict(reversed(known.items())) for rater, known in reversed(said.items())}
    again = imported(turned, dict(reversed(weights.items())))
    assert list(again.items()) == list(imported(said, weights).items())


def test_one_rater_counts_little_the_inviter_twelve_units_and_nobody_for_itself() -> None:
    much = {"agent": Tally(45 * UNIT_MU, 5 * UNIT_MU), "rater/tool": Tally(UNIT_MU, 0)}
    said = {"rater": much}
    assert imported(said, {"rater": 1.0}) == {"agent": Imported(mu(0.675), mu(0.075))}
    assert imported(said, {"rater": 0.5}) == {"agent": Imported(mu(0.3375), mu(0.0375))}
    by_inviter = imported(said, {"rater": 1.0}, inviter="rater")
    assert by_inviter == {"agent": Imported(mu(10.8), mu(1.2))}


def test_many_together_keep_what_they_say_and_not_how_much() -> None:
    said = {f"r{at}": {"agent": Tally(8 * UNIT_MU, 2 * UNIT_MU)} for at in range(50)}
    found = imported(said, dict.fromkeys(said, 1.0))["agent"]
    assert found == Imported(mu(9.6), mu(2.4))


# --- receipts ---


def deal(verdict: Verdict = "verified", *, signed: bool = True, settled: bool = True) -> Deal:
    return Deal("buyer", "agent", verdict, 0, both_signed=signed, settled=settled)


def test_what_one_side_did_not_sign_or_nobody_paid_weighs_nothing() -> None:
    for worthless in (deal(signed=False), deal(settled=False), deal("rejected", signed=False)):
        assert witnessed([worthless]) == {}
    assert witnessed([deal("contested"), deal("unverified")]) == {}


def test_a_testimony_is_the_fold_of_receipts() -> None:
    deals = [deal(), deal("agreed"), deal("rejected"), deal(signed=False)]
    kinds: list[Kind] = ["check_passed", "agreed", "check_failed"]
    standing = fold(Evidence(kind) for kind in kinds)
    assert witnessed(deals) == {"buyer": {"agent": Tally(standing.good_mu, standing.bad_mu)}}


def test_four_envelopes_prove_a_deal_and_fewer_signatures_none() -> None:
    whole = samples.deal()
    four = Envelopes(whole.award, whole.result, whole.receipt, whole.acceptance)
    proven = deal_of(four, network=samples.NETWORK)
    agent = f"{samples.CONTRACTOR.peer}/bandit"
    assert proven == Deal(
        samples.BROKER.peer, agent, "verified", samples.NOW_MS, both_signed=True, settled=True
    )
    assert witnessed([proven]) == {samples.BROKER.peer: {agent: Tally(UNIT_MU, 0)}}
    other = samples.deal(of_award={"items": 2})
    with pytest.raises(RemoteProtocolError):
        deal_of(four._replace(award=other.award), network=samples.NETWORK)


@pytest.mark.parametrize("supported", [True, False])
def test_a_rejection_weighs_if_what_proves_it_is_there(supported: bool) -> None:
    whole = samples.deal(of_acceptance={"verdict": "rejected", "paid_mc": 0})
    four = Envelopes(whole.award, whole.result, whole.receipt, whole.acceptance)
    found = witnessed([deal_of(four, network=samples.NETWORK, supported=supported)])
    assert bool(found) is supported


def test_what_a_later_broker_accepted_is_not_counted() -> None:
    chartered = {"charter": digest(b"charter")}
    first = samples.header(samples.BROKER, samples.CONTRACTOR, **chartered)
    later = samples.header(samples.STRANGER, samples.CONTRACTOR, epoch=2, **chartered)
    whole = samples.deal(of_award={"h": first}, of_acceptance={"h": later})
    four = Envelopes(whole.award, whole.result, whole.receipt, whole.acceptance)
    assert witnessed([deal_of(four, network=samples.NETWORK)]) == {}


# --- weights ---


def test_an_edge_is_worth_what_speaks_for_it_less_thrice_what_speaks_against() -> None:
    assert edge_units(10 * UNIT_MU, 2 * UNIT_MU) == 4.0
    assert edge_units(UNIT_MU, UNIT_MU) == 0.0


def test_a_rater_counts_if_it_is_trusted_credible_and_sees_things_as_this_node() -> None:
    flow = flows(graph_of({"me": {"a": 1.0, "b": 1.0}}), "me")
    credible = {"a": 0.9, "b": 0.7, "c": 0.9}
    assert rater_weights(flow, credible, {"a": 0.8, "b": 0.8, "c": 0.8}) == {"a": 1.0}
    assert rater_weights(flow, credible, {"a": 0.55}) == {"a": pytest.approx(0.5)}
    assert rater_weights(flow, credible, {"a": 0.3}) == {}


def test_praise_of_each_other_makes_nobody_a_rater() -> None:
    """However often what they say is weighed anew: they are credible by own evidence only."""
    group = [f"s{at}" for at in range(9)]
    said = {one: {two: Tally(50 * UNIT_MU, 0) for two in group} for one in group}
    book = Book.of((one, Evidence("gold_passed")) for one in group)
    flow = flows(graph_of({"me": dict.fromkeys(group, 1.0)}), "me")
    for _ in range(3):
        own = {one: book.own_credibility(one) for one in group}
        weights = rater_weights(flow, own, dict.fromkeys(group, 0.8))
        book.take(imported(said, weights, before=flow.before))
    for one in group:
        assert book.credibility(one) == book.own_credibility(one) < RULES.rater_credible


def test_agreement_is_measured_on_what_both_know() -> None:
    good: list[Kind] = ["gold_passed"] * 10
    bad: list[Kind] = ["gold_failed"] * 10
    own = {
        "x": fold(Evidence(kind) for kind in good),
        "y": fold(Evidence(kind) for kind in bad),
        "new": Standing(),
    }
    same = {name: Tally(one.good_mu, one.bad_mu) for name, one in own.items()}
    assert agreement(same, own) == pytest.approx(1.0)
    turned = {"x": same["y"], "y": same["x"]}
    assert agreement(turned, own) < RULES.rater_credible - 1.0
    assert agreement({"x": same["x"], "new": same["x"]}, own) == 0.8, "too little in common"


# --- the walk ---


def test_flow_halves_with_each_hop_and_ends_after_six() -> None:
    chain = {str(at): {str(at + 1): 1.0} for at in range(10)}
    found = flows(graph_of(chain), "0")
    clipped = found.reference
    assert clipped == pytest.approx(1 / 8)
    assert [found.flow.get(str(at), 0.0) for at in range(9)] == pytest.approx(
        [0.0, *(clipped / 2**hop for hop in range(6)), 0.0, 0.0]
    )


def test_nobody_trusted_is_nobody_heard() -> None:
    found = flows(graph_of({"other": {"me": 3.0}}), "me")
    assert found.weight("other") == 0.0
    assert not found.flow


def test_what_would_return_here_is_dropped() -> None:
    found = flows(graph_of({"me": {"a": 1.0}, "a": {"me": 3.0, "b": 1.0}}), "me")
    assert found.flow["b"] == pytest.approx(found.flow["a"] / 8)
    assert set(found.flow) == {"a", "b"}


def test_before_a_node_is_the_one_from_which_most_came_at_first() -> None:
    found = flows(
        graph_of(
            {"me": {"a": 9.0, "b": 1.0}, "a": {"c": 1.0}, "b": {"c": 1.0}, "c": {"a": 1.0}}
        ),
        "me",
    )
    assert found.before == {"c": "a"}


def heard(speaking: str, weights: dict[str, float]) -> set[str]:
    """Who is heard of those who speak, one behind the other: m, n, o."""
    chain = graph_of({"me": {"m": 1.0}, "m": {"n": 1.0}, "n": {"o": 1.0}})
    said = {name: {"agent": Tally(UNIT_MU, 0)} for name in speaking}
    rows = shares("agent", said, weights, before=flows(chain, "me").before)
    return {row.rater for row in rows}


def test_of_those_on_one_branch_who_have_weight_the_nearest_that_speaks_is_heard() -> None:
    everybody = {"m": 1.0, "n": 0.5, "o": 0.25}
    assert heard("mno", everybody) == {"m"}
    assert heard("mo", everybody) == {"m"}, "over one that is silent, too"
    assert heard("no", everybody) == {"n"}
    assert heard("mno", {"n": 0.5, "o": 0.25}) == {"n"}, "who isn't believed silences nobody"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Honest nodes with any edges, some to a group that draws any edges of its own."""
    honest = [f"h{at}" for at in range(draw(st.integers(1, 8)))]
    group = [f"s{at}" for at in range(draw(st.integers(1, 6)))]
    everybody = ["me", *honest, *group]
    worth = st.integers(1, 72).map(float)
    edges = {
        source: draw(st.dictionaries(st.sampled_from(everybody), worth, max_size=4))
        for source in everybody
    }
    return edges, group


@given(worlds())
@settings(max_examples=60)
def test_a_group_gets_no_more_than_comes_to_it_over_real_edges(
    world: tuple[dict[str, dict[str, float]], list[str]],
) -> None:
    edges, group = world
    graph = graph_of(edges)
    found = flows(graph, "me")
    assert all(0.0 <= found.weight(node) <= 1.0 + 1e-9 for node in edges)
    entries, came = set(), 0.0
    for source in sorted(set(edges) - set(group)):
        leaves = 1.0 if source == "me" else found.flow.get(source, 0.0) * (1 - RULES.restart)
        for target, share in graph.shares(source):
            if target in group:
                entries.add(target)
                came += leaves * share
    weight = sum(found.weight(node) for node in group)
    if not found.reference:
        assert weight == 0.0
        return
    assert weight <= 2 * min(len(entries), came / found.reference) + 1e-9


def surrounded(sybils: int, *, links: float = 30.0) -> dict[str, dict[str, float]]:
    """Ten honest nodes that know each other; one of them earned trust and has ``sybils``.

    They praise its agent and each other, and draw edges to honest nodes too.
    """
    rng = Random(1)
    honest = [f"h{at}" for at in range(10)]
    edges = {name: {other: 1 + 9 * rng.random() for other in honest} for name in honest}
    edges["me"] = {**dict.fromkeys(honest, 5.0), "m": 10.0}
    edges["h0"]["m"] = 8.0
    group = [f"s{at}" for at in range(sybils)]
    edges["m"] = dict.fromkeys(group, links) | {"agent": 20.0}
    for name in group:
        edges[name] = {"m": links, "agent": 20.0, **dict.fromkeys(group, links)}
    return edges


def praised(sybils: int, *, silent: bool = False) -> int:
    """What comes in for the group's agent, were all of the group believed; millionths."""
    edges = surrounded(sybils)
    group = ["m", *(f"s{at}" for at in range(sybils))]
    said = {name: {"agent": Tally(50 * UNIT_MU, 0)} for name in group}
    if silent:
        del said["m"]
    flow = flows(graph_of(edges), "me")
    weights = rater_weights(flow, dict.fromkeys(group, 0.9), dict.fromkeys(group, 0.8))
    return imported(said, weights, before=flow.before).get("agent", Imported()).good_mu


def test_more_names_through_the_same_edges_gain_no_more_than_one() -> None:
    alone = praised(0)
    assert alone == mu(RULES.rater_max)
    for sybils in (1, 3, 30, 300):
        assert praised(sybils) == alone
        assert praised(sybils, silent=True) < alone, "the trusted one leaves it to the others"


@given(worlds(), st.data())
@settings(max_examples=60)
def test_a_group_behind_one_trusted_node_has_one_voice(
    world: tuple[dict[str, dict[str, float]], list[str]], data: st.DataObject
) -> None:
    """However the group is linked, and whoever of it speaks."""
    edges, group = world
    speaking = data.draw(st.sets(st.sampled_from(group)))
    for source in sorted(set(edges) - set(group)):  # the first is the only one with edges to it
        edges[source] = {
            to: worth for to, worth in edges[source].items() if to not in group[1:]
        }
    flow = flows(graph_of(edges), "me")
    said = {name: {"agent": Tally(50 * UNIT_MU, 0)} for name in sorted(speaking)}
    weights = rater_weights(flow, dict.fromkeys(group, 0.9), dict.fromkeys(group, 0.8))
    together = imported(said, weights, before=flow.before).get("agent", Imported())
    assert together.good_mu <= mu(RULES.rater_max) * flow.weight(group[0]) + 1


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_in_which_edges_came_changes_no_bit(
    world: tuple[dict[str, dict[str, float]], list[str]], rng: Random
) -> None:
    edges, _ = world
    rows = [(source, list(to.items())) for source, to in edges.items()]
    rng.shuffle(rows)
    for _, to in rows:
        rng.shuffle(to)
    turned = graph_of({source: dict(to) for source, to in rows})
    assert flows(turned, "me") == flows(graph_of(edges), "me")


def test_sums_of_floats_are_in_one_order() -> None:
    worth = {"a": 0.1, "b": 0.2, "c": 0.3}
    turned = dict(reversed(worth.items()))
    assert sum(worth.values()) != sum(turned.values()), "or this shows nothing"
    assert graph_of({"me": worth}).shares("me") == graph_of({"me": turned}).shares("me")


def test_edges_that_are_put_again_replace_the_old() -> None:
    graph = graph_of({"me": {"a": 1.0}})
    assert flows(graph, "me").weight("a") == 1.0
    graph.put("me", {"b": 1.0})
    assert set(flows(graph, "me").flow) == {"b"}
    graph.put("me", {"b": 0.0, "me": 4.0})
    assert len(graph) == 0


@given(st.integers(0, 12 * UNIT_MU), st.integers(0, 20 * UNIT_MU), st.integers(1, 5))
def test_praise_counts_less_the_more_often_it_was_belied(
    praised_mu: int, good_mu: int, wrong: int
) -> None:
    said = Imported(praised_mu, 0)
    units = [
        good_units(Standing(good_mu=good_mu, bad_mu=bad * UNIT_MU), said)
        for bad in range(wrong + 1)
    ]
    assert units == sorted(units, reverse=True)
    assert units[0] == pytest.approx((good_mu + praised_mu) / UNIT_MU)
    heard = units[-1] - good_mu / UNIT_MU
    assert heard == pytest.approx(praised_mu / UNIT_MU / (1 + RULES.belied * wrong), abs=1e-9)
