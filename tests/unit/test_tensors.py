"""Tensors on the wire."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProtocolViolation
from agent.tensors import DTYPES, ELEMENTS_MAX, TensorSpec, pack, unpack


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 5), max_size=6))
def test_every_dtype_and_shape_is_read_back(dtype: str, shape: list[int]) -> None:
    tensor = (torch.rand(shape) * 100 - 50).to(DTYPES[dtype])
    spec, buffer = pack(tensor)
    assert spec.nbytes == len(buffer)
    assert torch.equal(unpack(spec, bytes(buffer), dtype=None), tensor)


def test_casting_for_the_wire() -> None:
    tensor = torch.randn(7, 3)
    spec, buffer = pack(tensor.t(), "bfloat16")
    assert spec.dtype == "bfloat16" and len(buffer) == 42
    assert torch.equal(unpack(spec, buffer), tensor.t().bfloat16().float())


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        (TensorSpec("float64", (1,)), 8),
        (TensorSpec("float32", (-1,)), 4),
        (TensorSpec("float32", (1,) * 7), 4),
        (TensorSpec("float32", (ELEMENTS_MAX + 1,)), 4),
        (TensorSpec("float32", (2,)), 7),
        (TensorSpec("float32", (2,)), 9),
    ],
)
def test_a_description_that_does_not_fit_is_a_violation(spec: TensorSpec, size: int) -> None:
    with pytest.raises(ProtocolViolation):
        unpack(spec, bytes(size))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_values_that_are_not_finite_are_a_violation(value: float, dtype: str) -> None:
    spec, buffer = pack(torch.tensor([1.0, value]), dtype)
    with pytest.raises(ProtocolViolation, match="not finite"):
        unpack(spec, buffer)


def test_the_expected_shape_is_held() -> None:
    spec, buffer = pack(torch.zeros(3, 4))
    assert unpack(spec, buffer, shape=(None, 4)).shape == (3, 4)
    for shape in ((None, 5), (3,), (3, 4, 1)):
        with pytest.raises(ProtocolViolation, match="expected a tensor"):
            unpack(spec, buffer, shape=shape)
