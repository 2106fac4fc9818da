"""Settings: each comes from file or environment, and a wrong one is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.config import HttpConfig, NodeConfig, parse_config
from meshnode.errors import ConfigError

PEER = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWPeer"


def config(text: str = "", **env: str) -> NodeConfig:
    return parse_config(text, env=env, where="node.toml")


def test_nothing_said_gives_the_defaults() -> None:
    assert config() == NodeConfig()
    assert config().http.host == "127.0.0.1"
    assert config().home_path == Path("~/.meshnode").expanduser()


def test_the_file_is_read() -> None:
    found = config(f"""
        network = "lab"
        join = ["{PEER}"]
        specialists = ["lint"]
        [http]
        port = 8080
        [host]
        lease_s = 5
        [directory]
        dht = false
    """)
    assert (found.network, found.join, found.specialists) == ("lab", (PEER,), ("lint",))
    assert found.http == HttpConfig(port=8080)
    assert found.host.lease_s == 5.0
    assert not found.directory.dht
    assert found.directory.catalogue


def test_the_environment_goes_before_the_file() -> None:
    found = config(
        'network = "lab"\n[http]\nport = 1\nhost = "127.0.0.2"',
        MESHNODE_NETWORK="other",
        MESHNODE_HTTP__PORT="8081",
        MESHNODE_DIRECTORY__DHT="false",
        MESHNODE_HOST__LEASE_S="7.5",
        MESHNODE_JOIN=f"{PEER},{PEER}x",
        MESHNODE_SPECIALISTS="",
    )
    assert found.network == "other"
    assert found.http == HttpConfig(port=8081, host="127.0.0.2")
    assert not found.directory.dht
    assert found.host.lease_s == 7.5
    assert found.join == (PEER, PEER + "x")
    assert found.specialists == ()


def test_only_settings_are_taken_from_the_environment() -> None:
    assert config(MESHNODE_TOKEN="x", HOME="/x", PATH="/y", NETWORK="z") == NodeConfig()


WRONG = {
    "a line that is no TOML": ("network =", "not TOML", "line"),
    "a setting that doesn't exist": ("colour = 1", "colour", "meshnode up --help"),
    "a setting of a table that doesn't exist": ("[http]\nprot = 1", "prot", "--help"),
    "a table that doesn't exist": ("[web]\nport = 1", "web", "--help"),
    "text for a number": ('[http]\nport = "web"', r"\$.http.port", "--help"),
    "a number for a text": ("network = []", r"\$.network", "--help"),
    "a network that is none": ('network = "My Mesh"', "network 'My Mesh'", "a-z"),
    "no address to listen on": ("listen = []", "listen is empty", "multiaddr"),
    "an address that is none": ('listen = ["localhost:80"]', "'localhost:80'", "/ip4/"),
    "a join address that is none": ('join = ["seed.example"]', "'seed.example'", "/p2p/"),
    "a join address without a peer": (
        'join = ["/ip4/1.2.3.4/tcp/1"]', "names no peer", "/p2p/PEER",
    ),
    "a port beyond all ports": ("[http]\nport = 65536", "http.port 65536", "65535"),
    "a port below all ports": ("[http]\nport = -1", "http.port -1", "65535"),
    "no time": ("[host]\nlease_s = 0", "host.lease_s is 0", "positive"),
    "negative counts": ("[host]\ncalls_max = -1", "host.calls_max is -1", "positive"),
    "no bytes to keep": (
        "[host]\nartifact_bytes_max = 0", "host.artifact_bytes_max is 0", "positive",
    ),
    "no time to keep": (
        "[host]\nartifact_lifetime_s = -3", "host.artifact_lifetime_s is -3", "positive",
    ),
    "a time that is no number": ("[host]\nlease_s = nan", "host.lease_s is nan", "positive"),
    "a time without end": ("[host]\nlease_s = inf", "host.lease_s is inf", "positive"),
    "hours of no day": (
        '[access]\nhours = ["funday"]', "access.hours: 'funday'", "mon-fri 20:00-08:00",
    ),
    "hours of no time": ('[access]\nhours = "mon 8-9"', "access.hours: 'mon 8-9'", "sat-sun"),
    "hours that never begin": (
        '[access]\nhours = "08:00-08:00"', "access.hours: '08:00-08:00'", "sat-sun",
    ),
    "a time zone that is none": (
        '[access]\ntime_zone = "Mars/North"', "time_zone: 'Mars/North'", "Europe/Madrid",
    ),
    "a time zone that is a path": (
        '[access]\ntime_zone = "../../etc/passwd"', "time_zone: '../../etc", "Europe/Madrid",
    ),
    "a quota below nothing": (
        "[quota]\ncalls_per_day = -1", "quota.calls_per_day is -1", "0 for no limit",
    ),
    "a quota that is no number": (
        "[quota]\nrun_s_per_day = nan", "quota.run_s_per_day is nan", "0 for no limit",
    ),
    "an inbox that holds nothing": (
        "[inbox]\nletters_max = 0", "inbox.letters_max is 0", "positive",
    ),
    "a mailbox that keeps for no time": (
        "[mailbox]\nkeep_s = 0", "mailbox.keep_s is 0", "positive",
    ),
    "others let in by mistake": (
        '[http]\nhost = "0.0.0.0"', "http.host '0.0.0.0'", "allow_remote",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "says", "hint"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_named_with_file_and_what_to_do(
    text: str, says: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        config(text)
    assert str(caught.value).startswith("node.toml")
    assert hint in caught.value.hint
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MESHNODE_HTTP__PORT", "web", "http.port"),
        ("MESHNODE_HTTP__PROT", "1", "prot"),
        ("MESHNODE_NETWORK__X", "1", "network"),
        ("MESHNODE_HTTP", "1", "http"),
        ("MESHNODE_A__B", "1", "`a`"),
    ],
)
def test_a_wrong_setting_in_the_environment_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        config('network = "lab"', **{name: value})
    assert name in str(caught.value)


def test_a_wrong_setting_in_the_file_is_not_laid_to_the_environment() -> None:
    with pytest.raises(ConfigError, match=r"^node\.toml: "):
        config('[http]\nport = "web"', MESHNODE_HTTP__HOST="127.0.0.1")


def test_allow_remote_is_how_others_are_let_in() -> None:
    found = config('[http]\nhost = "0.0.0.0"\nallow_remote = true')
    assert found.http.allow_remote


@given(st.text(max_size=80))
def test_any_text_is_a_config_or_refused(text: str) -> None:
    try:
        config(text)
    except ConfigError as exc:
        assert exc.hint  # noqa: PT017 - some text is a config
