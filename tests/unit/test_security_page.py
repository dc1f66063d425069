"""Every test that docs/security.md names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[a-z_/]+\.py)::(\w+)`")


def test_the_tests_that_the_page_on_security_names_exist() -> None:
    found = NAMED.findall((ROOT / "docs" / "security.md").read_text())
    assert len(found) >= 30
    for path, name in found:
        source = (ROOT / path).read_text()
        assert re.search(rf"\bdef {name}\(|^class {name}\(|^{name} = ", source, re.MULTILINE), f"{path} has no {name}"
