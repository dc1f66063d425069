"""The bearer header of agents' WebSockets: `Authorization: Hive <base64url(JSON(Hello))>`, checked before accept().

A Hello is signed by the peer's key, for one experiment, and is good for five minutes. Replaying it within that time opens
a second connection of the same session, which replaces the first and can store no item twice.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

import msgspec

from agent.errors import RemoteError
from agent.identity import PeerId
from agent.reports import HELLO_PURPOSE, Hello

SKEW_S = 300
HEADER_BYTES_MAX = 4096
_SCHEME = b"hive "


class HelloRejected(RemoteError):
    """The header is missing, malformed, badly signed, for another experiment, or too old. The text says what to do."""


def verify(headers: Iterable[tuple[bytes, bytes]], experiment: str, now: float) -> Hello:
    """Read the Hello from ASGI `headers` and check it at Unix time `now`. Raises HelloRejected."""
    hello = _decode(next((value for name, value in headers if name.lower() == b"authorization"), b""))
    if hello.experiment != experiment:
        raise HelloRejected(f"the hello is for experiment {hello.experiment!r}, not for {experiment!r}")
    if abs(hello.at - now) > SKEW_S:
        raise HelloRejected(
            f"the agent's clock is {abs(hello.at - now):.0f} s {'ahead' if hello.at > now else 'behind'}; at most {SKEW_S} s are "
            "allowed. Set the machine's clock (NTP)."
        )
    try:
        peer = PeerId.parse(hello.peer)
    except ValueError as e:
        raise HelloRejected(str(e)) from None
    if not peer.verify(HELLO_PURPOSE, hello.signed_bytes(), hello.signature):
        raise HelloRejected("the hello's signature does not match")
    return hello


def header(hello: Hello) -> str:
    """The header's value for a signed Hello."""
    return "Hive " + base64.urlsafe_b64encode(msgspec.json.encode(hello)).decode().rstrip("=")


def _decode(value: bytes) -> Hello:
    if len(value) > HEADER_BYTES_MAX or value[: len(_SCHEME)].lower() != _SCHEME:
        raise HelloRejected("agents must send the header Authorization: Hive <hello>")
    text = value[len(_SCHEME) :].strip().rstrip(b"=")
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4)), type=Hello)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, RecursionError) as e:
        raise HelloRejected(f"the hello cannot be read: {e}") from None
