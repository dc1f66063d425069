from __future__ import annotations

import asyncio
import ipaddress
import socket

import msgspec
import pytest
from aioice import Candidate, stun
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, ProtocolViolation
from agent.manifest import IceServer
from agent.net import ice
from agent.net.ice import CANDIDATES_MAX, REFLEXIVE_MAX, SILENT_S, SILENT_SHARE, IceConfig, IceConnection, Silence
from agent.net.transport import DESCRIPTION_BYTES_MAX

FINGERPRINT = bytes(range(32))


def blob(*candidates: tuple[int, bytes, int], username: str = "abcd", password: str = "p" * 22, format: int = 1) -> bytes:
    return msgspec.msgpack.encode([format, username, password, FINGERPRINT, list(candidates)])


def candidate(kind: str, host: str, port: int) -> Candidate:
    return Candidate("f", 1, "udp", 1, host, port, kind)


def connection(config: IceConfig | None = None) -> IceConnection:
    return IceConnection(config or IceConfig(), Silence(), controlling=True)


async def test_a_description_round_trips() -> None:
    gathered = connection()
    gathered._local_candidates = [candidate("host", "192.0.2.1", 5), candidate("srflx", "2001:db8::1", 65_535)]
    told = ice.describe(gathered, FINGERPRINT)
    assert len(told) < 120
    heard = ice.parse(told)
    assert heard.fingerprint == FINGERPRINT and heard.username == gathered.local_username
    assert [(c.type, c.host, c.port) for c in heard.remote_candidates()] == [
        ("srflx", "2001:db8::1", 65_535),
        ("host", "192.0.2.1", 5),
    ]


async def test_too_many_candidates_keep_the_ones_that_reach_far() -> None:
    gathered = connection()
    gathered._local_candidates = [candidate("host", str(ipaddress.IPv6Address(i + 2**120)), 9) for i in range(60)]
    gathered._local_candidates += [candidate("relay", "198.51.100.1", 9), candidate("srflx", "198.51.100.2", 9)]
    told = ice.describe(gathered, FINGERPRINT)
    kinds = [c.type for c in ice.parse(told).remote_candidates()]
    assert len(kinds) == CANDIDATES_MAX and {"relay", "srflx"} < set(kinds) and len(told) <= DESCRIPTION_BYTES_MAX


def check(one: IceConnection, priority: bool = True) -> stun.Message:
    """One that the other side makes."""
    message = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{one.local_username}:{one.remote_username}"
    if priority:
        message.attributes["PRIORITY"] = 1
    message.attributes["ICE-CONTROLLED"] = 1
    message.add_message_integrity(one.local_password.encode())
    return message


async def test_a_peer_whose_checks_come_from_everywhere_gets_few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    one = connection(IceConfig(loopback="always"))
    await one.gather_candidates()
    one.remote_username, one.remote_password = "abcd", "p" * 22
    one._early_checks_done = True
    started: list[object] = []
    monkeypatch.setattr(one, "check_start_task", started.append)
    protocol = one._protocols[0]
    monkeypatch.setattr(protocol, "send_stun", lambda message, addr: None)
    one.request_received(check(one, priority=False), ("192.0.2.9", 1), protocol)
    assert one._check_list == []
    for port in range(1, 200):
        one.request_received(check(one), ("192.0.2.1", port), protocol)
    assert len(one._check_list) == len(one._remote_candidates) == len(started) == REFLEXIVE_MAX
    one.request_received(check(one), ("192.0.2.1", 1), protocol)  # known ones are still heard
    assert len(one._check_list) == REFLEXIVE_MAX < len(started)
    await one.close()


V4 = b"\xc0\x00\x02\x01"


@pytest.mark.parametrize(
    "bad",
    [
        blob((0, V4, 0)),
        blob((0, V4, 65_536)),
        blob((3, V4, 5)),
        blob((0, V4 + b"\0", 5)),
        blob((0, b"\xe0\x00\x00\x01", 5)),
        blob((0, b"\xff\xff\xff\xff", 5)),
        blob((0, bytes(4), 5)),
        blob((0, b"\xff\x02" + bytes(13) + b"\x01", 5)),
        blob(*[(0, V4, 5)] * (CANDIDATES_MAX + 1)),
        blob(username="ab"),
        blob(username="ab:cd"),
        blob(password="p" * 21),
        blob(format=2),
        msgspec.msgpack.encode([1, "abcd", "p" * 22, FINGERPRINT[:31], []]),
        b"\x90" * (DESCRIPTION_BYTES_MAX + 1),
    ],
)
def test_descriptions_that_no_peer_makes(bad: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ice.parse(bad)


def test_as_many_candidates_as_allowed_are_taken() -> None:
    assert len(ice.parse(blob(*[(0, V4, 5)] * CANDIDATES_MAX)).candidates) == CANDIDATES_MAX


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_parsed_or_refused(junk: bytes) -> None:
    try:
        ice.parse(junk)
    except ProtocolViolation:
        pass


def test_loopback_is_offered_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["192.0.2.1"])
    assert ice.host_addresses("auto") == ["192.0.2.1"] == ice.host_addresses("never")
    assert ice.host_addresses("always") == ["192.0.2.1", "127.0.0.1"]
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [])
    assert ice.host_addresses("auto") == ["127.0.0.1"] and ice.host_addresses("never") == []
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: [str(i) for i in range(99)])
    assert len(ice.host_addresses("never")) == ice.HOST_ADDRESSES_MAX


@pytest.mark.parametrize("kind", ["stun", "turn"])
async def test_a_server_that_does_not_answer_costs_its_timeout_and_less_the_next_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    monkeypatch.setattr(ice, "_has_outside", lambda host: True)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"{kind}:127.0.0.1:{silent.getsockname()[1]}"
        server = IceServer(urls=url, username="u", credential="p")
        config = IceConfig(servers=(server, server), stun_timeout_s=0.2, turn_timeout_s=0.2)
        silence = Silence()
        took = []
        for _ in range(2):
            gathering = IceConnection(config, silence, controlling=True)
            began = loop.time()
            await gathering.gather_candidates()
            took.append(loop.time() - began)
            assert [c.type for c in gathering.local_candidates] == ["host"]
            await gathering.close()
    assert 0.19 < took[0] < 0.2 + 1 and took[1] < took[0] and silence.patience(url, loop.time()) == SILENT_SHARE


def test_a_silent_server_is_given_its_full_time_again() -> None:
    silence = Silence()
    silence.heard("a", False, 100.0)
    assert silence.patience("a", 100.0 + SILENT_S - 1) == SILENT_SHARE and silence.patience("b", 100.0) == 1.0
    silence.heard("a", False, 100.0 + SILENT_S - 1)
    assert silence.patience("a", 100.0 + SILENT_S) == 1.0, "it is tried in full once a minute"
    silence.heard("a", False, 200.0)
    silence.heard("a", True, 201.0)
    assert silence.patience("a", 202.0) == 1.0


@pytest.mark.parametrize("urls", ["stun:", "turn:h:port", "turn:[::1"])
def test_addresses_that_are_none(urls: str) -> None:
    with pytest.raises(ConfigError, match="STUN or TURN"):
        IceConfig(servers=(IceServer(urls=urls),))


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("8.8.4.4", "8.8.4.0/24"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001::/48"),
        ("192.168.1.7", ""),
        ("100.64.3.2", ""),  # behind a carrier's NAT
        ("127.0.0.1", ""),
        ("fe80::1", ""),
        ("fd00::7", ""),
    ],
)
def test_the_subnet_of_an_address(host: str, network: str) -> None:
    assert ice.subnet(host) == network
