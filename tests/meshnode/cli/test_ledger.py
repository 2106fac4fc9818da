"""``meshnode ledger`` says who owes whom, to people and to programs."""

from typing import Any

import pytest

from meshnode.cli import ledger
from tests.meshnode.cli.commands import run

PEER = "12D3KooWLSZa9aH2u7PQZFxXtBy8cJP3P1knDWmYZNw9YYP6KZTW"
STANDING: dict[str, Any] = {
    "peer": PEER,
    "name": "ann",
    "standing": "member",
    "due_mc": -14,
    "earned_mc": 0,
    "spent_mc": 14,
    "paid_mc": 0,
    "received_mc": 0,
    "unaccepted_mc": 0,
}
PAYMENT: dict[str, Any] = {
    "key": "26fd12165c4b" + "0" * 52,
    "peer": PEER,
    "kind": "paid",
    "amount_mc": 14,
    "note": "transfer\x1b[2J 17",
    "state": "noted",
    "at_ms": 0,
    "expires_ms": 1,
    "text": "",
}
POSTING: dict[str, Any] = {
    "key": "b7e0f9233db8" + "0" * 52,
    "peer": PEER,
    "kind": "spent",
    "amount_mc": 14,
    "at_ms": 0,
    "job": "11dc65ce50adaecfc6d0",
    "unit": "a/0",
    "note": "",
}
LIST: dict[str, Any] = {
    "peers": [STANDING],
    "owed_mc": 0,
    "owing_mc": 14,
    "to_confirm": [],
    "settlement": "manual",
    "limits": {"owed_max_mc": None, "owing_max_mc": 20},
}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, object]]:
    """Answer as a node would; return what was asked."""
    asked: list[tuple[str, str, object]] = []

    def answer(
        _: object, method: str, path: str, *, body: object = None, **query: str
    ) -> dict[str, Any]:
        asked.append((method, path, body))
        if method == "POST":
            return {"payment": PAYMENT, **STANDING}
        if path == "/api/ledger":
            return LIST
        return {**STANDING, "postings": [POSTING], "payments": [PAYMENT]}

    monkeypatch.setattr(ledger, "answer_of", answer)
    return asked


def test_the_list_says_who_is_owed_and_what_the_limit_is(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, str, object]]
) -> None:
    said = run(capsys, "ledger")
    assert said.status == 0
    assert "YYP6KZTW" in said.out
    assert "owed to this node: 0 mc; it owes: 14 mc" in said.out
    assert "it may owe one 20 mc (ledger.owing_max_mc)" in said.out
    assert run(capsys, "ledger", "--json").line() == LIST


def test_one_peer_is_shown_with_its_receipts_and_nothing_that_moves_the_cursor(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, str, object]]
) -> None:
    said = run(capsys, "ledger", "show", "YYP6KZTW")
    assert "you owe YYP6KZTW 14 mc" in said.out
    assert "b7e0f9233db8" in said.out
    assert "11dc65ce50adaecfc6d0" in said.out
    assert "\x1b" not in said.out
    assert run(capsys, "ledger", "show", "a/b").status == 0
    assert [path for _, path, _ in requests] == ["/api/ledger/YYP6KZTW", "/api/ledger/a%2Fb"]


def test_a_payment_is_told_with_what_follows(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, str, object]]
) -> None:
    said = run(capsys, "ledger", "settle", "YYP6KZTW", "14", "--note", "transfer 17")
    assert "payment 26fd12165c4b of 14 mc: its owner is to confirm it" in said.out
    assert run(capsys, "ledger", "confirm", "26fd").status == 0
    assert run(capsys, "ledger", "deny", "26fd", "--json").line()["payment"] == PAYMENT
    assert requests == [
        ("POST", "/api/ledger/YYP6KZTW/settle", {"amount_mc": 14, "note": "transfer 17"}),
        ("POST", "/api/payments/26fd/confirm", None),
        ("POST", "/api/payments/26fd/deny", None),
    ]


@pytest.mark.parametrize(
    "arguments",
    [("YYP6KZTW", "14"), ("YYP6KZTW", "0", "--note", "x"), ("YYP6KZTW", "all", "--note", "x")],
)
def test_what_is_no_payment_is_not_sent(
    capsys: pytest.CaptureFixture[str],
    requests: list[tuple[str, str, object]],
    arguments: tuple[str, ...],
) -> None:
    assert run(capsys, "ledger", "settle", *arguments).status != 0
    assert requests == []
