"""Connections between layers, where a change of form adds or saves a quantizer."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_QUIET = (
    "QuantizeLinear",
    "DequantizeLinear",
    "BatchNormalization",
    "Pad",
    "Transpose",
    "Reshape",
    "Unsqueeze",
    "Slice",
)
"""Operators that are ignored in comparing neighbourhoods: they are fused, or take next to no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """Connection: `reader` reads the output of `writer`, after these operators (joined by "-"; "" if directly)."""

    writer: str
    reader: str
    through: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Connections of a model.

    edges    between neighbouring layers
    tensors  layers that read the same tensor, for each tensor with several readers
    """

    edges: tuple[Edge, ...] = ()
    tensors: tuple[tuple[str, ...], ...] = ()


def wiring_of(graph: ir.Graph, opened: Mapping[str, str], numbers: Mapping[str, int], step: float) -> Wiring:
    """Find the connections in a traced graph in which each layer's weight is an input and each layer has a quantizer.

    opened   fqn -> name of the input that stands for its weight
    numbers  fqn -> its number; its quantizer's scale is (number + 1) * step
    """
    weights = {name: fqn for fqn, name in opened.items()}
    readers = {n: fqn for fqn, n in numbers.items()}
    sources: dict[int, list[str]] = {}
    values: dict[int, ir.Value] = {}
    for node in graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or node.inputs[1] is None:
            continue
        scale = node.inputs[1].const_value
        if scale is None:
            continue
        fqn = readers.get(round(float(scale.numpy().reshape(-1)[0]) / step) - 1)
        if fqn is not None:
            values[id(node.inputs[0])] = node.inputs[0]
            sources.setdefault(id(node.inputs[0]), []).append(fqn)
    edges: dict[Edge, None] = {}
    for key, fqns in sources.items():
        for writer, through in _writers(values[key], weights):
            for reader in fqns:
                edges.setdefault(Edge(writer=writer, reader=reader, through=through))
    tensors = tuple(tuple(dict.fromkeys(fqns)) for fqns in sources.values() if len(set(fqns)) > 1)
    return Wiring(edges=tuple(edges), tensors=tensors)


def _writers(value: ir.Value, weights: Mapping[str, str]) -> list[tuple[str, str]]:
    """Nearest layers upstream, each with the operators between, the reader's side last.

    Past one join (a sum of two branches) a layer is near no more, and a product of two activations parts neighbours.
    """
    found: dict[tuple[str, str], None] = {}
    seen: set[int] = set()
    queue: deque[tuple[ir.Value, tuple[str, ...], int]] = deque([(value, (), 0)])
    while queue:
        here, path, joins = queue.popleft()
        node = here.producer()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        layer = _layer_of(node, weights)
        if layer is not None:
            found.setdefault((layer, "-".join(path)))
            continue
        sources = [source for source in node.inputs if source is not None and source.const_value is None]
        joins += len(sources) > 1
        if node.op_type == "MatMul" or joins > 1:
            continue
        plain = node.op_type in _QUIET or (node.op_type in ("Add", "Mul", "Sub", "Div") and len(sources) == 1)
        queue += [(source, path if plain else (node.op_type, *path), joins) for source in sources]
    return list(found)


def _layer_of(node: ir.Node, weights: Mapping[str, str]) -> str | None:
    """Layer whose weight this node multiplies by, directly or behind a Transpose."""
    if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return None
    second = node.inputs[1]
    if second is not None and second.name not in weights and second.producer() is not None:
        transpose = second.producer()
        if transpose is not None and transpose.op_type == "Transpose":
            second = transpose.inputs[0]
    return weights.get(str(second.name)) if second is not None else None
