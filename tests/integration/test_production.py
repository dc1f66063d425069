"""The coordinator as in production: PostgreSQL, Redis, two web processes, a Celery worker and beat, each a real process.

One stack for all tests. Nothing sleeps: a test waits for what it looks for, and the idle sockets idle while others work.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websockets
from prometheus_client.parser import text_string_to_metric_families

from agent.identity import Identity
from agent.net.coordinator_socket import Badge, Patience
from agent.net.memory import MemoryFabric
from agent.net.network import Network
from agent.net.rendezvous import Rendezvous
from agent.net.telemetry_socket import TelemetryConfig, TelemetrySocket
from agent.reports import Event, HostedExpert, Report
from tests.integration import services
from tests.integration.crowd import ROOT, Running, environment

pytestmark = pytest.mark.slow

ALICE, BOB = (Identity.from_seed(bytes([i]) * 32) for i in (1, 2))
IDLE_S = 6.0
"""redis-py gives up a connection that is silent for 5 s, unless it is told not to (channels_redis #422)."""
PATIENCE_S = 60.0
LOOK_S = 0.2


@dataclass
class Stack:
    """What runs, and where. `variables` are those of every process."""

    directory: Path
    variables: dict[str, str]
    web: list[Running]
    worker: Running
    beat: Running

    def url(self, which: int) -> str:
        return "http://127.0.0.1:" + self.web[which].said.split("http://localhost:")[1].split("/")[0]

    def get(self, path: str, which: int = 0) -> Any:
        with urllib.request.urlopen(self.url(which) + path, timeout=20) as answer:
            return json.loads(answer.read())

    def manage(self, *words: str, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=environment(**{**self.variables, **more}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, seen: Callable[[], object], what: str) -> None:
        self.worker.look_until(lambda: bool(seen()), what, PATIENCE_S)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("production")
    with ExitStack() as open_things:
        variables = {
            "REDIS_URL": open_things.enter_context(services.redis()),
            "DATABASE_URL": open_things.enter_context(services.postgresql()),
            "HIVE_STATE_DIR": str(directory / "state"),
            "EMAIL_URL": f"filemail://{directory}/mail",
        }

        def run(name: str, *words: str) -> Running:
            running = Running(name, [sys.executable, "-m", *words], directory / name, variables)
            open_things.callback(running.close)
            return running

        web = [run(f"web-{i}", "coordinator.serve", "--port", "0") for i in range(2)]  # both migrate at once
        for one in web:
            one.look_until(lambda one=one: "http://" in one.said and "\n" in one.said, "it serves")  # type: ignore[misc]
        celery = ("celery", "-A", "coordinator.celery")
        worker = run("worker", *celery, "worker", "--concurrency", "2", "--loglevel", "WARNING")
        beat = run("beat", *celery, "beat", "--loglevel", "WARNING")
        yield Stack(directory, variables, web, worker, beat)


def telemetry(stack: Stack, identity: Identity, which: int = 0) -> TelemetrySocket:
    badge = Badge(identity=identity, experiment="gpt-crowd", session=os.urandom(8).hex())
    patience = Patience(rng=random.Random(1), first_s=0.05, most_s=0.5)
    socket = TelemetrySocket(stack.url(which), badge, patience, TelemetryConfig(farewell_s=20))
    socket.start()
    return socket


def report(sequence: int, **fields: Any) -> Report:
    return Report(sequence=sequence, at=time.time(), stage="training", **fields)


def test_background_tasks_run_on_the_worker(stack: Stack) -> None:
    tasks = {"1-second points", "1-minute points", "1-hour points", "contributions", "heartbeat"}

    def done() -> set[str]:
        families = {family.name: family for family in text_string_to_metric_families(_text(stack, "/metrics"))}
        assert families["hive_queue_tasks"].samples[0].value >= 0
        return {s.labels["task"] for s in families["hive_task_lag_seconds"].samples if s.value < 60}

    stack.until(lambda: tasks - {"1-hour points"} <= done(), "the tasks that run often")
    assert _ready(stack)


async def test_reports_become_points_and_ranks(stack: Stack) -> None:
    socket = telemetry(stack, ALICE)
    for sequence in range(1, 6):
        socket.submit(report(sequence, tokens=100 * sequence, loss=3.0, loss_batches=1))
    socket.submit(Event(sequence=6, at=time.time(), name="sample", detail={"step": 1, "prompt": "a", "text": "b"}))
    await asyncio.wait_for(socket._settled.wait(), PATIENCE_S)
    await socket.close()

    base = "/api/v1/experiments/gpt-crowd"
    stack.until(lambda: sum(stack.get(f"{base}/series?resolution=60", 1)["tokens"]) == 500, "points of a minute")
    assert stack.get(f"{base}/samples", 1)[0]["text"] == "b"

    def ranked() -> bool:
        standings = stack.get(f"{base}/leaderboard")["standings"]
        return bool(standings) and standings[0]["peer"] == str(ALICE.peer_id) and standings[0]["tokens"] == 500

    stack.until(ranked, "a place on the leaderboard")
    before = stack.get(f"{base}/leaderboard")["standings"]
    said = stack.manage("recompute_leaderboard")
    assert said.startswith("0 contributions differed"), said
    assert stack.get(f"{base}/leaderboard")["standings"] == before


async def test_news_of_one_process_reach_viewers_of_another(stack: Stack) -> None:
    address = stack.url(1).replace("http", "ws") + "/ws/live/gpt-crowd/"
    socket = telemetry(stack, BOB, which=0)
    async with websockets.connect(address) as viewer:
        socket.submit(report(1, tokens=1, loss=2.5, loss_batches=1))
        peers: set[str] = set()
        async with asyncio.timeout(PATIENCE_S):
            while str(BOB.peer_id) not in peers:
                peers = {p["peer"] for p in json.loads(await viewer.recv())["peers"]}
    await socket.close()


async def test_a_newer_connection_at_another_process_replaces_the_first(stack: Stack) -> None:
    badge = Badge(identity=BOB, experiment="gpt-crowd", session="ab" * 8)
    headers = {"Authorization": badge.authorization()}
    first, second = (stack.url(i).replace("http", "ws") + "/ws/telemetry/gpt-crowd/" for i in (0, 1))
    async with (
        websockets.connect(first, additional_headers=headers) as former,
        websockets.connect(second, additional_headers=headers),
    ):
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await asyncio.wait_for(former.recv(), PATIENCE_S)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4409


async def test_peers_meet_across_processes(stack: Stack) -> None:
    fabric, patience = MemoryFabric(), Patience(rng=random.Random(1), first_s=0.05, most_s=0.5)
    networks = [Network(identity=i, experiment="gpt-crowd", transport=fabric.transport(str(i.peer_id))) for i in (ALICE, BOB)]
    badges = [Badge(identity=i, experiment="gpt-crowd", session=os.urandom(8).hex()) for i in (ALICE, BOB)]
    alice, bob = (Rendezvous(networks[i], stack.url(i), badges[i], patience) for i in (0, 1))
    for meeting in (bob, alice):
        meeting.start()
        assert await meeting.told(PATIENCE_S)
    assert alice.waiting() == [BOB.peer_id]
    await networks[0].dial(BOB.peer_id, alice, timeout_s=PATIENCE_S)
    assert networks[0].is_connected(BOB.peer_id)
    for thing in (alice, bob, *networks):
        await thing.close()


async def test_sockets_live_through_idleness(stack: Stack) -> None:
    """Bare sockets: agents would connect again, and hide it."""
    alice, bob = await _wait_at_rendezvous(stack, 0, ALICE), await _wait_at_rendezvous(stack, 1, BOB)
    while json.loads(await alice.recv())["peers"] != [str(BOB.peer_id)]:
        pass
    assert json.loads(await bob.recv())["peers"] == [str(ALICE.peer_id)]
    heard = [asyncio.create_task(end.recv()) for end in (alice, bob)]
    done, _ = await asyncio.wait(heard, timeout=IDLE_S)  # nothing may come, so there is nothing else to wait for
    assert not done, [task.exception() for task in done]
    exchange = "ab" * 16
    await alice.send(json.dumps({"type": "send", "to": str(BOB.peer_id), "exchange": exchange, "body": "aGVsbG8="}))
    message = json.loads(await asyncio.wait_for(heard[1], PATIENCE_S))
    assert message == {"type": "message", "from": str(ALICE.peer_id), "exchange": exchange, "body": "aGVsbG8="}
    heard[0].cancel()
    for end in (alice, bob):
        await end.close()


def test_mail_leaves_by_the_worker(stack: Stack) -> None:
    code = (
        "import django; django.setup(); from django.core.mail import send_mail; "
        "send_mail('Confirm', 'Please click.', None, ['alice@example.org'])"
    )
    variables = environment(**stack.variables, DJANGO_SETTINGS_MODULE="coordinator.settings")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=variables, check=True, timeout=60)
    folder = stack.directory / "mail"
    stack.until(lambda: any("Please click." in f.read_text() for f in folder.glob("*")) if folder.exists() else False, "the mail")


def test_the_same_units_pass_on_postgresql(stack: Stack) -> None:
    """Everything that writes SQL of its own, against this PostgreSQL in a database of its own."""
    files = ("store", "rollups", "membership", "contributions", "boards", "rendezvous", "experiments", "monitoring")
    paths = [str(path) for name in files if (path := ROOT / f"tests/unit/coordinator/test_{name}.py").exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *paths],
        cwd=ROOT,
        env=environment(DATABASE_URL=stack.variables["DATABASE_URL"], HIVE_STATE_DIR=str(stack.directory / "units")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def test_a_backup_can_be_restored(stack: Stack) -> None:
    """As docs/operating.md says, into an empty database."""
    url, dump = stack.variables["DATABASE_URL"], str(stack.directory / "hive.dump")
    restored = url.replace("/postgres", "/restored")
    subprocess.run([services.find("pg_dump"), "-Fc", "-f", dump, url], check=True, timeout=60)
    subprocess.run([services.find("psql"), "-q", "-c", "CREATE DATABASE restored", url], check=True, timeout=60)
    command = [services.find("pg_restore"), "--clean", "--if-exists", "-d", restored, dump]
    subprocess.run(command, check=True, timeout=60)
    stack.manage("migrate", "--check", DATABASE_URL=restored)
    count = "from coordinator.telemetry.models import Session; print(Session.objects.count())"
    before, after = (stack.manage("shell", "--no-imports", "-c", count, DATABASE_URL=u) for u in (url, restored))
    assert int(before) == int(after) > 0


def test_nobody_complained(stack: Stack) -> None:
    """Last: in all that, no task failed and no process wrote of an error. (A worker that runs as root warns of it.)"""
    for process in (*stack.web, stack.worker, stack.beat):
        assert process.child.running
        assert "Traceback" not in process.said and " ERROR" not in process.said, process.said[-4000:]


async def test_a_crowd_at_two_processes_and_a_database_that_drops_them(stack: Stack) -> None:
    """After the complaints were counted, for the workers' tasks that are cut off here do complain."""
    crowd = [Identity.from_seed(bytes([i]) * 32) for i in range(50, 62)]
    rng = random.Random(5)
    sockets = [telemetry(stack, identity, which=i % 2) for i, identity in enumerate(crowd)]
    before = stack.get("/api/v1/experiments/gpt-crowd")["summary"]["tokens"]
    drop = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'hive'"
    for sequence in range(1, 21):
        for socket in sockets:  # they all claim the same experts, in another order each
            uids = rng.sample([f"ffn0.{i}.{j}" for i in range(4) for j in range(4)], 8)
            experts = tuple(HostedExpert(uid=uid, epoch=sequence, version=1, rows=1) for uid in uids)
            socket.submit(report(sequence, tokens=10 * sequence, experts=experts))
        if sequence % 8 == 0:
            await asyncio.to_thread(
                subprocess.run,
                [services.find("psql"), "-qAt", "-c", drop, stack.variables["DATABASE_URL"]],
                check=True,
                timeout=60,
            )
        await asyncio.wait({asyncio.create_task(s._settled.wait()) for s in sockets}, timeout=0.3)
    for socket in sockets:
        await asyncio.wait_for(socket._settled.wait(), PATIENCE_S)
        await socket.close()
    assert stack.get("/api/v1/experiments/gpt-crowd", 1)["summary"]["tokens"] - before == len(crowd) * 200
    stack.until(lambda: _ready(stack), "readiness")


async def _wait_at_rendezvous(stack: Stack, which: int, identity: Identity) -> websockets.ClientConnection:
    badge = Badge(identity=identity, experiment="gpt-crowd", session=os.urandom(8).hex())
    url = stack.url(which).replace("http", "ws") + "/ws/rendezvous/gpt-crowd/"
    return await websockets.connect(url, additional_headers={"Authorization": badge.authorization()})


def _ready(stack: Stack) -> bool:
    try:
        return bool(stack.get("/readyz")["status"] == "ok")
    except urllib.error.HTTPError:
        return False


def _text(stack: Stack, path: str) -> str:
    with urllib.request.urlopen(stack.url(0) + path, timeout=20) as answer:
        return str(answer.read().decode())
