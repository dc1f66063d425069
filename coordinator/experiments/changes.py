"""What differs between two manifests, value by value, and what that means for agents that run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from agent.manifest import TAKES_EFFECT_AT_ONCE, Manifest
from coordinator.experiments import schema, words

Effect = Literal["at once", "for newcomers", "after a restart", "starts anew"]
"""`at once` means within half a minute, when agents have asked for the newest revision."""
FOR_NEWCOMERS = frozenset({"bootstrap", "ice_servers"})
"""Agents look at them when they start."""
SHAPES = frozenset({"d_model", "layers", "heads", "vocabulary", "patch", "expert_hidden", "grid", "kind"})
"""Of the model: what has been learned does not fit any more when these change. The seed makes other beginnings, too."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value that differs."""

    path: str
    label: str
    before: str | None
    """None: there was no such value."""
    after: str | None
    effect: Effect


def changes(before: Manifest | None, after: Manifest) -> list[Change]:
    """From `before` (None: from nothing) to `after`, in the schema's order."""
    found = []
    if before is not None and before.status != after.status:
        found.append(Change(path="status", label="Status", before=before.status, after=after.status, effect="at once"))
    for each in schema.leaves():
        old = None if before is None else _text(before, each)
        new = _text(after, each)
        if old != new:
            label = words.label(each.words)
            found.append(Change(path=each.path, label=label, before=old, after=new, effect=_effect(each)))
    return found


def worst(found: list[Change]) -> Effect | None:
    """The heaviest of their effects."""
    order: list[Effect] = ["starts anew", "after a restart", "for newcomers", "at once"]
    return next((effect for effect in order if any(c.effect == effect for c in found)), None)


def _effect(each: schema.Leaf) -> Effect:
    if each.where[0] in FOR_NEWCOMERS:
        return "for newcomers"
    if each.where[0] in TAKES_EFFECT_AT_ONCE:
        return "at once"
    return "starts anew" if each.where[0] == "model" and each.where[-1] in SHAPES else "after a restart"


def _text(manifest: Manifest, each: schema.Leaf) -> str | None:
    """None where the value belongs to a kind that is not chosen."""
    if each.variant and schema.value_of(manifest, schema.leaf(each.variant[0])) != each.variant[1]:
        return None
    value = schema.value_of(manifest, each)
    return None if value is msgspec.UNSET else each.write(value)


def lines(found: list[Change]) -> Iterator[tuple[Change, list[tuple[str, Any]]]]:
    """Each change with its text as ("del" | "ins" | "same", line): long texts and lists differ line by line."""
    import difflib

    for change in found:
        old, new = (change.before or "").split("\n"), (change.after or "").split("\n")
        if len(old) == len(new) == 1:
            yield (
                change,
                [
                    *([("del", change.before)] if change.before is not None else []),
                    *([("ins", change.after)] if change.after is not None else []),
                ],
            )
            continue
        marks = {"- ": "del", "+ ": "ins", "  ": "same"}
        yield change, [(marks[line[:2]], line[2:]) for line in difflib.ndiff(old, new) if line[:2] in marks]
