"""Nodes on one network see each other; what else is announced there is left out.

Over loopback only: nothing leaves this machine.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import EventLoopBlocked, IPVersion, ServiceInfo, Zeroconf

from meshnode.adapters.mdns import (
    ADDRESSES_MAX,
    SERVICE,
    announcement,
    open_mdns,
    read_announcement,
)
from meshnode.ports import Sighting
from protocol.keys import Identity

HERE = ("127.0.0.1",)


def node(number: int, *addresses: str) -> Sighting:
    who = Identity(number.to_bytes(32, "big"), (number + 1000).to_bytes(32, "big"))
    return Sighting(who.peer, addresses or (f"/ip4/127.0.0.1/tcp/{number}",))


def silent(_: str, /, **__: object) -> None:
    raise AssertionError("nothing is to be reported here")


def as_heard(text: dict[str, str]) -> dict[bytes, bytes | None]:
    return {key.encode(): value.encode() for key, value in text.items()}


def test_an_announcement_is_read_as_it_was_meant() -> None:
    one = node(1, "/ip4/10.0.0.1/tcp/4001", "/ip6/fe80::1/tcp/4001")
    assert read_announcement(as_heard(announcement("m", one)), "m") == one
    assert read_announcement(as_heard(announcement("m", one)), "n") is None


def test_addresses_of_this_machine_are_announced_only_if_there_are_no_others() -> None:
    far, near = "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"
    both = read_announcement(as_heard(announcement("m", node(1, near, far))), "m")
    assert both == node(1, far)
    many = node(1, *(f"/ip4/10.0.0.{n}/tcp/1" for n in range(20)))
    found = read_announcement(as_heard(announcement("m", many)), "m")
    assert found is not None
    assert len(found.addresses) == ADDRESSES_MAX


@pytest.mark.parametrize(
    "wrong",
    [
        {b"peer": b"nobody"},
        {b"peer": None},
        {b"peer": b"\xff"},
        {b"a0": b"/dns4/evil.example/tcp/1"},
        {b"a0": b"127.0.0.1"},
        {b"a0": b"/ip4/\x1b[2J"},
        {b"a0": b"/ip4/" + b"1" * 500},
        {b"a0": None},
        {b"network": None},
    ],
)
def test_what_is_no_announcement_of_ours_is_left_out(wrong: dict[bytes, bytes | None]) -> None:
    good = as_heard(announcement("m", node(1)))
    assert read_announcement(good, "m") is not None
    assert read_announcement({**good, **wrong}, "m") is None


@given(
    st.dictionaries(
        st.sampled_from([b"network", b"peer", b"a0", b"a7", b"x"]),
        st.none() | st.binary(max_size=80) | st.just(b"m"),
    )
)
def test_any_text_record_is_a_node_or_none(text: dict[bytes, bytes | None]) -> None:
    found = read_announcement(text, "m")
    assert found is None or found.peer


async def test_nodes_of_one_mesh_see_each_other_and_no_others() -> None:
    one, two, other = node(1), node(2), node(3)
    seen: dict[str, set[str]] = {one.peer: set(), two.peer: set()}
    with trio.fail_after(50):
        async with (
            open_mdns("other", other, interfaces=HERE, emit=silent),
            open_mdns("mine", one, interfaces=HERE, emit=silent) as by_one,
            open_mdns("mine", two, interfaces=HERE, emit=silent) as by_two,
        ):
            assert await by_one.receive() == two
            assert await by_two.receive() == one
            # Somebody who comes later is seen too, and the other mesh still isn't.
            async with open_mdns("mine", node(4), interfaces=HERE, emit=silent):
                seen[one.peer].add((await by_one.receive()).peer)
                seen[two.peer].add((await by_two.receive()).peer)
    assert seen == {one.peer: {node(4).peer}, two.peer: {node(4).peer}}


@contextmanager
def stranger(properties: dict[str | bytes, str | bytes | None]) -> Iterator[None]:
    """Announce something that is no node of ours, under our service's name."""
    zeroconf = Zeroconf(interfaces=list(HERE), ip_version=IPVersion.V4Only)
    info = ServiceInfo(
        SERVICE, f"x.{SERVICE}", port=1, addresses=[socket.inet_aton(HERE[0])],
        properties=properties, server="x.local.",
    )  # fmt: skip
    try:
        zeroconf.register_service(info)
        yield
    finally:
        zeroconf.close()


async def test_a_liar_on_the_network_hides_nobody() -> None:
    enter = stranger({"network": "mine", "peer": "me", "a0": "/ip4/127.0.0.1/tcp/9"})
    await trio.to_thread.run_sync(enter.__enter__)
    try:
        with trio.fail_after(50):
            async with (
                open_mdns("mine", node(1), interfaces=HERE, emit=silent) as heard,
                open_mdns("mine", node(2), interfaces=HERE, emit=silent),
            ):
                assert await heard.receive() == node(2)
    finally:
        await trio.to_thread.run_sync(partial(enter.__exit__, None, None, None))


async def test_an_interface_that_is_not_there_is_reported() -> None:
    told: list[str] = []
    happened = trio.Event()

    def emit(name: str, /, **_: object) -> None:
        told.append(name)
        happened.set()

    with trio.fail_after(50):
        async with open_mdns("mine", node(1), interfaces=("203.0.113.7",), emit=emit):
            await happened.wait()
    assert told == ["mdns.unavailable"]


async def test_a_lookup_that_is_cut_short_is_nobodys_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, token = trio.Event(), trio.lowlevel.current_trio_token()

    def held_up(_: Zeroconf, *__: object, **___: object) -> None:
        token.run_sync_soon(asked.set)
        raise EventLoopBlocked  # in a thread of zeroconf's: a test fails if it gets out

    monkeypatch.setattr(Zeroconf, "get_service_info", held_up)
    with trio.fail_after(50):
        async with (
            open_mdns("mine", node(1), interfaces=HERE, emit=silent),
            open_mdns("mine", node(2), interfaces=HERE, emit=silent),
        ):
            await asked.wait()
