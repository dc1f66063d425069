"""`hive-agent login`: sign this machine in to an account, by a code that is typed into a browser anywhere."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from agent.cli.options import add_settings, settle
from agent.errors import ConfigError, CoordinatorUnreachable, NotAdmitted
from agent.net.account import INTERVAL_MAX_S, SLOW_DOWN_S, Account, SignedIn
from agent.net.coordinator import Coordinator, CoordinatorConfig

EXAMPLE = "hive-agent login --coordinator https://hive.example.org"
LABEL_LENGTH_MAX = 60


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Sign this machine in to your account at a coordinator. Shows an address and a short code: open the one in any browser, "
        "type the other. Open experiments need no account; with one, the machine's work counts as yours."
    )
    add_settings(parser, ("coordinator", "state_dir"))
    parser.add_argument("--label", metavar="TEXT", help=f"what your account's pages call this machine ({socket.gethostname()})")


def run(args: argparse.Namespace) -> int:
    config = settle(args, needs_experiment=False)
    if os.environ.get("HIVE_TOKEN"):
        raise ConfigError("HIVE_TOKEN is set, and is what agents here use. Unset it to sign in with a code")
    coordinator = Coordinator(CoordinatorConfig(url=config.coordinator, state_dir=config.state_dir))
    account = Account(coordinator, config.state_dir)
    try:
        signed_in = asyncio.run(sign_in(account, args.label or socket.gethostname(), lambda line: print(line, flush=True)))
    except TimeoutError:
        raise NotAdmitted("nobody typed the code in time. Run hive-agent login again") from None
    print(f"signed in to {config.coordinator}" + (f" as {signed_in.account}" if signed_in.account else ""))
    return 0


async def sign_in(
    account: Account, label: str, say: Callable[[str], None], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> SignedIn:
    """Ask for a code, wait for a person to type it, and keep the account.

    Raises NotAdmitted if it is denied, TimeoutError if the code runs out, CoordinatorError, StorageError.
    """
    started = await account.start(label[:LABEL_LENGTH_MAX])
    say(f"open  {started.verification_uri}\ntype  {started.user_code}\n")
    say(f"or open {started.verification_uri_complete}")
    say(f"waiting, for {started.expires_in // 60} minutes at most; Ctrl-C gives up")
    interval_s, waited_s = float(started.interval), 0.0
    while waited_s < started.expires_in:
        await sleep(interval_s)
        waited_s += interval_s
        try:
            outcome = await account.poll(started)
        except CoordinatorUnreachable:  # RFC 8628 3.5: back off
            interval_s = min(2 * interval_s, INTERVAL_MAX_S)
            continue
        if isinstance(outcome, SignedIn):
            account.keep(outcome)
            return outcome
        if outcome == "access_denied":
            raise NotAdmitted("this machine was refused in the browser")
        if outcome == "slow_down":
            interval_s = min(interval_s + SLOW_DOWN_S, INTERVAL_MAX_S)
        elif outcome != "authorization_pending":
            break
    raise TimeoutError
