"""A crowd of agents that only talk to the site: real keys, signatures, WebSockets and reports; the learning is made up.

It runs in a process of its own. Every agent has a loopback address of its own, as a crowd has, so that the site's limits per
address are as they would be.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import random
import time
from collections import deque
from multiprocessing.connection import Connection as Pipe
from typing import Any
from urllib.parse import urlsplit

import msgspec
import websockets

from agent.identity import Identity
from agent.reports import Ack, Batch, Connection, Event, Hello, HostedExpert, Item, Report, encode
from coordinator.hello import HELLO_PURPOSE, header

NEIGHBOURS = 16
RELAYED_SHARE = 0.1
CONNECTING_AT_ONCE = 20
UIDS = [f"ffn{layer}.{i}.{j}" for layer in range(2) for i in range(4) for j in range(4)]
READY_TIMEOUT_S = 300.0


class Crowd:
    """`peers` agents that report every `period_s`, spread evenly, until stopped."""

    def __init__(self, url: str, experiment: str, *, peers: int, period_s: float) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        arguments = (theirs, urlsplit(url).port, experiment, peers, period_s)
        self._process = multiprocessing.get_context("spawn").Process(target=_run, args=arguments, daemon=True)

    async def start(self) -> None:
        """Returns once every agent's first report is stored."""
        self._process.start()
        if not await asyncio.to_thread(self._pipe.poll, READY_TIMEOUT_S):
            raise TimeoutError("the crowd did not get in")
        self._pipe.recv()

    def acknowledged_per_s(self) -> float:
        """Reports that the site stored, a second, over the last half minute."""
        self._pipe.send("rate")
        return float(self._pipe.recv())

    async def stop(self) -> None:
        if self._process.is_alive():
            self._process.terminate()
        await asyncio.to_thread(self._process.join, 10)


def _run(pipe: Pipe, port: int, experiment: str, peers: int, period_s: float) -> None:
    asyncio.run(_crowd(pipe, port, experiment, peers, period_s))


async def _crowd(pipe: Pipe, port: int, experiment: str, peers: int, period_s: float) -> None:
    identities = [Identity.from_seed(i.to_bytes(32, "big")) for i in range(1, peers + 1)]
    stored: deque[tuple[float, int]] = deque(maxlen=100_000)
    members = [_Member(i, identities, period_s, stored) for i in range(peers)]
    door = asyncio.Semaphore(CONNECTING_AT_ONCE)
    tasks = [asyncio.create_task(member.live(port, experiment, door)) for member in members]
    await asyncio.gather(*(member.in_.wait() for member in members))
    pipe.send("ready")
    while True:
        await asyncio.to_thread(pipe.recv)
        since = time.monotonic() - 30
        pipe.send(sum(n for at, n in stored if at > since) / 30)
        assert tasks  # kept, so that they are not collected


class _Member:
    def __init__(self, number: int, identities: list[Identity], period_s: float, stored: deque[tuple[float, int]]) -> None:
        self.number, self.identity, self.period_s, self.stored = number, identities[number], period_s, stored
        self.rng = random.Random(number)
        others = self.rng.sample([i for i in range(len(identities)) if i != number], min(NEIGHBOURS, len(identities) - 1))
        self.connections = tuple(
            Connection(
                peer=str(identities[i].peer_id),
                kind="relayed" if self.rng.random() < RELAYED_SHARE else "direct",
                rtt_ms=round(self.rng.uniform(5, 180), 1),
            )
            for i in others
        )
        self.uids = UIDS[number :: len(identities)] if number < len(UIDS) else []
        self.sequence = self.step = self.tokens = self.acknowledged = 0
        self.in_ = asyncio.Event()

    async def live(self, port: int, experiment: str, door: asyncio.Semaphore) -> None:
        session = f"{self.number:016x}"
        hello = Hello(
            peer=str(self.identity.peer_id), experiment=experiment, session=session, at=int(time.time()), version="0.1.0"
        )
        hello = msgspec.structs.replace(hello, signature=self.identity.sign(HELLO_PURPOSE, hello.signed_bytes()))
        address = f"127.1.{self.number // 250}.{self.number % 250 + 1}"
        async with door:
            socket = await websockets.connect(
                f"ws://127.0.0.1:{port}/ws/telemetry/{experiment}/",
                additional_headers={"Authorization": header(hello)},
                local_addr=(address, 0),
                open_timeout=60,
                ping_interval=None,
            )
        reader = asyncio.create_task(self._read(socket))
        await socket.send(encode(Batch(items=(self._event("joined"), self._report()))).decode())
        await self.in_.wait()
        await asyncio.sleep(self.rng.random() * self.period_s)
        while not reader.done():
            items: tuple[Item, ...] = (self._report(),)
            if self.rng.random() < 0.01:
                items += (self._event("averaged", peers=4),)
            await socket.send(encode(Batch(items=items)).decode())
            await asyncio.sleep(self.period_s)
        await reader

    async def _read(self, socket: Any) -> None:
        async for message in socket:
            ack = msgspec.json.decode(message, type=Ack).sequence
            self.stored.append((time.monotonic(), ack - self.acknowledged))
            self.acknowledged = ack
            self.in_.set()

    def _event(self, name: str, **detail: Any) -> Event:
        self.sequence += 1
        return Event(sequence=self.sequence, at=time.time(), name=name, detail=detail)

    def _report(self) -> Report:
        self.sequence += 1
        self.step += 8
        self.tokens += int(4096 * self.period_s)
        experts = tuple(HostedExpert(uid=u, epoch=1, version=self.step, rows=self.step * 64) for u in self.uids)
        return Report(
            sequence=self.sequence,
            at=time.time(),
            stage="training",
            step=self.step,
            tokens=self.tokens,
            tokens_per_s=4096.0,
            loss=2 + math.exp(-self.step / 500) + self.rng.gauss(0, 0.05),
            loss_batches=8,
            bytes_p2p_sent=self.tokens * 40,
            bytes_coordinator=self.sequence * 900,
            experts_total=len(UIDS),
            experts=experts,
            connections=self.connections,
        )
