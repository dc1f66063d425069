from __future__ import annotations

import pytest

from agent.grid import ExpertId
from agent.moe.deadlines import OVERHEAD_ROWS, DeadlineConfig, Deadlines

UID = ExpertId("ffn0", (1, 2))


def test_an_unknown_expert_gets_the_ceiling() -> None:
    assert Deadlines().timeout_s(UID, "forward", 100) == 10.0


def test_it_adapts_to_what_the_expert_has_shown() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=0.01))
    deadlines.answered(UID, "forward", 256, 1.0)
    assert deadlines.timeout_s(UID, "forward", 256) == pytest.approx(3.0)  # RFC 6298 2.2: R + 4 * R / 2
    for _ in range(60):
        deadlines.answered(UID, "forward", 256, 1.0)
    assert deadlines.timeout_s(UID, "forward", 256) == pytest.approx(1.0, rel=0.05)
    assert deadlines.timeout_s(UID, "backward", 256) == 10.0


def test_more_rows_may_take_longer() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=0.01))
    deadlines.answered(UID, "forward", OVERHEAD_ROWS, 0.4)
    assert deadlines.timeout_s(UID, "forward", 3 * OVERHEAD_ROWS) == pytest.approx(
        2 * deadlines.timeout_s(UID, "forward", OVERHEAD_ROWS)
    )


def test_floor_and_ceiling() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=0.5, ceiling_s=2.0))
    deadlines.answered(UID, "forward", 1, 0.0001)
    assert deadlines.timeout_s(UID, "forward", 1) == 0.5
    deadlines.answered(UID, "forward", 1, 50.0)
    assert deadlines.timeout_s(UID, "forward", 1) == 2.0


def test_the_ceiling_wins_over_the_floor() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=2.0, ceiling_s=1.0))
    deadlines.answered(UID, "forward", 1, 0.0001)
    assert deadlines.timeout_s(UID, "forward", 1) == 1.0


def test_timeouts_double_it_until_an_answer() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=0.5, ceiling_s=100.0))
    deadlines.answered(UID, "forward", 1, 0.0001)
    seen = []
    for _ in range(3):
        deadlines.missed(UID, "forward")
        seen.append(deadlines.timeout_s(UID, "forward", 1))
    assert seen == [1.0, 2.0, 4.0]
    for _ in range(50):
        deadlines.missed(UID, "forward")
    assert deadlines.timeout_s(UID, "forward", 1) == 0.5 * 64
    deadlines.answered(UID, "forward", 1, 0.0001)
    assert deadlines.timeout_s(UID, "forward", 1) == 0.5


def test_it_remembers_a_bounded_number_and_forgets_the_oldest() -> None:
    deadlines = Deadlines(DeadlineConfig(floor_s=0.01, experts_max=3))
    uids = [ExpertId("ffn0", (i,)) for i in range(4)]
    for uid in uids[:3]:
        deadlines.answered(uid, "forward", 1, 0.1)
    assert len(deadlines) == 3
    deadlines.answered(uids[3], "forward", 1, 0.1)
    assert len(deadlines) == 3
    assert deadlines.timeout_s(uids[0], "forward", 1) == 10.0
    assert deadlines.timeout_s(uids[3], "forward", 1) < 10.0


@pytest.mark.parametrize("bad", [{"floor_s": 0.0}, {"ceiling_s": -1.0}, {"experts_max": 0}])
def test_absurd_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        DeadlineConfig(**bad)
