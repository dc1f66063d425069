"""The experiment's page in a real browser, on a real site: what a visitor sees as agents come, train and go."""

from __future__ import annotations

import asyncio
import math
import random
import re
import signal
import time
from collections.abc import Awaitable, Callable

from playwright.async_api import Page, expect

from .conftest import Complaints, SimulatedAgent, Site, shoot

Make = Callable[[], Awaitable[SimulatedAgent]]
GRID = [f"ffn{layer}.{i}.{j}" for layer in range(2) for i in range(4) for j in range(4)]


def curve(step: int) -> float:
    """A loss that falls from 5.5 towards 2, with noise that is the same in every run."""
    return 2 + 3.5 * math.exp(-step / 40) + random.Random(step).gauss(0, 0.06)


async def test_before_anybody_came(site: Site, page: Page) -> None:
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await expect(page.locator("h1")).to_have_text("gpt-crowd")
    await expect(page.locator("#join")).to_have_text(f"hive-agent --experiment gpt-crowd --coordinator {site.url}")
    await expect(page.locator("live-stamp")).to_contain_text("live")
    await expect(page.locator("metric-chart[metric=loss]")).to_have_attribute("data-state", "empty")
    await expect(page.locator("[data-figure=loss]")).to_have_text("unknown")
    await expect(page.locator(".cell.never")).to_have_count(32)
    await expect(page.locator("peer-table .none-here")).to_be_visible()
    await shoot(page, "experiment-empty")


async def test_the_loss_falls_and_peers_come_and_go(site: Site, page: Page, agents: Make) -> None:
    first, second, third = await agents(), await agents(), await agents()
    began = time.time() - 150
    for i, agent in enumerate((first, second, third)):
        agent.host(*GRID[i::3])
        agent.know(*(other for other in (first, second, third) if other is not agent))
    for s in range(120):  # what was reported before the visitor came
        for agent in (first, second, third):
            agent.train(curve(s), at=began + s, validation=curve(s) + 0.05 if s % 30 == 29 else None)
    await asyncio.gather(*(agent.flush() for agent in (first, second, third)))

    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    loss = page.locator("metric-chart[metric=loss]")
    await expect(loss).to_have_attribute("data-state", "ready")
    await expect(page.locator("peer-table tbody tr")).to_have_count(3)
    await expect(page.locator(".cell.single")).to_have_count(32)
    await expect(page.locator("[data-figure=tokens]")).to_have_attribute("title", f"{3 * 120 * 4096:,} tokens")

    before = float(await page.locator("[data-figure=loss]").inner_text())
    for s in range(120, 132):
        for agent in (first, second):
            agent.train(curve(s) - 0.5)
        await asyncio.gather(first.flush(), second.flush())
    await expect(page.locator("[data-figure=tokens]")).to_have_attribute("title", f"{(360 + 24) * 4096:,} tokens")
    await expect(page.locator("[data-figure=loss]")).not_to_have_text(f"{before:.3f}")
    assert float(await page.locator("[data-figure=loss]").inner_text()) < before
    label = await loss.locator("[data-stage]").get_attribute("aria-label")
    assert label is not None and (found := re.search(r"from (\S+) to (\S+) nats", label))
    assert float(found[1]) > 5 > 2.5 > float(found[2])

    await third.leave()  # it says so
    await expect(page.locator("peer-table tbody tr")).to_have_count(2)
    await expect(page.locator("event-log li").first).to_contain_text(third.short)
    await expect(page.locator("event-log li").first).to_contain_text("left")
    await expect(page.locator(".cell.vacant")).to_have_count(len(GRID[2::3]))
    await expect(page.locator("live-figures .bad .remark")).to_contain_text("without a host")
    await expect(page.locator("[data-vacant]")).to_have_text(f"{len(GRID[2::3])} without a host")

    fourth = await agents()  # and another one takes its experts over
    fourth.host(*GRID[2::3], epoch=2)
    fourth.train(2.4)
    await fourth.flush()
    await expect(page.locator("peer-table tbody tr")).to_have_count(3)
    await expect(page.locator(".cell.single")).to_have_count(32)
    await expect(page.locator(".cell .load[width='40']").first).to_be_attached()  # the busiest expert
    await shoot(page, "experiment-live")


async def test_who_is_connected_to_whom(site: Site, page: Page, agents: Make) -> None:
    first, second, third = await agents(), await agents(), await agents()
    first.know(second)
    first.know(third, kind="relayed")
    for agent in (first, second, third):
        agent.train(4.0)
        await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    topology = page.locator("peer-topology")
    await topology.scroll_into_view_if_needed()
    row = topology.locator("tr", has_text=first.short)
    await expect(row.locator("td")).to_have_text(["1", "1", "1.50 ms"])
    await expect(topology.locator("svg[role=img]")).to_have_attribute(
        "aria-label", re.compile("3 peers, 1 direct and 1 relayed connections")
    )
    assert await topology.locator(".link-direct").get_attribute("d")
    await row.get_by_role("button").press("Enter")
    await expect(topology.locator("[data-chosen]")).to_contain_text(f"{third.short} (relayed, 1.50 ms)")
    assert await topology.locator(".link-chosen-relayed").get_attribute("d")
    await second.leave()
    await expect(topology.locator("tbody tr")).to_have_count(2)
    await expect(row.locator("td").first).to_have_text("0")


async def test_what_the_model_writes_appears_live(site: Site, page: Page, agents: Make) -> None:
    agent = await agents()
    agent.train(4.0)
    await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    samples = page.locator("sample-text")
    await expect(samples.locator(".none-here")).to_be_visible()
    agent.tell("sample", step=1234, prompt="def main(", text="self, <b>x</b>):\n    return")
    await agent.flush()
    await expect(samples.locator("li")).to_have_count(1)
    await expect(samples.locator(".prompt")).to_have_text("def main(")
    await expect(samples.locator(".written")).to_contain_text("self, <b>x</b>):")
    await expect(page.locator("event-log li").first).to_contain_text("let the model write, at step 1234")
    agent.tell("sample", step=2000, prompt="import ", text="os")
    await agent.flush()
    await expect(samples.locator("li").first).to_contain_text("step 2,000")


async def test_problems_and_their_remedies(site: Site, page: Page, agents: Make) -> None:
    agent = await agents()
    agent.host(*GRID[:30])
    for _ in range(20):  # until the site has looked after the experiment
        agent.train(4.0)
        await agent.flush()
        await page.goto(f"{site.url}/experiments/gpt-crowd/")
        if "2 of 32 experts have no host" in await page.locator("issue-centre").inner_text():
            break
        await page.wait_for_timeout(1000)
    issues = page.locator("issue-centre")
    await expect(issues.locator("[data-first]")).to_contain_text("2 of 32 experts have no host")
    await issues.locator("summary").click()
    await expect(issues.locator(".problems li").first).to_contain_text("Peers with room claim them within seconds")
    assert await issues.locator(".problems li.bad .where").first.inner_text() == "✕ broken"


async def test_looking_closer_at_a_part_of_the_curve(site: Site, page: Page, agents: Make) -> None:
    agent = await agents()
    began = time.time() - 100
    for s in range(100):
        agent.train(curve(s), at=began + s)
    await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    loss = page.locator("metric-chart[metric=loss]")
    await expect(loss).to_have_attribute("data-state", "ready")
    box = await loss.locator(".u-over").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 50)
    await page.mouse.down()
    await page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60, steps=4)
    await page.mouse.up()
    label = loss.locator("[data-stage]")
    await expect(label).to_have_attribute("aria-label", re.compile(r"Loss over time, (1\d|2\d) points"))
    agent.train(2.0)  # what comes later does not disturb the view
    await agent.flush()
    await loss.get_by_role("button", name="Show all of it again").press("Enter")
    await expect(label).to_have_attribute("aria-label", re.compile(r"Loss over time, (99|10\d) points"))


async def test_nothing_moves_as_peers_come_and_go(site: Site, page: Page, agents: Make) -> None:
    first = await agents()
    first.host(*GRID)
    first.train(5.0)
    await first.flush()
    await page.add_init_script(
        "window.shifts = []; new PerformanceObserver((list) => shifts.push(...list.getEntries().map("
        "(e) => [e.value, ...e.sources.map((s) => s.node?.nodeName + '.' + s.node?.className)])))"
        ".observe({ type: 'layout-shift', buffered: true })"
    )
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await expect(page.locator("metric-chart[metric=loss]")).to_have_attribute("data-state", "ready")
    height = await page.evaluate("document.documentElement.scrollHeight")
    others = [await agents() for _ in range(4)]
    for agent in others:
        agent.know(first)
        agent.train(4.0)
        agent.tell("sample", step=1, prompt="a", text="b\n" * 9)
        await agent.flush()
    await expect(page.locator("peer-table tbody tr")).to_have_count(5)
    await others[0].leave()
    await expect(page.locator("peer-table tbody tr")).to_have_count(4)
    shifts = await page.evaluate("window.shifts")
    assert sum(s[0] for s in shifts) < 0.01, shifts
    grown = await page.evaluate("document.documentElement.scrollHeight") - height
    assert abs(grown) < 260, f"the page grew by {grown} px"  # the first sample opens its box


async def test_a_peer_that_falls_silent_is_gone_after_fifteen_seconds(site: Site, page: Page, agents: Make) -> None:
    agent = await agents()
    agent.host("ffn0.0.0")
    agent.train(5.0)
    await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await expect(page.locator("peer-table tbody tr")).to_have_count(1)
    await agent.vanish()
    await expect(page.locator("peer-table tbody tr")).to_have_count(0, timeout=25_000)
    await expect(page.locator("event-log li").first).to_contain_text("fell silent", timeout=5_000)
    await expect(page.locator("live-notice")).to_contain_text("No agent has reported")
    await expect(page.locator(".cell.vacant")).to_have_count(1)


async def test_the_coordinator_goes_away_and_comes_back(site: Site, page: Page, complaints: Complaints, agents: Make) -> None:
    agent = await agents()
    agent.host(*GRID)
    for s in range(60):
        agent.train(curve(s), at=time.time() - 90 + s)
    await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await expect(page.locator("metric-chart[metric=loss]")).to_have_attribute("data-state", "ready")
    site.kill(signal.SIGKILL)
    await agent.vanish()
    await expect(page.locator("live-notice")).to_contain_text("The coordinator has not answered")
    await expect(page.locator("live-stamp")).to_contain_text("reconnecting")
    await shoot(page, "experiment-stale")
    for s in range(60, 90):
        agent.train(curve(s), at=time.time() - 30 + s - 60)
    site.start()
    await agent.connect()
    await agent.flush()
    await expect(page.locator("live-notice")).to_be_hidden(timeout=20_000)
    await expect(page.locator("[data-figure=tokens]")).to_have_attribute("title", f"{90 * 4096:,} tokens")
    refused = [c for c in complaints.found if "WebSocket connection" in c and "ERR_CONNECTION_REFUSED" in c]
    assert refused  # the only thing that the browser may complain about
    complaints.found[:] = [c for c in complaints.found if c not in refused]


async def test_the_page_by_keyboard(site: Site, page: Page, agents: Make) -> None:
    agent = await agents()
    agent.train(5.0)
    await agent.flush()
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await page.keyboard.press("Tab")
    await expect(page.locator(".skip")).to_be_focused()
    await page.locator("[data-range][value='600']").focus()
    await page.keyboard.press("Space")
    await expect(page.locator("[data-range][value='600']")).to_be_checked()
    await page.locator("expert-comb summary").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("expert-comb tbody tr")).to_have_count(32)


async def test_the_command_is_copied(site: Site, page: Page) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.url)
    await page.goto(f"{site.url}/experiments/gpt-crowd/")
    await page.get_by_role("button", name="Copy").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == await page.locator("#join").inner_text()
