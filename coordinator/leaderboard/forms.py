"""Forms of the leaderboard's pages."""

from __future__ import annotations

from django import forms


class TeamForm(forms.Form):
    """A new team. Whether the name is free is for the action to say: it does so without a race."""

    template_name = "accounts/fields.html"

    name = forms.CharField(max_length=40, label="Name", help_text="Up to 40 letters; others read it.")
    about = forms.CharField(max_length=280, required=False, label="In a sentence", help_text="Optional; others read it.")
