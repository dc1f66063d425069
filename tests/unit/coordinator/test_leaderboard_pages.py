"""Leaderboard, peers and teams, as the server sends them to strangers, volunteers and staff."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.test import Client

from agent.identity import Identity
from agent.reports import Connection
from coordinator.accounts.models import Machine, User
from coordinator.experiments.actions import publish
from coordinator.experiments.models import Experiment
from coordinator.experiments.presets import DIGITS
from coordinator.leaderboard import derive, queries, scores, teams
from coordinator.leaderboard.models import Board, Standing, Team
from coordinator.leaderboard.teams import TeamRefused

from .conftest import Agent, event, hosts, report
from .test_store import submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def now() -> float:
    return time.time()


@pytest.fixture
def volunteer(bob: Agent) -> User:
    """Bob's account, with his machine linked."""
    user = User.objects.create_user("bob@example.org", "correct horse battery", display_name="Bob", is_listed=True)
    Machine.objects.create(user=user, peer=bob.peer, label="the old laptop")
    return user


@pytest.fixture
def stranger() -> User:
    return User.objects.create_user("charlie@example.org", "correct horse battery", display_name="Charlie")


def work(experiment: Experiment, agent: Agent, now: float, **counters: int) -> None:
    submit(experiment, agent, report(1, now - 1, **counters), at=now)


def score(now: float) -> None:
    derive.derive(now)
    scores.compute(now, force=True)


def get(client: Client, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, response.content[:500]
    return response.content.decode()


# The board


def test_before_anything_was_computed(client: Client, experiment: Experiment) -> None:
    html = get(client, "/leaderboard/")
    assert "not computed yet" in html and "Nobody has done any of this" in html
    assert "No team has done anything" in html
    get(client, "/leaderboard/in/gpt-crowd/")


def test_who_did_the_work(client: Client, experiment: Experiment, bob: Agent, charlie: Agent, now: float) -> None:
    work(experiment, bob, now, tokens=1_234_567, rows_served=10)
    work(experiment, charlie, now, tokens=999, rows_served=20)
    score(now)
    html = get(client, "/leaderboard/in/gpt-crowd/")
    assert html.index(bob.peer) < html.index(charlie.peer)
    assert "1.23 M" in html and "None of it is signed for" in html and ">new<" in html
    html = get(client, "/leaderboard/?by=rows&window=all")
    assert html.index(charlie.peer) < html.index(bob.peer)
    assert "reward" not in html.lower()


def test_a_board_counts_what_its_model_learns_from(client: Client, bob: Agent, now: float) -> None:
    digits = publish(DIGITS).experiment
    work(digits, bob, now, tokens=5)
    score(now)
    html = get(client, "/leaderboard/in/digits/")
    assert "Images trained" in html and ">Images</a>" in html and "Tokens" not in html
    assert "Images trained" in get(client, "/leaderboard/")


def test_what_is_of_several_experiments_names_the_units_of_each(
    client: Client, experiment: Experiment, volunteer: User, bob: Agent, now: float
) -> None:
    bees = teams.create(volunteer, "Bees")
    Machine.objects.update_or_create(peer=bob.peer, defaults={"user": volunteer})
    work(experiment, bob, now, tokens=7000)
    work(publish(DIGITS).experiment, bob, now, tokens=5)
    score(now)
    board = get(client, "/leaderboard/")
    assert "Images and tokens trained" in board and ">Images and tokens</a>" in board
    peer = get(client, f"/peers/{bob.peer}/")
    assert "7.00 k tokens</td>" in peer and "5 images</td>" in peer and "Images trained</td>" in peer and ">Tokens<" not in peer
    team = get(client, f"/teams/{bees.slug}/")
    assert "7.00 k tokens" in team and "5 images" in team and "7.00 k images and tokens" in team


def test_who_is_pinned_stays_so_in_other_windows(client: Client, experiment: Experiment) -> None:
    html = get(client, "/leaderboard/?me=abcd%26by")
    assert "?window=week&amp;by=tokens&amp;me=abcd%26by" in html and "?window=day&amp;by=rows&amp;me=abcd%26by" in html


def test_misspelt_parameters_give_the_defaults(client: Client, experiment: Experiment) -> None:
    for query in ("window=year", "by=fame", "page=-1", "page=x", "page=99999", "page=١", "me=%00", "me=" + "<" * 90):
        get(client, f"/leaderboard/?{query}")


@pytest.mark.parametrize(
    "path", ["/leaderboard/in/secret/", "/leaderboard/in/nope/", f"/peers/{'a' * 52}/", "/peers/x/", "/teams/x/"]
)
def test_what_is_not_there(client: Client, draft: Experiment, path: str) -> None:
    assert "This cell is empty" in get(client, path, 404)


def test_names_only_of_who_wants_to_be_named(
    client: Client, experiment: Experiment, bob: Agent, charlie: Agent, volunteer: User, stranger: User, now: float
) -> None:
    Machine.objects.create(user=stranger, peer=charlie.peer)
    for agent in (bob, charlie):
        work(experiment, agent, now, tokens=5)
    score(now)
    html = get(client, "/leaderboard/")
    assert "Bob" in html and "Charlie" not in html
    assert "Bob" in get(client, f"/peers/{bob.peer}/") and "Charlie" not in get(client, f"/peers/{charlie.peer}/")


def test_ones_own_machines_are_pinned(client: Client, experiment: Experiment, volunteer: User, bob: Agent, now: float) -> None:
    work(experiment, bob, now, tokens=5)
    score(now)
    assert "Your machines" not in get(client, "/leaderboard/")
    client.force_login(volunteer)
    html = get(client, "/leaderboard/")
    assert "Your machines" in html and html.count(bob.peer[:8] + "</code>") == 2 and ">yours<" in html


def test_a_peer_is_pinned_by_the_beginning_of_its_id(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    work(experiment, bob, now, tokens=5)
    score(now)
    assert "Found" in get(client, f"/leaderboard/?me={bob.peer[:8].upper()}")
    assert "No peer on this board" in get(client, "/leaderboard/?me=zzzzzzzz")
    assert "No peer on this board" in get(client, "/leaderboard/?me=%3Cscript%3E")


def test_pages_of_a_long_board(client: Client, experiment: Experiment, now: float) -> None:
    board = Board.objects.create(experiment=None, window="day", computed_at=now, peers=120)
    Standing.objects.bulk_create(
        [
            Standing(board=board, peer=str(Identity.from_seed(bytes([i]) * 32).peer_id), tokens=1000 - i, rank_tokens=i + 1)
            for i in range(120)
        ]
    )
    first, last = get(client, "/leaderboard/"), get(client, "/leaderboard/?page=2")
    assert first.count('class="rank">') == 51 + 0 and "page=1" in first and "Higher up" not in first
    assert last.count('<td class="rank">') == 20 and "Further down" not in last and "page=1" in last
    assert "ends before this page" in get(client, "/leaderboard/?page=3")


def test_what_is_beyond_plausible_is_marked(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    work(experiment, bob, now, tokens=2**60)
    score(now)
    assert "⚑ limited" in get(client, "/leaderboard/")
    assert "⚑" in get(client, f"/peers/{bob.peer}/")


def test_queries_do_not_grow_with_the_board(
    client: Client, experiment: Experiment, volunteer: User, now: float, django_assert_max_num_queries: Any
) -> None:
    for i in range(30):
        work(experiment, Agent(Identity.from_seed(bytes([i]) * 32)), now, tokens=i)
    score(now)
    client.force_login(volunteer)
    with django_assert_max_num_queries(14):
        get(client, "/leaderboard/in/gpt-crowd/")


def test_every_number_is_explained(client: Client) -> None:
    html = get(client, "/leaderboard/numbers/")
    for anchor in ("tokens", "rows", "uptime", "verified", "limits", "windows", "teams", "names"):
        assert f'id="{anchor}"' in html
    assert "own word" in html


# Peers


def test_a_peer(
    client: Client, experiment: Experiment, bob: Agent, charlie: Agent, now: float, django_assert_max_num_queries: Any
) -> None:
    link = Connection(peer=charlie.peer, kind="relayed", rtt_ms=12.5)
    item = report(2, now, tokens=77, rows_served=5, experts=hosts("ffn0.0.1"), connections=(link,), stage="hosting")
    submit(experiment, bob, report(1, now - 1, tokens=99), item, event(3, "expert-claimed", now), at=now)
    score(now)
    with django_assert_max_num_queries(12):
        html = get(client, f"/peers/{bob.peer}/")
    for text in (
        "here now",
        "10 s</td>",
        "ffn0.0.1",
        "┅ relayed",
        "12.5 ms",
        "● hosting",
        "0.1.0",
        "Counters fell",
        "its own report",
    ):
        assert text in html, text


def test_a_peer_that_only_a_draft_knows_is_not_there(client: Client, draft: Experiment, bob: Agent, now: float) -> None:
    work(draft, bob, now, tokens=1)
    get(client, f"/peers/{bob.peer}/", 404)
    assert "No peer with such an id" in get(client, f"/peers/?id={bob.peer[:8]}")


def test_finding_a_peer(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    work(experiment, bob, now, tokens=1)
    response = client.get(f"/peers/?id={bob.peer[:6]}")
    assert (response.status_code, response.headers["Location"]) == (302, f"/peers/{bob.peer}/")
    get(client, "/peers/")
    get(client, "/peers/?id=a")


def test_what_agents_write_is_escaped(client: Client, experiment: Experiment, bob: Agent, now: float) -> None:
    submit(experiment, bob, report(1, now, why="<script>alert(1)</script>"), at=now)
    assert "<script>alert" not in get(client, f"/peers/{bob.peer}/")


@pytest.mark.parametrize("path", ["/leaderboard/", "/leaderboard/numbers/", "/peers/", "/teams/"])
def test_nothing_is_inline(client: Client, experiment: Experiment, path: str) -> None:
    html = get(client, path)
    assert "style=" not in html and "onclick" not in html and "<style" not in html


@pytest.mark.parametrize("path", ["/leaderboard/", "/leaderboard/numbers/", "/peers/", f"/peers/{'a' * 52}/", "/teams/x/"])
def test_pages_only_answer_to_reading(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405


# Teams


def test_making_a_team(client: Client, volunteer: User) -> None:
    client.force_login(volunteer)
    response = client.post("/teams/", {"name": " The  Bees ", "about": "We hum."})
    assert response.status_code == 302 and response.headers["Location"] == "/teams/the-bees/"
    assert teams.team_of(volunteer) == Team.objects.get(name="The Bees")
    assert "The Bees" in get(client, "/teams/") and "You are a member" in get(client, "/teams/the-bees/")


@pytest.mark.parametrize("name", ["", "x" * 41, "!!!", "蜂"])
def test_a_team_needs_a_name_that_can_be_a_link(client: Client, volunteer: User, name: str) -> None:
    client.force_login(volunteer)
    assert client.post("/teams/", {"name": name}).status_code == 400
    assert not Team.objects.exists()


def test_a_name_is_taken_once(client: Client, volunteer: User, stranger: User) -> None:
    teams.create(stranger, "Bees")
    client.force_login(volunteer)
    for name in ("bees", "BEES", "Bees!"):
        response = client.post("/teams/", {"name": name})
        assert response.status_code == 400 and b"There is a team of that name already" in response.content


def test_joining_and_leaving(client: Client, volunteer: User, stranger: User) -> None:
    bees = teams.create(stranger, "Bees")
    ants = teams.create(volunteer, "Ants")
    client.force_login(volunteer)
    assert client.post("/teams/bees/join/").status_code == 302
    assert teams.team_of(volunteer) == bees and not Team.objects.filter(pk=ants.pk).exists()
    assert client.post("/teams/leave/").status_code == 302
    assert teams.team_of(volunteer) is None and Team.objects.filter(pk=bees.pk).exists()
    assert client.post("/teams/ants/join/").status_code == 404
    assert client.get("/teams/bees/join/").status_code == 405


def test_strangers_are_asked_to_sign_in(client: Client, stranger: User) -> None:
    teams.create(stranger, "Bees")
    for path in ("/teams/", "/teams/bees/join/", "/teams/leave/"):
        response = client.post(path, {"name": "Ants"})
        assert response.status_code == 302 and "login" in response.headers["Location"]
    assert Team.objects.count() == 1


def test_a_team_has_so_many_members_and_no_more(volunteer: User, stranger: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "MEMBERS_MAX", 1)
    bees = teams.create(stranger, "Bees")
    teams.join(stranger, bees)
    with pytest.raises(TeamRefused, match="at most 1"):
        teams.join(volunteer, bees)


def test_a_site_has_so_many_teams_and_no_more(volunteer: User, stranger: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teams, "TEAMS_MAX", 1)
    teams.create(stranger, "Bees")
    with pytest.raises(TeamRefused, match="as many teams"):
        teams.create(volunteer, "Ants")


def test_a_team_counts_the_machines_of_its_members(
    client: Client, experiment: Experiment, volunteer: User, stranger: User, bob: Agent, charlie: Agent, alice: Agent, now: float
) -> None:
    Machine.objects.create(user=stranger, peer=charlie.peer)
    bees = teams.create(volunteer, "Bees")
    teams.join(stranger, bees)
    for agent, n in ((bob, 10), (charlie, 20), (alice, 400)):
        work(experiment, agent, now, tokens=n)
    score(now)
    (standing,) = queries.team_standings(queries.find_board(experiment, "all"), "tokens")
    assert (standing.slug, standing.peers, standing.tokens, standing.rank) == ("bees", 2, 30, 1)
    assert "Bees" in get(client, "/leaderboard/") and "№ 1" in get(client, "/teams/bees/")
    html = get(client, "/teams/bees/")
    assert "Bob" in html and "Charlie" not in html
