"""What a person sees of an agent: reports turned into text. Pure functions; the panel and the plain lines share them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.manifest import GPTModel
from agent.reports import Report

STAGES = {
    "starting": "starting",
    "joining": "joining",
    "waiting": "waiting",
    "training": "training",
    "hosting": "hosting experts",
    "paused": "paused by the organizer",
    "draining": "leaving in good order",
    "stopped": "stopped",
}
EVENTS_SHOWN = 5
TOKENS = GPTModel.units
"""What is counted, until the manifest says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Bytes per second between two reports, peer to peer."""

    up: float = 0.0
    down: float = 0.0


def rates(now: Report, before: Report | None) -> Rates:
    """Rates between two reports of one session; zero when there are not two."""
    seconds = now.at - before.at if before else 0.0
    if before is None or seconds <= 0:
        return Rates()
    return Rates(
        up=max(0, now.bytes_p2p_sent - before.bytes_p2p_sent) / seconds,
        down=max(0, now.bytes_p2p_received - before.bytes_p2p_received) / seconds,
    )


def amount(value: float, unit: str) -> str:
    """A number of bytes or bytes per second in its handiest size: `1.5 MB/s`."""
    power = min(4, int(math.log(value, 1000))) if value >= 1 else 0
    number = value / 1000**power
    return f"{number:.0f} {unit}" if power == 0 else f"{number:.1f} {' kMGT'[power]}{unit}"


def doing(report: Report) -> str:
    """What it does now, and why nothing happens if nothing does."""
    stage = STAGES[report.stage]
    return f"{stage}: {report.why}" if report.why else stage


def peers(report: Report) -> str:
    direct = sum(c.kind == "direct" for c in report.connections)
    relayed = len(report.connections) - direct
    return f"{direct} direct, {relayed} relayed" if relayed else f"{direct} direct"


def number(value: float | None) -> str:
    return "not yet" if value is None else f"{value:.3f}"


def plain_line(report: Report, speed: Rates, loss: float | None, units: str = TOKENS) -> str:
    """One line for a pipe. `loss` is the latest training loss, which a report without new batches does not repeat; `units`:
    what the model learns from."""
    parts = [
        doing(report),
        f"step {report.step}",
        f"loss {number(loss)}",
        f"validation {number(report.loss_validation)}",
        f"{report.tokens_per_s:.0f} {units}/s",
        f"peers {peers(report)}",
        f"hosts {len(report.experts)} experts",
        f"alive {report.experts_alive}/{report.experts_total}",
        f"up {amount(speed.up, 'B/s')}",
        f"down {amount(speed.down, 'B/s')}",
    ]
    if report.calls_failed:
        parts.append(f"calls failed {report.calls_failed} of {report.calls}")
    return ", ".join(parts)


def rows(report: Report, speed: Rates, loss: float | None, units: str = TOKENS) -> list[tuple[str, str]]:
    """The panel's lines, in order."""
    return [
        ("now", doing(report)),
        ("loss", f"{number(loss)} training, {number(report.loss_validation)} validation"),
        ("trained", f"{report.tokens:,} {units} in {report.step:,} batches, {report.tokens_per_s:,.0f} {units}/s"),
        ("peers", peers(report)),
        ("experts", f"hosts {len(report.experts)}; {report.experts_alive} of {report.experts_total} alive in the experiment"),
        ("calls", f"{report.calls:,}, of which {report.calls_failed:,} failed; {report.backtracks:,} rows tried other experts"),
        ("network", f"up {amount(speed.up, 'B/s')}, down {amount(speed.down, 'B/s')}"),
        ("site", f"{amount(report.bytes_coordinator, 'B')} to and from the coordinator"),
    ]


def panel(
    title: str, report: Report | None, speed: Rates, loss: float | None, events: list[str], units: str = TOKENS
) -> RenderableType:
    """The live panel."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, text in rows(report, speed, loss, units) if report else [("now", "starting")]:
        grid.add_row(name, Text(text))
    log = Text("\n".join(events[-EVENTS_SHOWN:]), style="dim")
    return Panel(
        Group(grid, log), title=title, title_align="left", subtitle="Ctrl-C leaves in good order", subtitle_align="right"
    )
