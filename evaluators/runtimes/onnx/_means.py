"""Means over the positions between quantizers, in the form for which ONNX Runtime has an integer kernel (1.31).

It makes `QLinearGlobalAveragePool` of DequantizeLinear → GlobalAveragePool → QuantizeLinear, views in between being no
matter; the exporter writes a ReduceMean, and a ReLU before it that has nothing left to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

_POSITIONS = ([2, 3], [-2, -1])


def means_in_codes(graph: ir.Graph) -> None:
    """Write means of codes without negatives, followed by a quantizer, as pooling, and remove the ReLUs before them.

    In place; no number changes.
    """
    for node in tuple(graph):
        if node.op_type == "Relu" and _is_positive(node.inputs[0]):
            node.outputs[0].replace_all_uses_with(node.inputs[0], replace_graph_outputs=True)  # type: ignore[arg-type]
            graph.remove(node, safe=True)
    for node in tuple(graph):
        if node.op_type == "ReduceMean" and _is_pooling(node):
            _as_pooling(graph, node)


def _is_positive(value: ir.Value | None) -> bool:
    """Tell whether these are uint8 codes around zero, decoded."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or len(node.inputs) < 3:
        return False
    zero = node.inputs[2]
    if zero is None or zero.const_value is None:
        return False
    array = zero.const_value.numpy()
    return array.dtype == np.uint8 and not array.any()


def _is_pooling(mean: ir.Node) -> bool:
    source, axes = mean.inputs[0], mean.inputs[1] if len(mean.inputs) > 1 else None
    if source is None or source.shape is None or len(source.shape) != 4 or axes is None or axes.const_value is None:
        return False
    keepdims: int = mean.attributes.get_int("keepdims", 1)
    if axes.const_value.numpy().tolist() not in _POSITIONS or keepdims:
        return False
    readers = mean.outputs[0].consumers()
    made = source.producer()
    while made is not None and made.op_type == "Slice" and made.inputs[0] is not None:
        made = made.inputs[0].producer()
    in_codes = made is not None and made.op_type == "DequantizeLinear"
    quantized = bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
    return in_codes and quantized and not mean.outputs[0].is_graph_output()


def _as_pooling(graph: ir.Graph, mean: ir.Node) -> None:
    import onnx_ir as ir

    name = mean.outputs[0].name
    shape = ir.val(f"{name}_shape", const_value=ir.tensor(np.array([0, -1], np.int64), name=f"{name}_shape"))
    graph.register_initializer(shape)
    pool = ir.node("GlobalAveragePool", [mean.inputs[0]])
    flat = ir.node("Reshape", [pool.outputs[0], shape])
    pool.outputs[0].name, flat.outputs[0].name = f"{name}_pooled", f"{name}_flat"
    flat.outputs[0].type, flat.outputs[0].shape = mean.outputs[0].type, mean.outputs[0].shape
    graph.insert_before(mean, [pool, flat])
    mean.outputs[0].replace_all_uses_with(flat.outputs[0])
    graph.remove(mean, safe=True)
