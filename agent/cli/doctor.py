"""`hive-agent doctor`: can this machine take part? One finding per question, with a fix for each problem."""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from agent.cli.options import add_settings, settle
from agent.config import AgentConfig
from agent.errors import HiveError, IdentityError
from agent.identity import KeyFile

EXAMPLE = "hive-agent doctor --coordinator https://hive.example.org"
CLOCK_SKEW_MAX_S = 120.0
"""The coordinator refuses what is signed over five minutes off its clock; this leaves room."""
SPACE_BYTES_MIN = 1 << 30
MEMORY_BYTES_MIN = 1 << 30
CHANNEL_TIMEOUT_S = 15.0
CHANNEL_MESSAGES = 200
CHANNEL_MESSAGE_BYTES = 16 * 1024
GFLOPS_MIN = 1.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`warn`: the agent works, but not as well as it could. `fail`: it will not work. `fix` says what to do."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    said: str
    fix: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def clock(config: AgentConfig, now: Callable[[], float] = time.time) -> Finding:
    """Compares with the coordinator's Date header."""
    request = urllib.request.Request(config.coordinator + "/", method="HEAD")
    try:
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                date = response.headers.get("Date")
        except urllib.error.HTTPError as e:
            date = e.headers.get("Date")
    except http.client.HTTPException as e:
        return _no_clock(f"what answers at {config.described('coordinator')} does not speak HTTP ({type(e).__name__})")
    except OSError as e:
        reason = getattr(e, "reason", e)
        return _no_clock(f"{config.described('coordinator')} does not answer ({getattr(reason, 'strerror', None) or reason})")
    return judge_clock(date, now())


def _no_clock(why: str) -> Finding:
    return Finding(
        name="coordinator",
        verdict="warn",
        said=f"{why}, so the clock could not be compared",
        fix="check the address and the network. An agent that has joined once can join again without it, through --bootstrap",
    )


def judge_clock(date: str | None, now: float) -> Finding:
    """The finding for a Date header that arrived at Unix time `now`."""
    try:
        skew = now - email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Finding(name="clock", verdict="warn", said="the coordinator does not tell its time", fix="ask its operator")
    if abs(skew) > CLOCK_SKEW_MAX_S:
        way = "ahead of" if skew > 0 else "behind"
        said = f"this clock is {abs(skew):.0f} s {way} the coordinator's"
        return Finding(name="clock", verdict="fail", said=said, fix="switch on time synchronisation: timedatectl set-ntp true")
    return Finding(name="clock", verdict="ok", said=f"within {max(1.0, abs(skew)):.0f} s of the coordinator's")


def disk(config: AgentConfig) -> Finding:
    directory = config.state_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".doctor-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
        free = shutil.disk_usage(directory).free
    except OSError as e:
        return Finding(
            name="disk", verdict="fail", said=f"{directory} cannot be written: {e.strerror}", fix="choose another --state-dir"
        )
    said = f"{free / 1e9:.1f} GB free in {directory}"
    if free < SPACE_BYTES_MIN:
        return Finding(name="disk", verdict="warn", said=said, fix="free some space, or choose another --state-dir")
    return Finding(name="disk", verdict="ok", said=said)


def identity(config: AgentConfig) -> Finding:
    key_file = KeyFile(config.key_file)
    try:
        return Finding(name="identity", verdict="ok", said=f"peer id {key_file.open().peer_id}")
    except IdentityError as e:
        running = "used by another running agent" in str(e)
        return Finding(name="identity", verdict="ok" if running else "fail", said=str(e), fix="" if running else "do as it says")
    finally:
        key_file.close()


def device(config: AgentConfig) -> Finding:
    """A short measurement, because names of processors say little."""
    import psutil
    import torch

    torch.set_num_threads(config.threads)
    a = torch.randn(512, 512)
    started, rounds = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < 0.3:
        a @ a
        rounds += 1
    gflops = 2 * 512**3 * rounds / elapsed / 1e9
    memory = psutil.virtual_memory().available
    said = f"{gflops:.0f} GFLOP/s on {config.threads} threads, {memory / 1e9:.1f} GB of memory free"
    said += "; a CUDA device is there, but this version computes on the processor" if torch.cuda.is_available() else ""
    if memory < MEMORY_BYTES_MIN:
        return Finding(
            name="device", verdict="warn", said=said, fix="close other programs, or host fewer experts with --max-experts"
        )
    if gflops < GFLOPS_MIN:
        return Finding(
            name="device", verdict="warn", said=said, fix="it is slow: close other programs, or give it more --threads"
        )
    return Finding(name="device", verdict="ok", said=said)


async def channel() -> Finding:
    """A real data channel from this process to itself: ICE, DTLS and SCTP over this machine's own addresses."""
    from agent.net.transport import Lane, Link
    from agent.net.webrtc import WebRtcTransport

    transport = WebRtcTransport()
    received, done = 0, asyncio.Event()

    def on_message(lane: Lane, data: memoryview) -> None:
        nonlocal received
        received += len(data)
        if received >= CHANNEL_MESSAGES * CHANNEL_MESSAGE_BYTES:
            done.set()

    def ignore(*_: object) -> None:
        return

    try:
        async with asyncio.timeout(CHANNEL_TIMEOUT_S):
            started = time.perf_counter()
            offered = await transport.offer()
            answered = await transport.answer(offered.description)
            links: tuple[Link, Link] = await asyncio.gather(
                offered.accept(answered.description, CHANNEL_TIMEOUT_S), answered.open(CHANNEL_TIMEOUT_S)
            )
            opened_s = time.perf_counter() - started
            links[0].start(ignore, ignore, ignore)
            links[1].start(on_message, ignore, ignore)
            for _ in range(CHANNEL_MESSAGES):
                links[0].send(Lane.BULK, bytes(CHANNEL_MESSAGE_BYTES))
            started = time.perf_counter()
            await done.wait()
            rate = received / (time.perf_counter() - started) / 1e6
    except (HiveError, OSError, TimeoutError) as e:
        said = f"no data channel over this machine's own UDP: {str(e) or 'it took too long'}"
        return Finding(
            name="udp", verdict="fail", said=said, fix="let UDP through this machine's firewall, at least among its own addresses"
        )
    finally:
        await transport.close()
    return Finding(
        name="udp",
        verdict="ok",
        said=f"a WebRTC data channel to itself opened in {opened_s * 1000:.0f} ms and moved {rate:.0f} MB/s",
    )


def examine(config: AgentConfig) -> list[Finding]:
    return [clock(config), disk(config), identity(config), device(config), asyncio.run(channel())]


def run(args: argparse.Namespace) -> int:
    """Exit code 0 if nothing fails, 1 otherwise."""
    config = settle(args, needs_experiment=False)
    os.environ["OMP_NUM_THREADS"] = str(config.threads)
    findings = examine(config)
    failed = any(f.verdict == "fail" for f in findings)
    if args.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(f) for f in findings]}))
        return int(failed)
    for finding in findings:
        print(f"{finding.verdict:<5} {finding.name:<12} {finding.said}" + (f"\n{'':<18} → {finding.fix}" if finding.fix else ""))
    print("this machine cannot take part yet" if failed else "this machine can take part")
    return int(failed)
