"""What is refused below /api/ before a route is reached says so in JSON with a sentence too, as docs/api.md promises."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

UNREADABLE = "The request cannot be read: its host name, a header or its body is not acceptable here."


@sync_and_async_middleware
def refusals(
    get_response: Callable[[HttpRequest], Any],
) -> Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]:
    """Middleware. Stands outside of what may refuse, and inside of what compresses."""
    if iscoroutinefunction(get_response):

        async def later(request: HttpRequest) -> HttpResponse:
            return _in_words(request, await get_response(request))

        return later

    def at_once(request: HttpRequest) -> HttpResponse:
        return _in_words(request, get_response(request))

    return at_once


def _in_words(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    if response.status_code not in (400, 405) or not request.path.startswith("/api/"):
        return response
    if response.headers.get("Content-Type", "").startswith("application/json"):
        return response
    sentence = UNREADABLE
    if response.status_code == 405:
        sentence = (
            f"This address takes {response.headers.get('Allow', 'GET')}, not {request.method}. /api/v1/docs lists them all."
        )
    response.content = json.dumps({"detail": sentence}).encode()
    response.headers["Content-Type"] = "application/json"
    return response
