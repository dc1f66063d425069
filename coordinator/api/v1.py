"""The REST API, version 1. Everything that a page shows is here. Routes are in the modules beside; what all share is here."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, Throttled, ValidationError

from coordinator.accounts import api as accounts
from coordinator.admission import api as admission
from coordinator.api import contributions, experiments, observations, operations
from coordinator.api.common import Invalid, PerAddress, Wrong
from coordinator.experiments import api as organizers

DESCRIPTION = """\
Experiments, what is observed of them, and who did the work.

* **Times** are Unix seconds; `null` means unknown.
* **Lists** come in pages: `limit` and `offset`, or a `before…` cursor where rows are added at the front. If there is a next
  page, the header `Link` names it (`rel="next"`).
* **ETag**: every answer to a GET has one. Ask again with `If-None-Match`, and what has not changed is a 304 without a body.
* **Rates**: one address (of IPv6, one /64) may ask 20 times a second, 400 at once; signing in is slower. Beyond that: 429,
  and `Retry-After` says how many seconds to wait.
* **Errors** are `{"detail": "a sentence"}`. A 422 also has `errors`, with a `where` and a `what` for each parameter.
* **Live**: the WebSocket `/ws/live/<name>/` sends a `Tick` at most twice a second (its shape is among the schemas below). It
  needs no sign-in, and an `Origin` of this site if there is one; it takes no messages. `docs/api.md` describes it and the
  agents' WebSockets.
* **Tokens**: `Authorization: Bearer hive_…`, made on the account's page, each with scopes. Only the account's own routes,
  those of organizers, admission and the operator's overview need one.
"""
ERRORS_MAX = 20
TOKEN_NEEDED = "This needs a valid token of the right scope: Authorization: Bearer hive_…, made at /account/tokens/."
UNREADABLE_BODY = "The body cannot be read: it must be JSON (RFC 8259). /api/v1/docs shows its shape."


class HiveAPI(NinjaAPI):
    """Adds to the description of every operation what every operation does."""

    def get_openapi_schema(self, **kwargs: Any) -> Any:
        schema = super().get_openapi_schema(**kwargs)
        schemas = schema["components"]["schemas"]
        organizers.describe(schemas)
        for model in (Invalid, observations.shapes.Tick):
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(described.pop("$defs", {}))
            schemas[model.__name__] = described
        for operations_of in schema["paths"].values():
            for method, operation in operations_of.items():
                _complete(method, operation)
        return schema


def _complete(method: str, operation: dict[str, Any]) -> None:
    answers = operation["responses"] = {str(status): answer for status, answer in operation["responses"].items()}
    if operation.get("parameters") or operation.get("requestBody"):
        answers.setdefault("422", _refusal("A parameter does not fit.", "Invalid"))
    if operation.get("requestBody"):
        answers.setdefault("400", _refusal("The body cannot be read."))
        answers.setdefault("413", _refusal("The body is too large."))
    answers["429"] = _refusal("Asked too often; wait for as long as `Retry-After` says.") | {
        "headers": {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}}
    }
    if method == "get":
        answers["304"] = {"description": "Not changed since the ETag in `If-None-Match`."}
        answers["200"]["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "for `If-None-Match`"}}


def _refusal(words: str, schema: str = "Detail") -> dict[str, Any]:
    return {
        "description": words,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


api = HiveAPI(
    title="Hive coordinator",
    version="1",
    description=DESCRIPTION,
    docs_url="/docs",
    urls_namespace="api-1",
    throttle=[PerAddress()],
)
api.add_router("", experiments.router)
api.add_router("", observations.router)
api.add_router("", contributions.router)
api.add_router("", operations.router)
api.add_router("", accounts.router)
api.add_router("", admission.router)
api.add_router("", organizers.router)


@api.exception_handler(Throttled)
def too_often(request: HttpRequest, error: Throttled) -> HttpResponse:
    """429, and when to ask again."""
    wait = max(1, round(error.wait or 1))
    response = api.create_response(
        request,
        {"detail": f"This address asks too often. Ask again in {wait} s."},
        status=429,
    )
    response["Retry-After"] = str(wait)
    return response


@api.exception_handler(ValidationError)
def invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    """422, and what does not fit."""
    wrong = [
        Wrong(where=".".join(str(part) for part in e.get("loc", ()))[:200], what=str(e.get("msg", ""))[:300])
        for e in error.errors[:ERRORS_MAX]
    ]
    first = wrong[0] if wrong else Wrong(where="request", what="does not fit")
    body = Invalid(detail=f"{first.where}: {first.what}. /api/v1/docs says what fits.", errors=wrong)
    return api.create_response(request, body.model_dump(), status=422)


@api.exception_handler(AuthenticationError)
def unauthorized(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    """401, and where a token comes from."""
    return api.create_response(request, {"detail": TOKEN_NEEDED}, status=401)


@api.exception_handler(RequestDataTooBig)
def too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
    """413, and what fits."""
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return api.create_response(request, {"detail": f"The body is too large: at most {most} bytes are read."}, status=413)


@api.exception_handler(HttpError)
def refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    """Our own refusals are sentences; ninja's about bodies says what to send."""
    detail = UNREADABLE_BODY if str(error) == "Cannot parse request body" else str(error)
    return api.create_response(request, {"detail": detail}, status=error.status_code)


def nothing_here(request: HttpRequest) -> HttpResponse:
    """For every address below /api/ that has no route."""
    return JsonResponse({"detail": "The API has no such address. /api/v1/docs lists those that it has."}, status=404)
