"""Forms of the leaderboard's pages."""

from __future__ import annotations

from django import forms

from coordinator.leaderboard.models import Team


class TeamForm(forms.ModelForm):
    """A new team."""

    template_name = "accounts/fields.html"

    class Meta:
        model = Team
        fields = ["name", "about"]
        labels = {"name": "Name", "about": "In a sentence"}
        help_texts = {"name": "Up to 40 letters; others read it.", "about": "Optional; others read it."}

    def validate_unique(self) -> None:
        """The action says it better, and without a race."""

    def validate_constraints(self) -> None:
        """As above."""
