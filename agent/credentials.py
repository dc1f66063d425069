"""What this agent shows to prove that it may take part: the coordinator's certificate, had once and renewed in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.admission import WORDS, Policy, Rule
from agent.errors import CoordinatorError, CoordinatorUnreachable, NotAdmitted, StorageError
from agent.identity import Identity
from agent.net.account import Account

log = logging.getLogger(__name__)

RENEW_PERIOD_S = 3600.0
"""How often it is looked whether the certificate has passed half of its days."""


class Credentials:
    """One agent's, in one experiment. `path` is where the certificate is kept; `token` may be empty."""

    def __init__(self, account: Account, rule: Rule, identity: Identity, *, token: str, path: Path) -> None:
        self.rule = rule
        self.certificate = b""
        """Shown to peers and to the coordinator; empty for an anonymous agent."""
        self._account = account
        self._identity = identity
        self._token = token
        self._path = path

    async def obtain(self, label: str = "") -> None:
        """Get a certificate if there is a token, and in any case find out whether this agent may take part.

        Raises NotAdmitted if it may not, CoordinatorUnreachable if nobody can say; never for an open experiment.
        """
        try:
            self.certificate = await self._obtained(label)
        except (CoordinatorError, StorageError) as e:
            if self.rule.policy != "open":
                raise
            log.warning("taking part anonymously: %s", e)

    def follow(self, policy: Policy) -> bool:
        """The organizer's newest word on who may take part. True if it is another."""
        if policy == self.rule.policy:
            return False
        self.rule = replace(self.rule, policy=policy)
        return True

    async def keep(self, present: Callable[[bytes], None]) -> None:
        """Renew the certificate while it still holds, and `present` each new one, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_PERIOD_S)
            shown = self.certificate
            try:
                self.certificate = await self._obtained("")
            except (CoordinatorError, StorageError) as e:
                log.warning("the certificate of admission is not renewed: %s", e)
            if self.certificate != shown:
                present(self.certificate)

    async def _obtained(self, label: str) -> bytes:
        if self._token:
            try:
                return await self._account.admission(self._identity, self.rule, self._token, label, path=self._path)
            except CoordinatorUnreachable as e:
                raise CoordinatorUnreachable(
                    f"{e} There is no certificate of admission to {self.rule.experiment} here to go on with."
                ) from None
        _, data = self._account.usable(self._identity, self.rule, self._path)
        if not data and self.rule.policy != "open":
            raise NotAdmitted(
                f"{self.rule.experiment} admits by {WORDS[self.rule.policy]}, and this agent has no account to be admitted by. "
                f"Ask at {self._account.url}/experiments/{self.rule.experiment}/join/, and run "
                f"hive-agent login --coordinator {self._account.url}, or set HIVE_TOKEN."
            )
        return data
