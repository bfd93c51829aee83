"""Export of ONNX for TensorRT 10: explicit QuantizeLinear and DequantizeLinear, symmetric, standard operators only.

What it does   int8 weights per output channel and int8 activations per tensor, every zero point 0; before each
               convolution or product that the config quantizes, and on the residual that is added behind one. Weights
               alone: INT4 blocks (opset 21) and int8 for linear layers, FP16 and BF16 casts for all
Source         NVIDIA, "Explicit Quantization" (TensorRT 10 documentation) for the placement; onnx-tensorrt,
               docs/operators.md (TensorRT 10.15) for what the parser takes
We differ      no Q/DQ is added where the search has quantized nothing, but for residuals (`_tensorrt_graph`)
Not expressed  activations with a zero point (8 bits): the same range made symmetric, and noted. Weights in other
               formats (palettes, zero points, short last groups, …): dense FP32, exact, and noted. Dynamic ranges: an
               error
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .._base import ExportError, require
from ._format import Notes

if TYPE_CHECKING:
    from torch import nn

    from ....compressors import Calibration, Inputs, LayerSpec, Variant
    from .._lowering import Lowered
    from ._tensorrt_weights import AloneWeight

FORMAT = "tensorrt-onnx"
MAIN_FILE = "model.tensorrt.onnx"
"""Suffix that makes `OnnxRuntime` run the graph as written, without fusing or quantizing anything more."""

_SIGNED_ZERO = 128
"""Zero point of the unsigned 8-bit grid that is 0 on the signed one."""


def export_tensorrt(
    model: nn.Module,
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    example_inputs: Inputs,
    out: Path,
) -> Path:
    """Write `out/model.tensorrt.onnx` and the notes; see `Runtime.export`.

    The file is checked before this returns: ONNX's own checker and strict shape inference, operators, types and zero
    points that TensorRT takes, and 2:4 patterns that are still there. Raises `ExportError` naming layer and spec for
    what TensorRT cannot do; `MissingExtra` where onnx or onnxscript is missing.
    """
    require("exporting for TensorRT", "onnx", "onnx", "onnxscript")
    import onnx_ir as ir

    from .._lowering import prepare
    from ..onnx import fill_weights, finish, quantize_in_graph, trace, wrap_by_slices
    from ._tensorrt_check import check_file, two_to_four
    from ._tensorrt_graph import quantize_residuals, signed_quantizers
    from ._tensorrt_weights import fill_alone

    notes = Notes(format=FORMAT)
    layers, alone = lower_for_tensorrt(assignment, variants, calibration, notes)
    ready = prepare(model, layers, quantize_in_graph)
    graph, open_weights = trace(ready, layers, example_inputs)
    fill_weights(graph, [layer for layer in layers if layer.fqn not in alone], open_weights, integer_bias=False)
    fill_alone(graph, alone, open_weights)
    signed_quantizers(graph.graph)
    wrap_by_slices(graph.graph)
    finish(graph)
    notes.more["residuals"] = quantize_residuals(graph.graph)
    finish(graph)
    if any(weight.is_int4 for weight in alone.values()):
        _to_opset_21(graph)
    patterns = {layer.fqn: dim for layer in layers if (dim := two_to_four(layer)) is not None}
    notes.more["two_to_four"] = sorted(patterns)
    out.mkdir(parents=True, exist_ok=True)
    path = out / MAIN_FILE
    ir.save(graph, path)
    notes.more["opset"] = check_file(path, patterns)
    notes.save(out)
    return path


def lower_for_tensorrt(
    assignment: Mapping[str, LayerSpec],
    variants: Mapping[str, Variant],
    calibration: Calibration | None,
    notes: Notes,
) -> tuple[list[Lowered], dict[str, AloneWeight]]:
    """Lowered form of each layer that is not neutral, and the weights that are stored by themselves (weight-only)."""
    from ....compressors.values import is_inner
    from .._lowering import lower
    from ._tensorrt_check import is_two_to_four
    from ._tensorrt_weights import AloneWeight

    adapted = {fqn: _with_symmetric(fqn, spec, calibration, notes) for fqn, spec in assignment.items()}
    layers, alone = [], {}
    for layer in lower(adapted, variants, calibration):
        spec = assignment[layer.fqn]
        weight = None
        if layer.effective is not None and not layer.is_structured and not is_inner(layer.fqn):
            weight = AloneWeight.of(layer.fqn, spec, variants[layer.fqn], has_input_quantizer=spec.needs_range)
            if weight is None and is_two_to_four(layer.effective):
                weight = AloneWeight.dense(layer.fqn, layer.effective)
        if weight is not None:
            alone[layer.fqn] = weight
            layer = dataclasses.replace(layer, is_open=True)
        elif spec.weight_bits < 32 and not layer.is_structured:
            notes.fell_back(layer.fqn, f"{spec.weight_only.label()} has no form that TensorRT takes: dense FP32 weight")
        notes.written_as[layer.fqn] = _form(layer, weight)
        layers.append(layer)
    return layers, alone


def _with_symmetric(fqn: str, spec: LayerSpec, calibration: Calibration | None, notes: Notes) -> LayerSpec:
    """Spec with an input quantizer whose zero point is 0 in int8: an 8-bit one with another zero point becomes
    symmetric.
    """
    if not spec.changes_activation:
        return spec
    if not spec.needs_range:
        raise ExportError(
            f"{fqn} is {spec.label()}: TensorRT has no dynamic INT8 ranges; give the layer activation_scheme = "
            "'symmetric' (or leave its activation_bits at 32) and evaluate it again"
        )
    if spec.activation_bits != 8 or calibration is None:
        return spec  # narrower codes are clamped within [-64, 63] of the signed grid; without ranges, `lower` objects
    scale, zero_point = calibration.qparams(fqn, spec)
    if all(zero == _SIGNED_ZERO for _, zero in ((scale, zero_point), *calibration.call_qparams(fqn, spec))):
        return spec
    symmetric = dataclasses.replace(spec, activation_scheme="symmetric")
    wider, _ = calibration.qparams(fqn, symmetric)
    notes.fell_back(
        fqn,
        f"the activation's zero point {zero_point} became 0: the same range made symmetric, step {scale:.4g} -> "
        f"{wider:.4g}; search with activation_scheme = 'symmetric' to choose with it",
    )
    return symmetric


def _form(layer: Lowered, weight: AloneWeight | None) -> str:
    if layer.codes is not None:
        stored = "int8 weight per channel"
    elif layer.factors is not None:
        stored = "two FP32 factors"
    elif weight is not None:
        stored = weight.label
    else:
        stored = "FP32 weight"
    return stored + (", int8 input" if layer.activation is not None else "")


def _to_opset_21(model: object) -> None:
    """Convert to opset 21, which brought INT4 and blocks. From 20 on, only one operator of the exporter changed
    meaning.
    """
    import onnx_ir as ir

    assert isinstance(model, ir.Model)
    if any(node.op_type == "GroupNormalization" for node in model.graph):
        raise ExportError(
            "this model has a GroupNormalization, which means something else in opset 21, and INT4 weights need "
            "opset 21; give its linear layers weight_bits = 8 or activations of 8 bits"
        )
    model.graph.opset_imports[""] = 21
