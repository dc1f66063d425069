"""The host role: serves experts to callers near (this process) and far (the network).

(API first: bodies follow.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from agent.experts.state import ExpertState
from agent.grid import ExpertId
from agent.net.network import Network

LOCAL = b""
"""The caller's name on the path that does not cross the network."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What an expert computed, [rows, d_model], and the load fields of messages.ExpertReply."""

    tensor: Tensor
    version: int
    queue_rows: int
    queue_s: float


@dataclass(frozen=True, slots=True)
class HostedInfo:
    """One expert of this host: optimizer steps taken, rows served since it came here (forward, backward)."""

    version: int
    rows_forward: int
    rows_backward: int


class ExpertServer:
    """Serves experts. All methods belong to one event loop; computing happens in other threads.

    forward and backward raise CallRefused with a code of messages.REFUSALS. `deadline` is on the loop's clock. `caller` is a
    PeerId's bytes, or LOCAL. Tensors that are passed in must not be changed afterwards.
    """

    def __init__(self, config: object, factory: Callable[[ExpertId], object]) -> None: ...
    def register(self, network: Network) -> None: ...
    async def host(self, uid: ExpertId, state: ExpertState | None = None) -> None: ...
    async def drop(self, uid: ExpertId) -> ExpertState | None: ...
    def hosted(self) -> Mapping[ExpertId, HostedInfo]: ...

    async def forward(
        self, uid: ExpertId, call: bytes, inputs_RD: Tensor, *, deadline: float, keep: bool = True, caller: bytes = LOCAL
    ) -> Answer:
        raise NotImplementedError

    async def backward(
        self,
        uid: ExpertId,
        call: bytes,
        gradients_RD: Tensor,
        inputs_RD: Tensor | None = None,
        *,
        deadline: float,
        caller: bytes = LOCAL,
    ) -> Answer:
        raise NotImplementedError

    async def close(self) -> None: ...
