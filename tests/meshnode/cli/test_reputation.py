"""``meshnode reputation`` says who is believed how far, to people and to programs."""

from typing import Any

import pytest

from meshnode.cli import reputation
from tests.meshnode.cli.commands import run

PEER = "12D3KooWLSZa9aH2u7PQZFxXtBy8cJP3P1knDWmYZNw9YYP6KZTW"
NAMED: dict[str, Any] = {
    "capability": "text.shout@1",
    "agent": f"{PEER}/shout",
    "name": "ann",
    "peer_is": "member",
}
LIST: dict[str, Any] = {
    "agents": [
        {
            **NAMED,
            "credibility": 0.8431,
            "availability": 0.91,
            "seen_for": 4.2,
            "seen_against": 0.34,
            "heard_for": 1.5,
            "heard_against": 0.0,
            "events": 17,
            "state": "alone",
        }
    ]
}
EVENT: dict[str, Any] = {
    "kind": "check_passed",
    "at_ms": 0,
    "source": "b7e0f9233db8" + "0" * 52,
    "receipt": {
        "job": "11dc65ce50adaecfc6d0",
        "unit": "a\x1b[2J/0",
        "verdict": "verified",
        "check": "schema",
        "cost_mc": 14,
        "paid_mc": 14,
        "latency_ms": 1234,
    },
}
ACCOUNTS: dict[str, Any] = {
    "accounts": [
        {
            **NAMED,
            "state": "owes golds",
            "lines": ["credibility 0.843, availability 0.910"],
            "evidence": [EVENT, {**EVENT, "kind": "member", "source": "", "receipt": None}],
        }
    ]
}

BUYERS: dict[str, Any] = {
    "buyers": [
        {
            "peer": PEER,
            "name": "",
            "peer_is": "stranger",
            "first_mc": 1_000,
            "cap_mc": 1_234,
            "out_mc": 321,
            "in_work_mc": 21,
            "lost_mc": 77,
            "settled_mc": 4_321,
            "accepted": 43,
            "unsupported": 1,
            "fairness": 0.92,
        }
    ]
}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Answer as a node would; return what was asked."""
    asked: list[tuple[str, dict[str, str]]] = []

    def answer(_: object, __: str, path: str, **query: str) -> dict[str, Any]:
        asked.append((path, query))
        return {"/api/reputation": LIST, "/api/buyers": BUYERS}.get(path, ACCOUNTS)

    monkeypatch.setattr(reputation, "answer_of", answer)
    return asked


def test_the_list_says_how_far_and_what_that_means(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, dict[str, str]]]
) -> None:
    said = run(capsys, "reputation", "--capability", "text.shout@1")
    assert said.status == 0
    row = said.out.splitlines()[1]
    assert row.split("  ")[0] == "YYP6KZTW/shout"
    for shown in ("ann", "0.843", "0.34", "+1.50 −0.00", "17", "believed alone"):
        assert shown in row
    assert requests == [("/api/reputation", {"capability": "text.shout@1"})]
    assert run(capsys, "reputation", "--json").line() == LIST


def test_one_is_shown_with_its_account_and_receipts(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, dict[str, str]]]
) -> None:
    said = run(capsys, "reputation", "YYP6KZTW/shout", "--limit", "7")
    assert said.status == 0
    assert requests == [("/api/reputation/YYP6KZTW/shout", {"limit": "7"})]
    assert f"{PEER}/shout in text.shout@1: owes golds" in said.out
    assert "  credibility 0.843, availability 0.910" in said.out
    assert "check passed" in said.out
    assert "b7e0f9233db8" in said.out
    assert "1234" in said.out
    assert "\x1b" not in said.out
    assert run(capsys, "reputation", PEER, "--json").line() == ACCOUNTS


def test_where_nobody_is_known_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reputation, "answer_of", lambda *_, **__: {"agents": []})
    assert run(capsys, "reputation").out == "no agent is known here yet\n"


def test_who_overclaims_is_said_to(
    capsys: pytest.CaptureFixture[str], requests: list[tuple[str, dict[str, str]]]
) -> None:
    LIST["agents"].append({**LIST["agents"][0], "overclaims": True})
    rows = run(capsys, "reputation").out.splitlines()
    LIST["agents"].pop()
    assert ["overclaims" in row for row in rows] == [False, False, True]


def test_buyers_are_listed_with_what_they_may_have_and_what_is_lost(
    capsys: pytest.CaptureFixture[str],
    requests: list[tuple[str, dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = run(capsys, "reputation", "--buyers")
    assert said.status == 0
    row = said.out.splitlines()[1].split()
    assert row == ["YYP6KZTW", "stranger", "1234", "321", "77", "4321", "0.92"]
    assert requests == [("/api/buyers", {})]
    assert '"cap_mc": 1234' in run(capsys, "reputation", "--buyers", "--json").out
    free = {**BUYERS["buyers"][0], "cap_mc": None}
    monkeypatch.setitem(BUYERS, "buyers", [free])
    assert "  -  " in run(capsys, "reputation", "--buyers").out
    monkeypatch.setitem(BUYERS, "buyers", [])
    assert "nobody had work done here" in run(capsys, "reputation", "--buyers").out
