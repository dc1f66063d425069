"""Links to the built front end, by Vite's manifest; and how pages write numbers and times."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from django import template
from django.conf import settings
from django.templatetags.static import static
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()
UNKNOWN = "unknown"
_SCALES = ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@register.simple_tag
def frontend() -> SafeString:
    """The stylesheet, the script and the fonts, all with the hash of their content in the name."""
    built = _assets(settings.FRONTEND_MANIFEST, settings.FRONTEND_MANIFEST.stat().st_mtime_ns)
    fonts = format_html_join(
        "", '<link rel="preload" href="{}" as="font" type="font/woff2" crossorigin>', ((static(f),) for f in built.fonts)
    )
    return format_html(
        '<link rel="stylesheet" href="{}">{}<script type="module" src="{}"></script>',
        static(built.style),
        fonts,
        static(built.script),
    )


class _Assets(NamedTuple):
    script: str
    style: str
    fonts: tuple[str, ...]


@lru_cache(maxsize=2)
def _assets(manifest: Path, _changed: int) -> _Assets:
    built = json.loads(manifest.read_text())
    fonts = sorted(f"site/{entry['file']}" for entry in built.values() if entry["file"].endswith(".woff2"))
    return _Assets(f"site/{built['src/main.ts']['file']}", f"site/{built['style.css']['file']}", tuple(fonts))


@register.filter
def compact(value: float | None) -> str:
    """1234567 → 1.23 M, as frontend/src/format.ts writes it."""
    if value is None:
        return UNKNOWN
    for scale, letter in _SCALES:
        if abs(value) >= scale * 0.9995:
            return f"{_significant(value / scale)} {letter}"
    return str(round(value)) if abs(value) >= 100 or value == int(value) else _significant(value)


@register.filter
def loss(value: float | None) -> str:
    """Three decimals."""
    return UNKNOWN if value is None else f"{value:.3f}"


@register.filter
def words(name: str) -> str:
    """expert-claimed → expert claimed."""
    return name.replace("-", " ")


@register.filter
def short(peer: str | None) -> str:
    """The first eight letters of a peer's id."""
    return peer[:8] if peer else "coordinator"


@register.filter
def ago(at: float | None, now: float) -> str:
    """Unix seconds → 12 s ago."""
    if at is None:
        return "never"
    for size, unit in _UNITS:
        if now - at >= size:
            return f"{int((now - at) // size)} {unit} ago"
    return "now"


def _significant(value: float) -> str:
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2}f}"
