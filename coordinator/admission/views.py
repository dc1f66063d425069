"""Pages about who may take part: for who wants to, and for organizers."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from coordinator.accounts.api import origin
from coordinator.accounts.models import User
from coordinator.accounts.views import for_members, member
from coordinator.admission import actions, mail
from coordinator.admission.actions import Refused
from coordinator.admission.forms import AppointForm, AskForm, InviteForm
from coordinator.admission.models import Invite, Membership, standing
from coordinator.experiments.access import managed, owned, published
from coordinator.experiments.models import Experiment, Role

LISTED_MAX = 500


# For who wants to take part


@never_cache
@require_safe
def join(request: HttpRequest, name: str) -> HttpResponse:
    """How to be let in, and where one stands."""
    return _join_page(request, published(name), AskForm())


@for_members
@require_POST
def ask(request: HttpRequest, name: str) -> HttpResponse:
    experiment = published(name)
    form = AskForm(request.POST)
    if form.is_valid():
        try:
            actions.ask(experiment, member(request), form.cleaned_data["message"])
        except Refused as e:
            messages.error(request, str(e))
        else:
            mail.somebody_waits(experiment, origin(request))
            messages.success(request, "Your request is with the organizers. A letter says what they decide.")
        return redirect("join", name)
    return _join_page(request, experiment, form)


def _join_page(request: HttpRequest, experiment: Experiment, form: AskForm) -> HttpResponse:
    context = {
        "experiment": experiment,
        "manifest": experiment.manifest,
        "standing": standing(experiment, request.user),
        "form": form,
    }
    return render(request, "admission/join.html", context, status=400 if form.errors else 200)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: HttpRequest, code: str) -> HttpResponse:
    """What an invitation link shows; accepting it needs an account."""
    invite = actions.find_invite(code)
    if invite is None or invite.experiment.status == Experiment.Status.DRAFT:
        raise Http404("There is no such invitation.")
    if request.method == "POST":
        if not request.user.is_authenticated:
            return redirect(f"{reverse('account_login')}?next={reverse('invitation', args=[code])}")
        try:
            actions.accept(invite, member(request))
        except Refused as e:
            messages.error(request, str(e))
            return redirect("invitation", code)
        messages.success(request, f"You may take part in {invite.experiment.title}.")
        return redirect("join", invite.experiment.name)
    context = {
        "invite": invite,
        "code": code,
        "experiment": invite.experiment,
        "manifest": invite.experiment.manifest,
        "standing": standing(invite.experiment, request.user),
    }
    return render(request, "admission/invitation.html", context, status=200 if invite.is_live else 410)


# For organizers


@for_members
@require_safe
def people(request: HttpRequest, name: str) -> HttpResponse:
    """Requests, members, invitations and organizers."""
    return _people_page(request, managed(request, name))


@for_members
@require_POST
def invite(request: HttpRequest, name: str) -> HttpResponse:
    experiment = managed(request, name)
    form = InviteForm(request.POST)
    if not form.is_valid():
        return _people_page(request, experiment, invite_form=form)
    try:
        actions.invite(experiment, member(request), **form.cleaned_data)
    except Refused as e:
        messages.error(request, str(e))
    else:
        messages.success(request, "The invitation is at the top of the list. Copy its link.")
    return redirect("people", name)


@for_members
@require_POST
def withdraw(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    if not actions.withdraw_invite(managed(request, name), pk):
        raise Http404("There is no such invitation.")
    messages.success(request, "The invitation is withdrawn. Who came in by it stays.")
    return redirect("people", name)


@for_members
@require_POST
def decide(request: HttpRequest, name: str, public_id: str) -> HttpResponse:
    """Admit, refuse or remove somebody."""
    experiment = managed(request, name)
    decision = request.POST.get("decision", "")
    if decision not in actions.TRANSITIONS:
        return _people_page(request, experiment, status=400)
    if not actions.decide(experiment, public_id, decision, member(request)):
        messages.error(request, "Nothing changed: somebody else may have decided already.")
    else:
        mail.answered(experiment, User.objects.get(public_id=public_id), decision, origin(request))
    return redirect("people", name)


@for_members
@require_POST
def appoint(request: HttpRequest, name: str) -> HttpResponse:
    """Only owners appoint organizers."""
    experiment = owned(request, name)
    form = AppointForm(request.POST)
    if form.is_valid():
        try:
            actions.appoint(experiment, form.cleaned_data["email"])
        except Refused as e:
            form.add_error("email", str(e))
        else:
            messages.success(request, "They organize this experiment with you now.")
            return redirect("people", name)
    return _people_page(request, experiment, appoint_form=form)


@for_members
@require_POST
def dismiss(request: HttpRequest, name: str, public_id: str) -> HttpResponse:
    if not actions.dismiss(owned(request, name), public_id):
        raise Http404("There is no such co-organizer.")
    messages.success(request, "They do not organize this experiment any more.")
    return redirect("people", name)


def _people_page(
    request: HttpRequest,
    experiment: Experiment,
    *,
    invite_form: InviteForm | None = None,
    appoint_form: AppointForm | None = None,
    status: int = 200,
) -> HttpResponse:
    members = Membership.objects.filter(experiment=experiment).select_related("user")
    wrong = any(form is not None and form.errors for form in (invite_form, appoint_form))
    context = {
        "experiment": experiment,
        "policy": experiment.manifest.admission if experiment.revision else None,
        "requests": members.filter(standing=Membership.Standing.REQUESTED)[:LISTED_MAX],
        "members": members.exclude(standing=Membership.Standing.REQUESTED)[:LISTED_MAX],
        "invites": Invite.objects.filter(experiment=experiment)[:LISTED_MAX],
        "organizers": Role.objects.filter(experiment=experiment).select_related("user").order_by("since"),
        "is_owner": Experiment.objects.owned_by(request.user).filter(pk=experiment.pk).exists(),
        "invite_form": invite_form or InviteForm(),
        "appoint_form": appoint_form or AppointForm(),
    }
    return render(request, "admission/people.html", context, status=400 if wrong else status)
