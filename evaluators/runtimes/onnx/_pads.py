"""Padding moved behind the quantizer that it feeds, where the optimizer can fold it into the convolution."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


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
