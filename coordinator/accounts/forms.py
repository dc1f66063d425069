"""Forms of the account pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from allauth.account.forms import SignupForm as AllauthSignupForm
from django import forms
from django.core.exceptions import ValidationError

from coordinator.accounts.models import JOIN, SCOPES, User, clean_display_name

LIVES = [("30", "30 days"), ("90", "90 days"), ("365", "a year"), ("", "until revoked")]


class SignupForm(AllauthSignupForm):
    """allauth's, without the inline style of its trap for robots: the stylesheet hides that field."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trap = self.fields["website"]
        trap.label = "Leave this empty"
        trap.widget.attrs = {"tabindex": "-1", "autocomplete": "off", "class": "trap"}


class ProfileForm(forms.ModelForm):
    """What others see."""

    class Meta:
        model = User
        fields = ["display_name", "is_listed"]
        labels = {"display_name": "Display name", "is_listed": "Show it on leaderboards and beside my machines"}
        help_texts = {
            "display_name": "Letters and digits, with spaces, dots or hyphens between. It can be anything, and can stay empty.",
            "is_listed": "Off, your machines appear as anonymous peers.",
        }
        widgets = {"display_name": forms.TextInput(attrs={"autocomplete": "nickname"})}

    def clean_display_name(self) -> str:
        name = clean_display_name(self.cleaned_data["display_name"])
        taken = User.objects.filter(display_name__iexact=name).exclude(pk=self.instance.pk)
        if name and taken.exists():
            raise ValidationError("Somebody else goes by this name.")
        return name

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("is_listed") and not cleaned.get("display_name") and not self.has_error("display_name"):
            self.add_error("display_name", "A name is needed to be shown by one.")
        return cleaned


class TokenForm(forms.Form):
    """A new API token."""

    name = forms.CharField(max_length=60, label="What is it for?", widget=forms.TextInput(attrs={"autocomplete": "off"}))
    scopes = forms.MultipleChoiceField(
        label="It may",
        choices=list(SCOPES.items()),
        initial=[JOIN],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose what it may do."},
    )
    life = forms.ChoiceField(label="It lasts", choices=LIVES, initial="90", required=False)

    def clean_life(self) -> timedelta | None:
        days = self.cleaned_data["life"]
        return timedelta(days=int(days)) if days else None


class CodeForm(forms.Form):
    """The short code that a machine shows."""

    code = forms.CharField(
        max_length=20,
        label="Code",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "autocapitalize": "characters", "spellcheck": "false", "class": "code"}
        ),
    )


class DeletionForm(forms.Form):
    """Deleting needs the address typed out."""

    email = forms.EmailField(label="Your mail address, to be sure", widget=forms.EmailInput(attrs={"autocomplete": "off"}))

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if email.lower() != self.user.email:
            raise ValidationError("This is not the address of this account.")
        return email
