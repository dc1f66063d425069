"""The bearer header, at its limits."""

from __future__ import annotations

import base64

import pytest

from coordinator.hello import HEADER_BYTES_MAX, SKEW_S, HelloRejected, verify

from .conftest import NOW, Agent


def test_a_signed_hello_is_taken_within_its_time(bob: Agent) -> None:
    for at in (NOW - SKEW_S, NOW, NOW + SKEW_S):
        assert verify(bob.headers(at=at), "gpt-crowd", NOW).peer == bob.peer
    for at in (NOW - SKEW_S - 1, NOW + SKEW_S + 1):
        with pytest.raises(HelloRejected, match="clock"):
            verify(bob.headers(at=at), "gpt-crowd", NOW)


def test_padding_and_case_do_not_matter(bob: Agent) -> None:
    ((name, value),) = bob.headers(at=NOW)
    padded = value + b"=" * (-len(value.split()[1]) % 4)
    for headers in ([(b"Authorization", padded)], [(name, b"hive" + value[4:])]):
        assert verify(headers, "gpt-crowd", NOW).session == bob.session


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": b""}, "signature"),
        ({"signature": b"\0" * 64}, "signature"),
        ({"session": "f" * 16}, "signature"),
        ({"version": "2"}, "signature"),
        ({"peer": "a" * 52}, "signature|peer id"),
        ({"experiment": "other"}, "for experiment"),
    ],
)
def test_every_field_is_signed(bob: Agent, changes: dict[str, object], words: str) -> None:
    headers = bob.headers(at=NOW, **changes) if "experiment" not in changes else bob.headers(at=NOW, experiment="other")
    with pytest.raises(HelloRejected, match=words):
        verify(headers, "gpt-crowd", NOW)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer x",
        b"Hive",
        b"Hive ",
        b"Hive \xff\xfe",
        b"Hive " + base64.b64encode(b"{}"),
        b"Hive " + base64.b64encode(b"\xff"),
    ],
)
def test_what_cannot_be_read(value: bytes) -> None:
    with pytest.raises(HelloRejected):
        verify([(b"authorization", value)], "gpt-crowd", NOW)


def test_a_header_that_is_too_long() -> None:
    with pytest.raises(HelloRejected, match="must send"):
        verify([(b"authorization", b"Hive " + b"A" * HEADER_BYTES_MAX)], "gpt-crowd", NOW)
