"""What deploy/ ships for production: it parses, agrees with the code and with itself, and the programs that read it accept it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from coordinator import environment
from coordinator.monitoring import metrics

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OWN = {"HIVE_DOMAIN", "HIVE_UPSTREAM"}
"""Variables of compose and Caddy themselves."""


def names(text: str) -> set[str]:
    return set(re.findall(r"\bHIVE_[A-Z_]+\b", text))


@pytest.mark.parametrize(
    "path", [p for p in DEPLOY.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")], ids=lambda p: p.name
)
def test_every_variable_is_one_that_we_read(path: Path) -> None:
    assert names(path.read_text()) <= environment.NAMES | OWN


def test_the_manual_names_every_variable() -> None:
    assert environment.NAMES - {"HIVE_STATE_DIR"} <= names((ROOT / "docs/operating.md").read_text())


def test_the_tests_that_the_threat_model_names_are_there() -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"test_\w+\.py", (ROOT / "THREAT_MODEL.md").read_text()))
    assert len(named) > 12 and named <= there, named - there


def test_compose_asks_for_every_secret_and_gives_none() -> None:
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / "compose/hive.env.example").read_text().splitlines()
        if line and not line.startswith("#")
    )
    text = (DEPLOY / "compose/compose.yaml").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+)", text)) <= set(example)
    secrets = [name for name in example if "PASSWORD" in name or "SECRET" in name or "TOKEN" in name]
    assert len(secrets) == 5 and not any(example[name] for name in secrets)


def test_compose_runs_what_production_needs() -> None:
    services = COMPOSE["services"]
    assert set(services) == {"caddy", "web", "worker", "beat", "postgres", "redis", "turn"}
    assert "beat" in services["beat"]["command"] and "worker" in services["worker"]["command"]
    published = {name for name, service in services.items() if service.get("ports")}
    assert published == {"caddy"}, "only the proxy is reachable from outside"
    proxy = services["caddy"]["networks"]["inside"]["ipv4_address"]
    assert services["web"]["environment"]["HIVE_PROXIES"] == proxy
    for name in ("web", "worker", "beat"):
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"]


def test_the_image_has_all_that_it_copies() -> None:
    text = (DEPLOY / "compose/Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.M) for word in line.split()]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == kept and all((ROOT / source).exists() for source in sources)


def test_units_start_what_exists() -> None:
    assert [unit.stem for unit in UNITS] == ["hive-beat", "hive-web", "hive-worker"]
    for unit in UNITS:
        text = unit.read_text()
        (command,) = re.findall(r"^ExecStart=/srv/hive/\.venv/bin/(.+)$", text, re.M)
        assert command.startswith(("python -m coordinator.serve", "celery -A coordinator.celery"))
        assert "NoNewPrivileges=true" in text and "User=hive" in text


@pytest.mark.django_db
def test_panels_and_alerts_show_metrics_that_there_are() -> None:
    registry = {m.name + ("_total" if m.type == "counter" else "") for m in metrics.families(time.time())}
    board = json.loads((DEPLOY / "monitoring/grafana-hive.json").read_text())
    alerts = yaml.safe_load((DEPLOY / "monitoring/hive-alerts.yml").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    used = {name for expression in asked for name in re.findall(r"\bhive_[a-z0-9_]+", expression)}
    assert used <= registry, used - registry
    assert registry - used <= {"hive_contributions"}, "every metric is shown"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def accepts(*command: str, **variables: str) -> None:
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(
        [program, *command[1:]], env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_caddy_accepts_its_file(tmp_path: Path) -> None:
    file = str(DEPLOY / "proxy/Caddyfile")
    accepts("caddy", "validate", "--config", file, "--adapter", "caddyfile", HIVE_DOMAIN="hive.example", HOME=str(tmp_path))


def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=hive.example", "-days", "1")
    accepts("openssl", *make, "-keyout", str(key), "-out", str(certificate))
    text = (DEPLOY / "proxy/nginx.conf").read_text()
    text = re.sub(r"/etc/letsencrypt\S+fullchain.pem", str(certificate), text)
    text = re.sub(r"/etc/letsencrypt\S+privkey.pem", str(key), text)
    (tmp_path / "site.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ include {tmp_path}/site.conf; }}"
    )
    accepts("nginx", "-t", "-c", str(tmp_path / "nginx.conf"))
