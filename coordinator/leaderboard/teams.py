"""Teams: made, joined and left by accounts; counted by the machines of their members."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from agent.errors import LocalError
from coordinator.accounts.models import Machine, User
from coordinator.leaderboard.models import KINDS, SUMS, Board, Team, TeamMember, TeamStanding
from coordinator.leaderboard.ranking import ranks

MEMBERS_MAX = 500
TEAMS_MAX = 10_000


class TeamRefused(LocalError):
    """The team cannot be made or joined; the text says why."""


def create(user: User, name: str, about: str = "") -> Team:
    """A new team with `user` as its first member; whichever team they were in, they leave. Raises TeamRefused."""
    name, slug = " ".join(name.split()), slugify(name)
    if not slug:
        raise TeamRefused("A team's name needs some letters or digits of the Latin alphabet.")
    if Team.objects.count() >= TEAMS_MAX:
        raise TeamRefused("This site has as many teams as it can hold.")
    try:
        with transaction.atomic():
            team = Team.objects.create(name=name, slug=slug, about=" ".join(about.split()))
            join(user, team)
    except IntegrityError:
        raise TeamRefused(f"There is a team of that name already: {name}. Join it, or choose another name.") from None
    return team


def join(user: User, team: Team) -> None:
    """Make `user` a member of `team`, and of no other. Raises TeamRefused."""
    with transaction.atomic():
        Team.objects.select_for_update().get(pk=team.pk)
        if team.members.exclude(user=user).count() >= MEMBERS_MAX:
            raise TeamRefused(f"A team has at most {MEMBERS_MAX} members.")
        former = Team.objects.filter(members__user=user).exclude(pk=team.pk).first()
        TeamMember.objects.update_or_create(user=user, defaults={"team": team})
        _drop_if_empty(former)


def leave(user: User) -> None:
    """Leave the team, if any. The last one out takes it along."""
    with transaction.atomic():
        former = Team.objects.filter(members__user=user).first()
        TeamMember.objects.filter(user=user).delete()
        _drop_if_empty(former)


def team_of(user: object) -> Team | None:
    if not getattr(user, "is_authenticated", False):
        return None
    return Team.objects.filter(members__user=user).first()


def write(board: Board, totals: Mapping[str, Mapping[str, int]]) -> None:
    """Replace the board's teams, from every peer's sums."""
    teams = dict(Machine.objects.filter(user__team_membership__isnull=False).values_list("peer", "user__team_membership__team"))
    of_team: dict[int, dict[str, int]] = {}
    peers: dict[int, int] = {}
    for peer, team in teams.items():
        if peer not in totals:
            continue
        sums = of_team.setdefault(team, dict.fromkeys(SUMS, 0))
        peers[team] = peers.get(team, 0) + 1
        for name in SUMS:
            sums[name] += totals[peer][name]
    rank = {kind: ranks(of_team, kind) for kind in KINDS}
    board.team_standings.all().delete()
    TeamStanding.objects.bulk_create(
        [
            TeamStanding(board=board, team_id=t, peers=peers[t], **sums, **{f"rank_{kind}": rank[kind].get(t) for kind in KINDS})
            for t, sums in of_team.items()
        ],
        batch_size=500,
    )


def _drop_if_empty(team: Team | None) -> None:
    if team is not None and not team.members.exists():
        team.delete()
