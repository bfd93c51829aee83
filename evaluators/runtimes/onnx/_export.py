"""Export of a compressed model as an ONNX file, for ONNX Runtime, OpenVINO, and other readers of QDQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._base import require

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant
    from .._gaps import NodePlace
    from .._lowering import Lowered
    from .._narrow import NarrowRule

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
    dynamic_from: int | None = None,
    places: list[NodePlace] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `out/model.onnx`; see `Runtime.export`. Raises `MissingExtra` where onnx or onnxscript is missing.

    guarded  for ONNX Runtime: keep it from quantizing FP32 weights by itself, see `quantize_guarded`, and write means
             as it has them in integers. OpenVINO does no such thing, computes a FakeQuantize that a Clamp follows
             slightly differently, and gets circular padding as slices
    narrow   which weight-only layers are written as codes; None: none
    dynamic_from  linear layers of so many channels, in and out, find the ranges of their inputs themselves and multiply
             integers, where the spec says "dynamic"; None: none
    places   gets the places of the graph's nodes, for messages; the file itself does not tell them
    metadata  entries of the file's `metadata_props`
    """
    require("exporting to ONNX", "onnx", "onnx", "onnxscript")
    import onnx_ir as ir

    from .._lowering import lower

    layers = lower(assignment, variants, calibration, narrow, dynamic_from)
    graph = build(model, layers, example_inputs, guarded=guarded, places=places)
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    graph.metadata_props.update(metadata or {})
    ir.save(graph, path)
    return path


def build(
    model: nn.Module,
    layers: Sequence[Lowered],
    example_inputs: Inputs,
    *,
    guarded: bool = True,
    places: list[NodePlace] | None = None,
) -> ir.Model:
    """Build the graph of `model` with these layers lowered. `guarded`, `places`: as for `export_onnx`.

    A dynamic layer whose weight has other uses than the module's own product is rounded in ordinary operations.
    """
    from .._lowering import prepare
    from ._dynamic import in_unknown_places
    from ._layers import fill_weights
    from ._means import means_in_codes
    from ._pads import wrap_by_slices
    from ._trace import quantize_guarded, quantize_in_graph, trace
    from ._uses import places_of

    ready = prepare(model, layers, quantize_guarded if guarded else quantize_in_graph)
    graph, open_weights = trace(ready, layers, example_inputs)
    if odd := in_unknown_places(layers, open_weights):
        plain = [replace(x, codes=None, scales=None) if x.fqn in odd else x for x in layers]
        return build(model, plain, example_inputs, guarded=guarded, places=places)
    fill_weights(graph, layers, open_weights)
    if guarded:
        means_in_codes(graph.graph)
    else:
        wrap_by_slices(graph.graph)
    if places is not None:
        places.extend(places_of(graph.graph))
    return finish(graph)


def finish(model: ir.Model) -> ir.Model:
    """Share equal quantizers; remove unused parts, and the exporter's notes, which hold paths of the building
    machine.
    """
    from onnx_ir.passes import common

    _share_quantizers(model.graph)
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    model.graph.name = "model"
    model.producer_name = "paredown"
    model.producer_version = ""
    return model


def _share_quantizers(graph: ir.Graph) -> None:
    """Share one QuantizeLinear (and DequantizeLinear) between equal quantizers of a tensor, side by side or in turn
    (which gives the same codes again).
    """
    seen: dict[object, ir.Value] = {}
    for node in tuple(graph):
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        params = tuple(_numbers(value) for value in node.inputs[1:])
        if None in params:
            continue
        if (same := _codes_again(node, params)) is not None:
            node.outputs[0].replace_all_uses_with(same, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            continue
        key = (node.op_type, node.inputs[0], params)
        first = seen.setdefault(key, node.outputs[0])
        if first is not node.outputs[0]:
            node.outputs[0].replace_all_uses_with(first, replace_graph_outputs=True)
            graph.remove(node, safe=True)


def _codes_again(node: ir.Node, params: object) -> ir.Value | None:
    """Codes that a QuantizeLinear makes again from their own decoded values."""
    above = None if node.inputs[0] is None else node.inputs[0].producer()
    if node.op_type != "QuantizeLinear" or above is None or above.op_type != "DequantizeLinear":
        return None
    return above.inputs[0] if tuple(_numbers(value) for value in above.inputs[1:]) == params else None


def _numbers(value: ir.Value | None) -> tuple[str, bytes] | None:
    if value is None or value.const_value is None:
        return None
    array = value.const_value.numpy()
    return str(array.dtype), array.tobytes()
