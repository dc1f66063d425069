"""The account's own pages. What allauth does (sign-up, sign-in, mail, password, two factors) is under /accounts/."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import cast

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from coordinator.accounts import actions, queries
from coordinator.accounts.actions import TooMany
from coordinator.accounts.forms import CodeForm, DeletionForm, ProfileForm, TokenForm
from coordinator.accounts.models import User
from coordinator.limits import KeyedBuckets

CODES_PER_S, CODES_BURST = 1 / 30, 10.0
"""Codes that one account may try: guessing one of 20^8 that way is hopeless."""
_codes = KeyedBuckets(per_s=CODES_PER_S, burst=CODES_BURST, keys_max=4096)

View = Callable[..., HttpResponse]


def for_members(view: View) -> View:
    """Only for who is signed in, and never kept by a cache."""

    @never_cache
    @login_required
    @wraps(view)
    def wrapped(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        return view(request, *args, **kwargs)

    return wrapped


def member(request: HttpRequest) -> User:
    return cast(User, request.user)


@for_members
@require_http_methods(["GET", "HEAD", "POST"])
def profile(request: HttpRequest) -> HttpResponse:
    """Name, and whether it is shown."""
    form = ProfileForm(request.POST or None, instance=User.objects.get(pk=member(request).pk))
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Saved.")
        return redirect("account")
    return render(request, "accounts/profile.html", {"form": form}, status=400 if form.errors else 200)


@for_members
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """List them; make one, and show it this once."""
    form = TokenForm(request.POST or None)
    made = None
    if request.method == "POST" and form.is_valid():
        try:
            data = form.cleaned_data
            _, made = actions.make_token(member(request), data["name"], data["scopes"], life=data["life"])
            form = TokenForm()
        except TooMany as e:
            form.add_error(None, str(e))
    context = {"form": form, "made": made, "tokens": queries.tokens(member(request))}
    return render(request, "accounts/tokens.html", context, status=400 if form.errors else 200)


@for_members
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    if not actions.revoke_token(member(request), pk):
        raise Http404("There is no such token.")
    messages.success(request, "The token is revoked. What used it is refused from now on.")
    return redirect("account_tokens")


@for_members
@require_safe
def machines(request: HttpRequest) -> HttpResponse:
    """The account's peers, and what they were last seen doing."""
    return render(request, "accounts/machines.html", {"machines": queries.machines(member(request)), "now": time.time()})


@for_members
@require_POST
def unlink_machine(request: HttpRequest, pk: int) -> HttpResponse:
    if not actions.unlink_machine(member(request), pk):
        raise Http404("There is no such machine.")
    messages.success(request, "The machine is not linked to this account any more.")
    return redirect("account_machines")


@for_members
@require_safe
def data(request: HttpRequest) -> HttpResponse:
    """What is kept, to take along or to delete."""
    return render(request, "accounts/data.html", {"counts": queries.counts(member(request))})


@for_members
@require_safe
def export(request: HttpRequest) -> HttpResponse:
    """Everything that the site knows of the account, as JSON."""
    response = JsonResponse(queries.export(member(request)), json_dumps_params={"indent": 2})
    response["Content-Disposition"] = 'attachment; filename="hive-account.json"'
    return response


@for_members
@reauthentication_required
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest) -> HttpResponse:
    """Delete the account, for good."""
    user = member(request)
    form = DeletionForm(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        actions.delete_account(user)
        logout(request)
        messages.success(request, "Your account is deleted. Thank you for having taken part.")
        return redirect("home")
    context = {"form": form, "counts": queries.counts(user)}
    return render(request, "accounts/delete.html", context, status=400 if form.errors else 200)


@for_members
@require_http_methods(["GET", "HEAD", "POST"])
def device(request: HttpRequest) -> HttpResponse:
    """Sign a machine in: type its code, look at what asks, approve or deny."""
    given = request.POST if request.method == "POST" else request.GET
    form = CodeForm({"code": given["code"]} if given.get("code") else None)
    code = None
    if form.is_valid():
        if not _codes.take(str(member(request).pk), time.monotonic()):
            form.add_error("code", "Too many tries. Wait a minute, then try again.")
            return render(request, "accounts/device.html", {"form": form}, status=429)
        code = actions.find_code(form.cleaned_data["code"])
        if code is None:
            form.add_error("code", "No machine waits with this code. It may have run out: ask the machine for a new one.")
    if code is not None and request.method == "POST" and request.POST.get("decision") in ("approve", "deny"):
        approve = request.POST["decision"] == "approve"
        decided = actions.decide_device(code, member(request), approve=approve)
        return render(request, "accounts/device_done.html", {"code": code, "approved": approve and decided, "decided": decided})
    return render(request, "accounts/device.html", {"form": form, "code": code}, status=400 if form.errors else 200)


def too_many(request: HttpRequest) -> HttpResponse:
    """The page for who does something too often."""
    return render(request, "429.html", status=429)
