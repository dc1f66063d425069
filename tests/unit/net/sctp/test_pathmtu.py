from __future__ import annotations

from agent.net.sctp.config import PACKET_BYTES_BASE
from agent.net.sctp.pathmtu import PROBES_MAX, RAISE_AFTER_S, SIZES, PathMtu


def search(mtu: PathMtu, path: int, now: float) -> float:
    """Probe until the search rests; return the time."""
    mtu.begin(now)
    while (deadline := mtu.next_deadline()) is not None and deadline < now + 100:
        now = max(now, deadline)
        size = mtu.probe(now, 0.05)
        if size is not None and size <= path:
            mtu.arrived(size, now + 0.05)
    return now


def test_finds_the_largest_size_that_passes() -> None:
    for path in (1200, 1292, 1400, 9000, 65_535):
        mtu = PathMtu(16384)
        search(mtu, path, 0.0)
        assert mtu.packet_bytes == max((size for size in SIZES if size <= path), default=PACKET_BYTES_BASE)


def test_never_beyond_what_the_peer_takes() -> None:
    mtu = PathMtu(1400)
    search(mtu, 65_535, 0.0)
    assert mtu.packet_bytes == 1372
    assert mtu.next_deadline() is None


def test_tries_again_much_later() -> None:
    mtu = PathMtu(16384)
    now = search(mtu, 1300, 0.0)
    assert mtu.packet_bytes == 1292
    assert mtu.next_deadline() == now + RAISE_AFTER_S
    sizes = [mtu.probe(now + RAISE_AFTER_S + n, 0.05) for n in range(PROBES_MAX + 1)]
    assert sizes == [1332] * PROBES_MAX + [None]


def test_a_black_hole_brings_it_back_to_the_base() -> None:
    mtu = PathMtu(16384)
    assert not mtu.black_hole(0.0)
    now = search(mtu, 65_535, 0.0)
    assert mtu.black_hole(now)
    assert (mtu.packet_bytes, mtu.fell_back) == (PACKET_BYTES_BASE, True)
    assert mtu.probe(now + 1, 0.05) is None


def test_answers_that_were_not_asked_for_are_ignored() -> None:
    mtu = PathMtu(16384)
    assert not mtu.arrived(16384, 0.0)
    mtu.begin(0.0)
    mtu.probe(0.0, 0.05)
    assert not mtu.arrived(16384, 0.1)
    assert mtu.packet_bytes == PACKET_BYTES_BASE
