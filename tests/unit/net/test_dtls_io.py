"""Records in batches, on two real DTLS sessions in memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import SRTP_PROFILES
from OpenSSL import SSL

from agent.net.dtls_io import DtlsClosed, DtlsRecords
from agent.net.openssl_seam import DirectSession, PublicSession, session
from agent.net.udp_batch import SEGMENTED_BYTES_MAX, SEGMENTS_MAX, Flight

Sessions = tuple[SSL.Connection, SSL.Connection]


def _step(session: SSL.Connection) -> bool:
    try:
        session.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _carry(source: SSL.Connection, target: SSL.Connection) -> None:
    try:
        while True:
            target.bio_write(source.bio_read(20_000))
    except SSL.WantReadError:
        return


@pytest.fixture
def sessions() -> Sessions:
    certificate = RTCCertificate.generateCertificate()
    server, client = (SSL.Connection(certificate._create_ssl_context(SRTP_PROFILES)) for _ in range(2))
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(10):
        done = _step(client)
        _carry(client, server)
        done = _step(server) and done
        _carry(server, client)
        if done:
            return client, server
    raise AssertionError("no handshake")


Make = Callable[[SSL.Connection], DtlsRecords]


@pytest.fixture(params=[DirectSession, PublicSession])
def records(request: pytest.FixtureRequest) -> Make:
    """Every test runs on both ways to OpenSSL."""
    return lambda connection: DtlsRecords(request.param(connection), connection.get_cipher_name() or "")


def decrypt(records: DtlsRecords, flights: list[Flight]) -> list[bytes]:
    return [packet for flight in flights for packet in records.decrypt(flight.data, flight.segment)]


def test_packets_come_back_in_order_and_runs_are_flights(sessions: Sessions, records: Make) -> None:
    client, server = map(records, sessions)
    sizes = [50] + [1188] * 130 + [700] + [1188] * 3 + [16_384] * 9 + [20, 30]
    packets = [os.urandom(size) for size in sizes]
    flights = client.encrypt(packets)
    assert decrypt(server, flights) == packets
    assert len(flights) < 15
    for flight in flights:
        assert len(flight.data) <= SEGMENTED_BYTES_MAX
        assert -(-len(flight.data) // flight.segment) <= SEGMENTS_MAX
    assert server.leftover() is None
    assert server.drain() == []


def test_lost_altered_and_repeated_datagrams_are_left_out(sessions: Sessions, records: Make) -> None:
    client, server = map(records, sessions)
    client.encrypt([b"first"])
    packets = [bytes([n]) * 100 for n in range(20)]
    (flight,) = client.encrypt(packets)
    datagrams = [flight.data[at : at + flight.segment] for at in range(0, len(flight.data), flight.segment)]
    datagrams[3] = datagrams[3][:-1] + bytes([datagrams[3][-1] ^ 1])
    datagrams[5] = datagrams[4]
    del datagrams[10]
    got = server.decrypt(b"".join(datagrams), flight.segment)
    assert got == [packets[n] for n in range(20) if n not in (3, 5, 10)]


def test_noise_is_left_out(sessions: Sessions, records: Make) -> None:
    client, server = map(records, sessions)
    assert server.decrypt(b"\x17" + os.urandom(300), 301) == []
    assert server.decrypt(os.urandom(700), 100) == []
    assert decrypt(server, client.encrypt([b"after"])) == [b"after"]


def test_two_records_in_one_datagram_come_out_by_draining(sessions: Sessions, records: Make) -> None:
    client, server = map(records, sessions)
    flights = [flight for packet in (b"one", b"three") for flight in client.encrypt([packet])]
    both = b"".join(flight.data for flight in flights)
    assert server.decrypt(both, len(both)) + server.drain() == [b"one", b"three"]


def test_the_other_end_closes(sessions: Sessions, records: Make) -> None:
    server = records(sessions[1])
    sessions[0].shutdown()
    data = sessions[0].bio_read(1500)
    with pytest.raises(DtlsClosed):
        server.decrypt(data, len(data))


def test_a_cipher_with_padding_goes_record_by_record(sessions: Sessions, records: Make) -> None:
    client, server = map(records, sessions)
    client._constant = False
    packets = [os.urandom(100) for _ in range(5)]
    flights = client.encrypt(packets)
    assert len(flights) == 5
    assert decrypt(server, flights) == packets


def test_what_openssl_sends_by_itself_is_fetched(sessions: Sessions, records: Make) -> None:
    client = records(sessions[0])
    sessions[0].shutdown()
    flight = client.leftover()
    assert flight is not None
    assert flight.data[0] == 21, "an alert"
    assert client.leftover() is None


def test_a_session_that_is_over_refuses_to_write(sessions: Sessions, records: Make) -> None:
    client = records(sessions[0])
    sessions[0].shutdown()
    with pytest.raises(SSL.Error):
        client.encrypt([b"late"])


def test_the_quick_way_is_taken_where_it_can_be(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(session(sessions[0]), DirectSession)
    monkeypatch.delattr(sessions[1], "_into_ssl")
    assert isinstance(session(sessions[1]), PublicSession)
