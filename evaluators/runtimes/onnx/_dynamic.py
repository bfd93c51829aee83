"""Linear layers with input ranges found at run time, as a product of integers in ONNX Runtime.

What is written  step and zero point of each token (the values along the last axis) in ordinary operations, the codes by
                 one QuantizeLinear along that axis, the product by `MatMulIntegerToFloat`; what the zero points add,
                 zero * (sum of the weight's codes), is taken off behind it
Why not          DynamicQuantizeLinear: its range is that of the whole tensor, so that what a sample becomes would hang
                 on who else is in its batch; and MatMulInteger takes no zero point for each row (1.31)
Agrees with      `dynamic_quantize`, code for code; sums are exact in int32, and what follows is rounded as FP32 is
Speed            1024 x 4096: 3 to 6 times faster than FP32, where DynamicQuantizeLinear is 3.3 to 7 times; 384 x 384
                 with one row a quarter slower, with 16 rows a quarter faster; smaller layers are slower, so they stay
                 in FP32 (`OnnxRuntime(dynamic_from=)`). Never for convolutions: `ConvInteger` is slower than FP32
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._lowering import Lowered
from ._uses import CONTRIB, NodeWriter, belongs, feeds_matmuls, is_linear

if TYPE_CHECKING:
    import onnx_ir as ir


_UINT8, _STEPS = 2, 255
"""Code of UINT8 in onnx.TensorProto, and the number of steps of its range."""


def in_unknown_places(layers: Sequence[Lowered], open_weights: Mapping[str, ir.Value]) -> set[str]:
    """Find layers among those that would run so whose weight has any use but the module's one product.

    Such a use is in another module, or in this one under another name, where only a hook on the module knows that the
    input is rounded.
    """

    def known(node: ir.Node, index: int) -> bool:
        if node.op_type == "Transpose":
            return feeds_matmuls(node)
        return node.op_type == "Gemm" and index == 1 and is_linear(node)

    odd = set()
    for layer in layers:
        if layer.dynamic and layer.is_int8 and layer.fqn in open_weights:
            uses = open_weights[layer.fqn].uses()
            if not all(belongs(node, layer.fqn) and known(node, index) for node, index in uses):
                odd.add(layer.fqn)
    return odd


def write_dynamic(writer: NodeWriter, layer: Lowered, product: ir.Node) -> ir.Value:
    """Write the layer's product without its bias, in nodes before `product`, whose first input is rounded."""
    assert layer.codes is not None
    assert layer.scales is not None
    codes, scales = layer.codes.numpy(), layer.scales.numpy()

    def op(name: str, *inputs: ir.Value, domain: str = "", **attributes: Any) -> ir.Value:
        return writer.before(product, name, list(inputs), attributes, domain=domain)

    def number(name: str, value: Any) -> ir.Value:
        return writer.constant(f"dynamic_{name}", np.asarray(value))

    x = product.inputs[0]
    assert x is not None
    rows = op("Reshape", x, number("rows", np.array([-1, codes.shape[1]], np.int64)))
    last, nought = number("axis", np.array([1], np.int64)), number("nought", np.float32(0.0))
    low = op("Min", op("ReduceMin", rows, last, keepdims=1), nought)  # (rows, 1)
    high = op("Max", op("ReduceMax", rows, last, keepdims=1), nought)
    step = op("Div", op("Sub", high, low), number("steps", np.float32(_STEPS)))
    step = op("Max", step, number("tiny", np.finfo(np.float32).tiny))
    zero = op("Round", op("Div", op("Neg", low), step))
    flat = number("flat", np.array([-1], np.int64))
    given = op(
        "QuantizeLinear", rows, op("Reshape", step, flat), op("Cast", op("Reshape", zero, flat), to=_UINT8), axis=0
    )
    sums = codes.astype(np.int64).sum(axis=1) * scales.astype(np.float64)
    found = op(
        "MatMulIntegerToFloat", given,
        writer.constant(f"{layer.fqn}.weight_codes", codes.T), number("one", np.float32(1.0)),
        writer.constant(f"{layer.fqn}.weight_scales", scales.astype(np.float32)), domain=CONTRIB,
    )  # fmt: skip
    writer.uses_contrib()
    taken_off = op("Mul", zero, writer.constant(f"{layer.fqn}.weight_sums", sums.astype(np.float32)[None, :]))
    found = op("Mul", op("Sub", found, taken_off), step)
    return op("Reshape", found, _shape_of(op, number, x, codes.shape[0]))


def _shape_of(op: Any, number: Any, x: ir.Value, n_outputs: int) -> ir.Value:
    """Shape of x with the last axis replaced."""
    known = None if x.shape is None else [size if isinstance(size, int) else -1 for size in x.shape[:-1]]
    if known is not None and known.count(-1) <= 1:
        found: ir.Value = number("shape", np.array([*known, n_outputs], np.int64))
        return found
    before = op(
        "Slice", op("Shape", x), number("from", np.array([0], np.int64)), number("to", np.array([-1], np.int64))
    )
    found = op("Concat", before, number("outputs", np.array([n_outputs], np.int64)), axis=0)
    return found  # noqa: RET504 - typed by its first assignment
