"""JSON values: one encoding, and places in them as RFC 6901 says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.domain.values import canonical, parse, pick, resolve, resolve_all, resolve_list
from meshnode.errors import InputInvalid
from meshnode.ports import JsonValue

#: The document and pointers of RFC 6901, section 5.
RFC: dict[str, JsonValue] = {
    "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5,
    'k"l': 6, " ": 7, "m~n": 8,
}  # fmt: skip
POINTERS: list[tuple[str, JsonValue]] = [
    ("", RFC), ("/foo", ["bar", "baz"]), ("/foo/0", "bar"), ("/", 0), ("/a~1b", 1),
    ("/c%d", 2), ("/e^f", 3), ("/g|h", 4), ("/i\\j", 5), ('/k"l', 6), ("/ ", 7), ("/m~0n", 8),
]  # fmt: skip

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(("pointer", "value"), POINTERS)
def test_the_pointers_of_rfc_6901_name_what_it_says(pointer: str, value: JsonValue) -> None:
    assert resolve(RFC, pointer) == value


@pytest.mark.parametrize(
    "pointer",
    [
        "/foo/2",
        "/foo/-",
        "/foo/00",
        "/foo/01",
        "/foo/+1",
        "/foo/١",
        "/foo/bar",
        "/none",
        "/a/b",
    ],
)
def test_a_place_that_isnt_there_is_refused(pointer: str) -> None:
    with pytest.raises(InputInvalid, match="there is no"):
        resolve(RFC, pointer)


@pytest.mark.parametrize("pointer", ["foo", "0", "/~", "/~2", "/a~", "#/foo"])
def test_what_is_no_pointer_is_refused_and_not_taken_for_the_whole(pointer: str) -> None:
    for read in (resolve, pick, resolve_list):
        with pytest.raises(InputInvalid, match="no JSON Pointer"):
            read(RFC, pointer)
    with pytest.raises(InputInvalid):
        list(resolve_all(RFC, pointer))


def test_a_star_ranges_over_lists_and_gives_a_list() -> None:
    docs: JsonValue = [{"t": [1, 2]}, {"t": [3]}, {"t": []}]
    value: JsonValue = {"docs": docs}
    assert pick(value, "/docs/*/t") == [[1, 2], [3], []]
    assert pick(value, "/docs/*/t/*") == [1, 2, 3]
    assert resolve_list(value, "/docs/*") == docs
    with pytest.raises(InputInvalid):
        pick(value, "/docs/*/none")
    with pytest.raises(InputInvalid, match="there is no"):
        resolve(value, "/docs/*/t")  # no star here: a name that isn't there
    assert resolve({"*": 1}, "/*") == 1


def test_only_a_list_can_be_mapped_over() -> None:
    with pytest.raises(InputInvalid, match="/foo/0 is no list"):
        resolve_list(RFC, "/foo/0")
    with pytest.raises(InputInvalid, match="the value is no list"):
        resolve_list({}, "")


@given(values)
def test_a_value_has_one_encoding_which_reads_back(value: JsonValue) -> None:
    data = canonical(value)
    assert parse(data) == value
    assert canonical(parse(data)) == data


@given(values)
def test_every_place_that_a_walk_finds_is_named_by_its_pointer(value: JsonValue) -> None:
    def walk(here: JsonValue, pointer: str) -> None:
        assert resolve(value, pointer) == here
        if isinstance(here, dict):
            for key, item in here.items():
                walk(item, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")
        elif isinstance(here, list):
            for n, item in enumerate(here):
                walk(item, f"{pointer}/{n}")

    walk(value, "")


@given(st.binary(max_size=40) | values.map(lambda v: canonical(v)[:-1]))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except InputInvalid as exc:
        assert "not JSON" in str(exc)  # noqa: PT017 - most bytes are refused, some are not


@pytest.mark.parametrize(
    "data",
    [b"NaN", b"Infinity", b"-Infinity", b"[1,]", b"", b"\xff", '"é"'.encode("utf-16"),
     b"\xef\xbb\xbf1", b"[" * 100_000, b"9" * 5_000],
)  # fmt: skip
def test_what_rfc_8259_does_not_allow_is_refused(data: bytes) -> None:
    with pytest.raises(InputInvalid):
        parse(data)


@pytest.mark.parametrize("number", [1e17, 2.0**53, -1e20, 33739603470250990.0])
def test_a_large_number_that_an_agent_made_reads_back(number: float) -> None:
    assert canonical(parse(canonical(number))) == canonical(number)


def test_a_number_that_would_be_rounded_is_refused_and_not_rounded() -> None:
    for data in (b"9007199254740993", b"123456789012345678901234567890"):
        with pytest.raises(InputInvalid, match="no canonical JSON"):
            canonical(parse(data))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, "\ud800", {"\ud800": 1}])
def test_what_has_no_canonical_form_is_refused(value: JsonValue) -> None:
    with pytest.raises(InputInvalid, match="no canonical JSON"):
        canonical(value)
