"""Leaderboards, what their numbers mean, peers and teams. All of it works without JavaScript."""

from __future__ import annotations

import re
import time
from typing import cast

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from coordinator.accounts.models import User
from coordinator.experiments.models import Experiment
from coordinator.leaderboard import plausible, queries, teams
from coordinator.leaderboard.forms import TeamForm
from coordinator.leaderboard.models import KINDS, Team, Window
from coordinator.leaderboard.teams import TeamRefused
from coordinator.leaderboard.units import together, units, units_of
from coordinator.telemetry.models import Session

PAGE_ROWS = 50
PAGES_MAX = 200
EXPERIMENTS_LISTED_MAX = 30
TEAMS_LISTED_MAX = 200
RECORDS_SHOWN, SESSIONS_SHOWN = 30, 20
WINDOW_WORDS = {Window.DAY: "24 hours", Window.WEEK: "7 days", Window.ALL: "All time"}
KIND_WORDS = {"tokens": "Tokens trained", "rows": "Expert rows served", "uptime": "Time present"}
_PREFIX = re.compile(r"[a-z2-7]{4,52}")
_PEER = re.compile(r"[a-z2-7]{52}")


@require_safe
def leaderboard(request: HttpRequest, name: str | None = None) -> HttpResponse:
    """A board, of one experiment or overall; `window`, `by`, `page`, and `me`: the beginning of a peer's id to pin."""
    now = time.time()
    experiments = list(Experiment.objects.listed()[:EXPERIMENTS_LISTED_MAX])
    experiment = _experiment(name) if name is not None else None
    words = together(units(experiments).values()) if experiment is None else experiment.manifest.model.units
    window = _choice(request, "window", [w.value for w in Window], Window.DAY.value)
    by = _choice(request, "by", KINDS, "tokens")
    page = _page(request)
    me = request.GET.get("me", "").strip().lower()
    board = queries.find_board(experiment, window)
    standings = queries.standings(board, by, limit=PAGE_ROWS + 1, offset=page * PAGE_ROWS)
    mine = queries.peers_of(request.user)
    prefix = me if _PREFIX.fullmatch(me) else ""
    context = {
        "now": now,
        "experiment": experiment,
        "experiments": experiments,
        "window": window,
        "windows": {w.value: words for w, words in WINDOW_WORDS.items()},
        "by": by,
        "kinds": {**KIND_WORDS, "tokens": f"{words.capitalize()} trained"},
        "units": words,
        "board": board,
        "totals": queries.totals(board, by),
        "standings": standings[:PAGE_ROWS],
        "most": _most(board, by),
        "pinned": queries.standings_of(board, by, mine, prefix),
        "mine": set(mine),
        "me": me,
        "teams": queries.team_standings(board, by) if page == 0 else [],
        "page": page,
        "further": len(standings) > PAGE_ROWS and page + 1 < PAGES_MAX,
    }
    return render(request, "leaderboard/board.html", context)


@require_safe
def numbers(request: HttpRequest) -> HttpResponse:
    """Where each number comes from."""
    return render(request, "leaderboard/numbers.html", {"limits": plausible.LIMITS, "slot_s": plausible.SLOT_S})


@require_safe
def find_peer(request: HttpRequest) -> HttpResponse:
    """Go to the peer whose id begins with `id`, if there is one such."""
    prefix = request.GET.get("id", "").strip().lower()
    found: list[str] = []
    if _PREFIX.fullmatch(prefix):
        rows = Session.objects.filter(peer__startswith=prefix, experiment__in=Experiment.objects.visible_to())
        found = list(rows.order_by("peer").values_list("peer", flat=True).distinct()[:21])
    if len(found) == 1:
        return redirect("peer", found[0])
    return render(request, "leaderboard/find_peer.html", {"prefix": prefix, "found": found[:20], "more": len(found) > 20})


@require_safe
def peer(request: HttpRequest, text: str) -> HttpResponse:
    """What is known about one peer."""
    now = time.time()
    experiments = Experiment.objects.visible_to()
    found = queries.peer(text, experiments, now) if _PEER.fullmatch(text) else None
    if found is None:
        raise Http404("No peer with this id has reported here.")
    sessions = queries.sessions(text, experiments, limit=SESSIONS_SHOWN)
    records = queries.contributions(experiments, peer=text, limit=RECORDS_SHOWN)
    context = {
        "now": now,
        "peer": found,
        "is_mine": text in queries.peers_of(request.user),
        "sessions": sessions,
        "records": records,
        "kinds": KIND_WORDS,
        "units": units_of(
            {t.experiment for t in found.totals} | {s.experiment for s in sessions} | {r.experiment for r in records}
        ),
    }
    return render(request, "leaderboard/peer.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def teams_page(request: HttpRequest) -> HttpResponse:
    """All teams; make one."""
    if request.method == "POST" and not request.user.is_authenticated:
        return redirect("account_login")
    form = TeamForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = teams.create(cast(User, request.user), form.cleaned_data["name"], form.cleaned_data["about"])
        except TeamRefused as e:
            form.add_error("name", str(e))
        else:
            messages.success(request, f"{made.name} exists, and you are its first member.")
            return redirect("team", made.slug)
    context = {
        "form": form,
        "teams": queries.listed_teams(TEAMS_LISTED_MAX),
        "mine": teams.team_of(request.user),
    }
    return render(request, "leaderboard/teams.html", context, status=400 if form.errors else 200)


@require_safe
def team(request: HttpRequest, slug: str) -> HttpResponse:
    """One team and how it stands."""
    found = _team(slug)
    standings = queries.standings_of_team(found)
    by_name = units({s["board"].experiment.name: s["board"].experiment for s in standings if s["board"].experiment}.values())
    context = {
        "team": found,
        "members": queries.members(found),
        "standings": standings,
        "units": by_name,
        "all_units": together(by_name.values()),
        "windows": {w.value: words for w, words in WINDOW_WORDS.items()},
        "mine": teams.team_of(request.user),
    }
    return render(request, "leaderboard/team.html", context)


@login_required
@require_POST
def join_team(request: HttpRequest, slug: str) -> HttpResponse:
    found = _team(slug)
    try:
        teams.join(cast(User, request.user), found)
    except TeamRefused as e:
        messages.error(request, str(e))
    else:
        messages.success(request, f"You are a member of {found.name}. It shows on the boards within a minute.")
    return redirect("team", slug)


@login_required
@require_POST
def leave_team(request: HttpRequest) -> HttpResponse:
    teams.leave(cast(User, request.user))
    messages.success(request, "You are in no team now.")
    return redirect("teams")


def _experiment(name: str) -> Experiment:
    found = Experiment.objects.visible_to().filter(name=name).first()
    if found is None:
        raise Http404(f"There is no experiment {name!r} here.")
    return found


def _team(slug: str) -> Team:
    found = Team.objects.filter(slug=slug).first()
    if found is None:
        raise Http404("There is no such team.")
    return found


def _choice(request: HttpRequest, name: str, choices: list[str] | tuple[str, ...], default: str) -> str:
    """A misspelt parameter gives the default: such links are typed by people."""
    value = request.GET.get(name, default)
    return value if value in choices else default


def _page(request: HttpRequest) -> int:
    text = request.GET.get("page", "0")
    return min(int(text), PAGES_MAX - 1) if text.isascii() and text.isdecimal() and len(text) < 5 else 0


def _most(board: object, by: str) -> int:
    best = queries.standings(board, by, limit=1)  # type: ignore[arg-type]
    return getattr(best[0], "uptime_s" if by == "uptime" else by) if best else 0
