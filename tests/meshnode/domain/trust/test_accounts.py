"""What a credibility is made of."""

from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.trust.accounts import account_of, carry, told
from meshnode.domain.trust.credibility import Imported, credibility
from meshnode.domain.trust.evidence import Evidence, fold
from meshnode.domain.trust.hearsay import Share
from meshnode.domain.trust.rules import DAY_MS, KINDS, UNIT_MU

#: Whole numbers are rounded down with each event; what that comes to doesn't grow.
ROUNDING_MU = 200

days = st.integers(0, 40)
histories = st.lists(st.tuples(st.sampled_from(KINDS), days), max_size=80).map(
    lambda rows: [
        Evidence(kind, sum(day for _, day in rows[: at + 1]) * DAY_MS // 9)
        for at, (kind, _) in enumerate(rows)
    ]
)


@given(histories, st.integers(0, 900))
def test_the_parts_add_up_to_the_number(past: list[Evidence], day: int) -> None:
    now_ms = max([day * DAY_MS, *(event.at_ms for event in past)])
    account = account_of(past, now_ms=now_ms)
    standing = fold(past).at(now_ms)
    assert account.standing == standing, "the account is the store's fold, to the bit"
    assert account.credibility == credibility(standing)
    for total, parts in (
        (standing.for_mu, [part.good_mu for part in account.parts]),
        (standing.bad_mu, [part.bad_mu for part in account.parts]),
    ):
        assert abs(total - sum(parts)) <= ROUNDING_MU
    assert sum(part.count for part in account.parts) == len(past)


@given(histories, st.data())
def test_where_the_beginning_is_carried_it_is_the_same(
    past: list[Evidence], data: st.DataObject
) -> None:
    now_ms = 900 * DAY_MS
    first = data.draw(st.integers(0, len(past)))
    second = data.draw(st.integers(first, len(past)))
    carried = carry(past[first:second], carry(past[:first]))
    assert carried == carry(past[:second])
    rest = account_of(past[second:], now_ms=now_ms, carried=carried)
    assert rest == account_of(past, now_ms=now_ms)


def test_it_can_be_told() -> None:
    past = [Evidence("member"), *[Evidence("gold_passed")] * 4, Evidence("caught")]
    past += [Evidence("accepted_alone")]
    heard = [Share("rater", 0.5, UNIT_MU, 0)]
    lines = told(account_of(past, heard, Imported(UNIT_MU, 0), now_ms=0))
    assert lines == [
        "credibility 0.698, availability 0.800",
        "units for: 4.26 seen here, 0.50 of 1.00 heard",
        "units against: 1.00 seen here, 0.00 heard",
        "     1 × member of the same private mesh: +2.33 −0.00",
        "     4 × gold tasks passed: +1.93 −0.00",
        "     1 × accepted and shown to be wrong later: +0.00 −1.00",
        "     1 × accepted on its own word: +0.00 −0.00",
        "heard from rater (weight 0.50): +1.00 −0.00",
        "owes 3 gold tasks before it is taken alone again",
        "taken alone 1 time since its last gold task",
    ]
