"""API of admission: an agent's certificate."""

from __future__ import annotations

import base64
import time

import msgspec
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from ninja import Router, Schema
from ninja.errors import HttpError

from agent.admission import REQUEST_PURPOSE, AdmissionRequest
from agent.identity import PeerId
from coordinator.accounts.api import Bearer, bearer, origin
from coordinator.accounts.models import JOIN
from coordinator.admission import actions
from coordinator.api.common import Detail, Name, find

router = Router(tags=["agents"])
SKEW_S = 300
BODY_BYTES_MAX = 2048


class CertificateOut(Schema):
    certificate: str
    """base64 of what agents show to each other (agent/admission.py)."""
    ends_at: float


@router.post(
    "/experiments/{name}/admission",
    response={200: CertificateOut, 400: Detail, 401: Detail, 403: Detail, 404: Detail},
    auth=Bearer(JOIN),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["peer", "experiment", "at", "signature"],
                        "properties": {
                            "peer": {"type": "string", "pattern": "^[a-z2-7]{52}$"},
                            "experiment": {"type": "string", "maxLength": 63},
                            "at": {"type": "integer", "minimum": 0},
                            "label": {"type": "string", "maxLength": 60},
                            "signature": {"type": "string", "description": "base64; see agent/admission.py"},
                        },
                    }
                }
            },
        }
    },
)
def post_admission(request: HttpRequest, name: Name) -> object:
    """A certificate for the peer that signed the request, if the token's account may take part. Links the peer to the account."""
    experiment = find(name)
    asked = _verified(request, name)
    now = timezone.now()
    try:
        data = actions.certify(bearer(request), experiment, PeerId.parse(asked.peer), asked.label, now)
    except actions.Refused as e:
        raise HttpError(403, f"{e} See {_page(request, name)}") from e
    ends_at = actions.ends(now).timestamp()
    return CertificateOut(certificate=base64.b64encode(data).decode(), ends_at=ends_at)


def _verified(request: HttpRequest, name: str) -> AdmissionRequest:
    """The body, if the peer that it names signed it for this token and experiment just now. Raises HttpError."""
    if len(request.body) > BODY_BYTES_MAX:
        raise HttpError(400, f"The request has more than {BODY_BYTES_MAX} bytes.")
    try:
        asked = msgspec.json.decode(request.body, type=AdmissionRequest)
        peer = PeerId.parse(asked.peer)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as e:
        raise HttpError(400, f"The request cannot be read: {e}") from None
    if asked.experiment != name:
        raise HttpError(400, f"The request is for experiment {asked.experiment!r}, not for {name!r}.")
    if abs(asked.at - time.time()) > SKEW_S:
        raise HttpError(400, "The request is too old, or the machine's clock is wrong. Set it (NTP).")
    token = request.headers.get("Authorization", "").partition(" ")[2].strip()
    if not peer.verify(REQUEST_PURPOSE, asked.signed_bytes(token), asked.signature):
        raise HttpError(400, "The request is not signed by the peer that it names.")
    return asked


def _page(request: HttpRequest, name: str) -> str:
    return f"{origin(request)}{reverse('join', args=[name])}"
