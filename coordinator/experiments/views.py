"""Organizers' pages: their experiments, the form, statuses, revisions. All of it works without JavaScript."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from agent.errors import IdentityError, ManifestRejected
from agent.manifest import Digits, Manifest
from agent.models.presets import PRESETS
from coordinator.accounts.views import for_members, member
from coordinator.admission.models import Membership
from coordinator.experiments import actions, queries, schema
from coordinator.experiments.access import managed, owned
from coordinator.experiments.actions import Refused
from coordinator.experiments.changes import changes, lines, worst
from coordinator.experiments.estimate import Estimate, estimate
from coordinator.experiments.forms import ManifestForm
from coordinator.experiments.models import Experiment
from coordinator.limits import KeyedBuckets
from coordinator.telemetry.queries import summary

ESTIMATES_PER_S, ESTIMATES_BURST = 5.0, 60.0
REVISIONS_SHOWN = 50
DONE = {
    "open": "It is open: agents may join from now on.",
    "paused": "It is paused. Agents hold training within half a minute, and keep their experts.",
    "finished": "It is finished. Agents leave in good order.",
}
_estimates = KeyedBuckets(per_s=ESTIMATES_PER_S, burst=ESTIMATES_BURST, keys_max=4096)
_BLANK = Manifest(name="new", revision=1, title="New")


@for_members
@require_safe
def mine(request: HttpRequest) -> HttpResponse:
    """What the account organizes and takes part in."""
    user, now = member(request), time.time()
    rows = queries.organized_by(user)
    for row in rows:
        if row["revision"] is not None and row["experiment"].status == Experiment.Status.OPEN:
            row["summary"] = summary(row["experiment"], now)
    taking_part = Membership.objects.filter(user=user).select_related("experiment").exclude(experiment__status="draft")
    context = {
        "now": now,
        "current": [row for row in rows if row["experiment"].archived_at is None],
        "archived": [row for row in rows if row["experiment"].archived_at is not None],
        "taking_part": taking_part[: queries.LISTED_MAX],
    }
    return render(request, "experiments/mine.html", context)


# The form


@for_members
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """A new draft: from nothing, a preset, or another experiment."""
    if request.method != "POST":
        return _form_page(request, None, ManifestForm(None, initial=_beginning(request)))
    if request.POST.get("preset"):
        return _form_page(request, None, ManifestForm(None, initial=_with_preset(request.POST)))
    form = ManifestForm(request.POST, initial={})
    if form.is_valid() and form.manifest is not None and "save" in request.POST:
        try:
            experiment = actions.create(form.manifest, member(request))
        except Refused as e:
            form.add_error("name" if "called" in str(e) else None, str(e))
        else:
            messages.success(request, "The draft is saved. Nobody but its organizers sees it until you open it.")
            return redirect("experiment_edit", experiment.name)
    return _form_page(request, None, form)


@for_members
@require_http_methods(["GET", "HEAD", "POST"])
def edit(request: HttpRequest, name: str) -> HttpResponse:
    """Change a draft, or publish a revision of what is published."""
    experiment = managed(request, name)
    fixed = experiment.name if experiment.revision else ""
    now = schema.write(experiment.planned or msgspec.structs.replace(_BLANK, name=experiment.name, title=experiment.title))
    if request.method != "POST":
        return _form_page(request, experiment, ManifestForm(None, initial=now, name_fixed=fixed))
    if request.POST.get("preset"):
        texts = now | _with_preset(request.POST)
        return _form_page(request, experiment, ManifestForm(None, initial=texts, name_fixed=fixed))
    form = ManifestForm(request.POST, initial=now, name_fixed=fixed)
    if form.is_valid() and form.manifest is not None and "save" in request.POST:
        try:
            return _save(request, experiment, form.manifest)
        except (Refused, ManifestRejected, IdentityError) as e:
            form.add_error("name" if "called" in str(e) else None, str(e))
    return _form_page(request, experiment, form)


def _save(request: HttpRequest, experiment: Experiment, manifest: Manifest) -> HttpResponse:
    """Raises Refused."""
    if experiment.revision is None:
        experiment = actions.save_draft(experiment, manifest)
        messages.success(request, "The draft is saved.")
        return redirect("experiment_edit", experiment.name)
    base = request.POST.get("base", "")
    before = experiment.revision.revision
    revision = actions.revise(experiment, manifest, member(request), base=int(base) if base.isdecimal() else 0)
    if revision.revision == before:
        messages.info(request, "Nothing differs from what is published, so nothing was.")
        return redirect("experiment_edit", experiment.name)
    messages.success(request, f"Revision {revision.revision} is signed and published.")
    return redirect("experiment_revision", experiment.name, revision.revision)


@for_members
@require_POST
def size(request: HttpRequest) -> HttpResponse:
    """The estimate's part of the form's page, for what is typed so far."""
    if not _estimates.take(str(member(request).pk), time.monotonic()):
        return HttpResponse("Too often.", status=429, content_type="text/plain")
    return render(request, "experiments/estimate.html", _sizes(request.POST))


def _beginning(request: HttpRequest) -> dict[str, str]:
    """The texts that a new form begins with."""
    if name := request.GET.get("clone", ""):
        found = Experiment.objects.visible_to(request.user).filter(name=name).first()
        planned = found.planned if found is not None else None
        if planned is None:
            raise Http404(f"There is no experiment {name!r} to clone.")
        return schema.write(planned) | {"name": "", "title": f"{planned.title}, again"[:120]}
    texts = schema.write(_BLANK) | {"name": "", "title": ""}
    preset = PRESETS.get(request.GET.get("preset", ""))
    return texts | schema.parts(model=preset.model, training=preset.training, data=preset.data) if preset else texts


def _with_preset(typed: Mapping[str, str]) -> dict[str, str]:
    """What was typed, with the model and the learning of a preset, and its data if the model cannot learn from those typed."""
    texts = {each.path: str(typed.get(each.path, "")) for each in schema.leaves() if each.path in typed}
    preset = PRESETS.get(typed["preset"])
    if preset is None:
        return texts
    now = schema.parts(model=preset.model, training=preset.training, data=preset.data)
    unfit = (texts.get("data.kind") == "digits") != isinstance(preset.data, Digits)
    return texts | {path: text for path, text in now.items() if unfit or not path.startswith("data.")}


def _sizes(texts: Mapping[str, str]) -> dict[str, Any]:
    """The estimate as far as it can be made; else the labels of what has to be mended first."""
    counted = ("model.", "data.kind", "training.", "averaging.", "rules.")
    typed = {path: str(texts[path]) for path in texts if path.startswith(counted)}
    reading = schema.read(schema.write(_BLANK) | typed)
    if reading.manifest is None:
        return {"estimate": None, "wrong": [ManifestForm.label_of(path) for path in reading.errors if path]}
    m = reading.manifest
    found: Estimate = estimate(m.model, m.training, m.averaging, m.rules)
    return {"estimate": found, "model": m.model, "wrong": []}


def _form_page(request: HttpRequest, experiment: Experiment | None, form: ManifestForm) -> HttpResponse:
    revision = experiment.revision if experiment else None
    texts = {path: str(form[path].value() or "") for path in form.fields}
    found = changes(revision.manifest, form.manifest) if revision and form.manifest else []
    found = [change for change in found if change.path != "status"]
    context = {
        "experiment": experiment,
        "revision": revision,
        "form": form,
        "presets": PRESETS,
        "checked": form.is_bound and form.is_valid(),
        "lines": list(lines(found)),
        "worst": worst(found),
        "base": revision.revision if revision else "",
        "is_owner": experiment is not None and Experiment.objects.owned_by(request.user).filter(pk=experiment.pk).exists(),
        **_sizes(texts),
    }
    return render(request, "experiments/form.html", context, status=400 if form.errors else 200)


# Status, archive, deletion


@for_members
@require_POST
def status(request: HttpRequest, name: str) -> HttpResponse:
    """Open, pause, resume or finish."""
    experiment = managed(request, name)
    wanted = request.POST.get("status", "")
    try:
        actions.set_status(experiment, wanted, member(request))
    except (Refused, ManifestRejected, IdentityError) as e:
        messages.error(request, str(e))
    else:
        messages.success(request, DONE[wanted])
    return redirect("experiment_edit", name)


@for_members
@require_POST
def archive(request: HttpRequest, name: str) -> HttpResponse:
    """Out of the lists, or back."""
    experiment = owned(request, name)
    away = request.POST.get("away") == "1"
    try:
        actions.archive(experiment, away=away)
    except Refused as e:
        messages.error(request, str(e))
        return redirect("experiment_edit", name)
    messages.success(request, f"{experiment.title} is {'in the archive' if away else 'listed again'}.")
    return redirect("organize")


@for_members
@require_POST
def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Delete a draft."""
    experiment = owned(request, name)
    try:
        actions.delete_draft(experiment)
    except Refused as e:
        messages.error(request, str(e))
        return redirect("experiment_edit", name)
    messages.success(request, f"The draft {experiment.title} is deleted.")
    return redirect("organize")


# Revisions


@for_members
@require_safe
def revisions(request: HttpRequest, name: str) -> HttpResponse:
    """All revisions, newest first, with what each changed."""
    experiment = managed(request, name)
    before = request.GET.get("before", "")
    limit = int(before) if before.isascii() and before.isdecimal() and len(before) < 7 else None
    steps = queries.history(experiment, REVISIONS_SHOWN, limit)
    further = steps[-1].revision.revision if len(steps) == REVISIONS_SHOWN and steps[-1].revision.revision > 1 else None
    return render(request, "experiments/revisions.html", {"experiment": experiment, "steps": steps, "further": further})


@for_members
@require_safe
def revision(request: HttpRequest, name: str, number: int) -> HttpResponse:
    """One revision, compared with the one before or with `against`."""
    experiment = managed(request, name)
    text = request.GET.get("against", "")
    against = int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else None
    found = queries.compare(experiment, number, against)
    if found is None:
        raise Http404("There is no such revision.")
    this, other = found
    differences = changes(other.manifest if other else None, this.manifest)
    context = {
        "experiment": experiment,
        "revision": this,
        "other": other,
        "first": other is None,
        "lines": list(lines(differences)),
        "worst": worst(differences) if other else None,
        "numbers": experiment.revisions.order_by("-revision").values_list("revision", flat=True)[:REVISIONS_SHOWN],
        "json": msgspec.json.format(bytes(this.payload), indent=2).decode(),
    }
    return render(request, "experiments/revision.html", context)
