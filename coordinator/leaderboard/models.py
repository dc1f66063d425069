"""Who contributed what, when, and how we know. Times are Unix seconds.

Contribution is the record; Tally and Standing are sums and ranks that can be made again from it at any time
(`manage.py recompute_leaderboard`). Pages read Standing only.
"""

from __future__ import annotations

from enum import StrEnum

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from coordinator.experiments.models import Experiment

KINDS = ("tokens", "rows", "uptime")
SUMS = (*KINDS, *(f"verified_{k}" for k in KINDS), *(f"withheld_{k}" for k in KINDS))
EVER = 0
"""`Tally.hour` of the running total of all time."""


def _choices(values: type[StrEnum]) -> list[tuple[str, str]]:
    return [(value.value, value.value) for value in values]


class Kind(StrEnum):
    """What is counted: tokens trained, rows that went through hosted experts, seconds present."""

    TOKENS = "tokens"
    ROWS = "rows"
    UPTIME = "uptime"


class Source(StrEnum):
    """How we know: from the peer's own report, or from a receipt signed by the peer that was served."""

    REPORT = "report"
    RECEIPT = "receipt"


class Contribution(models.Model):
    """One peer did something for one experiment within a window of time.

    From reports: one row per session, kind and minute; after a day merged into hours, after a month into days, which
    keeps the sum and widens the window. A receipt is the same row with `served` and `verified`.
    """

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="contributions")
    peer = models.CharField(max_length=52)
    """Who did it."""
    served = models.CharField(max_length=52, default="", blank=True)
    """For whom; empty where it is not known."""
    session = models.CharField(max_length=16, default="", blank=True)
    kind = models.CharField(max_length=8, choices=_choices(Kind))
    source = models.CharField(max_length=8, choices=_choices(Source), default=Source.REPORT.value)
    verified = models.BooleanField(default=False)
    """Somebody other than `peer` signed for it."""
    amount = models.BigIntegerField()
    """What counts."""
    claimed = models.BigIntegerField()
    """What was said; more than `amount` where it was beyond what is plausible."""
    started_at = models.BigIntegerField()
    ended_at = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["experiment", "started_at", "peer", "session", "kind", "served", "source"], name="contribution_once"
            ),
            models.CheckConstraint(
                condition=Q(amount__gte=0, claimed__gte=models.F("amount"), ended_at__gt=models.F("started_at")),
                name="contribution_is_sound",
            ),
        ]
        indexes = [models.Index(fields=["peer", "-started_at"])]


class Sums(models.Model):
    """Sums of contributions: what was said and is plausible, what of it is verified, what was withheld as implausible."""

    tokens = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    uptime = models.BigIntegerField(default=0)
    verified_tokens = models.BigIntegerField(default=0)
    verified_rows = models.BigIntegerField(default=0)
    verified_uptime = models.BigIntegerField(default=0)
    withheld_tokens = models.BigIntegerField(default=0)
    withheld_rows = models.BigIntegerField(default=0)
    withheld_uptime = models.BigIntegerField(default=0)

    class Meta:
        abstract = True

    @property
    def withheld(self) -> int:
        """Tokens and rows that were beyond what is plausible."""
        return self.withheld_tokens + self.withheld_rows


class Tally(Sums):
    """Running sums of one peer in one experiment: of an hour, or of all time."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, related_name="tallies")
    peer = models.CharField(max_length=52)
    hour = models.BigIntegerField()
    """Where the hour begins, a multiple of 3600; EVER for the running total."""
    updated_at = models.FloatField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["experiment", "hour", "peer"], name="tally_once")]
        indexes = [models.Index(fields=["experiment", "updated_at"])]


class Window(StrEnum):
    DAY = "day"
    WEEK = "week"
    ALL = "all"


class Board(Sums):
    """A leaderboard as it was last computed: of an experiment, or overall (`experiment` is None). Its sums are of all peers."""

    experiment = models.ForeignKey(Experiment, on_delete=models.CASCADE, null=True, related_name="boards")
    window = models.CharField(max_length=4, choices=_choices(Window))
    computed_at = models.FloatField()
    peers = models.PositiveIntegerField(default=0)
    ranked_tokens = models.PositiveIntegerField(default=0)
    """Peers with any, as are ranked_rows and ranked_uptime."""
    ranked_rows = models.PositiveIntegerField(default=0)
    ranked_uptime = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["experiment", "window"], name="board_once"),
            models.UniqueConstraint(fields=["window"], condition=Q(experiment=None), name="overall_board_once"),
        ]


class Standing(Sums):
    """One peer on a board. A rank is None where the peer has none of that kind; a former one also if it was not there."""

    board = models.ForeignKey(Board, on_delete=models.CASCADE, related_name="standings")
    peer = models.CharField(max_length=52)
    rank_tokens = models.PositiveIntegerField(null=True)
    rank_rows = models.PositiveIntegerField(null=True)
    rank_uptime = models.PositiveIntegerField(null=True)
    before_tokens = models.PositiveIntegerField(null=True)
    """The rank that the same window gave a day earlier."""
    before_rows = models.PositiveIntegerField(null=True)
    before_uptime = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["board", "peer"], name="standing_once")]
        indexes = [
            models.Index(fields=["board", "rank_tokens"]),
            models.Index(fields=["board", "rank_rows"]),
            models.Index(fields=["board", "rank_uptime"]),
            models.Index(fields=["peer"]),
        ]


class Team(models.Model):
    """Accounts that like to be counted together. Whoever is signed in may join; it goes when its last member leaves."""

    name = models.CharField(max_length=40)
    slug = models.SlugField(max_length=44, unique=True)
    about = models.CharField(max_length=280, default="", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(Lower("name"), name="team_name_once")]

    def __str__(self) -> str:
        return self.name


class TeamMember(models.Model):
    """One account's team; it has at most one."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="members")
    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="team_membership")
    joined_at = models.DateTimeField(auto_now_add=True)


class TeamStanding(Sums):
    """One team on a board: the sums of all machines of its members."""

    board = models.ForeignKey(Board, on_delete=models.CASCADE, related_name="team_standings")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="standings")
    peers = models.PositiveIntegerField()
    rank_tokens = models.PositiveIntegerField(null=True)
    rank_rows = models.PositiveIntegerField(null=True)
    rank_uptime = models.PositiveIntegerField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["board", "team"], name="team_standing_once")]
