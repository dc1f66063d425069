"""What the agents' WebSockets have in common: admission before accept(), bounds, rates and named ends.

A refused handshake is answered with an HTTP status and `{"detail": …}`; a broken rule later with a close code:
4400 malformed, 4409 replaced by a newer connection, 4413 too large, 4429 too fast, 1011 could not be stored.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from django.conf import settings
from django.db import Error as DatabaseProblem
from django.http.request import validate_host
from redis.exceptions import RedisError

from agent.admission import Certificate
from agent.errors import AdmissionRejected
from agent.identity import PeerId
from agent.reports import MESSAGE_BYTES_MAX, Hello
from coordinator.admission.actions import rule_of
from coordinator.experiments.models import Experiment
from coordinator.hello import HelloRejected, verify
from coordinator.limits import KeyedBuckets, Places, TokenBucket, client_key

log = logging.getLogger(__name__)

MALFORMED, REPLACED, TOO_LARGE, TOO_FAST, NOT_STORED = 4400, 4409, 4413, 4429, 1011
REASON_BYTES_MAX = 120
"""RFC 6455 5.5: a close reason has at most 123 bytes."""
BACKEND_PROBLEMS = (DatabaseProblem, RedisError, OSError)
"""What the database and Redis raise when they are away."""
HANDSHAKES_PER_S, HANDSHAKES_BURST, ADDRESSES_MAX = 20.0, 400.0, 4096


class AgentSocket(AsyncConsumer):
    """One agent's WebSocket. Subclasses fill in `opened`, `received` and `closed`."""

    messages_per_s: ClassVar[float] = 20.0
    messages_burst: ClassVar[float] = 200.0
    connections_max: ClassVar[int] = 4096
    """Per process and kind of socket."""
    connections_each_max: ClassVar[int] = 2048
    """Of one address: half of them, for a laboratory behind one router."""
    places: ClassVar[Places]
    handshakes: ClassVar[KeyedBuckets] = KeyedBuckets(per_s=HANDSHAKES_PER_S, burst=HANDSHAKES_BURST, keys_max=ADDRESSES_MAX)

    hello: Hello
    experiment: Experiment
    certificate: Certificate | None = None
    """What the agent showed; None if it is anonymous."""
    address: str | None = None
    """Whose place this holds."""
    accepted = False
    ended = False

    def __init_subclass__(cls) -> None:
        cls.places = Places(total_max=cls.connections_max, each_max=cls.connections_each_max)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await super().__call__(scope, receive, send)
        finally:  # however it ended: a place that is not given back is lost until the process ends
            if self.address is not None:
                type(self).places.give_back(self.address)

    async def opened(self) -> None:
        """After admission, just before accept()."""

    async def received(self, message: bytes) -> None:
        raise NotImplementedError

    async def closed(self) -> None:
        """Once, after the connection ended, if `opened` was called."""

    async def websocket_connect(self, _: dict[str, Any]) -> None:
        name = self.scope["url_route"]["kwargs"]["name"]
        address = client_key((self.scope.get("client") or (None,))[0])
        if not self.handshakes.take(address, time.monotonic()):
            return await self.deny(429, "too many connections from this address; wait a moment")
        try:
            self.hello = verify(self.scope["headers"], name, time.time())
        except HelloRejected as e:
            return await self.deny(401, str(e))
        if not type(self).places.take(address):
            return await self.deny(503, "this coordinator has as many connections as it can hold; try again later")
        self.address = address
        try:
            await self._enter(name)
        except AdmissionRejected as e:
            return await self.deny(403, str(e))
        except BACKEND_PROBLEMS as e:
            log.warning("an agent was sent away: %s", e)
            return await self.deny(503, "the coordinator's database or Redis does not answer; try again later")
        if self.accepted:
            await self.send({"type": "websocket.accept"})
            await self.ready()

    async def _enter(self, name: str) -> None:
        """What has to be known and noted before accept(). Raises AdmissionRejected and BACKEND_PROBLEMS."""
        experiment = await database_sync_to_async(Experiment.objects.visible_to().filter(name=name).first)()
        if experiment is None:
            return await self.deny(404, f"there is no experiment {name!r} here")
        self.experiment = experiment
        await database_sync_to_async(self._admit)()
        self.bucket = TokenBucket(per_s=self.messages_per_s, burst=self.messages_burst, now=time.monotonic())
        await self.opened()
        self.accepted = True

    def _admit(self) -> None:
        """Raises AdmissionRejected where the experiment asks for a certificate and the agent shows none that holds."""
        self.certificate = rule_of(self.experiment).judge(PeerId.parse(self.hello.peer), self.hello.admission, time.time())

    async def ready(self) -> None:
        """Just after accept()."""

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        if self.ended:
            return
        text = message.get("text")
        data = text.encode() if text is not None else message.get("bytes") or b""
        if len(data) > MESSAGE_BYTES_MAX:
            return await self.end(TOO_LARGE, f"a message has at most {MESSAGE_BYTES_MAX} bytes")
        if not self.bucket.take(time.monotonic()):
            return await self.end(TOO_FAST, f"at most {self.messages_per_s:.0f} messages a second")
        await self.received(data)

    async def websocket_disconnect(self, _: dict[str, Any]) -> None:
        self.ended = True
        if self.accepted:
            await self.closed()
        raise StopConsumer

    async def send_json(self, body: bytes) -> None:
        if not self.ended:
            await self._send_or_end({"type": "websocket.send", "text": body.decode()})

    async def end(self, code: int, reason: str) -> None:
        """Close with a code and a reason; idempotent."""
        if not self.ended:
            self.ended = True
            await self._send_or_end(
                {"type": "websocket.close", "code": code, "reason": reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")}
            )

    async def _send_or_end(self, message: dict[str, Any]) -> None:
        """A server raises OSError (ASGI 2.4) when the other side is gone; its disconnect message follows."""
        try:
            await self.send(message)
        except OSError:
            self.ended = True

    async def deny(self, status: int, detail: str) -> None:
        """Refuse the handshake, in words where the server can (ASGI extension `websocket.http.response`)."""
        self.ended = True
        await deny(self, status, detail)


class NoSuchSocket(AsyncConsumer):
    """For every address that has no WebSocket."""

    status: ClassVar[int] = 404
    detail: ClassVar[str] = "there is no WebSocket at this address"

    async def websocket_connect(self, _: dict[str, Any]) -> None:
        await deny(self, self.status, self.detail)

    async def websocket_disconnect(self, _: dict[str, Any]) -> None:
        raise StopConsumer


class OwnOrigin:
    """Before a WebSocket for browsers: a page has to be ours. A program sends no Origin and may listen: no cookie counts here."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        allowed = all(map(self._is_ours, origins))
        await (self._application if allowed else ForeignPage.as_asgi())(scope, receive, send)

    @staticmethod
    def _is_ours(origin: bytes) -> bool:
        try:
            host = urlsplit(origin.decode("ascii")).hostname or ""
        except ValueError:  # UnicodeDecodeError is one
            return False
        return validate_host(f"[{host}]" if ":" in host else host, settings.ALLOWED_HOSTS)


class ForeignPage(NoSuchSocket):
    """For a page of another site."""

    status, detail = 403, "pages of other sites may not open this"


async def deny(consumer: AsyncConsumer, status: int, detail: str) -> None:
    """Answer a WebSocket handshake with an HTTP status."""
    if "websocket.http.response" not in (consumer.scope.get("extensions") or {}):
        await consumer.send({"type": "websocket.close", "code": 4000 + status, "reason": detail[:REASON_BYTES_MAX]})
        return
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await consumer.send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await consumer.send({"type": "websocket.http.response.body", "body": json.dumps({"detail": detail}).encode()})
