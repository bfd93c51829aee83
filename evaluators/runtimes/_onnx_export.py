"""A compressed model as an ONNX file, for ONNX Runtime, OpenVINO, and whatever else reads QDQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ._base import require

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from ...compressors import Calibration, Inputs, LayerSpec, Variant
    from ._lowering import Lowered
    from ._narrow import NarrowRule

MAIN_FILE = "model.onnx"


def export_onnx(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
    *,
    guarded: bool = True,
    narrow: NarrowRule | None = None,
) -> Path:
    """Writes `out/model.onnx`; see `Runtime.export`. Raises `MissingExtra` where onnx or onnxscript is missing.

    guarded  keep ONNX Runtime from quantizing FP32 weights by itself, see `quantize_guarded`. OpenVINO does no such
             thing, and computes a FakeQuantize that a Clamp follows slightly differently
    narrow   which weight-only layers are written as codes; None: none
    """
    require("exporting to ONNX", "onnx", "onnx", "onnxscript")
    import onnx_ir as ir

    from ._lowering import lower

    graph = build(model, lower(assignment, variants, calibration, narrow), example_inputs, guarded=guarded)
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    ir.save(graph, path)
    return path


def build(model: nn.Module, layers: Sequence[Lowered], example_inputs: Inputs, *, guarded: bool = True) -> ir.Model:
    """The graph of `model` with these layers lowered."""
    from ._lowering import prepare
    from ._onnx_layers import fill_weights
    from ._onnx_trace import quantize_guarded, quantize_in_graph, trace

    ready = prepare(model, layers, quantize_guarded if guarded else quantize_in_graph)
    graph, open_weights = trace(ready, layers, example_inputs)
    fill_weights(graph, layers, open_weights)
    return finish(graph)


def finish(model: ir.Model) -> ir.Model:
    """Shares equal quantizers; removes what is unused, and the exporter's notes, which hold paths of this machine."""
    from onnx_ir.passes import common

    _share_quantizers(model.graph)
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.name = "model"
    model.producer_name = "paredown"
    model.producer_version = ""
    return model


def _share_quantizers(graph: ir.Graph) -> None:
    """One QuantizeLinear (and DequantizeLinear) where the same tensor is quantized alike twice."""
    seen: dict[object, ir.Value] = {}
    for node in tuple(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        params = tuple(_numbers(value) for value in node.inputs[1:])
        if None in params:
            continue
        key = (node.op_type, node.inputs[0], params)
        first = seen.setdefault(key, node.outputs[0])
        if first is not node.outputs[0]:
            node.outputs[0].replace_all_uses_with(first, replace_graph_outputs=True)
            graph.remove(node, safe=True)


def _numbers(value: ir.Value | None) -> tuple[str, bytes] | None:
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return str(array.dtype), array.tobytes()
