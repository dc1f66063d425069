"""How pages write ranks, shares, durations and times."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from coordinator.dashboard.templatetags.frontend import compact
from coordinator.leaderboard.models import Kind
from coordinator.leaderboard.shapes import Contribution, PeerSession, Standing

register = template.Library()


@register.filter
def duration(seconds: float | None) -> str:
    """93784 → 1 d 2 h; two units at most."""
    if seconds is None:
        return "unknown"
    whole = int(seconds)
    sizes = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts = []
    for letter, size in sizes:
        if whole >= size:
            parts.append(f"{whole // size} {letter}")
            whole %= size
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts) or "0 s"


@register.filter
def counted(amount: float, kind: str) -> str:
    """An amount of one kind (models.Kind), with its unit if it has one."""
    return duration(amount) if kind == Kind.UPTIME else compact(amount)


@register.filter
def percent(share: float | None) -> str:
    """0.123 → 12 %; what is neither nothing nor all never looks like it."""
    if share is None:
        return "–"
    return "0 %" if share <= 0 else "100 %" if share >= 1 else f"{min(99, max(1, round(share * 100)))} %"


@register.simple_tag
def change(standing: Standing) -> SafeString:
    """How the rank changed since a day ago, by glyph, colour and word."""
    if standing.rank is None:
        return SafeString("")
    if standing.rank_before is None:
        return format_html('<span class="change new" title="{}">new</span>', "had no rank in this window a day ago")
    up = standing.rank_before - standing.rank
    if up == 0:
        return format_html('<span class="change same" title="{}">＝</span>', f"also number {standing.rank_before} a day ago")
    way, glyph = ("up", "▲") if up > 0 else ("down", "▼")
    title = f"number {standing.rank_before} a day ago"
    return format_html(
        '<span class="change {}" title="{}">{} {}<span class="unseen"> places {}</span></span>', way, title, glyph, abs(up), way
    )


@register.simple_tag
def bar(amount: float, most: float) -> SafeString:
    """A thin bar of `amount` beside the `most` of the column. Decoration: the number stands beside it."""
    width = round(100 * amount / most, 1) if most > 0 else 0
    return format_html(
        '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect width="{}" height="4"/></svg>',
        width,
    )


@register.simple_tag
def moment(at: float | None, text: str = "") -> SafeString:
    """A time; a script puts it into the reader's zone."""
    if at is None:
        return SafeString("never")
    when = datetime.fromtimestamp(at, UTC)
    return format_html('<time datetime="{}">{}</time>', when.isoformat(timespec="seconds"), text or f"{when:%Y-%m-%d %H:%M} UTC")


@register.filter
def get(mapping: dict[str, str], key: str) -> str:
    """A template's `mapping[key]`."""
    return mapping[key]


@register.filter
def lasted(row: PeerSession | Contribution) -> float:
    """Seconds from its beginning to its end, or to when it was last seen."""
    return (row.seen_at if row.ended_at is None else row.ended_at) - row.started_at
