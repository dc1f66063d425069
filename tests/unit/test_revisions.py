"""What a running agent makes of new revisions of its manifest."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec
import pytest

from agent.errors import CoordinatorUnreachable
from agent.manifest import Averaging, GPTModel, Manifest, TextFile
from agent.revisions import PAUSED, PERIOD_S, Revisions, needs_restart, news
from tests.virtual_loop import run

FIRST = Manifest(name="gpt-crowd", revision=1, title="GPT of the crowd")


def revised(**changes: object) -> Manifest:
    return msgspec.structs.replace(FIRST, **{"revision": 2, **changes})


async def loop_time(seconds: float) -> None:
    """Virtual time: nothing is waited for."""
    passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, passed.set_result, None)
    await passed


async def nothing() -> Manifest:
    raise AssertionError("nobody asks")


def following(fetch: Callable[[], object] = nothing) -> tuple[Revisions, list[Manifest]]:
    revisions = Revisions(FIRST, fetch, rng=random.Random(1))  # type: ignore[arg-type]
    heard: list[Manifest] = []
    revisions.on_news = heard.append
    return revisions, heard


def test_a_pause_holds_and_opening_lets_go() -> None:
    revisions, heard = following()
    assert revisions.held == ""
    revisions.take(revised(status="paused"))
    assert revisions.held == PAUSED and not revisions.finished
    revisions.take(revised(revision=3))
    assert revisions.held == ""
    revisions.take(revised(revision=4, status="finished"))
    assert revisions.finished
    assert [m.revision for m in heard] == [2, 3, 4]


def test_an_agent_that_starts_during_a_pause_is_held() -> None:
    assert Revisions(revised(status="paused"), nothing, rng=random.Random(1)).held == PAUSED


def test_the_same_and_older_revisions_are_no_news() -> None:
    revisions, heard = following()
    revisions.take(revised(revision=5, status="paused"))
    revisions.take(revised(revision=5))
    revisions.take(revised(revision=4))
    assert revisions.held == PAUSED and len(heard) == 1


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model": GPTModel(layers=3)}, ["model"]),
        ({"data": TextFile(), "seed": 4}, ["seed", "data"]),
        ({"averaging": Averaging(period_s=9)}, ["averaging"]),
        ({"status": "paused", "title": "Better", "description": "More", "bootstrap": ("ws://a:1/x",)}, []),
        ({"admission": "invite", "ice_servers": ()}, []),
    ],
)
def test_what_needs_a_restart(changes: dict[str, object], parts: list[str]) -> None:
    assert needs_restart(FIRST, revised(**changes)) == parts
    assert ("restart_for" in news(FIRST, revised(**changes))) == bool(parts)


def test_a_changed_model_is_not_swapped_in(caplog: pytest.LogCaptureFixture) -> None:
    revisions, _ = following()
    with caplog.at_level(logging.WARNING):
        revisions.take(revised(model=GPTModel(layers=3)))
    assert revisions.running is FIRST and "Restart it to follow" in caplog.text


def test_it_asks_while_the_coordinator_is_reachable() -> None:
    async def main() -> None:
        asked: list[float] = []
        reachable = False
        loop = asyncio.get_running_loop()

        async def fetch() -> Manifest:
            asked.append(loop.time())
            return revised(revision=1 + len(asked), status="paused")

        revisions, heard = following(fetch)
        task = loop.create_task(revisions.run(lambda: reachable))
        await loop_time(3 * PERIOD_S)
        assert not asked
        reachable = True
        await loop_time(4 * PERIOD_S)
        assert 3 <= len(asked) <= 5 and revisions.held and len(heard) == len(asked)
        task.cancel()

    run(main())


def test_a_refusal_is_said_once_and_asking_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asked = 0

        async def fetch() -> Manifest:
            nonlocal asked
            asked += 1
            raise CoordinatorUnreachable("it does not answer")

        revisions, _ = following(fetch)
        task = asyncio.get_running_loop().create_task(revisions.run(lambda: True))
        await loop_time(5 * PERIOD_S)
        task.cancel()
        assert asked > 2

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.text.count("it does not answer") == 1
