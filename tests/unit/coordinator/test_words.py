"""How pages write numbers, times and manifests; the same as frontend/src/format.ts."""

from __future__ import annotations

import pytest

from agent.manifest import Manifest, TextFile
from coordinator.dashboard.describe import facts
from coordinator.dashboard.templatetags.frontend import ago, compact, loss, short

from .conftest import SMALL


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "0"),
        (0.5, "0.50"),
        (999, "999"),
        (999.7, "1.00 k"),
        (1234, "1.23 k"),
        (12_345, "12.3 k"),
        (999_600, "1.00 M"),
        (1.5e12, "1.50 T"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert compact(value) == text


def test_losses_peers_and_ages() -> None:
    assert (loss(None), loss(2.34567)) == ("unknown", "2.346")
    assert (short(None), short("abcdefghijk")) == ("coordinator", "abcdefgh")
    assert [ago(None, 0), *(ago(100, 100 + s) for s in (0.5, 1, 61, 7200, 200_000))] == [
        "never",
        "now",
        "1 s ago",
        "1 min ago",
        "2 h ago",
        "2 d ago",
    ]


def test_a_manifest_in_words() -> None:
    said = dict(facts(SMALL))
    assert "4 of" in said["Experts"] and "2 × 2 grid" in said["Experts"]
    assert "standard library" in said["Data"] and "5% held out" in said["Data"]
    mine = Manifest(name="mine", revision=1, title="Mine", data=TextFile(validation_share=0.1))
    assert "every volunteer brings" in dict(facts(mine))["Data"]
