"""Tensors on the wire: a small description and the raw little-endian bytes. No pickles.

Every tensor that arrives is checked for dtype, shape, length and finiteness before anyone computes with it.
"""

from __future__ import annotations

import math
import warnings

import msgspec
import torch

from agent.errors import ProtocolViolation

DIMENSIONS_MAX = 6
ELEMENTS_MAX = 1 << 28
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}


class TensorSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`dtype` is a key of DTYPES; `shape` has at most DIMENSIONS_MAX sizes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the raw buffer. Raises ProtocolViolation if the description itself is not acceptable."""
        if self.dtype not in DTYPES:
            raise ProtocolViolation(f"unknown tensor dtype {self.dtype[:20]!r}")
        if len(self.shape) > DIMENSIONS_MAX or any(s < 0 for s in self.shape):
            raise ProtocolViolation(f"unacceptable tensor shape {self.shape[:8]}")
        elements = math.prod(self.shape)
        if elements > ELEMENTS_MAX:
            raise ProtocolViolation(f"a tensor of {elements} elements is too large")
        return elements * DTYPES[self.dtype].itemsize


def pack(tensor: torch.Tensor, wire_dtype: str | None = None) -> tuple[TensorSpec, memoryview]:
    """Describe `tensor` and give its bytes, cast to `wire_dtype` first if given. Copies only where it must."""
    dtype = DTYPES[wire_dtype] if wire_dtype else tensor.dtype
    name = next(n for n, d in DTYPES.items() if d == dtype)
    flat = tensor.detach().to(device="cpu", dtype=dtype).contiguous()
    spec = TensorSpec(name, tuple(flat.shape))
    raw = flat.reshape(-1).view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)
    return spec, raw.numpy().data


def unpack(
    spec: TensorSpec,
    buffer: memoryview | bytes,
    *,
    shape: tuple[int | None, ...] | None = None,
    dtype: torch.dtype | None = torch.float32,
) -> torch.Tensor:
    """Turn wire bytes into a tensor of `dtype` (None keeps the wire's), validated.

    `shape` is what the caller expects, None standing for any size. The result may share memory with `buffer`.
    Raises ProtocolViolation if anything is not as described, or a floating value is not finite.
    """
    if spec.nbytes != len(buffer):
        raise ProtocolViolation(f"a tensor {spec.dtype}{list(spec.shape)} came with {len(buffer)} bytes")
    if shape is not None and (
        len(shape) != len(spec.shape) or any(w is not None and w != s for w, s in zip(shape, spec.shape, strict=True))
    ):
        raise ProtocolViolation(f"expected a tensor of shape {list(shape)}, not {list(spec.shape)}")
    wire = DTYPES[spec.dtype]
    if len(buffer) == 0:
        return torch.empty(spec.shape, dtype=dtype or wire)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        tensor = torch.frombuffer(buffer, dtype=wire).reshape(spec.shape)
    if wire.is_floating_point and not bool(torch.isfinite(tensor).all()):
        raise ProtocolViolation("a tensor has values that are not finite")
    return tensor if dtype is None else tensor.to(dtype)
