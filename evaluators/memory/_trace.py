"""Trace of a model's activation graph by `torch.export`."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.symbolic_shapes import is_concrete_int, optimization_hint

from ..runtimes import export_program, with_batch
from ._liveness import ActivationGraph, Buffer, Step

if TYPE_CHECKING:
    from ...compressors import Anatomy, Inputs

_TRACED_BATCH = 2
"""Size of a free batch axis in `export_program`'s shapes."""

_ELEMENTWISE = (
    "relu", "relu6", "hardtanh", "leaky_relu", "clamp", "clamp_min", "clamp_max", "add", "sub", "mul", "div",
    "batch_norm", "_native_batch_norm_legit_no_training", "dropout", "gelu", "silu", "sigmoid", "tanh", "hardswish",
    "hardsigmoid", "neg", "exp", "sqrt", "rsqrt", "pow",
)  # fmt: skip
_FOLLOWS = (
    "relu", "relu6", "hardtanh", "leaky_relu", "clamp", "clamp_min", "clamp_max", "add", "batch_norm",
    "_native_batch_norm_legit_no_training", "dropout", "cat", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "pad", "constant_pad_nd", "clone",
    "contiguous", "upsample_nearest2d", "channel_shuffle", "pixel_shuffle", "hardswish",
)  # fmt: skip
"""Operations that runtimes compute directly on integers between two quantized layers."""


def trace_activations(model: nn.Module, inputs: Inputs, anatomy: Anatomy) -> ActivationGraph:
    """Trace the graph of a forward pass of *one sample*; `model` is left as it is.

    Parameters and buffers are no activations. Tensors that do not grow with the batch (positions, masks) are counted
    as if they did. Raises `ExportError` for a model that `torch.export` cannot trace.
    """
    program = export_program(model, with_batch(inputs, 1))
    given = {str(name) for name in program.graph_signature.user_inputs}
    return _Builder(given, set(anatomy.fqns)).build(program.graph)


class _Builder:
    """Builder that visits a graph once. `place`: node -> places of the buffers that it stands for."""

    def __init__(self, given: set[str], layers: set[str]) -> None:
        self.given, self.layers = given, layers
        self.buffers: list[Buffer] = []
        self.steps: list[Step] = []
        self.place: dict[fx.Node, tuple[int, ...]] = {}

    def build(self, graph: fx.Graph) -> ActivationGraph:
        inputs: list[int] = []
        outputs: list[int] = []
        for node in graph.nodes:
            if node.op == "placeholder":
                self.place[node] = self._new(node, node.meta.get("val")) if node.name in self.given else ()
                inputs += self.place[node]
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                outputs = list(dict.fromkeys(self._read(node)))
            else:  # a constant
                self.place[node] = ()
        return ActivationGraph(
            buffers=tuple(self.buffers), steps=tuple(self.steps), inputs=tuple(inputs), outputs=tuple(outputs)
        )

    def _new(self, node: fx.Node, value: Any) -> tuple[int, ...]:
        made = []
        for tensor in _tensors(value):
            bits = 0 if tensor.is_floating_point() else 8 * tensor.element_size()
            self.buffers.append(Buffer(name=node.name, elements=_elements(tensor), bits=bits))
            made.append(len(self.buffers) - 1)
        return tuple(made)

    def _read(self, node: fx.Node) -> list[int]:
        return [index for one in node.all_input_nodes for index in self.place.get(one, ())]

    def _call(self, node: fx.Node) -> None:
        reads = tuple(dict.fromkeys(self._read(node)))
        name = _op_name(node)
        if name == "getitem":
            source, index = node.args[0], node.args[1]
            places = self.place.get(source, ()) if isinstance(source, fx.Node) else ()
            self.place[node] = (places[index],) if isinstance(index, int) and len(places) > 1 else places
            return
        aliased = _aliased(node)
        if aliased is not None:
            self.place[node] = self.place.get(aliased, ())
            if not _mutates(node):
                return
            writes: tuple[int, ...] = ()
        else:
            writes = self.place[node] = self._new(node, node.meta.get("val"))
        self.steps.append(
            Step(
                name=node.name, reads=reads, writes=writes, layer=self._layer(node),
                follows=name.rstrip("_") in _FOLLOWS, elementwise=name.rstrip("_") in _ELEMENTWISE,
            )
        )  # fmt: skip

    def _layer(self, node: fx.Node) -> str | None:
        """Compressible layer whose module contains the operation."""
        stack = node.meta.get("nn_module_stack") or {}
        for path, _ in reversed(list(stack.values())):
            if (fqn := _plain(path)) in self.layers:
                return fqn
        return None


def _plain(path: str) -> str:
    """Normalise a name: `L['self'].features[0].conv` or `features.0.conv` -> `features.0.conv`."""
    text = path.removeprefix("L['self']").replace("slice(", "").lstrip(".")
    for old, new in (("._modules['", "."), ("['", "."), ("']", ""), ("[", "."), ("]", "")):
        text = text.replace(old, new)
    return text.lstrip(".")


def _elements(tensor: Tensor) -> int:
    """Elements for one sample: a free axis had size two in the trace."""
    free = any(not is_concrete_int(n) for n in tensor.shape)
    # `int` of a free axis would fix it for the rest of the graph
    return prod(optimization_hint(n) for n in tensor.shape) // (_TRACED_BATCH if free else 1)


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


def _op_name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.rpartition("::")[2]
    return getattr(target, "__name__", str(target))


def _alias_infos(node: fx.Node) -> list[tuple[int, Any]]:
    if not isinstance(node.target, torch._ops.OpOverload):
        return []
    schema = node.target._schema
    return [(i, a.alias_info) for i, a in enumerate(schema.arguments) if a.alias_info is not None]


def _aliased(node: fx.Node) -> fx.Node | None:
    """Argument whose memory the result shares (a view, or an operation in place); None if it has its own."""
    infos = _alias_infos(node)
    if not infos:
        return None
    returns = node.target._schema.returns  # type: ignore[union-attr]
    if not returns or returns[0].alias_info is None:
        return None
    index = infos[0][0]
    source = node.args[index] if index < len(node.args) else None
    return source if isinstance(source, fx.Node) else None


def _mutates(node: fx.Node) -> bool:
    return any(info.is_write for _, info in _alias_infos(node))
