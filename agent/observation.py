"""What the coordinator asks of its observer (agent/observer.py), and what that one found: JSON, one document each way.

Shared by coordinator and agent, so this module imports neither torch nor Django.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from agent.admission import Policy
from agent.manifest import BootstrapAddress, IceServer
from agent.reports import PeerText

CONTACTS_MAX = 16
EXPECTED_MAX = 5000


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Take a census of one experiment's overlay."""

    experiment: Annotated[str, Meta(min_length=1, max_length=63)]
    policy: Policy
    """Who may take part."""
    coordinator_key: PeerText
    """Signs manifests and certificates."""
    certificate: bytes = b""
    """Of the observer's admission."""
    key_file: str
    """The observer's own key; made on first use, and held while it runs."""
    ice_servers: tuple[IceServer, ...] = ()
    contacts: Annotated[tuple[BootstrapAddress, ...], Meta(min_length=1, max_length=CONTACTS_MAX)]
    expected: Annotated[tuple[PeerText, ...], Meta(max_length=EXPECTED_MAX)] = ()
    """Peers that are asked though no peer may name them."""
    budget_s: Annotated[float, Meta(gt=0, le=300)] = 40.0


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of it; if `error` is not empty, nothing but the sentence that it is. The fields are CensusReport's."""

    error: Annotated[str, Meta(max_length=300)] = ""
    peers: int = 0
    silent: int = 0
    missing: int = 0
    records: int = 0
    replicas: float = 0.0
    parts: tuple[int, ...] = ()
    complete: bool = False
    asked: int = 0
    seconds: float = 0.0
