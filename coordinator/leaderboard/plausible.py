"""What a peer can have done in a minute. Reports are a peer's own word: beyond these limits they are recorded, and do not count.

The limits are far above what volunteers' machines do (a laptop trains some hundred tokens a second, a fast server some ten
thousand), so that no honest peer meets them; they keep a single false report from burying everybody else's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MINUTE_S = 60
SLOT_S = 10
"""Presence is counted in slots of the clock of this length: a peer is present in one if it reported in it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Rates of one peer in one experiment, in all its sessions together."""

    tokens_per_s: int = 250_000
    rows_per_s: int = 1_000_000
    """Rows through hosted experts, forward and backward."""

    def per_minute(self, kind: str) -> int:
        return {"tokens": self.tokens_per_s, "rows": self.rows_per_s, "uptime": 1}[kind] * MINUTE_S


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the reports of one session within one slot of time add up to."""

    session: str
    slot: int
    tokens: int
    rows: int


def judge(claims: Iterable[Claim], limits: Limits = LIMITS) -> dict[tuple[str, str], tuple[int, int]]:
    """The claims of one peer within one minute → (session, kind): (what counts, what was claimed).

    Sessions share the peer's limit in the order of their names, and a slot of presence counts once however many sessions
    reported in it.
    """
    claims = sorted(claims, key=lambda c: (c.session, c.slot))
    judged: dict[tuple[str, str], tuple[int, int]] = {}
    for kind in ("tokens", "rows"):
        left = limits.per_minute(kind)
        for session, amount in _per_session(claims, kind):
            judged[session, kind] = (min(amount, left), amount)
            left -= min(amount, left)
    present: set[int] = set()
    for session in dict.fromkeys(c.session for c in claims):
        slots = {c.slot for c in claims if c.session == session} - present
        present |= slots
        judged[session, "uptime"] = (len(slots) * SLOT_S, len(slots) * SLOT_S)
    return {key: value for key, value in judged.items() if value[1] > 0}


def _per_session(claims: Sequence[Claim], kind: str) -> list[tuple[str, int]]:
    sums: dict[str, int] = {}
    for claim in claims:
        sums[claim.session] = sums.get(claim.session, 0) + max(0, getattr(claim, kind))
    return list(sums.items())
