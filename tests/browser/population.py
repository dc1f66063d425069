"""Something to see on every page: people, teams, machines, tokens, invitations, requests, drafts and revisions.

    HIVE_STATE_DIR=… python -m tests.browser.population

Prints, as one line of JSON, what the addresses of pages need: {"peer": …, "invitation": …, "team": …}.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime


def main() -> None:
    """Populate the database of HIVE_STATE_DIR; the site may be running."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coordinator.settings")
    import django

    django.setup()
    print(json.dumps(_populate()))


def _populate() -> dict[str, str]:
    import msgspec

    from agent.identity import Identity
    from coordinator.accounts.actions import link_machine, make_token
    from coordinator.accounts.models import User
    from coordinator.admission import actions as admission
    from coordinator.experiments.actions import create, publish
    from coordinator.experiments.models import Experiment, Role
    from coordinator.experiments.presets import GPT_CROWD
    from coordinator.leaderboard import teams
    from tests.integration.accounts import PASSWORD

    alice = User.objects.create_superuser("alice@example.org", PASSWORD, display_name="Alice", is_listed=True)
    bob = User.objects.create_user("bob@example.org", PASSWORD, display_name="Bob B.", is_listed=True)
    bob.emailaddress_set.create(email=bob.email, verified=True, primary=True)
    crowd = Experiment.objects.get(name="gpt-crowd")
    Role.objects.get_or_create(experiment=crowd, user=alice, defaults={"kind": Role.Kind.OWNER})
    publish(msgspec.structs.replace(crowd.manifest, revision=2, description=f"{crowd.manifest.description} Now with more of it."))
    closed = msgspec.structs.replace(
        GPT_CROWD, name="by-invitation", title="A closed circle", description="Whoever was asked.", admission="invite"
    )
    asking = msgspec.structs.replace(closed, name="by-approval", title="On request", admission="approval")
    for manifest in (closed, asking):
        experiment = publish(manifest).experiment
        Role.objects.create(experiment=experiment, user=alice, kind=Role.Kind.OWNER)
        admission.ask(experiment, bob, "I have two idle machines.") if manifest is asking else None
        invited = admission.invite(experiment, alice, note="the reading group", uses_max=10, life=None)
    create(msgspec.structs.replace(GPT_CROWD, name="a-draft", title="Not yet"), alice)
    team = teams.create(alice, "Meadow", "Machines of the reading group.")
    teams.join(bob, team)
    peer = str(Identity.from_seed(b"p" * 32).peer_id)
    link_machine(alice, peer, "workshop", datetime.now(UTC))
    make_token(alice, "laptop", ["join", "read"])
    return {"peer": peer, "invitation": invited.code, "team": team.slug}


if __name__ == "__main__":
    main()
