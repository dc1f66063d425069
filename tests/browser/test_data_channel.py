"""Headless Chromium at the other end of a link: 16 MB each way, byte-exact, whichever side offers."""

from __future__ import annotations

import functools
import hashlib
import http.server
import random
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright

from agent.net.ice import IceConfig
from agent.net.transport import Lane
from agent.net.webrtc import WebRtcConfig, WebRtcTransport
from tests.browser.conftest import CHROMIUM, CHROMIUM_FLAGS, Complaints
from tests.unit.net.ends import End
from tests.unit.net.sdp import from_sdp, to_sdp

TOTAL_BYTES = 16_000_000
MESSAGE_BYTES = 60 * 1024
AHEAD_BYTES = 1 << 20
OPEN_S = 20
WAIT_S = 120
RTC_FLAGS = ["--allow-loopback-in-peer-connection", "--disable-features=WebRtcHideLocalIpsWithMdns"]
"""So that the page's candidates are addresses, also on a machine that has only loopback."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(Path(__file__).parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_address[1]}/data_channel.html"
        server.shutdown()
        thread.join()


@pytest.fixture
async def rtc_browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*CHROMIUM_FLAGS, *RTC_FLAGS])
        yield browser
        await browser.close()


@pytest.fixture
async def rtc_page(rtc_browser: Browser, address: str) -> AsyncIterator[Page]:
    complaints = Complaints(address.rsplit("/", 1)[0])
    page = await rtc_browser.new_page()
    complaints.watch(page)
    await page.goto(address)
    yield page
    await page.close()
    assert not complaints.found, complaints.found


async def open_link(transport: WebRtcTransport, page: Page, *, we_offer: bool) -> End:
    if we_offer:
        offered = await transport.offer()
        sdp = await page.evaluate("sdp => answer(sdp)", to_sdp(offered.description, offer=True))
        return End(await offered.accept(from_sdp(sdp), OPEN_S))
    answered = await transport.answer(from_sdp(await page.evaluate("() => offer()")))
    await page.evaluate("sdp => accept(sdp)", to_sdp(answered.description, offer=False))
    return End(await answered.open(OPEN_S))


@pytest.mark.parametrize("we_offer", [True, False])
async def test_sixteen_megabytes_to_a_page_and_back(rtc_page: Page, we_offer: bool) -> None:
    transport = WebRtcTransport(WebRtcConfig(ice=IceConfig(loopback="always"), data_path="fast"))
    await rtc_page.evaluate("size => { total = size; }", TOTAL_BYTES)
    end = await open_link(transport, rtc_page, we_offer=we_offer)
    data = random.Random(1).randbytes(TOTAL_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    for at in range(0, len(data), MESSAGE_BYTES):
        end.link.send(Lane.BULK, data[at : at + MESSAGE_BYTES])
        await end.until(lambda: end.link.buffered() <= AHEAD_BYTES, WAIT_S)
    end.link.send(Lane.CONTROL, b"are you there?")
    assert await rtc_page.evaluate("done") == digest, "what the page got"
    await end.until(lambda: sum(len(part) for lane, part in end.messages if lane is Lane.BULK) >= TOTAL_BYTES, WAIT_S)
    back = b"".join(part for lane, part in end.messages if lane is Lane.BULK)
    assert hashlib.sha256(back).hexdigest() == digest, "what came back"
    assert [bytes(part) for lane, part in end.messages if lane is Lane.CONTROL] == [b"are you there?"]
    await transport.close()
