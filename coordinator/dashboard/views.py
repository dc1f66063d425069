"""The public pages."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("home")


def experiment(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse("experiment")
