"""What is known of ended keys doesn't depend on the order in which it was heard."""

from itertools import pairwise, permutations

from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.fates import Fates
from protocol import limits
from protocol.keys import Identity
from protocol.lifecycle import Statement, read_statement, sign_revocation, sign_rotation
from tests.protocol.samples import NETWORK, NOW_MS, identity

WHO = [identity(f"key-{n}") for n in range(11)]
A, B, C, D = WHO[:4]


def read(envelope: bytes) -> Statement:
    return read_statement(envelope, network=NETWORK, now_ms=NOW_MS)


def moved(old: Identity, new: Identity, at_ms: int = NOW_MS) -> Statement:
    return read(sign_rotation(old, new, NETWORK, from_ms=at_ms))


def revoked(key: Identity, from_ms: int = 0) -> Statement:
    return read(sign_revocation(key, NETWORK, from_ms=from_ms))


def heard(*said: Statement, at_ms: int = NOW_MS, count_max: int = 100) -> Fates:
    fates = Fates(count_max)
    for one in said:
        fates.take(one, at_ms=at_ms, known=False)
    return fates


ABOUT_A = [
    moved(A, B),
    moved(A, B, NOW_MS - 9),
    moved(A, C),
    moved(A, D),
    revoked(A),
    revoked(A, NOW_MS - 5),
]


@given(st.lists(st.sampled_from(ABOUT_A), unique=True).flatmap(st.permutations))
def test_the_order_of_statements_changes_nothing(said: list[Statement]) -> None:
    def seen(order: list[Statement]) -> tuple[object, ...]:
        fates = heard(*order)
        kept = sorted(one.said.envelope for one in fates.all())
        return kept, fates.heir(A.peer), fates.ended_ms(A.peer)

    assert seen(said) == seen(sorted(said, key=lambda one: one.envelope))


def test_a_key_has_the_only_heir_that_it_named() -> None:
    assert heard().heir(A.peer) == A.peer
    assert heard(moved(A, B)).heir(A.peer) == B.peer
    assert heard(moved(A, B), moved(B, C)).heir(A.peer) == C.peer
    assert heard(moved(B, C), moved(A, C)).heir(A.peer) == C.peer


def test_two_heirs_or_a_revocation_mean_none() -> None:
    for said in permutations((moved(A, B), moved(A, C))):
        assert heard(*said).heir(A.peer) == A.peer
        assert A.peer in heard(*said).ended
    for said in permutations((moved(A, B), revoked(A))):
        assert heard(*said).heir(A.peer) == A.peer
        assert len(heard(*said).all()) == 1


def test_a_circle_leads_nowhere_and_a_chain_ends() -> None:
    assert heard(moved(A, B), moved(B, C), moved(C, A)).heir(A.peer) == A.peer
    chain = heard(*(moved(old, new) for old, new in pairwise(WHO)))
    assert chain.heir(A.peer) == WHO[limits.ROTATIONS_MAX].peer
    assert len(chain.path(A.peer)) == limits.ROTATIONS_MAX


def test_a_key_has_ended_from_when_it_says_or_from_when_it_is_heard() -> None:
    assert heard(revoked(A), at_ms=7).ended_ms(A.peer) == 7
    assert heard(revoked(A, 5), at_ms=7).ended_ms(A.peer) == 5
    assert heard(revoked(A), revoked(A, 5), at_ms=7).ended_ms(A.peer) == 5
    assert heard().ended_ms(A.peer) is None


def test_what_is_said_of_strangers_makes_room_for_what_is_said_of_the_known() -> None:
    fates = heard(revoked(A), revoked(B), count_max=2)
    assert fates.take(revoked(C), at_ms=NOW_MS, known=False) is None
    change = fates.take(revoked(C), at_ms=NOW_MS, known=True)
    assert change is not None
    assert [one.said.peer for one in change.gone] == [A.peer]
    assert set(fates.ended) == {B.peer, C.peer}
    fates.take(revoked(D), at_ms=NOW_MS, known=True)
    assert fates.take(revoked(A), at_ms=NOW_MS, known=True) is None, "all are of the known"
    assert len(fates.all()) == 2


def test_a_change_tells_what_to_keep_and_what_not() -> None:
    fates = heard(moved(A, B), moved(A, C))
    change = fates.take(revoked(A), at_ms=NOW_MS, known=False)
    assert change is not None
    assert {one.said.heir for one in change.gone} == {B.peer, C.peer}
    assert [one.said.heir for one in change.kept] == [""]
    assert fates.take(moved(A, D), at_ms=NOW_MS, known=False) is None
