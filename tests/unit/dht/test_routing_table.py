from __future__ import annotations

import random
from collections import Counter

import pytest

from agent.dht.config import DhtConfig
from agent.dht.routing_table import RoutingTable
from tests.unit.dht.peers import at

CONFIG = DhtConfig(siblings=4, replicas=3, links_max=8, known_max=4, stratum_bits=2)


def table(me: int, *connected: int) -> RoutingTable:
    made = RoutingTable(at(me), CONFIG)
    for position, key in enumerate(connected):
        made.add(at(key), float(position))
    return made


def keys(contacts: object) -> list[int]:
    return [c.key for c in contacts]  # type: ignore[attr-defined]


def test_closer_are_those_closer_than_we_are_closest_first() -> None:
    made = table(0b0000_0000, 0b1000_0000, 0b1100_0000, 0b0100_0000, 0b0000_0001)
    assert keys(made.closer(0b1111_0000)) == [0b1100_0000, 0b1000_0000, 0b0100_0000]
    assert keys(made.closer(0b0000_0000)) == []


def test_further_are_the_others() -> None:
    made = table(0b0000_0000, 0b1000_0000, 0b1100_0000, 0b0100_0000, 0b0000_0001)
    assert keys(made.further(0b1111_0000)) == [0b0000_0001]
    assert keys(made.further(0b0000_0000)) == [0b0000_0001, 0b0100_0000, 0b1000_0000, 0b1100_0000]


def test_closest_crosses_from_closer_to_further() -> None:
    made = table(0, 128, 64, 1)
    assert keys(made.closest(128, 3)) == [128, 1, 64]
    assert keys(made.closest(128, 2)) == [128, 1]
    assert made.closest(128, 0) == []


def test_a_peer_is_added_once_and_never_ourselves() -> None:
    made = table(5, 6)
    assert not made.add(at(6), 1.0)
    assert not made.add(at(5), 1.0)
    assert len(made.connected) == 1


def test_removing_empties_the_bucket() -> None:
    made = table(0, 128, 129)
    assert made.remove(at(128).peer) is at(128)
    assert made.remove(at(128).peer) is None
    made.remove(at(129).peer)
    assert keys(made.closest(0, 9)) == []
    assert made.add(at(128), 2.0)


def test_known_contacts_are_bounded_and_the_oldest_goes() -> None:
    made = table(0)
    for key in range(1, 6):
        assert made.learn(at(key))
    assert keys(made.known.values()) == [2, 3, 4, 5]
    assert not made.learn(at(5))
    assert not made.learn(at(0))


def test_a_connected_peer_is_no_longer_merely_known() -> None:
    made = table(0)
    made.learn(at(3))
    made.add(at(3), 0.0)
    assert not made.known
    assert not made.learn(at(3))


def test_known_peers_that_are_closer_than_a_sibling_are_wanted() -> None:
    made = table(0, 1, 2, 64, 128)
    made.learn(at(3))
    made.learn(at(200))
    assert keys(made.wanted_siblings()) == [3]


def test_with_too_few_siblings_everyone_is_wanted() -> None:
    made = table(0, 1)
    made.learn(at(200))
    assert keys(made.wanted_siblings()) == [200]


def test_siblings_cover_the_buckets_at_and_below_the_furthest() -> None:
    assert table(0, 1, 2, 3, 4, 64, 128).sibling_bucket() == 2
    assert table(0, 1, 2, 3).sibling_bucket() == 256


def test_a_part_of_a_bucket_is_covered_while_a_connection_is_in_it() -> None:
    made = table(0, 0b1010_0000, 0b1010_0001)
    assert [made.is_covered(7, s) for s in range(4)] == [False, True, False, False]
    made.remove(at(0b1010_0000).peer)
    assert made.is_covered(7, 0b01)
    made.remove(at(0b1010_0001).peer)
    assert not made.is_covered(7, 0b01)
    assert not made.is_covered(6, 0)


def test_the_victim_is_the_newest_of_the_most_crowded_stratum() -> None:
    near = (1, 2, 3, 4)
    made = table(0, *near, 0b1000_0000, 0b1000_0001, 0b1100_0000, 0b0100_0000)
    victim = made.victim(100.0)
    assert victim is not None
    assert victim.key == 0b1000_0001


def test_of_the_crowded_part_somebody_of_the_commonest_subnet_goes() -> None:
    made = table(0, 1, 2, 3, 4)
    for position, (key, subnet) in enumerate([(128, "a"), (129, "b"), (130, ""), (64, "a"), (65, ""), (66, "")]):
        made.add(at(key), float(position), subnet)
    victim = made.victim(100.0)
    assert victim is not None and victim.key == 128, "three are in each part: of the wider one not the newest, but the other `a`"
    made.remove(at(64).peer)
    made.add(at(67), 9.0, "")
    victim = made.victim(100.0)
    assert victim is not None and victim.key == 130, "no subnet is there twice: the newest"


def test_a_random_peer_is_drawn_from_a_random_subnet() -> None:
    made = table(0, 1, 2)
    for key in range(64, 128):
        made.add(at(key), 0.0, "192.0.2.0/24")
    rng = random.Random(1)
    drawn = Counter(made.anyone(rng, {at(2).peer}) for _ in range(1000))
    assert 400 < drawn.pop(at(1).peer) < 600, "as likely as all sixty-four together"
    assert at(2).peer not in drawn and len(drawn) == 64


def test_a_peer_that_counts_us_among_its_siblings_goes_last() -> None:
    made = table(0, 1, 2, 3, 4, 0b1000_0000, 0b1000_0001)
    made.connected[at(0b1000_0001).peer].keep_until = 100.0
    assert made.victim(99.0) is at(0b1000_0000)
    assert made.victim(100.0) is at(0b1000_0001)
    made.remove(at(0b1000_0000).peer)
    assert made.victim(99.0) is None


def test_far_above_the_limit_newcomers_go_too() -> None:
    made = table(0, 1, 2, 3, 4, *range(128, 136))
    assert made.victim(10.0) is None
    made.add(at(136), 9.0)
    assert made.victim(10.0) is at(128), "the oldest has had the most time to find others"


def test_without_anyone_to_spare_there_is_no_victim() -> None:
    assert table(0, 1, 2, 128).victim(100.0) is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hop_timeout_s": 0.0}, "hop_timeout_s"),
        ({"replicas": 9}, "replicas"),
        ({"links_max": 15}, "links_max"),
        ({"read_paths": 17}, "paths_max"),
        ({"hop_limit": 256}, "hop_limit"),
    ],
)
def test_absurd_settings_are_refused(changes: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DhtConfig(**changes)  # type: ignore[arg-type]
