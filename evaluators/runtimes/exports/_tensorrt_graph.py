"""Conversion of a graph's quantizers for TensorRT: signed, zero point 0, and on the residuals too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_MOVES = ("Slice", "Pad", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")
"""Operators that only move values (or add zeros): a quantizer may stand before or behind them."""
_PRODUCTS = ("Conv", "Gemm", "MatMul")


def signed_quantizers(graph: ir.Graph) -> None:
    """Convert every uint8 quantizer of an activation to an int8 one with zero point 0.

    The same numbers, because of what `lower_for_tensorrt` let through: zero point 128 of 8 bits, or codes that a clamp
    before it holds within [-128, 127] of the zero point.
    """
    import onnx_ir as ir

    zero: ir.Value | None = None
    for node in tuple(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.inputs) < 3:
            continue
        old = node.inputs[2]
        if old is None or old.const_value is None or old.const_value.dtype != ir.DataType.UINT8:
            continue
        if zero is None:
            zero = ir.val("int8_zero", const_value=ir.tensor(np.array(0, np.int8), name="int8_zero"))
            graph.register_initializer(zero)
        node.replace_input_with(2, zero)
        if node.op_type == "QuantizeLinear":
            node.outputs[0].type = ir.TensorType(ir.DataType.INT8)


def quantize_residuals(graph: ir.Graph) -> dict[str, Any]:
    """Quantize the other input of an addition behind a quantized product by the quantizer that its tensor has.

    TensorRT fuses the addition into an int8 convolution only where that input is int8 too. Nothing new is calibrated:
    where no quantizer stands on the tensor (a projection, or a layer that is left alone), it stays in floating point.
    Gives the number of both kinds. This is the one place where more is rounded than the search has rounded.
    """
    shared = left = 0
    for add in tuple(graph):
        if add.op_type != "Add" or len(add.inputs) != 2:
            continue
        behind = [i for i, value in enumerate(add.inputs) if value is not None and _is_quantized_product(value)]
        if not behind or any(value is None or value.const_value is not None for value in add.inputs):
            continue  # an addition of a bias is none of a residual
        if len(behind) == 2:
            left += 1
            continue
        if _share(add, 1 - behind[0]):
            shared += 1
        else:
            left += 1
    return {"quantized": shared, "floating_point": left}


def _is_quantized_product(value: ir.Value) -> bool:
    node = value.producer()
    if node is None or len(tuple(value.uses())) != 1:
        return False
    if node.op_type == "Add" and any(other is not None and other.const_value is not None for other in node.inputs):
        return any(
            other is not None and other.const_value is None and _is_quantized_product(other) for other in node.inputs
        )
    return node.op_type in _PRODUCTS and all(_is_dequantized(node.inputs[i]) for i in (0, 1))


def _is_dequantized(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _MOVES:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def _share(node: ir.Node, index: int) -> bool:
    """Follow the input back through operators that only move values; returns whether a quantizer was found (and is used
    now).
    """
    value = node.inputs[index]
    while value is not None:
        producer = value.producer()
        if producer is not None and producer.op_type == "DequantizeLinear":
            return True
        for quantizer, at in value.uses():
            readers = tuple(quantizer.outputs[0].consumers())
            if (quantizer.op_type, at) == ("QuantizeLinear", 0) and readers[0].op_type == "DequantizeLinear":
                _in_order(node, readers[0])
                node.replace_input_with(index, readers[0].outputs[0])
                return True
        if producer is None or producer.op_type not in _MOVES or len(tuple(value.uses())) != 1:
            return False
        node, index, value = producer, 0, producer.inputs[0]
    return False


def _in_order(node: ir.Node, dequantize: ir.Node) -> None:
    """Move the quantizer's two nodes before the node that reads them, if they stand behind it."""
    graph = node.graph
    assert graph is not None
    order = {each: n for n, each in enumerate(graph)}
    if order[dequantize] < order[node]:
        return
    quantize = dequantize.inputs[0].producer() if dequantize.inputs[0] is not None else None
    for each in (quantize, dequantize):
        if each is not None and order[each] > order[node]:
            graph.remove(each)
            graph.insert_before(node, each)
