"""The routing table of the simulated DHT: near is near, and full is split."""

from random import Random

import pytest
from libp2p.kad_dht.routing_table import peer_id_to_key
from libp2p.peer.id import ID

from protocol.keys import peer_id
from simulations.kademlia_table import KEY_BITS, RoutingTable, key_of, nearest


def never(_: int) -> bool:
    """No peer answers."""
    return False


def always(_: int) -> bool:
    """Every peer answers."""
    return True


def table(count: int, rng: Random, **limits: int) -> tuple[RoutingTable, list[int]]:
    """Return a table that has met ``count`` peers, and those."""
    made = RoutingTable(rng.getrandbits(KEY_BITS), **limits)
    keys = [rng.getrandbits(KEY_BITS) for _ in range(count)]
    for key in keys:
        made.meet(key, always)
    return made, keys


def test_a_peer_stands_where_libp2p_puts_it() -> None:
    for seed in range(5):
        peer = peer_id(Random(seed).randbytes(32))
        assert key_of(peer) == int.from_bytes(peer_id_to_key(ID.from_string(peer)), "big")


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 50, 400, 2000])
def test_the_nearest_are_those_that_sorting_everybody_gives(count: int) -> None:
    rng = Random(count)
    made, keys = table(count, rng)
    for wanted in (1, 5, 20):
        for _ in range(50):
            target = rng.getrandbits(KEY_BITS)
            assert made.nearest(target, wanted) == nearest(keys, target, wanted)


def test_near_a_crowd_of_neighbours_the_nearest_are_right_too() -> None:
    rng = Random(3)
    made, keys = table(500, rng)
    crowd = keys[0] >> 30 << 30
    for _ in range(100):
        keys.append(crowd + rng.getrandbits(30))
        made.meet(keys[-1], always)
    assert made.buckets == 256, "so many that some had to stay out"
    keys = [key for key in keys if key in made]
    for target in (crowd, crowd + (1 << 29), crowd - 1, crowd + (1 << 30)):
        assert made.nearest(target, 20) == nearest(keys, target, 20)


def test_every_full_bucket_is_split_so_that_nobody_is_left_out() -> None:
    made, keys = table(1000, Random(4))
    assert len(made) == len(keys)
    assert all(key in made for key in keys)
    assert 50 < made.buckets < 200


def test_who_was_met_twice_is_in_it_once() -> None:
    made, keys = table(30, Random(5))
    for key in keys:
        assert made.meet(key, never)
    assert len(made) == 30


def test_a_node_is_not_in_its_own_table() -> None:
    made = RoutingTable(7)
    assert not made.meet(7, always)
    assert len(made) == 0


def test_a_bucket_that_can_not_be_split_keeps_who_answers() -> None:
    made, keys = table(4, Random(6), bucket_max=4, buckets_max=1)
    assert not made.meet(1, always)
    assert sorted(made.nearest(0, 9)) == sorted(keys)


def test_a_bucket_that_can_not_be_split_drops_the_silent_one_not_heard_of_for_longest() -> None:
    made, keys = table(4, Random(6), bucket_max=4, buckets_max=1)
    made.meet(keys[0], never)
    pinged: list[int] = []

    def ping(key: int) -> bool:
        pinged.append(key)
        return False

    assert made.meet(1, ping)
    assert pinged == [keys[1]]
    assert sorted(made.nearest(0, 9)) == sorted([1, keys[0], *keys[2:]])


def test_who_is_forgotten_is_gone_and_may_come_back() -> None:
    made, keys = table(100, Random(7))
    made.forget(keys[3])
    made.forget(keys[3])
    assert keys[3] not in made
    assert keys[3] not in made.nearest(keys[3], 99)
    assert made.meet(keys[3], never)
    assert made.nearest(keys[3], 1) == [keys[3]]
