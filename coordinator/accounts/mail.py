"""Mail leaves by a Celery task: no page waits for a mail server, and none shows by its time whether one was written to."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.base import BaseEmailBackend

from coordinator.accounts import tasks


class QueuedBackend(BaseEmailBackend):
    """EMAIL_BACKEND: hands each message to `accounts.send_mail`, which uses MAIL_DELIVERY_BACKEND."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            html = [c for c, kind in message.alternatives] if isinstance(message, EmailMultiAlternatives) else []
            tasks.send_mail.delay(
                subject=str(message.subject),
                body=str(message.body),
                sender=message.from_email,
                to=list(message.to),
                html=str(html[0]) if html else "",
            )
        return len(email_messages)
