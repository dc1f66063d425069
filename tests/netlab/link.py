"""An emulated link between two network namespaces: delay, loss, rate and queue as asked for, real kernels at both ends.

    with EmulatedLink(LinkSpec(rtt_ms=40, rate_mbit=100, queue_bytes=450_000)) as link:
        subprocess.Popen(link.command(0, [...]))      one end, whose address is link.addresses[0]
        subprocess.Popen(link.command(1, [...]))      the other

`emulator.c` moves the packets; it is compiled on first use. Needed: Linux, a C compiler, iproute2, util-linux, and root
or, for `as_root`, a kernel that lets everyone make user namespaces and open /dev/net/tun. `missing()` says what is not
there. Namespaces and devices go away with the processes that hold them, however those end.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SOURCE = Path(__file__).with_name("emulator.c")
DEVICE = "link0"
ADDRESSES = ("10.77.0.1", "10.77.0.2")
_INSIDE = "HIVE_NETLAB_INSIDE"


class NetlabUnavailable(Exception):
    """This machine cannot emulate links; the text says what to install or allow."""


@dataclass(frozen=True, kw_only=True)
class LinkSpec:
    """What the link does to packets, alike in both directions."""

    rtt_ms: float = 0.0
    """Round-trip time of an empty link."""
    loss: float = 0.0
    """Probability that a packet is lost, each way."""
    rate_mbit: float = 0.0
    """10^6 bits of IP packets per second; 0 is no limit."""
    queue_bytes: int = 450_000
    """What may wait for the rate: 300 full packets."""
    mtu: int = 1500
    seed: int = 1

    def __post_init__(self) -> None:
        if self.rtt_ms < 0 or not 0 <= self.loss < 1 or self.rate_mbit < 0 or self.queue_bytes < 3000:
            raise ValueError("rtt_ms and rate_mbit are not negative, loss is in [0, 1), queue_bytes at least 3,000")


@dataclass(frozen=True, kw_only=True)
class Second:
    """What the emulator saw in one second in the direction from end 0 to end 1."""

    packets: int
    lost: int
    """By `loss`."""
    overflowed: int
    """By the queue."""
    queue_ms_mean: float
    queue_ms_max: float
    bytes: int
    """That went on."""


def missing() -> str | None:
    """Return a sentence that says what is lacking to emulate links here, or None."""
    if sys.platform != "linux":
        return "links are emulated with Linux network namespaces: run this on Linux"
    for command, package in (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux"), ("cc", "gcc")):
        if shutil.which(command) is None:
            return f"the command {command} is missing: install {package}"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun cannot be opened: run as root, or load the module tun and let yourself read and write that file"
    if os.geteuid() != 0 and subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
        return "this kernel does not let you make user namespaces: run as root, or set kernel.unprivileged_userns_clone=1"
    return None


def as_root(module: str, arguments: list[str]) -> None:
    """Go on as the root of a user namespace of our own, if we are not root: runs `python -m module` there and does not return.

    Raises NetlabUnavailable.
    """
    lacking = missing()
    if lacking is not None:
        raise NetlabUnavailable(lacking)
    if os.geteuid() != 0 and _INSIDE not in os.environ:
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m", module, *arguments]
        os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})


def build() -> Path:
    """Compile the emulator, once per version of its source; returns the program. Raises NetlabUnavailable."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / f"hive-netlab-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise NetlabUnavailable(f"{folder} belongs to someone else: remove it")
    program = folder / f"emulator-{digest}"
    if not program.exists():
        draft = folder / f"draft-{os.getpid()}"
        done = subprocess.run(["cc", "-O2", "-o", str(draft), str(SOURCE)], capture_output=True, text=True)
        if done.returncode:
            raise NetlabUnavailable(f"{SOURCE.name} does not compile: {done.stderr.strip()[:300]}")
        draft.replace(program)
    return program


class EmulatedLink:
    """See the module. A context manager; one link is independent of every other."""

    addresses = ADDRESSES

    def __init__(self, spec: LinkSpec) -> None:
        self.spec = spec
        self.seconds: list[Second] = []
        """What passed from end 0 to end 1, one entry a second."""
        self._processes: list[subprocess.Popen[str]] = []
        self._namespaces: list[str] = []

    def __enter__(self) -> EmulatedLink:
        try:
            for _ in range(2):
                self._namespaces.append(self._hold_namespace())
            self._start_emulator()
            for side in range(2):
                self._configure(side)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def command(self, side: int, arguments: list[str]) -> list[str]:
        """The command line that runs `arguments` at that end."""
        return ["nsenter", f"--net={self._namespaces[side]}", "--", *arguments]

    def close(self) -> None:
        """Take the link away; idempotent."""
        for process in reversed(self._processes):
            process.kill()
            process.communicate()
        self._processes.clear()

    def _hold_namespace(self) -> str:
        """A process that does nothing in a new namespace until our end of its pipe closes."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(holder)
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            raise NetlabUnavailable("no network namespace could be made: run as root")
        return f"/proc/{holder.pid}/ns/net"

    def _start_emulator(self) -> None:
        spec = self.spec
        numbers = [spec.rtt_ms / 2, spec.loss, spec.rate_mbit, spec.queue_bytes, spec.mtu, spec.seed]
        emulator = subprocess.Popen(
            [str(build()), *self._namespaces, *map(str, numbers)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(emulator)
        assert emulator.stdout is not None
        if emulator.stdout.readline() != "ready\n":
            raise NetlabUnavailable("no TUN device could be made: run as root, with the module tun loaded")
        threading.Thread(target=self._watch, args=(emulator,), daemon=True).start()

    def _watch(self, emulator: subprocess.Popen[str]) -> None:
        assert emulator.stdout is not None
        try:
            for line in emulator.stdout:
                way, packets, lost, overflowed, mean, most, size = line.split()
                if way == "a>b":
                    self.seconds.append(
                        Second(
                            packets=int(packets),
                            lost=int(lost),
                            overflowed=int(overflowed),
                            queue_ms_mean=float(mean),
                            queue_ms_max=float(most),
                            bytes=int(size),
                        )
                    )
        except ValueError:
            return  # closed while we read

    def _configure(self, side: int) -> None:
        own, peer = self.addresses[side], self.addresses[1 - side]
        for words in (
            f"ip addr add {own} peer {peer} dev {DEVICE}",
            f"ip link set {DEVICE} mtu {self.spec.mtu} txqueuelen 10000 up",
            "ip link set lo up",
            f"ip route add default via {peer}",
        ):
            done = subprocess.run(self.command(side, words.split()), capture_output=True, text=True)
            if done.returncode:
                raise NetlabUnavailable(f"{words!r} failed: {done.stderr.strip()}")
