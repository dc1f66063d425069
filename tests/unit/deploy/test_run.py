"""What the demo's processes are told by their environment."""

from __future__ import annotations

from deploy.demo.run import child_environment


def test_the_channel_reaches_the_agents_and_other_settings_do_not() -> None:
    child = child_environment(
        {"PATH": "/bin", "HIVE_CHANNEL": "stock", "HIVE_COORDINATOR": "http://elsewhere", "OMP_NUM_THREADS": "8"}
    )
    assert child["HIVE_CHANNEL"] == "stock"
    assert child["PATH"] == "/bin"
    assert "HIVE_COORDINATOR" not in child
    assert child["OMP_NUM_THREADS"] == "1"
