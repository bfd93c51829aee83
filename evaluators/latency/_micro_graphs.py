"""Small ONNX graphs of a few equal layers, in each form that may be fast."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

FORMS = ("fp32", "int8", "w4", "2:4", "zeros50", "zeros90", "rank25")
_BLOCK = 32
_OPSET, _OPSET_INT4 = 18, 21
"""Opset of the exporter, the first that has 4-bit weights."""
_SCALE = 0.05

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape:
    """Shape of a layer.

    operator  "conv2d" or "linear"
    weight    (out, in / groups, k, k), or (out, in)
    input     without the batch: (in, height, width), or (rows, in)
    n         number of such layers in a row; more than one needs as many channels out as in
    """

    operator: str
    weight: tuple[int, ...]
    input: tuple[int, ...]
    groups: int = 1
    stride: int = 1
    n: int = 1

    @property
    def label(self) -> str:
        if self.operator == "linear":
            return f"{self.input[0]} x {self.weight[1]} -> {self.weight[0]}"
        depthwise = f" g{self.groups}" if self.groups > 1 else ""
        size = "x".join(map(str, self.input[1:]))
        return f"{self.input[0]} -> {self.weight[0]} at {size} k{self.weight[2]}{depthwise}"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one of the layers."""
        if self.operator == "linear":
            return self.input[0] * prod(self.weight)
        return prod(self.weight) * self.positions

    @property
    def positions(self) -> int:
        """Rows, or pixels of the result: the number of uses of each weight."""
        if self.operator == "linear":
            return self.input[0]
        return prod(-(-side // self.stride) for side in self.input[1:])


_CONVS = tuple(
    LayerShape(operator="conv2d", weight=(c, c, k, k), input=(c, side, side), n=4)
    for c, side, k in ((16, 32, 3), (64, 8, 3), (64, 16, 1), (128, 14, 3))
)
_DEPTHWISE = (LayerShape(operator="conv2d", weight=(64, 1, 3, 3), input=(64, 25, 5), groups=64, n=4),)
_LINEARS = tuple(
    LayerShape(operator="linear", weight=(n, n), input=(rows, n), n=4)
    for rows, n in ((1, 256), (1, 1024), (99, 64), (128, 512))
)
STANDARD = (*_CONVS, *_DEPTHWISE, *_LINEARS)


def reason_against(shape: LayerShape, form: str) -> str | None:
    """Reason why the layer cannot have this form; None if it can."""
    columns = prod(shape.weight[1:])
    if form == "w4" and (shape.operator == "conv2d" or columns % _BLOCK):
        return f"4-bit weights are tried for linear layers whose inputs are a multiple of {_BLOCK}"
    if form == "2:4" and columns % 4:
        return "2:4 needs a multiple of four weights in a row"
    if form == "rank25" and (shape.groups > 1 or min(shape.weight[0], columns) < 8):
        return "there is no low rank to speak of"
    return None


def graph_of(shape: LayerShape, form: str) -> bytes:
    """Serialised model: input `x` (1, *shape.input), and a ReLU behind each layer.

    For int8 there is a quantizer before each layer and behind the last, which some runtimes need. `form`: one of
    `FORMS`, or `r12` for two factors of rank 12.
    """
    builder = _Builder()
    rng = np.random.default_rng(0)
    value = "x"
    for _ in range(shape.n):
        weight = (rng.standard_normal(shape.weight) / np.sqrt(prod(shape.weight[1:]))).astype(np.float32)
        if form == "int8":
            value = builder.rounded(value)
        value = builder.node("Relu", [_layer(builder, shape, form, value, _thinned(weight, form, rng))])
    if form == "int8":
        value = builder.rounded(value)
    return builder.model(value, shape.input)


def empty_graph() -> bytes:
    """Model of one ReLU on a tiny tensor, which measures the cost of a call."""
    builder = _Builder()
    return builder.model(builder.node("Relu", ["x"]), (8, 2, 2))


def chain_of_tiny(n: int) -> bytes:
    """Model of `n` 1 x 1 convolutions of eight channels on four pixels: n times nothing but overhead."""
    builder = _Builder()
    value = "x"
    for _ in range(n):
        value = builder.node("Conv", [value, builder.constant(np.full((8, 8, 1, 1), 0.1, np.float32))])
    return builder.model(value, (8, 2, 2))


def _layer(builder: _Builder, shape: LayerShape, form: str, value: str, weight: Array) -> str:
    rows = weight.reshape(len(weight), -1)
    by_rank = re.fullmatch(r"r(\d+)", form)
    kept = int(by_rank[1]) if by_rank else max(1, min(rows.shape) // 4)
    if shape.operator == "linear":
        if form == "int8":
            return builder.node("MatMul", [value, builder.int8(weight.T, axis=1)])
        if form == "w4":
            return builder.node("MatMul", [value, builder.int4(weight.T)])
        if form == "rank25" or by_rank:
            value = builder.node("MatMul", [value, builder.constant(rows[:kept].T)])
            return builder.node("MatMul", [value, builder.constant(rows[:, :kept].T)])
        return builder.node("MatMul", [value, builder.constant(weight.T)])
    sides, stride = [side // 2 for side in shape.weight[2:]], shape.stride
    facts: dict[str, Any] = {"pads": [*sides, *sides], "strides": [stride] * 2, "group": shape.groups}
    if form == "int8":
        return builder.node("Conv", [value, builder.int8(weight, axis=0)], **facts)
    if form == "rank25" or by_rank:
        value = builder.node("Conv", [value, builder.constant(weight[:kept])], **facts)
        return builder.node("Conv", [value, builder.constant(rows[:, :kept].reshape(*rows[:, :kept].shape, 1, 1))])
    return builder.node("Conv", [value, builder.constant(weight)], **facts)


def _thinned(weight: Array, form: str, rng: np.random.Generator) -> Array:
    if form == "2:4":
        fours = np.abs(weight.reshape(-1, 4))
        keep = np.argsort(np.argsort(fours, axis=1), axis=1) >= 2
        return (weight.reshape(-1, 4) * keep).reshape(weight.shape)
    if form.startswith("zeros"):
        return np.asarray(weight * (rng.random(weight.shape) >= int(form.removeprefix("zeros")) / 100), np.float32)
    return weight


class _Builder:
    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._opset = _OPSET

    def node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def constant(self, array: Array) -> str:
        from onnx import numpy_helper

        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def rounded(self, value: str) -> str:
        """Round to uint8 and back; behind a ReLU with zero at zero, or ONNX Runtime keeps the ReLU, and no kernel is
        int8.
        """
        zero_point = 128 if value == "x" else 0
        scale, zero = self.constant(np.array(_SCALE, np.float32)), self.constant(np.array(zero_point, np.uint8))
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [value, scale, zero]), scale, zero])

    def int8(self, weight: Array, *, axis: int) -> str:
        others = tuple(n for n in range(weight.ndim) if n != axis)
        scales = (np.abs(weight).max(axis=others) / 127.0).astype(np.float32)
        shaped = scales.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
        codes = np.rint(weight / shaped).astype(np.int8)
        inputs = [self.constant(codes), self.constant(scales), self.constant(np.zeros(scales.shape, np.int8))]
        return self.node("DequantizeLinear", inputs, axis=axis)

    def int4(self, weight: Array) -> str:
        """Quantize weight (in, out) to symmetric INT4, with a scale for each 32 inputs."""
        from onnx import TensorProto, helper

        blocks = weight.reshape(-1, _BLOCK, weight.shape[1])
        scales = (np.abs(blocks).max(axis=1) / 7.0).astype(np.float32)
        codes = np.rint(blocks / scales[:, None]).astype(np.int8).reshape(weight.shape)
        self._opset = _OPSET_INT4
        name = f"c{len(self._constants)}"
        self._constants.append(helper.make_tensor(name, TensorProto.INT4, codes.shape, codes.ravel().tolist()))
        return self.node("DequantizeLinear", [name, self.constant(scales)], axis=0, block_size=_BLOCK)

    def model(self, output: str, shape: tuple[int, ...]) -> bytes:
        from onnx import TensorProto, helper

        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * (1 + len(shape)))
        graph = helper.make_graph(self._nodes, "probe", [x], [y], self._constants)
        opset = [helper.make_opsetid("", self._opset)]
        made: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
        return made
