"""Forms about who may take part."""

from __future__ import annotations

from datetime import timedelta

from django import forms

LIVES = [("1", "a day"), ("7", "a week"), ("30", "30 days"), ("", "until withdrawn")]


class AskForm(forms.Form):
    message = forms.CharField(
        max_length=500,
        required=False,
        label="A word to the organizers",
        help_text="Who you are, what machine you would bring. Only they read it.",
        widget=forms.Textarea(attrs={"rows": 4}),
    )


class InviteForm(forms.Form):
    note = forms.CharField(
        max_length=80, required=False, label="For whom", help_text="A note to yourselves; the invited do not see it."
    )
    uses_max = forms.IntegerField(
        min_value=1, max_value=10_000, required=False, initial=1, label="How many may use it", help_text="Empty: any number."
    )
    life = forms.ChoiceField(label="It lasts", choices=LIVES, initial="7", required=False)

    def clean_life(self) -> timedelta | None:
        days = self.cleaned_data["life"]
        return timedelta(days=int(days)) if days else None


class AppointForm(forms.Form):
    email = forms.EmailField(label="Their mail address", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
