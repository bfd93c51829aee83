"""Attention whose factors are rounded, as ONNX: two plain products with quantizers before both.

The exporter writes PyTorch's attention as one piece, with the scale between the quantizer of the queries and the
product, where ONNX Runtime finds no integer kernel. Here the scale stands behind the product, and the scores' quantizer
behind the softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ...compressors._attention import is_plain, plain_attention
from ._base import ExportError
from ._lowering import Lowered

_UINT8 = 2
"""onnx.TensorProto.UINT8"""
_INT8 = 3
_MIDDLE = 128
"""Zero point of a symmetric uint8 quantizer, which an int8 one with zero point 0 says as well."""


@torch.library.custom_op("paredown::quantize_dequantize", mutates_args=())
def quantize_dequantize(x: Tensor, scale: float, zero_point: int, signed: bool = False) -> Tensor:
    """One node in a traced model, so that it can be written as QuantizeLinear and DequantizeLinear.

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
    """How the exporter writes the two operations above."""
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


def round_scores(program: torch.export.ExportedProgram, layers: Sequence[Lowered]) -> None:
    """Puts the scores' quantizers of these layers into a traced program, in place: inside of PyTorch's attention, or
    behind the softmax, of the module's own forward.

    Raises `ExportError` naming the layer where there is neither.
    """
    graph = program.graph_module.graph
    for inside in dict.fromkeys(layer.product_in for layer in layers if layer.product_in is not None):
        mine = [layer for layer in layers if layer.product_in == inside]
        values = next((layer for layer in mine if layer.scores is not None), None)
        own = [node for node in graph.nodes if node.op == "call_function" and _module_of(node) == inside]
        n_rounded = sum(_rounded(graph, node, values) for node in own)
        if values is not None and n_rounded != 1:
            raise ExportError(
                f"{values.fqn} is to have its attention's products in integers, in {inside or 'the model'}, where the "
                f"traced model has {n_rounded} softmaxes instead of one; give the layer activation_scope 'layer'"
            )
    program.graph_module.recompile()


def _rounded(graph: fx.Graph, node: fx.Node, values: Lowered | None) -> bool:
    """Whether this is a softmax, or an attention: its scores are then rounded, if there are `values`."""
    step, zero_point = (values.scores if values is not None else None) or (0.0, 0)
    if node.target == torch.ops.aten.scaled_dot_product_attention.default:
        if not is_plain(*node.args, **node.kwargs):  # type: ignore[arg-type]
            return False
        given = {**dict(zip(("query", "key", "value"), node.args, strict=False)), **node.kwargs}
        scale = given.get("scale")
        size = int(given["query"].meta["val"].shape[-1])  # type: ignore[union-attr]
        factors = (given["query"], given["key"], given["value"])
        node.target = torch.ops.paredown.attention.default
        node.args = (*factors, float(size**-0.5 if scale is None else scale), step, zero_point)  # type: ignore[arg-type]
        node.kwargs = {}
        return True
    if node.target not in (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default):
        return False
    if step:
        with graph.inserting_after(node):
            new = graph.call_function(torch.ops.paredown.quantize_dequantize.default, (node, step, zero_point))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    return True


def _module_of(node: fx.Node) -> str | None:
    """fqn of the module in whose own forward the operation is called."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else None
