"""Custom operations of a traced model, each one node, and their ONNX form.

They are the fake quantizer of an activation, and plain attention whose scores may be rounded.

PyTorch's attention would be written as one piece, with the scale between the quantizer of the queries and the product,
where ONNX Runtime finds no integer kernel. Here the scale stands behind the product, and the scores' quantizer behind
the softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ....compressors.anatomy import plain_attention

_UINT8 = 2
"""Code of UINT8 in onnx.TensorProto."""
_INT8 = 3
_MIDDLE = 128
"""Zero point of a symmetric uint8 quantizer, equivalent to an int8 one with zero point 0."""


@torch.library.custom_op("paredown::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: float, zero_point: int, signed: bool = False) -> Tensor:
    """Round an activation in one node of a traced model, so that it can be written as QuantizeLinear and
    DequantizeLinear.

    `signed`: as int8 with zero point 0, where the zero point is in the middle. PyTorch's own
    `fake_quantize_per_tensor_affine` cannot be traced with a free axis (2.13).
    """
    return torch.fake_quantize_per_tensor_affine(x, scale, zero_point, 0, 255)


@quantize_dequantize.register_fake
def _(x: Tensor, scale: float, zero_point: int, signed: bool = False) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("paredown::attention", mutates_args=())
def _attention(query: Tensor, key: Tensor, value: Tensor, scale: float, step: float, zero_point: int) -> Tensor:
    """Plain attention; its scores are rounded to `step` and `zero_point` unless `step` is 0."""

    def rounded(scores: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(scores, step, zero_point, 0, 255) if step else scores

    return plain_attention(query, key, value, scale=scale, on_scores=rounded).contiguous()


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, scale: float, step: float, zero_point: int) -> Tensor:
    return query.new_empty((*query.shape[:-1], value.shape[-1]))


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Exporter's translations of the two operations above."""
    import onnxscript

    op: Any = onnxscript.opset18  # its stubs know tensors only, and this is written for the tracer

    def in_codes(x: Any, scale: float, zero_point: int, signed: bool = False) -> Any:
        signed = signed and zero_point == _MIDDLE
        step = op.Constant(value_float=scale)
        zero = op.Cast(op.Constant(value_int=0 if signed else zero_point), to=_INT8 if signed else _UINT8)
        return op.DequantizeLinear(op.QuantizeLinear(x, step, zero), step, zero)

    def attention(query: Any, key: Any, value: Any, scale: float, step: float, zero_point: int) -> Any:
        n = len(query.shape)
        turned = op.Transpose(key, perm=[*range(n - 2), n - 1, n - 2])
        scores = op.Softmax(op.Mul(op.MatMul(query, turned), op.Constant(value_float=scale)), axis=-1)
        return op.MatMul(in_codes(scores, step, zero_point) if step else scores, value)

    return {
        torch.ops.paredown.quantize_dequantize.default: in_codes,
        torch.ops.paredown.attention.default: attention,
    }
