"""Weights stored narrower than they are computed with: INT4 blocks, int8, FP16 and BF16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor

    from ....compressors import LayerSpec, Variant

Array = npt.NDArray[Any]

_FLOAT = 1
"""Code of FLOAT in onnx.TensorProto."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AloneWeight:
    """Weight (out, in, …) and its storage; the input of its layer is not quantized.

    values  codes within int4 or int8 (out, in), or the weight itself in its storage type
    scales  (out, groups) float32, or None where nothing is scaled
    block   weights of a row that share a scale, or None where the whole row does
    """

    fqn: str
    values: Array
    label: str
    scales: Array | None = None
    block: int | None = None
    is_int4: bool = False

    @classmethod
    def of(cls, fqn: str, spec: LayerSpec, variant: Variant, *, has_input_quantizer: bool) -> AloneWeight | None:
        """Storage of a weight; None where no form fits.

        That holds for: not a linear layer, codes with zero points or tables, low rank, a short last group, blocks of
        several rows, or groups of more than 4 bits (TensorRT's INT8 has no blocks).
        """
        shape = tuple(variant.effective.shape)
        if spec.rank < 1.0 or spec.weight_bits == 32:
            return None
        if spec.weight_bits == 16:
            return cls(fqn=fqn, values=_half(variant, spec), label=f"{spec.weight_format} weight, cast to FP32")
        if has_input_quantizer or spec.weight_format != "int" or len(shape) != 2:
            return None
        even = variant.even_codes()
        if even is None:
            return None
        codes, scales = even.signed()[0], even.scale
        block = int(spec.group_size) if scales.shape[1] > 1 else None
        is_int4 = spec.weight_bits <= 4
        if block is not None and (not is_int4 or shape[1] % block):
            return None
        return cls(
            fqn=fqn,
            values=codes.numpy(),
            scales=np.ascontiguousarray(scales.numpy(), np.float32),
            block=block,
            is_int4=is_int4,
            label=("INT4" if is_int4 else "int8") + (f" weight, blocks of {block}" if block else " weight per channel"),
        )

    @classmethod
    def dense(cls, fqn: str, effective: Tensor) -> AloneWeight:
        return cls(fqn=fqn, values=effective.detach().float().numpy(), label="FP32 weight")


def _half(variant: Variant, spec: LayerSpec) -> Array:
    import ml_dtypes

    values = variant.effective.detach().float().numpy()
    return values.astype(np.float16 if spec.weight_format == "fp16" else ml_dtypes.bfloat16)


def fill_alone(model: ir.Model, weights: Mapping[str, AloneWeight], open_weights: Mapping[str, ir.Value]) -> None:
    """Replace these open weights (see `onnx/_trace.py`), in place.

    Behind a Transpose that feeds products alone, and in a Gemm, the codes are written transposed, (in, out), so that a
    DequantizeLinear stands right before the product.
    """
    for fqn, weight in weights.items():
        if fqn not in open_weights:
            continue
        value = open_weights[fqn]
        for node, index in tuple(value.uses()):
            _fill(model.graph, weight, node, index)
        model.graph.inputs.remove(value)


def _fill(graph: ir.Graph, weight: AloneWeight, node: ir.Node, index: int) -> None:
    import onnx_ir as ir

    from ..onnx import feeds_matmuls, is_linear

    if weight.scales is not None and node.op_type == "Transpose" and feeds_matmuls(node):
        for matmul in tuple(node.outputs[0].consumers()):
            matmul.replace_input_with(1, _stored(graph, weight, matmul, transposed=True))
        graph.remove(node, safe=True)
    elif weight.scales is not None and node.op_type == "Gemm" and index == 1 and is_linear(node):
        node.replace_input_with(1, _stored(graph, weight, node, transposed=True))
        node.attributes["transB"] = ir.AttrInt64("transB", 0)
    else:
        node.replace_input_with(index, _stored(graph, weight, node, transposed=False))


def _stored(graph: ir.Graph, weight: AloneWeight, before: ir.Node, *, transposed: bool) -> ir.Value:
    """Weight as an initializer, with the nodes before `before` that convert it to FP32."""
    import ml_dtypes
    import onnx_ir as ir

    if weight.scales is None:
        stored = _initializer(graph, f"{weight.fqn}.weight_stored", weight.values)
        if weight.values.dtype == np.float32:
            return stored
        node = ir.node("Cast", [stored], {"to": _FLOAT})
    else:
        kind = ml_dtypes.int4 if weight.is_int4 else np.int8
        codes = weight.values.T if transposed else weight.values
        scales = weight.scales if weight.block is not None else weight.scales[:, 0]
        axis = 1 if transposed else 0  # the output channels
        attributes: dict[str, Any] = {"axis": axis}
        if weight.block is not None:
            scales = scales.T if transposed else scales
            attributes = {"axis": 1 - axis, "block_size": weight.block}
        inputs = [
            _initializer(graph, f"{weight.fqn}.weight_codes", np.ascontiguousarray(codes).astype(kind)),
            _initializer(graph, f"{weight.fqn}.weight_scales", np.ascontiguousarray(scales)),
            _initializer(graph, f"{weight.fqn}.weight_zeros", np.zeros(scales.shape, kind)),
        ]
        node = ir.node("DequantizeLinear", inputs, attributes)
    graph.insert_before(before, node)
    node.outputs[0].name = _fresh(graph, f"{weight.fqn}.weight_float")
    return node.outputs[0]


def _initializer(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    import onnx_ir as ir

    known = graph.initializers.get(name)
    if known is not None and known.const_value is not None:
        found = known.const_value.numpy()
        if found.dtype == array.dtype and found.shape == array.shape and found.tobytes() == array.tobytes():
            return known
        name = _fresh(graph, name)
    value = ir.val(name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def _fresh(graph: ir.Graph, name: str) -> str:
    taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
    candidate, n = name, 1
    while candidate in taken:
        n += 1
        candidate = f"{name}.{n}"
    return candidate
