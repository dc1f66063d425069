"""Celery tasks of accounts."""

from __future__ import annotations

from smtplib import SMTPException
from typing import Any

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection

RETRY_FIRST_S, RETRIES_MAX = 10, 6
"""10 s, 20 s, 40 s … together about ten minutes."""


@shared_task(name="accounts.send_mail", bind=True, max_retries=RETRIES_MAX)
def send_mail(task: Any, *, subject: str, body: str, sender: str, to: list[str], html: str = "") -> None:
    """Deliver one message; a mail server that is away is tried again."""
    message = EmailMultiAlternatives(subject, body, sender, to, connection=get_connection(settings.MAIL_DELIVERY_BACKEND))
    if html:
        message.attach_alternative(html, "text/html")
    try:
        message.send()
    except (OSError, SMTPException) as e:
        raise task.retry(exc=e, countdown=RETRY_FIRST_S * 2**task.request.retries) from e


@shared_task(name="accounts.forget")
def forget() -> None:
    """Delete device codes and sessions that are over."""
    from django.contrib.sessions.models import Session

    from coordinator.accounts.actions import forget_device_codes, now

    forget_device_codes()
    Session.objects.filter(expire_date__lt=now()).delete()
