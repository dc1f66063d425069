"""API of accounts: signing a machine in (RFC 8628), and what a token may read of its own account."""

from __future__ import annotations

import time
from typing import Annotated

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Field, Router, Schema, Status
from ninja.errors import HttpError, Throttled
from ninja.security import HttpBearer
from pydantic import BaseModel

from coordinator.accounts import actions, queries
from coordinator.accounts.models import DEVICE_CODE_LIFE_S, DEVICE_POLL_S, READ, ApiToken, User
from coordinator.api.common import Detail, Limit, Offset, page
from coordinator.limits import KeyedBuckets, client_key

router = Router(tags=["account"])
ADDRESSES_MAX = 4096
SLOW_DOWN_S = 60
_starts = KeyedBuckets(per_s=1 / 20, burst=10, keys_max=ADDRESSES_MAX)
_polls = KeyedBuckets(per_s=5, burst=50, keys_max=ADDRESSES_MAX)
_tries = KeyedBuckets(per_s=5, burst=100, keys_max=ADDRESSES_MAX)


class Bearer(HttpBearer):
    """`Authorization: Bearer hive_…` with a scope. `request.auth` is the ApiToken."""

    openapi_description = "An API token of the account, as its page shows it once."

    def __init__(self, scope: str) -> None:
        super().__init__()
        self.scope = scope

    def authenticate(self, request: HttpRequest, token: str) -> ApiToken | None:
        limit(_tries, request)
        return actions.find_token(token, self.scope)


class DeviceIn(BaseModel):  # not a ninja.Schema: that takes a list for an object without attributes
    label: Annotated[str, Field(max_length=60, description="what the machine calls itself")] = ""


class DeviceOut(Schema):
    """RFC 8628, section 3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class PollIn(BaseModel):
    device_code: Annotated[str, Field(max_length=100)]


class Granted(Schema):
    token: str
    account: str


class Pending(Schema):
    """RFC 8628, section 3.5: `authorization_pending`, `slow_down`, `access_denied` or `expired_token`."""

    error: str


class AccountOut(Schema):
    id: str
    display_name: str
    shown_to_others: bool


class MachineOut(Schema):
    peer: str
    label: str
    experiment: str | None
    stage: str | None
    tokens: int | None
    seen_at: float | None


def limit(buckets: KeyedBuckets, request: HttpRequest) -> None:
    """Raises Throttled for an address that asks too often."""
    if not buckets.take(client_key(request.META.get("REMOTE_ADDR")), time.monotonic()):
        raise Throttled(wait=SLOW_DOWN_S)


def origin(request: HttpRequest) -> str:
    """How this site is called from outside."""
    return settings.SITE_URL or f"{request.scheme}://{request.get_host()}"


@router.post("/device", response={200: DeviceOut, 429: Detail})
def start_device(request: HttpRequest, body: DeviceIn) -> object:
    """A machine asks to be signed in: show `user_code` and `verification_uri` to a person, then poll `/device/token`."""
    limit(_starts, request)
    code, secret = actions.start_device(body.label, request.META.get("REMOTE_ADDR") or None)
    uri = f"{origin(request)}{reverse('device')}"
    return DeviceOut(
        device_code=secret,
        user_code=code.shown_code,
        verification_uri=uri,
        verification_uri_complete=f"{uri}?code={code.shown_code}",
        expires_in=DEVICE_CODE_LIFE_S,
        interval=DEVICE_POLL_S,
    )


@router.post("/device/token", response={200: Granted, 400: Pending | Detail, 429: Detail})
def poll_device(request: HttpRequest, body: PollIn) -> object:
    """What became of it. A token is given once."""
    limit(_polls, request)
    try:
        error, token, user = actions.poll_device(body.device_code)
    except actions.TooMany as e:
        raise HttpError(429, str(e)) from e
    if user is None:
        return Status(400, Pending(error=error))
    return Status(200, Granted(token=token, account=user.display_name or user.email))


@router.get("/account", response={200: AccountOut, 401: Detail}, auth=Bearer(READ))
def get_account(request: HttpRequest) -> object:
    """The account that the token speaks for."""
    user = bearer(request)
    return AccountOut(id=user.public_id, display_name=user.display_name, shown_to_others=user.is_listed)


@router.get("/account/machines", response={200: list[MachineOut], 401: Detail}, auth=Bearer(READ))
def get_machines(request: HttpRequest, response: HttpResponse, limit: Limit = 100, offset: Offset = 0) -> object:
    """The account's machines, and what they were last seen doing."""
    found = []
    for row in queries.machines(bearer(request)):
        machine, session = row["machine"], row["session"]
        found.append(
            MachineOut(
                peer=machine.peer,
                label=machine.label,
                experiment=session and session.experiment.name,
                stage=session and session.stage,
                tokens=session and session.tokens,
                seen_at=session and session.seen_at,
            )
        )
    return page(request, response, found[offset : offset + limit + 1], limit, offset)


def bearer(request: HttpRequest) -> User:
    """Whose token was shown."""
    token: ApiToken = request.auth
    return token.user
