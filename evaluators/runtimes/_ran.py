"""Kernels in which the layers of an exported model really ran, from the runtime's own report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._base import checked_threads

if TYPE_CHECKING:
    from ...compressors import Inputs

_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")
_MARK = ".weight"
"""Suffixes of a weight's constants: the exporter names them `FQN.weight…`, and PyTorch the weight itself
`FQN.weight`.
"""


def kernels_by_layer(
    path: Path, runtime: str, fqns: Iterable[str], one: Inputs | None = None, *, threads: int = 1
) -> dict[str, str]:
    """fqn -> `QLinearConv`, or `Convolution brgconv_avx512_I8 u8`, for the layers whose kernel can be identified.

    one  an input that the model can be run with; by default zeros of its shapes, free axes at 1
    Empty for a runtime that does not say what it runs. A layer whose weight was renamed or merged on the way is left
    out.
    """
    if runtime == "onnxruntime":
        return _in_onnxruntime(path, tuple(fqns), checked_threads(threads))
    if runtime == "openvino":
        return _in_openvino(path, tuple(fqns), one, checked_threads(threads))
    return {}


def is_integer(kernel: str) -> bool:
    """Tell whether a kernel of `kernels_by_layer` computes in int8."""
    parts = kernel.split()
    return kernel.startswith(("QLinear", "QGemm", "MatMulInteger", "ConvInteger")) or any(
        part in ("u8", "i8") or part.endswith("_I8") for part in parts
    )


def where_rounded(kernels: Iterable[str]) -> str:
    """Places where these integer kernels round differently from PyTorch's simulation, as a clause."""
    names = " ".join(kernels)
    found = []
    if any(name in names for name in ("QLinearConv", "QGemm")):
        found.append("biases are int32 in units of input scale × weight scale, half a unit off at most")
    if any(name in names for name in ("QLinear", "QGemm")):
        found.append("codes come from an integer sum times one scale, where PyTorch rounds an FP32 sum")
    else:
        found.append("sums are exact integers, times one scale, where PyTorch sums in FP32")
    return "; ".join(found)


def ran_otherwise(kernels: Mapping[str, str], integer: Mapping[str, bool]) -> dict[str, str]:
    """fqn -> the deviation, for layers that were to run in int8 (`integer`) and did not, or the other way round."""
    found = {}
    for fqn, kernel in kernels.items():
        if integer.get(fqn, False) and not is_integer(kernel):
            found[fqn] = f"was to run in int8, and ran in FP32 as {kernel}"
        elif not integer.get(fqn, False) and is_integer(kernel):
            found[fqn] = f"was to run in FP32, and ran in int8 as {kernel}"
    return found


def _in_onnxruntime(path: Path, fqns: Sequence[str], threads: int) -> dict[str, str]:
    import onnx

    from ._onnxruntime import OnnxRuntimeSession

    with tempfile.TemporaryDirectory(prefix="paredown-") as folder:
        seen = Path(folder) / "optimized.onnx"
        OnnxRuntimeSession(path, threads, seen)
        graph = onnx.load(seen).graph
    weights = {value.name for value in graph.initializer}
    found: dict[str, str] = {}
    by_output = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear", "Transpose"):
            continue
        for name in node.input:
            source = by_output.get(name)
            if source is not None and source.op_type in ("DequantizeLinear", "Transpose"):
                name = source.input[0]
            if name in weights and (fqn := _owner(name, fqns)) is not None:
                found.setdefault(fqn, node.op_type)
    return found


def _in_openvino(path: Path, fqns: Sequence[str], one: Inputs | None, threads: int) -> dict[str, str]:
    from ._openvino import OpenVinoSession, _core

    products: dict[str, str] = {}
    model = _core().read_model(path)
    for node in model.get_ordered_ops():
        if node.get_type_name() in _PRODUCTS and (fqn := _weight_of(node, fqns)) is not None:
            products[node.get_friendly_name()] = fqn
    session = OpenVinoSession(path, threads)
    session.run(_zeros(model) if one is None else one)
    found: dict[str, str] = {}
    for kernel in session.kernels():
        for name in (kernel["name"], *kernel["original"].split(",")):
            if name in products:
                found.setdefault(products[name], f"{kernel['type']} {kernel['kernel']} {kernel['precision']}")
    return found


def _zeros(model: Any) -> Inputs:
    import torch

    found = {}
    for port in model.inputs:
        shape = [1 if side.is_dynamic else side.get_length() for side in port.get_partial_shape()]
        kind = torch.float32 if port.get_element_type().is_real() else torch.int64
        found[port.get_any_name()] = torch.zeros(shape, dtype=kind)
    return found


def _weight_of(node: Any, fqns: Sequence[str]) -> str | None:
    """Layer whose weight's constant lies above the second input of a product."""
    above = [node.input_value(1).get_node()]
    while above:
        here = above.pop()
        if here.get_type_name() == "Constant":
            if (fqn := _owner(here.get_friendly_name(), fqns)) is not None:
                return fqn
            continue
        above += [here.input_value(n).get_node() for n in range(here.get_input_size())]
    return None


def _owner(name: str, fqns: Sequence[str]) -> str | None:
    return next((fqn for fqn in fqns if name.startswith(f"{fqn}{_MARK}")), None)
