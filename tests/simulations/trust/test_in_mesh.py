"""The market's question, asked of a few nodes."""

from simulations.trust.in_mesh import Terms, play_in_mesh

SMALL = Terms(nodes=12, cheats=0.4, buyers=2, tasks=40, counted=10, golds=80)


def test_buyers_of_a_mesh_with_cheats_take_what_is_right_and_ask_for_little_more() -> None:
    tally = play_in_mesh(SMALL, seed=3)
    assert tally.tasks == 20
    assert tally.accepted + tally.contested + tally.unverified == tally.tasks
    assert tally.accepted >= 15
    assert tally.wrong <= 1
    assert tally.tasks <= tally.executions <= 4 * tally.tasks


def test_without_golds_nobody_is_believed_and_nothing_is_taken() -> None:
    tally = play_in_mesh(
        Terms(nodes=8, cheats=0.25, buyers=1, tasks=6, counted=6, golds=0), seed=3
    )
    assert (tally.tasks, tally.accepted, tally.unverified) == (6, 0, 6)
    assert tally.executions == 6
