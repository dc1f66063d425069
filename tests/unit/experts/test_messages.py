from __future__ import annotations

import msgspec
import pytest
import torch

from agent.errors import ProtocolViolation
from agent.experts import messages
from agent.experts.messages import BackwardRequest, ExpertReply, ForwardRequest, pack_backward, pack_forward, unpack_reply
from agent.grid import ExpertId
from agent.tensors import TensorSpec, pack, unpack

UID = ExpertId("ffn0", (3, 1))
CALL = bytes(range(16))


def test_a_forward_survives_the_wire() -> None:
    x = torch.randn(3, 8)
    header, buffers = pack_forward(UID, CALL, x, keep=False, wire_dtype="bfloat16")
    request = messages.decode(header, ForwardRequest)
    assert request == ForwardRequest("ffn0.3.1", CALL, TensorSpec("bfloat16", (3, 8)), False)
    assert messages.parse_uid(request.uid) == UID
    assert torch.equal(unpack(request.tensor, buffers[0]), x.bfloat16().float())


def test_a_backward_survives_the_wire() -> None:
    x, g = torch.randn(3, 8), torch.randn(3, 8)
    header, buffers = pack_backward(UID, CALL, g)
    assert messages.decode(header, BackwardRequest).inputs is None
    assert len(buffers) == 1
    header, buffers = pack_backward(UID, CALL, g, x)
    request = messages.decode(header, BackwardRequest)
    assert request.inputs is not None
    assert torch.equal(unpack(request.inputs, buffers[1]), x)


def test_a_reply_must_be_what_was_asked_for() -> None:
    y = torch.randn(3, 8)
    spec, buffer = pack(y)
    header = messages.encode(ExpertReply(spec, 4, 100, 0.5))
    reply, got = unpack_reply(header, [buffer], shape=(3, 8))
    assert (reply.version, reply.queue_rows, reply.queue_s) == (4, 100, 0.5)
    assert torch.equal(got, y)
    with pytest.raises(ProtocolViolation, match="expected a tensor"):
        unpack_reply(header, [buffer], shape=(4, 8))
    with pytest.raises(ProtocolViolation, match="2 tensors"):
        unpack_reply(header, [buffer, buffer], shape=(3, 8))


@pytest.mark.parametrize(
    "fields",
    [
        ["ffn0.3.1", CALL[:15], ["float32", [3, 8]]],
        ["ffn0.3.1", CALL + b"\0", ["float32", [3, 8]]],
        ["f" * 41, CALL, ["float32", [3, 8]]],
        ["ffn0.3.1", CALL, ["float32", [3, 8]], True, "more"],
        ["ffn0.3.1", CALL, ["float32", "3"]],
        ["ffn0.3.1", CALL],
        {"uid": "ffn0.3.1"},
        7,
    ],
)
def test_badly_formed_headers(fields: object) -> None:
    with pytest.raises(ProtocolViolation, match="badly formed ForwardRequest"):
        messages.decode(msgspec.msgpack.encode(fields), ForwardRequest)


def test_hostile_bytes() -> None:
    for header in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xa1\xff"):
        with pytest.raises(ProtocolViolation):
            messages.decode(header, BackwardRequest)
    with pytest.raises(ProtocolViolation):
        messages.parse_uid("../etc")
