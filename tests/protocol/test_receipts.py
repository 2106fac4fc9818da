"""A finished contract holds only if its four messages fit each other in everything."""

from typing import Any

import pytest

from protocol.errors import (
    BadSignature,
    LocalProtocolError,
    Malformed,
    RemoteProtocolError,
    WrongAudience,
)
from protocol.keys import digest
from protocol.limits import SPENT_ROWS_MAX
from protocol.messages import Budget
from protocol.receipts import Spent, check_receipt
from tests.protocol.samples import (
    BROKER,
    CONTRACTOR,
    NETWORK,
    STRANGER,
    Deal,
    changed,
    deal,
    header,
)

OTHER = digest(b"another message")
FORWARD = header(BROKER, CONTRACTOR)
BACK = header(CONTRACTOR, BROKER)


def check(made: Deal) -> None:
    """Check ``made`` as a third party would."""
    check_receipt(made.award, made.result, made.receipt, made.acceptance, network=NETWORK)


def test_a_finished_contract_holds() -> None:
    made = deal()
    _, _, claimed, accepted = check_receipt(
        made.award, made.result, made.receipt, made.acceptance, network=NETWORK
    )
    assert (claimed.cost_mc, accepted.paid_mc, accepted.verdict) == (90, 90, "verified")


@pytest.mark.parametrize("verdict", ["verified", "agreed", "contested", "unverified"])
def test_every_verdict_but_rejected_pays_the_charge(verdict: str) -> None:
    check(deal(of_acceptance={"verdict": verdict}))
    with pytest.raises(Malformed):
        check(deal(of_acceptance={"verdict": verdict, "paid_mc": 0}))


def test_rejected_work_is_not_paid() -> None:
    check(deal(of_acceptance={"verdict": "rejected", "paid_mc": 0}))
    with pytest.raises(Malformed):
        check(deal(of_acceptance={"verdict": "rejected"}))


def test_a_charge_of_the_cap_holds_and_one_more_does_not() -> None:
    def charged(mc: int) -> Deal:
        return deal(
            of_result={"price_mc": mc},
            of_receipt={"cost_mc": mc},
            of_acceptance={"paid_mc": mc},
        )

    check(charged(100))
    with pytest.raises(Malformed):
        check(charged(101))


def passed_on(*rows: dict[str, Any]) -> Deal:
    """A deal whose award gives 50 mc, three awards and two hops, and what was done below."""
    budget = Budget(cost_mc=50, subtasks=3)
    awarded = header(BROKER, CONTRACTOR, hops=2, budget=budget)
    row = {"level": 1, "subtask": "scan", "peer": STRANGER.peer}
    below = [Spent(**{**row, **fields}) for fields in rows]
    return deal(of_award={"h": awarded}, of_receipt={"below": below})


def test_what_was_done_below_fits_the_award_to_the_last_unit_and_no_further() -> None:
    check(passed_on({"cost_mc": 50, "awards": 3}))
    check(passed_on({"cost_mc": 30, "awards": 2}, {"level": 2, "cost_mc": 50, "awards": 1}))
    for rows in (
        [{"cost_mc": 51}],
        [{"cost_mc": 26}, {"cost_mc": 25}],
        [{"awards": 4}],
        [{"awards": 3}, {"level": 2, "awards": 1}],
        [{"level": 3}],
    ):
        with pytest.raises(Malformed, match="below"):
            check(passed_on(*rows))


def test_a_receipt_has_so_many_rows_of_what_was_done_below_and_no_more() -> None:
    check(passed_on(*[{}] * SPENT_ROWS_MAX))
    with pytest.raises(LocalProtocolError):
        passed_on(*[{}] * (SPENT_ROWS_MAX + 1))


MISMATCHES: dict[str, tuple[dict[str, Any], type[RemoteProtocolError]]] = {
    "result of another award": ({"of_result": {"award": OTHER}}, Malformed),
    "receipt for another award": ({"of_receipt": {"award": OTHER}}, Malformed),
    "acceptance of another award": ({"of_acceptance": {"award": OTHER}}, Malformed),
    "receipt for another result": ({"of_receipt": {"result": OTHER}}, Malformed),
    "acceptance of another receipt": ({"of_acceptance": {"receipt": OTHER}}, Malformed),
    "receipt above the result": ({"of_receipt": {"cost_mc": 91}}, Malformed),
    "receipt below the result": ({"of_receipt": {"cost_mc": 89}}, Malformed),
    "paid too little": ({"of_acceptance": {"paid_mc": 89}}, Malformed),
    "paid too much": ({"of_acceptance": {"paid_mc": 91}}, Malformed),
    "another capability": ({"of_receipt": {"capability": "text.writing@1"}}, Malformed),
    "another agent": ({"of_receipt": {"agent": "ruff"}}, Malformed),
    "work that failed": (
        {"of_result": {"state": "failed", "output": b"", "inline": b"", "size": 0}},
        Malformed,
    ),
    "result by a third party": (
        {"of_result": {"h": header(STRANGER, BROKER)}},
        BadSignature,
    ),
    "receipt by a third party": (
        {"of_receipt": {"h": header(STRANGER, BROKER)}},
        BadSignature,
    ),
    "acceptance by a third party": (
        {"of_acceptance": {"h": header(STRANGER, CONTRACTOR)}},
        BadSignature,
    ),
    "acceptance by the contractor itself": (
        {"of_acceptance": {"h": header(CONTRACTOR, BROKER)}},
        BadSignature,
    ),
    "receipt by the broker": ({"of_receipt": {"h": FORWARD}}, BadSignature),
    "award to somebody else": ({"of_award": {"h": header(BROKER, STRANGER)}}, BadSignature),
    "result for somebody else": (
        {"of_result": {"h": header(CONTRACTOR, STRANGER)}},
        WrongAudience,
    ),
    "receipt for somebody else": (
        {"of_receipt": {"h": header(CONTRACTOR, STRANGER)}},
        WrongAudience,
    ),
    "acceptance for somebody else": (
        {"of_acceptance": {"h": header(BROKER, STRANGER)}},
        WrongAudience,
    ),
}
for _name, _header in (("result", BACK), ("receipt", BACK), ("acceptance", FORWARD)):
    for _field, _value in (("job", "job-2"), ("subtask", "audit/1"), ("replica", 1)):
        MISMATCHES[f"{_name} of another {_field}"] = (
            {f"of_{_name}": {"h": changed(_header, **{_field: _value})}},
            Malformed,
        )


@pytest.mark.parametrize("what", MISMATCHES)
def test_each_mismatch_is_refused(what: str) -> None:
    parts, error = MISMATCHES[what]
    with pytest.raises(error):
        check(deal(**parts))


def test_messages_of_two_contracts_do_not_mix() -> None:
    first, second = deal(), deal(of_award={"price_cap_mc": 101})
    for part in ("award", "result", "receipt", "acceptance"):
        parts = {name: getattr(first, name) for name in Deal.__dataclass_fields__}
        with pytest.raises(RemoteProtocolError):
            check(Deal(**parts | {part: getattr(second, part)}))


def test_messages_in_each_others_place_are_refused() -> None:
    made = deal()
    with pytest.raises(RemoteProtocolError):
        check(Deal(made.award, made.receipt, made.result, made.acceptance))
    with pytest.raises(RemoteProtocolError):
        check(Deal(made.acceptance, made.result, made.receipt, made.award))


def test_a_receipt_of_another_network_is_refused() -> None:
    made = deal()
    with pytest.raises(RemoteProtocolError):
        check_receipt(made.award, made.result, made.receipt, made.acceptance, network="other")


CHARTER = digest(b"the charter")


def succeeded(of: dict[str, Any], by: dict[str, Any]) -> Deal:
    """A contract awarded under ``of``, and accepted by somebody else under ``by``."""
    back = header(CONTRACTOR, BROKER, **of)
    return deal(
        of_award={"h": header(BROKER, CONTRACTOR, **of)},
        of_result={"h": back},
        of_receipt={"h": back},
        of_acceptance={"h": header(STRANGER, CONTRACTOR, **by)},
    )


def test_a_later_broker_under_the_same_charter_may_accept() -> None:
    first = {"charter": CHARTER, "epoch": 1}
    check(succeeded(first, {"charter": CHARTER, "epoch": 2}))
    for by in (
        first,
        {"charter": CHARTER, "epoch": 0},
        {"charter": OTHER, "epoch": 2},
        {"charter": b"", "epoch": 2},
    ):
        with pytest.raises(BadSignature, match="acceptance"):
            check(succeeded(first, by))
    with pytest.raises(BadSignature, match="acceptance"):
        check(succeeded({"charter": b"", "epoch": 1}, {"charter": b"", "epoch": 2}))
