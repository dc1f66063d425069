"""A real site in a process of its own, agents that speak the real protocol, and a browser that tolerates nothing.

`site` runs `python -m coordinator.serve` on a free port with a fresh state directory; `agents` makes volunteers whose
work is made up but whose WebSockets, signatures and messages are the real ones; `page` fails its test on any console
message, page error, violated policy or request to another origin. Screenshots go to artifacts/screenshots/ (not kept in git).
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import websockets
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from agent.identity import Identity
from agent.reports import HELLO_PURPOSE, Ack, Batch, Connection, Event, Hello, HostedExpert, Item, Report, encode

ROOT = Path(__file__).resolve().parents[2]
ARTIFACTS = ROOT / "artifacts" / "screenshots"
CHROMIUM = os.environ.get("HIVE_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BATCH_ITEMS = 15
"""With 32 experts each, well below the 64 KiB that a message may have."""
STOP_S = 10.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            if not Path(CHROMIUM).exists():
                item.add_marker(
                    pytest.mark.skip(reason=f"no Chromium at {CHROMIUM}; apt-get install chromium, or set HIVE_CHROMIUM")
                )


class Site:
    """A coordinator in a process of its own. It can be killed and started again on the same port and state."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.directory = directory
        self.variables = variables
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "coordinator.serve", "--port", str(self.port)],
            cwd=ROOT,
            env={**os.environ, "HIVE_STATE_DIR": str(self.directory), "OMP_NUM_THREADS": "1", **self.variables},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "http://" in line, f"the site did not start: {line!r}"
        self.port = int(line.split("http://localhost:")[1].split("/")[0])

    def kill(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it; returns the exit code."""
        assert self._process is not None and self._process.stdout is not None
        self._process.send_signal(how)
        code = self._process.wait(STOP_S)
        self._process.stdout.close()
        self._process = None
        return code

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


@dataclass
class SimulatedAgent:
    """A volunteer whose learning is made up, and whose protocol is not. Unacknowledged items are sent again."""

    site: Site
    identity: Identity = field(default_factory=Identity.generate)
    session: str = field(default_factory=lambda: os.urandom(8).hex())
    step: int = 0
    tokens: int = 0
    sequence: int = 0
    acknowledged: int = 0
    experts: tuple[HostedExpert, ...] = ()
    connections: tuple[Connection, ...] = ()
    _unsent: list[Item] = field(default_factory=list)
    _socket: Any = None

    @property
    def peer(self) -> str:
        return str(self.identity.peer_id)

    @property
    def short(self) -> str:
        return self.identity.peer_id.short

    async def connect(self) -> None:
        hello = Hello(peer=self.peer, experiment="gpt-crowd", session=self.session, at=int(time.time()), version="0.1.0")
        hello = msgspec.structs.replace(hello, signature=self.identity.sign(HELLO_PURPOSE, hello.signed_bytes()))
        header = "Hive " + base64.urlsafe_b64encode(msgspec.json.encode(hello)).decode()
        url = f"ws://localhost:{self.site.port}/ws/telemetry/gpt-crowd/"
        self._socket = await websockets.connect(url, additional_headers={"Authorization": header})

    def host(self, *uids: str, epoch: int = 1, version: int = 1) -> None:
        """From the next report on, it hosts these."""
        self.experts = tuple(HostedExpert(uid=uid, epoch=epoch, version=version, rows=version * 16) for uid in uids)

    def know(self, *others: SimulatedAgent, kind: str = "direct") -> None:
        """From the next report on, it has connections to these."""
        new = tuple(Connection(peer=o.peer, kind=kind, rtt_ms=1.5) for o in others)  # type: ignore[arg-type]
        self.connections = (*self.connections, *new)

    def train(self, loss: float, *, validation: float | None = None, tokens: int = 4096, at: float | None = None) -> None:
        """Note one second of training; `flush` sends it."""
        self.sequence += 1
        self.step += 2
        self.tokens += tokens
        self.experts = tuple(msgspec.structs.replace(e, version=e.version + 3, rows=e.rows + 48) for e in self.experts)
        self._unsent.append(
            Report(
                sequence=self.sequence,
                at=at or time.time(),
                stage="training",
                step=self.step,
                tokens=self.tokens,
                tokens_per_s=float(tokens),
                loss=loss,
                loss_batches=2,
                loss_validation=validation,
                bytes_p2p_sent=self.tokens * 40,
                bytes_coordinator=self.sequence * 900,
                experts_total=32,
                experts=self.experts,
                connections=self.connections,
            )
        )

    def tell(self, name: str, at: float | None = None, **detail: Any) -> None:
        """Note an event."""
        self.sequence += 1
        self._unsent.append(Event(sequence=self.sequence, at=at or time.time(), name=name, detail=detail))

    async def flush(self) -> None:
        """Send what is not acknowledged, and wait until it is."""
        for i in range(0, len(self._unsent), BATCH_ITEMS):
            await self._socket.send(encode(Batch(items=tuple(self._unsent[i : i + BATCH_ITEMS]))).decode())
        while self.acknowledged < self.sequence:
            self.acknowledged = msgspec.json.decode(await asyncio.wait_for(self._socket.recv(), 10), type=Ack).sequence
        self._unsent.clear()

    async def leave(self) -> None:
        """Say goodbye."""
        self.tell("left")
        await self.flush()
        await self.vanish()

    async def vanish(self) -> None:
        """Close the connection without a word."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "state")
    site.start()
    yield site
    site.stop()


@pytest.fixture
async def agents(site: Site) -> AsyncIterator[Callable[[], Awaitable[SimulatedAgent]]]:
    """Makes connected volunteers."""
    made: list[SimulatedAgent] = []

    async def make(**kwargs: Any) -> SimulatedAgent:
        agent = SimulatedAgent(site, **kwargs)
        made.append(agent)
        await agent.connect()
        return agent

    yield make
    for agent in made:
        await agent.vanish()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        await browser.close()


@dataclass
class Complaints:
    """What the browser found wrong. A test that expects something takes it out of `found`."""

    origin: str
    found: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"page error: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        self.found.append(f"console {message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.origin, self.origin.replace("http", "ws", 1))):
            self.found.append(f"foreign request: {request.url}")


@pytest.fixture
def complaints(site: Site) -> Complaints:
    return Complaints(site.url)


@pytest.fixture
async def page(browser: Browser, complaints: Complaints) -> AsyncIterator[Page]:
    page = await browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    complaints.watch(page)
    yield page
    await page.close()
    assert not complaints.found, complaints.found


async def shoot(page: Page, name: str) -> None:
    """Full-page screenshots of the page as it is: light, dark, and phone width."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    size = page.viewport_size
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await settle(page)
        await page.screenshot(path=ARTIFACTS / f"{name}-{scheme}.png", full_page=True)
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size({"width": 390, "height": 844})
    await settle(page)
    await page.screenshot(path=ARTIFACTS / f"{name}-phone.png", full_page=True)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways on a phone"
    if size:
        await page.set_viewport_size(size)


async def settle(page: Page) -> None:
    """Some parts wait until they are scrolled into view."""
    await page.evaluate("""async () => {
        const step = innerHeight * 0.8;
        for (let y = 0; y < document.documentElement.scrollHeight; y += step) {
            scrollTo(0, y);
            await new Promise(requestAnimationFrame);
        }
        scrollTo(0, 0);
    }""")
    await page.wait_for_timeout(300)
