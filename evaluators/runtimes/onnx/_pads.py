"""Padding in the forms that the runtimes have: zeros behind the quantizer that they feed, where the optimizer can fold
them into the convolution; circular padding as slices and a Concat, for readers without that mode of Pad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_END = 2**62
"""End of a slice that goes to the end of its axis."""


def pad_after_quantizing(graph: ir.Graph) -> bool:
    """Change Pad, QuantizeLinear, DequantizeLinear to QuantizeLinear, DequantizeLinear, Pad; return whether there was
    any.

    A model that pads by itself (a "same" padding from TensorFlow, `nn.ZeroPad2d`) has the Pad between one layer and the
    quantizer of the next, and there no runtime runs the first layer as INT8. The numbers stay as they are: zero is a
    value of each of our quantizers.
    """
    moved = False
    for pad in tuple(graph):
        if pad.op_type == "Pad" and _is_of_zeros(pad) and (quantizers := _quantizers(pad)):
            for quantize, dequantize in quantizers:
                _swap(graph, pad, quantize, dequantize)
            graph.remove(pad, safe=True)
            moved = True
    return moved


def wrap_by_slices(graph: ir.Graph) -> None:
    """Replace each Pad of mode "wrap", whose sizes are known, by slices of the tensor's ends around it.

    As in PyTorch, what a negative size cuts off is gone before the other side is repeated.
    """
    for pad in tuple(graph):
        if pad.op_type != "Pad" or pad.attributes.get_string("mode", "constant") != "wrap":
            continue
        sizes, source = _sizes(pad), pad.inputs[0]
        if sizes is None or source is None:
            continue
        for axis, (before, behind) in sizes.items():
            source = _wrapped(pad, source, axis, before, behind)
        source.type, source.shape = pad.outputs[0].type, pad.outputs[0].shape
        pad.outputs[0].replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(pad, safe=True)


def _sizes(pad: ir.Node) -> dict[int, tuple[int, int]] | None:
    """Axis -> (added before, added behind), without axes that stay as they are; None where the graph computes them."""
    sizes, axes = (pad.inputs[i] if len(pad.inputs) > i else None for i in (1, 3))
    if sizes is None or sizes.const_value is None or (axes is not None and axes.const_value is None):
        return None
    numbers = [int(n) for n in sizes.const_value.numpy()]
    n = len(numbers) // 2
    known = range(n) if axes is None or axes.const_value is None else [int(a) for a in axes.const_value.numpy()]
    ends = zip(known, numbers[:n], numbers[n:], strict=True)
    return {axis: (before, behind) for axis, before, behind in ends if before or behind}


def _wrapped(pad: ir.Node, source: ir.Value, axis: int, before: int, behind: int) -> ir.Value:
    def cut(value: ir.Value, start: int, end: int) -> ir.Value:
        return _new(pad, "Slice", [value, *(_constant(pad, n) for n in (start, end, axis))], {})

    if before < 0 or behind < 0:
        source = cut(source, max(0, -before), behind if behind < 0 else _END)
    parts = [cut(source, -before, _END)] if before > 0 else []
    parts += [source, *([cut(source, 0, behind)] if behind > 0 else [])]
    return parts[0] if len(parts) == 1 else _new(pad, "Concat", parts, {"axis": axis})


def _new(pad: ir.Node, op: str, inputs: list[ir.Value], attributes: dict[str, int]) -> ir.Value:
    """Output of a new node before `pad`, which comes from the same module."""
    import onnx_ir as ir

    graph = pad.graph
    assert graph is not None
    node = ir.node(op, inputs, attributes)
    node.metadata_props.update(pad.metadata_props)
    graph.insert_before(pad, node)
    node.outputs[0].name = f"{pad.outputs[0].name}_{op.lower()}_{sum(1 for _ in graph)}"
    return node.outputs[0]


def _constant(pad: ir.Node, number: int) -> ir.Value:
    import numpy as np
    import onnx_ir as ir

    graph = pad.graph
    assert graph is not None
    name = f"wrap_at_{number}"
    if name not in graph.initializers:
        graph.register_initializer(ir.val(name, const_value=ir.tensor(np.array([number], np.int64), name=name)))
    return graph.initializers[name]


def _is_of_zeros(pad: ir.Node) -> bool:
    if pad.attributes.get_string("mode", "constant") != "constant":
        return False
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    return value is None or (value.const_value is not None and not value.const_value.numpy().any())


def _quantizers(pad: ir.Node) -> list[tuple[ir.Node, ir.Node]]:
    """QuantizeLinear nodes that read the padded tensor, each with its DequantizeLinear; empty if it has another
    consumer.
    """
    found = []
    for node, index in pad.outputs[0].uses():
        readers = tuple(node.outputs[0].consumers())
        if (node.op_type, index) != ("QuantizeLinear", 0) or [r.op_type for r in readers] != ["DequantizeLinear"]:
            return []
        found.append((node, readers[0]))
    return [] if pad.outputs[0].is_graph_output() else found


def _swap(graph: ir.Graph, pad: ir.Node, quantize: ir.Node, dequantize: ir.Node) -> None:
    import onnx_ir as ir

    before, old = pad.inputs[0], dequantize.outputs[0]
    new = ir.node("Pad", [old, *pad.inputs[1:]], pad.attributes)
    new.outputs[0].name = f"{old.name}_padded"
    new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
    old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    new.replace_input_with(0, old)
    quantize.replace_input_with(0, before)
    quantize.outputs[0].shape = old.shape = None if before is None else before.shape
    graph.insert_after(dequantize, new)
