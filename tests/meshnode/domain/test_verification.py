"""What a broker says of an output: never more than a check has shown."""

import pytest

from meshnode.domain.programs import Case
from meshnode.domain.values import canonical
from meshnode.domain.verification import (
    Finding,
    Trial,
    check_output,
    needs_inputs,
    read_output,
    trials,
)
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue
from protocol.graph import EXACT, Check, Likeness

ANY = b"{}"
TEXT = canonical({"type": "string"})
RECOMPUTE = Check(kind="recompute")
QUOTED = Check(kind="quoted", output="/sentences/*", input="/text")


def test_an_output_is_read_as_canonical_json_only() -> None:
    assert read_output(b'{"a":1}', calls=1, single=True) == [{"a": 1}]
    assert read_output(b"[1,2]", calls=2, single=False) == [1, 2]
    for data in (b'{"a": 1}', b'{"b":1,"a":1}', b"1.0", b"nonsense", b'{"a":1,"a":1}'):
        with pytest.raises(InputInvalid):
            read_output(data, calls=1, single=True)


@pytest.mark.parametrize("data", [b"[1]", b"[1,2,3]", b'{"0":1,"1":2}', b"[]"])
def test_a_batch_has_an_output_for_each_item(data: bytes) -> None:
    with pytest.raises(InputInvalid, match="a list of 2 items"):
        read_output(data, calls=2, single=False)


def test_an_output_that_the_schema_refuses_is_rejected_and_named() -> None:
    found = check_output(["fine", 3], [{}, {}], schema=TEXT, checks=[])
    assert (found.verdict, found.check) == ("rejected", "schema")
    assert found.detail.startswith("item 1, ")


def test_without_a_check_that_passed_nothing_is_verified() -> None:
    assert check_output(["x"], [{}], schema=ANY, checks=[]) == Finding("unverified", "")
    nobody_to_ask = check_output(["x"], [{}], schema=ANY, checks=[RECOMPUTE], recomputed=None)
    assert nobody_to_ask == Finding("unverified", "")


def test_recomputing_tells_equal_from_other() -> None:
    same = check_output(
        [{"a": 1}], [{}], schema=ANY, checks=[RECOMPUTE], recomputed=[{"a": 1.0}]
    )
    assert same == Finding("verified", "recompute")
    false = check_output(
        ["x", "y"], [{}, {}], schema=ANY, checks=[RECOMPUTE], recomputed=["x", "z"]
    )
    assert (false.verdict, false.check) == ("rejected", "recompute")
    assert "item 1" in false.detail


def test_recomputing_tells_true_from_one() -> None:
    found = check_output([True], [{}], schema=ANY, checks=[RECOMPUTE], recomputed=[1])
    assert found.verdict == "rejected"


@pytest.mark.parametrize(
    "outputs",
    [
        [{"sentences": []}],
        [{"sentences": [""]}],
        [{"sentences": ["It rains."]}, {"sentences": []}],
        [],
    ],
    ids=["no quote", "an empty quote", "one item of two quotes nothing", "no item"],
)
def test_quotes_verify_nothing_where_nothing_is_quoted(outputs: list[JsonValue]) -> None:
    inputs: list[JsonValue] = [{"text": "It rains."} for _ in outputs]
    found = check_output(outputs, inputs, schema=ANY, checks=[QUOTED])
    assert found == Finding("unverified", "")


GIVEN: JsonValue = {"text": "It rains. The sun shines."}


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ({"sentences": ["It rains."]}, "verified"),
        ({"sentences": ["It rains.", "The sun shines."]}, "verified"),
        ({"sentences": ["It snows."]}, "rejected"),
        ({"sentences": ["It rains.", "It snows."]}, "rejected"),
        ({"sentences": [7]}, "rejected"),
        ({}, "rejected"),
        ({"sentences": "It rains."}, "rejected"),
    ],
)
def test_a_quote_stands_word_for_word_in_the_source(output: JsonValue, verdict: str) -> None:
    found = check_output([output], [GIVEN], schema=ANY, checks=[QUOTED])
    assert found.verdict == verdict
    assert found.check == "quoted"


def test_each_output_is_held_against_its_own_input() -> None:
    outputs: list[JsonValue] = [{"sentences": ["one"]}, {"sentences": ["one"]}]
    inputs: list[JsonValue] = [{"text": "one"}, {"text": "two"}]
    found = check_output(outputs, inputs, schema=ANY, checks=[QUOTED])
    assert found.verdict == "rejected"
    assert "item 1" in found.detail


def test_every_check_that_passed_is_named_and_one_that_failed_rejects() -> None:
    output: JsonValue = {"sentences": ["It rains."]}
    both = check_output(
        [output], [GIVEN], schema=ANY, checks=[QUOTED, RECOMPUTE], recomputed=[output]
    )
    assert both == Finding("verified", "quoted+recompute")
    one = check_output(
        [output], [GIVEN], schema=ANY, checks=[QUOTED, RECOMPUTE], recomputed=[1]
    )
    assert one.verdict == "rejected"


NEAR = Likeness("numeric", relative_ppm=10_000)
FOUR = Check(kind="expected", output="/n/*", value=b"4", like=NEAR)


@pytest.mark.parametrize(
    ("output", "verdict"),
    [
        ({"n": [4]}, "verified"),
        ({"n": [4.01, 3.99]}, "verified"),
        ({"n": [4, 5]}, "rejected"),
        ({"n": ["4"]}, "rejected"),
        ({"n": []}, "rejected"),
        ({"n": {}}, "rejected"),
        ({}, "rejected"),
    ],
)
def test_what_is_expected_has_to_be_there_and_all_of_it(
    output: JsonValue, verdict: str
) -> None:
    found = check_output([output], [{}], schema=ANY, checks=[FOUR])
    assert (found.verdict, found.check) == (verdict, "expected")
    second = check_output([{"n": [4]}, output], [{}, {}], schema=ANY, checks=[FOUR])
    assert second.verdict == verdict
    assert verdict == "verified" or "item 1" in second.detail


def test_what_is_recomputed_may_differ_as_declared() -> None:
    check = Check(kind="recompute", like=NEAR)
    for own, verdict in ((100.5, "verified"), (102, "rejected"), ("100", "rejected")):
        found = check_output([100], [{}], schema=ANY, checks=[check], recomputed=[own])
        assert found.verdict == verdict


@pytest.mark.parametrize("value", [b"{", b"NaN", b"\xff", b'"\\ud800"'])
def test_an_expectation_that_is_none_shows_nothing(value: bytes) -> None:
    check = Check(kind="expected", value=value)
    assert check_output([1], [{}], schema=ANY, checks=[check]) == Finding("unverified", "")


CASES = b'[{"args":[2],"call":"double","gives":4}]'
DOUBLE = [Case("double", [2], 4)]
PROGRAM = Check(kind="program", output="/code", value=CASES)


@pytest.mark.parametrize(
    ("told", "finding"),
    [
        ({0: ""}, Finding("verified", "program")),
        ({0: "case 0"}, Finding("rejected", "program", "case 0")),
        ({0: None}, Finding("unverified", "")),
        ({1: ""}, Finding("unverified", "")),
        ({}, Finding("unverified", "")),
        (None, Finding("unverified", "")),
    ],
)
def test_a_program_is_as_good_as_its_trial(
    told: dict[int, str | None] | None, finding: Finding
) -> None:
    output: JsonValue = {"code": "x"}
    assert check_output([output], [{}], schema=ANY, checks=[PROGRAM], tried=told) == finding


def test_a_program_is_tried_on_the_cases_of_its_check_or_of_its_input() -> None:
    outputs: list[JsonValue] = [{"code": "x"}, {"code": "y"}]
    both = [Trial("x", DOUBLE, EXACT), Trial("y", DOUBLE, EXACT)]
    assert trials(outputs, [], PROGRAM) == both
    inputs: list[JsonValue] = [
        {"cases": [{"call": "double", "args": [n], "gives": 2 * n}]} for n in (2, 3)
    ]
    check = Check(kind="program", output="/code", input="/cases", like=NEAR)
    assert trials(outputs, inputs, check) == [
        Trial("x", DOUBLE, NEAR),
        Trial("y", [Case("double", [3], 6)], NEAR),
    ]
    with pytest.raises(InputInvalid, match="case"):
        trials(outputs, [{"cases": []}, {"cases": []}], check)
    with pytest.raises(InputInvalid):
        trials(outputs, [{}, {}], check)
    with pytest.raises(InputInvalid, match="cases"):
        trials(outputs, [{"cases": []}, {"cases": []}], Check(kind="program", input="/cases/*"))


@pytest.mark.parametrize("output", [{}, {"code": 1}, {"code": None}, {"code": ["x"]}, "x"])
def test_an_output_without_its_program_is_wrong(output: JsonValue) -> None:
    assert "item 0" in trials([output], [], PROGRAM)
    none = Check(kind="program", output="/code/*", value=CASES)
    assert "no program" in trials([{"code": []}], [], none)


def test_inputs_are_wanted_where_a_check_looks_at_them() -> None:
    wanted = {QUOTED: True, RECOMPUTE: True, FOUR: False, PROGRAM: False}
    wanted[Check(kind="program", input="/cases")] = True
    assert {check: needs_inputs(check) for check in wanted} == wanted
