"""Weights of layers in the graph: int8 codes, narrow codes that are widened again, or two factors.

Works on what `_onnx_trace` leaves: each such weight is an open input of the graph. A use of it that we know (the weight
of a Conv or a Gemm, or of a MatMul behind a Transpose) gets the form that the runtimes have kernels for; for any other
use the same numbers are written in the plainest way: a weight in an unknown place costs speed and changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._base import ExportError
from .._lowering import Lowered
from .._narrow import NarrowWeight
from ._dynamic import write_dynamic
from ._uses import CONTRIB, belongs, feeds_matmuls, input_step, is_linear

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[Any]

_FLOAT = 1
"""Code of FLOAT in onnx.TensorProto."""

_FLOAT_PRODUCTS = 1
"""Accuracy level of MatMulNBits: inputs stay FP32. From 4 on ONNX Runtime rounds them to int8, 0.5 % off."""


@dataclass(frozen=True, slots=True, eq=False)
class _Norm:
    """BatchNormalization behind a convolution, as y = x * gain + shift per channel."""

    node: ir.Node
    gain: Array
    shift: Array


def fill_weights(
    model: ir.Model,
    layers: Sequence[Lowered],
    open_weights: Mapping[str, ir.Value],
    *,
    integer_bias: bool = True,
) -> None:
    """Replace the open weights of these layers, in place. After all of them the graph has only the model's own inputs.

    integer_bias  write the bias of an integer Gemm as int32 codes, which ONNX Runtime needs and TensorRT refuses
    """
    writer = Writer(model.graph, integer_bias=integer_bias)
    for layer in layers:
        if layer.fqn in open_weights:
            writer.fill(layer, open_weights[layer.fqn])


class Writer:
    def __init__(self, graph: ir.Graph, *, integer_bias: bool) -> None:
        self._graph = graph
        self._integer_bias = integer_bias
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}
        self._taken = {value.name for node in graph for value in node.outputs} | set(graph.initializers)
        self._taken |= {value.name for value in graph.inputs}

    def fill(self, layer: Lowered, weight: ir.Value) -> None:
        for node, index in tuple(weight.uses()):
            if not belongs(node, layer.fqn) or not self._fill_known(layer, node, index):
                self._fill_plain(layer, node, index)
        self._graph.inputs.remove(weight)

    def _fill_known(self, layer: Lowered, node: ir.Node, index: int) -> bool:
        if layer.half is not None:
            return False
        if layer.narrow is not None:
            narrow = layer.narrow
            return self._fill_product(node, index, lambda product: self._n_bits(layer, narrow, product))
        if layer.dynamic and layer.codes is not None:
            return self._fill_product(node, index, lambda x: write_dynamic(self, layer, x))
        if node.op_type == "Conv" and index == 1:
            self._conv(layer, node)
        elif node.op_type == "Gemm" and index == 1 and is_linear(node):
            self._gemm(layer, node)
        elif node.op_type == "Transpose" and feeds_matmuls(node):
            for matmul in tuple(node.outputs[0].consumers()):
                self._matmul(layer, matmul)
            self._graph.remove(node, safe=True)
        else:
            return False
        return True

    def _fill_product(self, node: ir.Node, index: int, write: Callable[[ir.Node], ir.Value]) -> bool:
        """Replace a linear layer's product by other operators, as `write` puts them before it; a Gemm's bias is
        added.
        """
        if node.op_type == "Transpose" and feeds_matmuls(node):
            for matmul in tuple(node.outputs[0].consumers()):
                self._swap(matmul, write(matmul))
            self._graph.remove(node, safe=True)
        elif node.op_type == "Gemm" and index == 1 and is_linear(node):
            product = write(node)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                product = self.before(node, "Add", [product, node.inputs[2]], {})
            self._swap(node, product)
        else:
            return False
        return True

    def _n_bits(self, layer: Lowered, weight: NarrowWeight, node: ir.Node) -> ir.Value:
        assert layer.effective is not None
        n, k = layer.effective.shape
        inputs = [
            node.inputs[0],
            self.constant(f"{layer.fqn}.weight_codes", weight.codes),
            self.constant(f"{layer.fqn}.weight_scales", weight.scales),
        ]
        if weight.zeros is not None:
            inputs.append(self.constant(f"{layer.fqn}.weight_zeros", weight.zeros))
        attributes = {
            "K": k,
            "N": n,
            "bits": weight.bits,
            "block_size": weight.block,
            "accuracy_level": _FLOAT_PRODUCTS,
        }
        self.uses_contrib()
        return self.before(node, "MatMulNBits", inputs, attributes, domain=CONTRIB)

    def uses_contrib(self) -> None:
        self._graph.opset_imports.setdefault(CONTRIB, 1)

    def _swap(self, node: ir.Node, new: ir.Value) -> None:
        """Replace the output of `node` by `new`."""
        old = node.outputs[0]
        new.type, new.shape = old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self._graph.remove(node, safe=True)

    def _fill_plain(self, layer: Lowered, node: ir.Node, index: int) -> None:
        if layer.codes is not None and layer.scales is not None:
            codes, scales = layer.codes.numpy(), layer.scales.numpy()
            node.replace_input_with(index, self._dequantized(layer.fqn, codes, scales, axis=0, before=node))
        elif layer.half is not None:
            stored = self.constant(f"{layer.fqn}.weight_half", _half_array(layer.half))
            node.replace_input_with(index, self.before(node, "Cast", [stored], {"to": _FLOAT}))
        else:
            assert layer.effective is not None
            node.replace_input_with(index, self.constant(f"{layer.fqn}.weight", layer.effective.numpy()))

    def _conv(self, layer: Lowered, conv: ir.Node) -> None:
        norm = _following_norm(conv)
        bias = _const(conv.inputs[2]) if len(conv.inputs) > 2 and conv.inputs[2] is not None else None
        if norm is not None and len(conv.inputs) > 2 and conv.inputs[2] is not None and bias is None:
            norm = None  # a bias that is computed in the graph: leave both alone
        gain = norm.gain if norm else np.ones(1)
        if norm is not None:
            shifted = norm.shift + (gain * bias.astype(np.float64) if bias is not None else 0.0)
            bias = np.asarray(shifted, np.float32)
        if layer.codes is not None and layer.scales is not None:
            codes, scales = _scaled_codes(layer.codes.numpy(), layer.scales.numpy(), gain)
            if layer.activation is not None and bias is not None and self._integer_bias:
                step = input_step(layer, conv) or min(step for step, _ in (layer.activation, *layer.calls))
                codes, scales = _room_for_bias(codes, scales, bias, step)
            conv.replace_input_with(1, self._dequantized(layer.fqn, codes, scales, axis=0, before=conv))
            last = conv
        else:
            last = self._two_convs(layer, conv, gain)
        if norm is not None and bias is not None:
            self._set_bias(last, self.constant(f"{layer.fqn}.bias_folded", bias))
            norm.node.outputs[0].replace_all_uses_with(last.outputs[0], replace_graph_outputs=True)
            self._graph.remove(norm.node, safe=True)

    def _two_convs(self, layer: Lowered, conv: ir.Node, gain: Array) -> ir.Node:
        """Write k x k to r channels, then 1 x 1 to all: the first replaces the old convolution, the second has its
        bias.
        """
        u, v = _factors(layer)
        kernel = tuple(layer.effective.shape[1:]) if layer.effective is not None else ()
        conv.replace_input_with(1, self.constant(f"{layer.fqn}.weight_v", v.reshape(-1, *kernel)))
        u = (u * gain[:, None]).astype(np.float32).reshape(*u.shape, *(1,) * (len(kernel) - 1))
        second = self._after(conv, "Conv", [self.constant(f"{layer.fqn}.weight_u", u)], {})
        second.outputs[0].type, second.outputs[0].shape = conv.outputs[0].type, conv.outputs[0].shape
        conv.outputs[0].shape = None  # it has r channels now
        if len(conv.inputs) > 2 and conv.inputs[2] is not None:
            self._set_bias(second, conv.inputs[2])
            conv.replace_input_with(2, None)
        return second

    def _gemm(self, layer: Lowered, gemm: ir.Node) -> None:
        """Write a product. Integer: with an integer bias too, or ONNX Runtime has no kernel for it. Low rank: with a
        MatMul before it.
        """
        if layer.codes is None or layer.scales is None:
            self._first_factor(layer, gemm)
            u, _ = _factors(layer)
            gemm.replace_input_with(1, self.constant(f"{layer.fqn}.weight_u", u))
            return
        codes, scales = layer.codes.numpy(), layer.scales.numpy()
        bias = _const(gemm.inputs[2]) if len(gemm.inputs) > 2 else None
        step = input_step(layer, gemm)
        if bias is not None and step is not None and self._integer_bias:
            bias = np.broadcast_to(bias, scales.shape)
            codes, scales = _room_for_bias(codes, scales, bias, step)
            steps = (scales.astype(np.float64) * step).astype(np.float32)
            inputs = [
                self.constant(f"{layer.fqn}.bias_codes", np.rint(bias / steps.astype(np.float64)).astype(np.int32)),
                self.constant(f"{layer.fqn}.bias_scales", steps),
            ]
            gemm.replace_input_with(2, self.before(gemm, "DequantizeLinear", inputs, {"axis": 0}))
        gemm.replace_input_with(1, self._dequantized(layer.fqn, codes, scales, axis=0, before=gemm))

    def _matmul(self, layer: Lowered, matmul: ir.Node) -> None:
        if layer.codes is not None and layer.scales is not None:
            codes, scales = layer.codes.numpy().T, layer.scales.numpy()
            matmul.replace_input_with(1, self._dequantized(layer.fqn, codes, scales, axis=1, before=matmul))
            return
        self._first_factor(layer, matmul)
        u, _ = _factors(layer)
        matmul.replace_input_with(1, self.constant(f"{layer.fqn}.weight_u", u.T))

    def _first_factor(self, layer: Lowered, node: ir.Node) -> None:
        """Write x @ V.T before a product; its second operand is then U.T instead of (U @ V).T."""
        _, v = _factors(layer)
        first = self.before(node, "MatMul", [node.inputs[0], self.constant(f"{layer.fqn}.weight_v", v.T)], {})
        node.replace_input_with(0, first)

    def _dequantized(self, fqn: str, codes: Array, scales: Array, *, axis: int, before: ir.Node) -> ir.Value:
        inputs = [
            self.constant(f"{fqn}.weight_codes", codes.astype(np.int8)),
            self.constant(f"{fqn}.weight_scales", scales.astype(np.float32)),
            self.constant(f"{fqn}.weight_zeros", np.zeros(scales.shape, np.int8)),
        ]
        value = self.before(before, "DequantizeLinear", inputs, {"axis": axis})
        value.name = self._fresh(f"{fqn}.weight")
        return value

    def before(
        self, node: ir.Node, op: str, inputs: Sequence[Any], attributes: dict[str, Any], *, domain: str = ""
    ) -> ir.Value:
        import onnx_ir as ir

        new = ir.node(op, inputs, attributes, domain=domain)
        self._graph.insert_before(node, new)
        new.outputs[0].name = self._fresh(f"{node.outputs[0].name}_{op.lower()}")
        return new.outputs[0]

    def _after(self, node: ir.Node, op: str, inputs: Sequence[Any], attributes: dict[str, Any]) -> ir.Node:
        """Put `op(node's output, *inputs)` behind `node`, for all its former consumers."""
        import onnx_ir as ir

        old = node.outputs[0]
        new = ir.node(op, [old, *inputs], attributes)
        new.outputs[0].name = self._fresh(f"{old.name}_{op.lower()}")
        old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
        new.replace_input_with(0, old)
        self._graph.insert_after(node, new)
        return new

    @staticmethod
    def _set_bias(conv: ir.Node, bias: ir.Value | None) -> None:
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias)

    def constant(self, name: str, array: Array) -> ir.Value:
        """Initializer of an array; the same numbers under the same name are written once."""
        import onnx_ir as ir

        array = np.ascontiguousarray(array)
        key = (f"{name}:{array.dtype}", array.tobytes(), array.shape)
        if key not in self._constants:
            name = self._fresh(name)
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            self._graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def _fresh(self, name: str) -> str:
        """Unused name: `name`, or `name.2` and so on where it is taken."""
        candidates = chain([name], (f"{name}.{i}" for i in count(2)))
        fresh = next(candidate for candidate in candidates if candidate not in self._taken)
        self._taken.add(fresh)
        return fresh


def _half_array(values: Tensor) -> Array:
    """Array in FP16 as numpy has it, or in BF16 as `ml_dtypes` has it."""
    if values.dtype == torch.float16:
        return values.numpy()
    import ml_dtypes

    return values.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _factors(layer: Lowered) -> tuple[Array, Array]:
    if layer.factors is None:
        raise ExportError(
            f"{layer.fqn} has neither codes nor factors, and its weight was opened; this is a fault of ours"
        )
    u, v = layer.factors
    return u.numpy(), v.numpy()


def _const(value: ir.Value | None) -> Array | None:
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def _following_norm(conv: ir.Node) -> _Norm | None:
    """BatchNormalization that is the only consumer of `conv`'s output."""
    output = conv.outputs[0]
    uses = tuple(output.uses())
    if output.is_graph_output() or len(uses) != 1 or uses[0][0].op_type != "BatchNormalization" or uses[0][1] != 0:
        return None
    node = uses[0][0]
    params = [_const(value) for value in node.inputs[1:5]]
    if any(param is None for param in params) or any(tuple(extra.uses()) for extra in node.outputs[1:]):
        return None
    weight, bias, mean, variance = (param.astype(np.float64) for param in params if param is not None)
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    gain = weight / np.sqrt(variance + epsilon)
    return _Norm(node, gain, bias - mean * gain)


def _scaled_codes(codes: Array, scales: Array, gain: Array) -> tuple[Array, Array]:
    """Fold gains into codes * scales per output channel, with positive scales: exact but for the rounding of a
    scale.
    """
    gain = np.broadcast_to(gain, scales.shape)
    column = (-1,) + (1,) * (codes.ndim - 1)
    new_scales = (scales.astype(np.float64) * np.abs(gain)).astype(np.float32)
    is_zero = new_scales < np.finfo(np.float32).tiny
    signs = np.where(is_zero, 0, np.sign(gain)).astype(np.int8).reshape(column)
    return codes * signs, np.where(is_zero, np.float32(1.0), new_scales)


def _room_for_bias(codes: Array, scales: Array, bias: Array, input_scale: float) -> tuple[Array, Array]:
    """Make codes coarser in channels whose bias would not fit into int32 in units of input_scale * scale.

    Runtimes store the bias of an integer convolution so, and a channel that batch norm has all but switched off
    (a gain near zero) overflows. What is lost is below 1e-6 of that channel's bias for each weight.
    """
    needed = np.abs(bias.astype(np.float64)) / (input_scale * 2.0**30)
    small = needed > scales
    if not small.any():
        return codes, scales
    new_scales = np.where(small, needed, scales).astype(np.float32)
    ratio = (scales.astype(np.float64) / new_scales).reshape((-1,) + (1,) * (codes.ndim - 1))
    return np.rint(codes * ratio).astype(np.int8), new_scales
