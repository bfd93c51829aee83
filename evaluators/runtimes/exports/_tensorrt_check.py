"""Checks of a file like those of TensorRT's parser, as far as that is possible without TensorRT."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import ExportError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from .._lowering import Lowered

MAX_OPSET = 24
"""Opsets of TensorRT 10.15; 10.0 accepts up to 20."""

UNSUPPORTED = frozenset(
    [
        "AffineGrid",
        "Bernoulli",
        "BitShift",
        "BitwiseAnd",
        "BitwiseNot",
        "BitwiseOr",
        "BitwiseXor",
        "Col2Im",
        "CenterCropPad",
        "Compress",
        "ConcatFromSequence",
        "ConvInteger",
        "DFT",
        "Det",
        "DynamicQuantizeLinear",
        "ImageDecoder",
        "MatMulInteger",
        "MaxRoiPool",
        "MelWeightMatrix",
        "Multinomial",
        "NegativeLogLikelihoodLoss",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "QLinearConv",
        "QLinearMatMul",
        "RegexFullMatch",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SequenceMap",
        "SoftmaxCrossEntropyLoss",
        "SplitToSequence",
        "StringNormalizer",
        "TfIdfVectorizer",
        "Unique",
    ]
)
"""Operators that the parser lacks, by onnx-tensorrt's docs/operators.md (TensorRT 10.15)."""


def is_two_to_four(weight: Tensor) -> bool:
    """Tell whether two or more of every four adjacent weights along the input channels are zero."""
    if weight.dim() < 2 or weight.shape[1] % 4 or not bool(weight.any()):
        return False
    fours = (weight != 0).transpose(1, -1).reshape(-1, 4)
    return bool((fours.sum(dim=1) <= 2).all())


def two_to_four(layer: Lowered) -> int | None:
    """Number of axes of a weight that has the pattern, or None."""
    if layer.effective is None or layer.factors is not None or not is_two_to_four(layer.effective):
        return None
    return layer.effective.dim()


def check_file(path: Path, patterns: Mapping[str, int]) -> int:
    """Check a file and return the opset. Raises `ExportError` where TensorRT would refuse it.

    patterns  layers whose weights are 2:4, which must be so in the file
    """
    import onnx

    model = onnx.load(path)
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the graph for TensorRT is not valid ONNX, which is a fault of ours: {error}") from error
    opset = _opset(model)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        _check_node(node, arrays)
    for fqn in patterns:
        _check_pattern(fqn, arrays)
    return opset


def _opset(model: onnx.ModelProto) -> int:
    domains = {entry.domain: entry.version for entry in model.opset_import}
    others = sorted(set(domains) - {""})
    if others or len(model.functions):
        raise ExportError(f"TensorRT has no operators of the domains {others}; use the format 'onnx' for this model")
    if domains[""] > MAX_OPSET:
        raise ExportError(f"opset {domains['']} is more than TensorRT 10 reads ({MAX_OPSET})")
    return int(domains[""])


def _check_node(node: onnx.NodeProto, arrays: Mapping[str, Any]) -> None:
    from onnx import numpy_helper

    if node.domain or node.op_type in UNSUPPORTED:
        raise ExportError(
            f"TensorRT's parser has no {node.domain or 'ai.onnx'}::{node.op_type} (node {node.name or node.output[0]}, "
            f"inputs {', '.join(node.input)}); rewrite that part of the model"
        )
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return
    zero = arrays.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None or np.any(numpy_helper.to_array(zero).astype(np.int32)):
        raise ExportError(f"the zero point of {node.name or node.output[0]} is not a stored 0, as TensorRT wants it")
    if numpy_helper.to_array(zero).dtype == np.uint8:
        raise ExportError(f"{node.name or node.output[0]} quantizes to uint8, which TensorRT does not")


def _check_pattern(fqn: str, arrays: Mapping[str, Any]) -> None:
    """Check the pattern. A weight in the file is (out, in, …), or of a product (in, out)."""
    import torch
    from onnx import numpy_helper

    for suffix in ("weight_codes", "weight_stored", "weight"):
        if f"{fqn}.{suffix}" not in arrays:
            continue
        weight = torch.from_numpy(numpy_helper.to_array(arrays[f"{fqn}.{suffix}"]).astype(np.float32))
        if is_two_to_four(weight) or (weight.dim() == 2 and is_two_to_four(weight.T)):
            return
        raise ExportError(f"{fqn} is 2:4 sparse, and in the file it is not, which is a fault of ours")
    raise ExportError(f"{fqn} is 2:4 sparse, and its weight cannot be found in the file to see whether it still is")
