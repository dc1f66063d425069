from __future__ import annotations

from deploy.check import pin_problems

FILES = {
    "constraints.txt": "# made by pip freeze\nDjango==5.2.19\ntorch==2.13.0\nuvloop==0.23.0\n",
    "requirements.txt": "-c constraints.txt\n",
}
INSTALLED = {"django": "5.2.19", "torch": "2.13.0+cpu", "pip": "1", "hive": "0.1.0"}


def problems(text: str, installed: dict[str, str] = INSTALLED) -> list[str]:
    return pin_problems({**FILES, "requirements-agent.txt": text}, installed)


def test_exact_pins_pass() -> None:
    assert problems('torch==2.13.0  # why\ndjango==5.2.19\nuvloop==0.23.0; sys_platform != "win32"\n') == []


def test_what_is_not_exact_or_not_constrained_is_named() -> None:
    assert problems("torch>=2\n") == ["requirements-agent.txt: 'torch>=2' is not pinned with =="]
    assert problems("torch\n") == ["requirements-agent.txt: 'torch' is not pinned with =="]
    assert problems("torch==2.12.0\n") == ["requirements-agent.txt: torch is pinned to 2.12.0, constraints.txt says 2.13.0"]
    assert problems("rich==1.0\n") == ["requirements-agent.txt: rich is pinned to 1.0, constraints.txt says nothing"]


def test_what_is_installed_must_agree() -> None:
    assert problems("", {"django": "5.2.18"}) == ["django 5.2.18 is installed, constraints.txt says 5.2.19"]
    assert problems("", {"left-pad": "1.0"}) == ["left-pad 1.0 is installed but not in constraints.txt"]
