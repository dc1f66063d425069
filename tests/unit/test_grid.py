"""Names of experts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.grid import DIMENSIONS_MAX, SIDE_MAX, ExpertId, Grid, prefix


@given(st.lists(st.integers(0, SIDE_MAX - 1), min_size=1, max_size=DIMENSIONS_MAX))
def test_names_are_read_back(coordinates: list[int]) -> None:
    expert = ExpertId("ffn12", tuple(coordinates))
    assert ExpertId.parse(str(expert)) == expert


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ffn0",
        "ffn0.",
        "ffn0.01",
        "ffn0.-1",
        "0.1",
        "ffn0.1.2.3.4.5",
        "ffn0.256",
        "ffn0.1 ",
        "FFN0.1",
        "ffn0.1\n",
        "a" * 40 + ".1",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ExpertId.parse(text)


def test_prefixes_lead_to_the_expert() -> None:
    assert ExpertId("ffn0", (3, 1)).prefixes == (("ffn0.", 3), ("ffn0.3.", 1))
    assert prefix("ffn0") == "ffn0." and prefix("ffn0", (3,)) == "ffn0.3."


def test_a_grid_knows_its_experts() -> None:
    grid = Grid("ffn0", (2, 3))
    assert len(grid) == 6 == len(list(grid)) and all(e in grid for e in grid)
    for other in ("ffn1.0.0", "ffn0.2.0", "ffn0.0", "ffn0.0.0.0"):
        assert ExpertId.parse(other) not in grid


@pytest.mark.parametrize("shape", [(), (0,), (SIDE_MAX + 1,), (2,) * (DIMENSIONS_MAX + 1)])
def test_a_grid_has_limits(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="dimensions"):
        Grid("ffn0", shape)
    with pytest.raises(ValueError, match="layer's name"):
        Grid("no such", (2,))
