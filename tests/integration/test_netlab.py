"""The emulated link does what it says: delay, loss, a rate with its queue; and our data channel runs through it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.bench._pair import measure
from tests.netlab.link import EmulatedLink, LinkSpec, missing

LACKING = missing() or (None if os.geteuid() == 0 else "tests here do not change the user: run as root")
pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

ECHO = """
import socket
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.bind(("", 5000))
print("ready", flush=True)
while True:
    data, sender = end.recvfrom(2000)
    end.sendto(data, sender)
"""
ASK = """
import json, socket, sys, time
address, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.connect((address, 5000))
end.settimeout(1.0)
begun, times = time.monotonic(), []
for number in range(count):
    end.send(number.to_bytes(4, "big") + bytes(size - 4))
try:
    while len(times) < count:
        end.recv(2000)
        times.append(time.monotonic() - begun)
except TimeoutError:
    pass
print(json.dumps(times))
"""


def burst(spec: LinkSpec, *, count: int, size: int) -> list[float]:
    """When the answers to a burst of datagrams came, seconds after it."""
    with EmulatedLink(spec) as link:
        echo = subprocess.Popen(link.command(1, [sys.executable, "-c", ECHO]), stdout=subprocess.PIPE, text=True)
        try:
            assert echo.stdout is not None and echo.stdout.readline() == "ready\n"
            asked = link.command(0, [sys.executable, "-c", ASK, link.addresses[1], str(count), str(size)])
            times = json.loads(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
        finally:
            echo.kill()
            echo.communicate()
    assert isinstance(times, list)
    return times


def test_delay() -> None:
    times = burst(LinkSpec(rtt_ms=60), count=20, size=200)
    assert len(times) == 20 and min(times) >= 0.06


def test_loss_both_ways() -> None:
    assert 0.34 < len(burst(LinkSpec(loss=0.3), count=200, size=100)) / 200 < 0.64


def test_a_rate_delays_what_its_queue_holds_and_drops_the_rest() -> None:
    times = burst(LinkSpec(rate_mbit=8, queue_bytes=15_000), count=40, size=972)  # 1,000 bytes with headers: 1 ms each
    assert 14 <= len(times) <= 20
    assert times[-1] - times[0] >= 0.012


def test_our_channel_through_it() -> None:
    with EmulatedLink(LinkSpec(rtt_ms=20, loss=0.01, rate_mbit=20)) as link:
        figures = measure("fast", link, warm_s=1.0, seconds=2.0)
    assert 0.2 < figures["mb_per_s"] <= 2.5
    assert figures["control_p50_ms"] >= 20
    assert figures["packet_bytes"] > 1188
