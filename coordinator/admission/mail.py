"""Letters about who may take part: to organizers when somebody waits, and to who waited when they are answered."""

from __future__ import annotations

from django.conf import settings
from django.core.mail import send_mail
from django.urls import reverse

from coordinator.accounts.models import User
from coordinator.admission.models import Membership
from coordinator.experiments.models import Experiment, Role

ANSWERS = {
    "admit": "You may take part in {title}. How to join:",
    "refuse": "The organizers of {title} declined your request. The experiment:",
    "remove": "The organizers of {title} ended your part in it. The experiment:",
}


def somebody_waits(experiment: Experiment, origin: str) -> None:
    """Tell the owners, but only of the first who waits: a crowd of requests is one letter until it is answered."""
    waiting = Membership.objects.filter(experiment=experiment, standing=Membership.Standing.REQUESTED)
    if waiting.count() != 1:
        return
    owners = Role.objects.filter(experiment=experiment, kind=Role.Kind.OWNER, user__is_active=True)
    link = f"{origin}{reverse('people', args=[experiment.name])}"
    for email in owners.values_list("user__email", flat=True):
        _send(email, f"Somebody asks to take part in {experiment.title}", f"Read what they say, and decide:\n\n{link}\n")


def answered(experiment: Experiment, user: User, decision: str, origin: str) -> None:
    """Tell who asked what became of it."""
    link = f"{origin}{reverse('join', args=[experiment.name])}"
    text = ANSWERS[decision].format(title=experiment.title)
    _send(user.email, f"About {experiment.title}", f"{text}\n\n{link}\n")


def _send(email: str, subject: str, body: str) -> None:
    """A subject is one line, whatever a title holds."""
    line = " ".join(f"{settings.ACCOUNT_EMAIL_SUBJECT_PREFIX}{subject}".split())
    send_mail(line, body, None, [email])
