"""The live stream: complete ticks, one feed for all viewers, bounded, and gone when nobody looks."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from coordinator.asgi import application
from coordinator.experiments.models import Experiment
from coordinator.telemetry import live
from coordinator.telemetry.consumers import tell_viewers
from coordinator.telemetry.live import Feed, LiveConsumer, build_tick

from .conftest import NOW, Agent, hosts, report
from .test_rollups import rounds
from .test_store import submit

PATH = "/ws/live/gpt-crowd/"
ORIGIN = [(b"origin", b"http://localhost")]
FOREIGN = (
    b"http://evil.example",
    b"null",
    b"",
    b"http://[::1",
    b"\xff",
    b"http://localhost.evil.example",
    b"http://localhost@evil.example",
)


@pytest.mark.django_db
def test_a_tick_has_everything_that_the_page_shows(experiment: Experiment, bob: Agent) -> None:
    submit(experiment, bob, report(1, tokens=7, loss=3.0, loss_batches=2, tokens_per_s=7.0, experts=hosts("ffn0.0.0")))
    rounds(NOW + 1)
    tick = build_tick(experiment.pk, NOW - 1, NOW + 1)
    assert tick is not None
    body = json.loads(tick.model_dump_json())
    assert body["type"] == "tick"
    assert (body["summary"]["tokens"], body["summary"]["peers"], body["summary"]["loss"]) == (7, 1, 3.0)
    assert [p["peer"] for p in body["peers"]] == [bob.peer]
    assert [e["peer"] for e in body["experts"]] == [bob.peer, None, None, None]
    assert [e["name"] for e in body["events"]] == ["joined"]
    assert {s["resolution"]: s["tokens"] for s in body["series"]} == {1: [7], 60: [7], 3600: [7]}
    assert build_tick(experiment.pk, NOW + 1, NOW + 1).series == []  # type: ignore[union-attr]


@pytest.mark.django_db
def test_a_tick_of_an_experiment_that_is_gone(experiment: Experiment, draft: Experiment) -> None:
    assert build_tick(draft.pk, 0, NOW) is None
    assert build_tick(10**9, 0, NOW) is None


class Viewer(WebsocketCommunicator):
    def __init__(self, path: str = PATH, headers: Any = None) -> None:
        super().__init__(application, path, headers=ORIGIN if headers is None else headers)

    async def tick(self) -> dict[str, Any]:
        return json.loads(await self.receive_from(timeout=5))  # type: ignore[no-any-return]


@pytest.mark.django_db(transaction=True)
async def test_viewers_share_a_feed_which_ends_with_the_last(
    experiment: Experiment, bob: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    from channels.db import database_sync_to_async

    monkeypatch.setattr(live, "TICK_S", 0.0)
    first, second = Viewer(), Viewer()
    assert (await first.connect(5))[0] and (await second.connect(5))[0]
    assert (await first.tick())["summary"]["tokens"] == 0
    await second.tick()
    assert list(Feed.feeds) == [experiment.pk] and len(LiveConsumer.places) == 2
    await database_sync_to_async(submit)(experiment, bob, report(1, time.time(), tokens=5), at=time.time())
    await tell_viewers({"gpt-crowd"})
    for viewer in (first, second):
        while (await viewer.tick())["summary"]["tokens"] != 5:
            pass
    await first.disconnect(timeout=5)
    await second.disconnect(timeout=5)
    assert not Feed.feeds and len(LiveConsumer.places) == 0


@pytest.mark.django_db(transaction=True)
async def test_who_may_not_watch(experiment: Experiment, draft: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    for viewer in (
        Viewer("/ws/live/nope/"),
        Viewer("/ws/live/secret/"),
        *(Viewer(headers=[(b"origin", origin)]) for origin in FOREIGN),
        Viewer(headers=[*ORIGIN, (b"origin", FOREIGN[0])]),
    ):
        assert not (await viewer.connect(5))[0]
    program = Viewer(headers=[])
    assert (await program.connect(5))[0], "programs have no Origin"
    await program.disconnect(timeout=5)
    monkeypatch.setattr(LiveConsumer.places, "total_max", 0)
    assert not (await Viewer().connect(5))[0]


@pytest.mark.django_db(transaction=True)
async def test_the_stream_does_not_listen(experiment: Experiment) -> None:
    viewer = Viewer()
    await viewer.connect(5)
    await viewer.send_to(text_data="hello")
    while (message := await viewer.receive_output(5))["type"] != "websocket.close":
        pass
    assert message["code"] == 4429
    await viewer.disconnect(timeout=5)


async def test_a_slow_viewer_misses_ticks_and_holds_nobody_up() -> None:
    feed = Feed(1)
    queue: Any = live.asyncio.Queue(live.VIEWER_BACKLOG_MAX)
    feed.viewers.add(queue)
    for i in range(live.VIEWER_BACKLOG_MAX + 3):
        feed._tell(str(i))
    assert [queue.get_nowait() for _ in range(queue.qsize())] == ["3", "4", "5", "6"]
