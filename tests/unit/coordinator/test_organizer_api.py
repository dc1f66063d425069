"""The organizers' API: what their pages do, for programs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from django.test import Client
from msgspec.structs import replace

from agent.manifest import GPTModel
from coordinator.accounts.actions import make_token
from coordinator.accounts.models import MANAGE, READ, User
from coordinator.experiments import actions
from coordinator.experiments.models import Experiment, Role

from .conftest import SMALL

pytestmark = pytest.mark.django_db
BEES = replace(SMALL, name="bees", title="Bees")
TREE = msgspec.to_builtins(BEES)


class Program:
    """Speaks for an account by a token."""

    def __init__(self, user: User, scope: str = MANAGE) -> None:
        self.client = Client(HTTP_AUTHORIZATION=f"Bearer {make_token(user, 'x', [scope])[1]}")

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/v1{path}")

    def send(self, method: str, path: str, **body: Any) -> Any:
        return self.client.generic(method, f"/api/v1{path}", msgspec.json.encode(body), content_type="application/json")


@pytest.fixture
def alice_program(organizer: User) -> Program:
    return Program(organizer)


def test_the_life_of_an_experiment(alice_program: Program) -> None:
    made = alice_program.send("POST", "/organizer/experiments", manifest={**TREE, "status": "finished", "revision": 9})
    assert made.status_code == 201 and made.json()["status"] == "draft" and made.json()["revision"] is None
    changed = alice_program.send("PUT", "/organizer/experiments/bees/manifest", manifest={**TREE, "title": "Wasps"})
    assert changed.json()["title"] == "Wasps" and changed.json()["revision"] is None
    opened = alice_program.send("POST", "/organizer/experiments/bees/status", status="open")
    assert (opened.json()["status"], opened.json()["revision"]) == ("open", 1)
    revised = alice_program.send("PUT", "/organizer/experiments/bees/manifest", manifest=TREE, base=1)
    assert revised.json()["revision"] == 2 and revised.json()["manifest"]["title"] == "Bees"
    stale = alice_program.send("PUT", "/organizer/experiments/bees/manifest", manifest={**TREE, "title": "X"}, base=1)
    assert stale.status_code == 409 and "Revision 2 was published" in stale.json()["detail"]
    assert alice_program.send("POST", "/organizer/experiments/bees/status", status="draft").status_code == 409
    (listed,) = alice_program.get("/organizer/experiments").json()
    assert listed == {
        "name": "bees", "title": "Bees", "status": "open", "role": "owner", "revision": 2, "archived": False,
    }  # fmt: skip
    assert alice_program.get("/organizer/experiments/bees").json()["manifest"]["name"] == "bees"


def test_only_for_organizers_with_the_scope(alice_program: Program, organizer: User, volunteer: User, stranger: User) -> None:
    experiment = actions.create(BEES, organizer)
    Role.objects.create(experiment=experiment, user=volunteer, kind="co-organizer")
    bob, charlie, reader = Program(volunteer), Program(stranger), Program(organizer, READ)
    assert bob.get("/organizer/experiments/bees").json()["title"] == "Bees"
    assert charlie.get("/organizer/experiments").json() == []
    for path, method, body in (
        ("/organizer/experiments/bees", "GET", {}),
        ("/organizer/experiments/bees/manifest", "PUT", {"manifest": TREE}),
        ("/organizer/experiments/bees/status", "POST", {"status": "open"}),
    ):
        assert charlie.send(method, path, **body).status_code == 404
        assert reader.send(method, path, **body).status_code == 401
    assert Experiment.objects.get().status == "draft"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "No"}, "$.name"),
        ({"model": {"kind": "gpt", "heads": 5}}, "multiple of heads"),
        ({"code": "import os"}, "code"),
        ({"description": "x" * 200_000}, "at most 65536 bytes"),
    ],
)
def test_what_does_not_validate_is_told(alice_program: Program, change: dict[str, Any], says: str) -> None:
    response = alice_program.send("POST", "/organizer/experiments", manifest={**TREE, **change})
    assert response.status_code == 400 and says in response.json()["detail"] and not Experiment.objects.exists()


def test_a_name_that_is_taken(alice_program: Program, volunteer: User) -> None:
    actions.create(BEES, volunteer)
    response = alice_program.send("POST", "/organizer/experiments", manifest=TREE)
    assert response.status_code == 409 and "called bees already" in response.json()["detail"]


def test_the_estimate_needs_no_account(db: None) -> None:
    tree = msgspec.to_builtins(replace(BEES, model=GPTModel()))
    found = Client().post("/api/v1/estimate", msgspec.json.encode({"manifest": tree}), content_type="application/json").json()
    assert found["experts"] == 32 and found["parameters"] == found["trunk_parameters"] + 32 * found["expert_parameters"]
