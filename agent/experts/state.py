"""All that an expert is, so that it can move: weights, optimizer state and version, as plain tensors and msgpack. No pickles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import torch
from msgspec import Meta

from agent.errors import ProtocolViolation
from agent.tensors import TensorSpec, pack, unpack

TENSORS_MAX = 256
NAME_LETTERS_MAX = 200


class _Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Annotated[int, Meta(ge=0, le=2**62)]
    tensors: Annotated[
        tuple[tuple[Annotated[str, Meta(max_length=NAME_LETTERS_MAX)], TensorSpec], ...], Meta(max_length=TENSORS_MAX)
    ]


@dataclass(frozen=True, eq=False)
class ExpertState:
    """A copy of an expert's state; nothing that the expert does later changes it.

    `tensors` holds `weights/NAME` per parameter and, once it has learned, `first/NAME` and `second/NAME`: AdamW's moments.
    """

    version: int
    tensors: Mapping[str, torch.Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.nbytes for t in self.tensors.values())

    def encode(self) -> tuple[bytes, list[memoryview]]:
        """A msgpack header and one raw buffer per tensor, in the header's order."""
        packed = [(name, *pack(tensor)) for name, tensor in sorted(self.tensors.items())]
        header = _Header(self.version, tuple((name, spec) for name, spec, _ in packed))
        return msgspec.msgpack.encode(header), [buffer for _, _, buffer in packed]

    @classmethod
    def decode(cls, header: bytes, buffers: Sequence[bytes | bytearray | memoryview]) -> ExpertState:
        """Read what `encode` gave. Raises ProtocolViolation if it is badly formed or has values that are not finite.

        Whether names and shapes fit is for ExpertBackend.load to say.
        """
        try:
            head = msgspec.msgpack.decode(header, type=_Header)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
            raise ProtocolViolation(f"a badly formed expert state: {e}") from None
        if len(head.tensors) != len(buffers):
            raise ProtocolViolation(f"an expert state describes {len(head.tensors)} tensors and has {len(buffers)}")
        names = [name for name, _ in head.tensors]
        if len(set(names)) != len(names):
            raise ProtocolViolation("an expert state names a tensor twice")
        return cls(
            head.version,
            {name: unpack(spec, memoryview(b)) for (name, spec), b in zip(head.tensors, buffers, strict=True)},
        )
