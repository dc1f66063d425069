"""What callers and hosts of experts say to each other.

A call has a header (one of the structs below, msgpack) and buffers (raw tensor bytes, described in the header). `call` is 16
random bytes made by the caller, the same for a forward and its backward, so that a retried backward is recognised.
Rows are `[rows, d_model]`; whatever shape the caller's activations had, it flattens them first.

Shapes: R rows, D d_model.

| method            | request header, buffers                           | reply header, buffers                  |
|-------------------|---------------------------------------------------|----------------------------------------|
| `expert.forward`  | ForwardRequest, [inputs_RD]                       | ExpertReply, [outputs_RD]              |
| `expert.backward` | BackwardRequest, [gradients_RD] or […, inputs_RD] | ExpertReply, [input_gradients_RD]      |
| `expert.weights`  | WeightsRequest                                    | ExpertState's, without its optimizer's |

The tensor of a reply to the first two has the dtype of the request's first. Refusals are CallRefused with one of the codes below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec
import torch
from msgspec import Meta

from agent.errors import ProtocolViolation
from agent.grid import ExpertId
from agent.tensors import TensorSpec, pack, unpack

FORWARD = "expert.forward"
BACKWARD = "expert.backward"
WEIGHTS = "expert.weights"
CALL_BYTES = 16
UID_LETTERS_MAX = 40

NOT_HOSTED = "not-hosted"
"""This host does not hold the expert (any more). Ask the directory again."""
INPUTS_GONE = "inputs-gone"
"""The inputs of the forward are no longer kept. Send the backward again, same call id, with `inputs`."""
OVERLOADED = "overloaded"
"""The queue is full, or the deadline passed in it. Nothing was computed; another time or another expert may do."""
BAD_TENSOR = "bad-tensor"
"""Shape, dtype or size is not what this expert takes, or a value is not finite. The same request will never do."""
NOT_FINITE = "not-finite"
"""The result or the gradient is not finite. No optimizer step was taken."""

REFUSALS = frozenset({NOT_HOSTED, INPUTS_GONE, OVERLOADED, BAD_TENSOR, NOT_FINITE})

Buffer = bytes | bytearray | memoryview
UidText = Annotated[str, Meta(max_length=UID_LETTERS_MAX)]
CallId = Annotated[bytes, Meta(min_length=CALL_BYTES, max_length=CALL_BYTES)]
Count = Annotated[int, Meta(ge=0, le=2**62)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class ForwardRequest(_Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Run expert `uid` on the rows that `tensor` describes. If `keep`, the host keeps them for the backward for a while."""

    uid: UidText
    call: CallId
    tensor: TensorSpec
    keep: bool = True


class BackwardRequest(_Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`gradient` is dL/d(outputs) of call `call`. `inputs` comes along only after the host refused with INPUTS_GONE."""

    uid: UidText
    call: CallId
    gradient: TensorSpec
    inputs: TensorSpec | None = None


class WeightsRequest(_Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Give a copy of expert `uid`'s weights as they are now; answered by ExpertState.encode()."""

    uid: UidText


class ExpertReply(_Message, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to forward and backward. The load fields let a caller adapt its deadlines and its choice."""

    tensor: TensorSpec
    version: Count
    """Optimizer steps that the expert has taken, this one included."""
    queue_rows: Count
    """Rows that wait for this host's compute, all its experts together."""
    queue_s: Seconds
    """What the host expects them to take, seconds."""


ForwardReply = ExpertReply
BackwardReply = ExpertReply

M = TypeVar("M", bound=_Message)


def encode(message: _Message) -> bytes:
    """The msgpack form of a header."""
    return msgspec.msgpack.encode(message)


def decode(header: Buffer, kind: type[M]) -> M:
    """Read and validate a header. Raises ProtocolViolation."""
    try:
        return msgspec.msgpack.decode(header, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ProtocolViolation(f"a badly formed {kind.__name__}: {e}") from None


def parse_uid(text: str) -> ExpertId:
    """The expert that a header names. Raises ProtocolViolation."""
    try:
        return ExpertId.parse(text)
    except ValueError as e:
        raise ProtocolViolation(str(e)) from None


def pack_forward(
    uid: ExpertId, call: bytes, inputs_RD: torch.Tensor, *, keep: bool = True, wire_dtype: str | None = None
) -> tuple[bytes, list[memoryview]]:
    """Header and buffers of an `expert.forward`; `keep` if a backward will follow."""
    spec, buffer = pack(inputs_RD, wire_dtype)
    return encode(ForwardRequest(str(uid), call, spec, keep)), [buffer]


def pack_backward(
    uid: ExpertId,
    call: bytes,
    gradients_RD: torch.Tensor,
    inputs_RD: torch.Tensor | None = None,
    *,
    wire_dtype: str | None = None,
) -> tuple[bytes, list[memoryview]]:
    """Header and buffers of an `expert.backward`; give `inputs_RD` only after a refusal with INPUTS_GONE."""
    gradient, buffer = pack(gradients_RD, wire_dtype)
    if inputs_RD is None:
        return encode(BackwardRequest(str(uid), call, gradient)), [buffer]
    inputs, inputs_buffer = pack(inputs_RD, wire_dtype)
    return encode(BackwardRequest(str(uid), call, gradient, inputs)), [buffer, inputs_buffer]


def unpack_reply(header: Buffer, buffers: Sequence[Buffer], *, shape: tuple[int, ...]) -> tuple[ExpertReply, torch.Tensor]:
    """Read an answer, as float32 of exactly `shape`. Raises ProtocolViolation if it is anything else."""
    reply = decode(header, ExpertReply)
    if len(buffers) != 1:
        raise ProtocolViolation(f"an expert's answer came with {len(buffers)} tensors instead of one")
    return reply, unpack(reply.tensor, memoryview(buffers[0]), shape=shape)
