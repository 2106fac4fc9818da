"""Seed lists: what is written is read back, and what is no list is refused by its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.seeds import SEEDS_MAX, format_seeds, read_seeds, write_seeds
from meshnode.errors import ConfigError
from protocol.keys import Identity


def peer(number: int) -> str:
    return Identity(number.to_bytes(32, "big"), bytes(32)).peer


def address(number: int) -> str:
    return f"/ip4/192.0.2.{number % 250}/tcp/4001/p2p/{peer(number)}"


ONE, TWO = address(1), address(2)


@given(st.lists(st.integers(0, 50).map(address), min_size=1, unique=True))
def test_what_is_written_is_read_back(addresses: list[str]) -> None:
    assert read_seeds(format_seeds(addresses), where="x") == addresses


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{TWO}",
        f"# two\r\n\r\n  {ONE}  # the first\r\n{TWO}\r\n{ONE}\r\n",
        f'seeds = ["{ONE}", "{TWO}"]',
        f'# as TOML\nname = "x"\nseeds = ["{ONE}", "{TWO}", "{ONE}"]\n',
    ],
)
def test_lines_comments_and_toml_are_read_each_once_in_order(text: str) -> None:
    assert read_seeds(text, where="x") == [ONE, TWO]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no seed"),
        ("# nobody\n", "names no seed"),
        (f"{ONE}\nnot an address", "line 2: 'not an address' is no address of a peer"),
        ("/ip4/192.0.2.1/tcp/4001", "line 1: '/ip4/192.0.2.1/tcp/4001' is no address"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/Qm", "line 1: 'Qm' is no PeerId"),
        (f"/ip4/192.0.2.1/tcp/4001/p2p/{peer(1)[:-1]}", "is no PeerId"),
        ("/ip4/192.0.2.1/tcp/4001/p2p/é", "is no PeerId"),
        (f"{ONE},{TWO}", "is no address of a peer"),
        ("seeds = [", "not TOML"),
        ("sseeds = []", "has no list 'seeds'"),
        ("seeds = [7]", "seed 1 is 7, not text"),
        ("seeds = ['x']", "seed 1: 'x' is no address"),
        ("\n".join(map(address, range(SEEDS_MAX + 1))), f"over {SEEDS_MAX}"),
    ],
)
def test_what_is_no_seed_list_is_refused_naming_the_place(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_seeds(text, where="seeds.txt")
    assert says in str(caught.value)
    assert "seeds.txt" in str(caught.value)
    assert caught.value.hint


@given(st.text())
def test_any_text_is_a_list_of_addresses_or_refused(text: str) -> None:
    try:
        found = read_seeds(text, where="x")
    except ConfigError:
        return
    assert found
    assert all("/p2p/" in entry for entry in found)


def test_a_list_that_can_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "seeds.txt"
    write_seeds(path, [ONE])
    with pytest.raises(ConfigError, match="is no address"):
        write_seeds(path, ["nowhere"])
    assert read_seeds(path.read_text(), where="x") == [ONE]
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match="can't be written"):
        write_seeds(tmp_path / "no" / "seeds.txt", [ONE])
