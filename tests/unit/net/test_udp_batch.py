"""Batches of datagrams over loopback sockets, with and without the kernel's help."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator

import pytest

from agent.net.udp_batch import Flight, UdpBatch

Pair = tuple[UdpBatch, UdpBatch, tuple[str, int]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = []
    for _ in range(2):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        ends.append(sock)
    batches = [UdpBatch(sock) for sock in ends]
    yield batches[0], batches[1], ends[1].getsockname()
    for batch in batches:
        batch.close()


def pieces(batch: UdpBatch) -> list[bytes]:
    return [data[at : at + segment] for data, segment, _ in batch.receive() for at in range(0, len(data), segment)]


@pytest.mark.parametrize("segmented", [True, False])
@pytest.mark.parametrize("coalesced", [True, False])
def test_a_flight_arrives_as_its_datagrams(pair: Pair, segmented: bool, coalesced: bool) -> None:
    one, other, address = pair
    one.can_segment = one.can_segment and segmented
    if not coalesced and other.can_coalesce:
        other._sock.setsockopt(17, 104, 0)
    data = bytes(range(250)) * 20 + b"short"
    one.send(Flight(data, 250), address)
    one.send(Flight(b"single", 6), address)
    assert not one.blocked
    assert pieces(other) == [*[data[at : at + 250] for at in range(0, 5000, 250)], b"short", b"single"]


@pytest.mark.skipif(sys.platform != "linux", reason="GSO and GRO are Linux's")
def test_the_kernel_helps_where_it_can(pair: Pair) -> None:
    one, other, address = pair
    if not (one.can_segment and other.can_coalesce):
        pytest.skip("this kernel has no UDP GSO or GRO")
    one.send(Flight(bytes(12_000), 1000), address)
    assert [(len(data), segment) for data, segment, _ in other.receive()] == [(12_000, 1000)]


def arrivals(sizes: list[tuple[int, int]], error: int | None = None) -> tuple[list[tuple[int, int, int]], bool]:
    """What `receive` makes of single datagrams of (bytes, port of the sender): (bytes, segment, port), and whether it raised."""
    batch = UdpBatch(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    class Giving:
        def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, tuple[str, int]]:
            if not sizes:
                raise OSError(error, "broken") if error else BlockingIOError()
            size, port = sizes.pop(0)
            return bytes(size), [], 0, ("127.0.0.1", port)

    own, batch._sock = batch._sock, Giving()  # type: ignore[assignment]
    own.close()
    found: list[tuple[int, int, int]] = []
    try:
        for data, segment, sender in batch.receive():
            found.append((len(data), segment, sender[1]))
    except OSError:
        return found, True
    return found, False


def test_equal_datagrams_are_one_run_without_the_kernel() -> None:
    assert arrivals([(100, 1)] * 5 + [(40, 1)] + [(100, 1)] * 2) == ([(540, 100, 1), (200, 100, 1)], False)
    assert arrivals([(100, 1), (101, 1), (101, 2), (101, 1)]) == (
        [(100, 100, 1), (101, 101, 1), (101, 101, 2), (101, 101, 1)],
        False,
    )
    assert arrivals([(0, 1), (7, 1)]) == ([(7, 7, 1)], False)
    assert arrivals([(20_000, 1)] * 2) == ([(20_000, 20_000, 1)] * 2, False)
    found, _ = arrivals([(1000, 1)] * 100)
    assert [data for data, _, _ in found] == [65_000, 35_000]


def test_what_came_before_an_error_is_not_lost() -> None:
    assert arrivals([(100, 1)] * 2, errno.EBADF) == ([(200, 100, 1)], True)


class Refusing:
    """A socket that fails as it is told."""

    family = socket.AF_INET

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sendmsg_error: int | None = None
        self.sendto_errors: list[int] = []
        self.sent: list[bytes] = []

    def setsockopt(self, *args: int) -> None:
        self.sock.setsockopt(*args)

    def sendmsg(self, buffers: list[bytes], *_: object) -> int:
        if self.sendmsg_error:
            raise OSError(self.sendmsg_error, "refused")
        self.sent.append(b"".join(buffers))
        return len(self.sent[-1])

    def sendto(self, data: bytes, _: object) -> int:
        if self.sendto_errors and (error := self.sendto_errors.pop(0)):
            raise OSError(error, "refused")
        self.sent.append(data)
        return len(data)

    def close(self) -> None:
        self.sock.close()


@pytest.fixture
def refusing() -> Iterator[tuple[UdpBatch, Refusing]]:
    fake = Refusing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    batch = UdpBatch(fake)  # type: ignore[arg-type]
    batch.can_segment = True
    yield batch, fake
    batch.close()


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL])
def test_refused_segmentation_is_given_up_and_nothing_is_lost(refusing: tuple[UdpBatch, Refusing], error: int) -> None:
    batch, fake = refusing
    fake.sendmsg_error = error
    batch.send(Flight(b"aaabbbc", 3), ("127.0.0.1", 9))
    assert fake.sent == [b"aaa", b"bbb", b"c"]
    assert not batch.can_segment


def test_a_full_socket_keeps_the_rest(refusing: tuple[UdpBatch, Refusing]) -> None:
    batch, fake = refusing
    fake.sendmsg_error = errno.EAGAIN
    batch.send(Flight(b"aaabbb", 3), ("127.0.0.1", 9))
    assert batch.blocked
    assert fake.sent == []
    batch.can_segment = False
    fake.sendto_errors = [0, errno.EAGAIN]
    batch.flush()
    assert batch.blocked
    assert fake.sent == [b"aaa"]
    batch.flush()
    assert not batch.blocked
    assert fake.sent == [b"aaa", b"bbb"]


@pytest.mark.parametrize("error", [errno.EMSGSIZE, errno.ENOBUFS, errno.EPERM])
def test_one_datagram_may_be_lost(refusing: tuple[UdpBatch, Refusing], error: int) -> None:
    batch, fake = refusing
    batch.can_segment = False
    fake.sendto_errors = [error]
    batch.send(Flight(b"aaabbb", 3), ("127.0.0.1", 9))
    assert fake.sent == [b"bbb"]


def test_other_errors_are_raised(refusing: tuple[UdpBatch, Refusing]) -> None:
    batch, fake = refusing
    fake.sendto_errors = [errno.EBADF]
    with pytest.raises(OSError, match="refused"):
        batch.send(Flight(b"aaa", 3), ("127.0.0.1", 9))
