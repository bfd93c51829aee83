"""Roles of an ONNX graph's node for the layer whose weight it uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .._gaps import NodePlace

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from .._lowering import Lowered

CONTRIB = "com.microsoft"
_MOVES = ("Pad", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Expand", "Slice")
"""Operators that only move values, or add zeros."""


_SCOPES = "pkg.torch.onnx.name_scopes"
"""Key under which PyTorch's exporter notes the fqns of the modules that a node comes from."""


def belongs(node: ir.Node, fqn: str) -> bool:
    """Tell whether `node` comes from the forward of this very module; a weight can be used elsewhere too."""
    scopes = node.metadata_props.get(_SCOPES)
    return scopes is None or f"'{fqn}'" in scopes


def places_of(graph: ir.Graph) -> list[NodePlace]:
    """Place of each node, in order."""
    return [
        NodePlace(op_type=node.op_type, output=str(node.outputs[0].name), module=_module_of(node))
        for node in graph
        if node.outputs
    ]


def _module_of(node: ir.Node) -> str | None:
    """fqn of the innermost module whose forward a node comes from; the last of its scopes is the operation."""
    scopes = node.metadata_props.get(_SCOPES)
    names = [] if scopes is None else re.findall(r"'([^']*)'", scopes)
    return names[-2] if len(names) > 1 else None


def is_linear(gemm: ir.Node) -> bool:
    get = gemm.attributes
    alpha, beta = get.get_float("alpha", 1.0), get.get_float("beta", 1.0)
    return (alpha, beta, get.get_int("transA", 0), get.get_int("transB", 0)) == (1.0, 1.0, 0, 1)


def feeds_matmuls(transpose: ir.Node) -> bool:
    uses = tuple(transpose.outputs[0].uses())
    perm = transpose.attributes.get_ints("perm", None)
    swaps = perm is None or tuple(perm) == (1, 0)
    return swaps and bool(uses) and all(node.op_type == "MatMul" and index == 1 for node, index in uses)


def input_step(layer: Lowered, product: ir.Node) -> float | None:
    """Scale of the integer input of this use of a layer; None where it has none, or the graph does not show it.

    Uses of a layer that runs several times have one each, so it is read from the quantizer before the product.
    """
    if layer.activation is None or not layer.calls:
        return None if layer.activation is None else layer.activation[0]
    value = product.inputs[0]
    while value is not None and (above := value.producer()) is not None:
        scale = above.inputs[1] if above.op_type == "DequantizeLinear" else None
        if scale is not None:
            return None if scale.const_value is None else float(scale.const_value.numpy())
        if above.op_type not in _MOVES:
            return None
        value = above.inputs[0]
    return None


class NodeWriter(Protocol):
    """Puts nodes and constants into a graph."""

    def before(
        self, node: ir.Node, op: str, inputs: Sequence[Any], attributes: dict[str, Any], *, domain: str = ""
    ) -> ir.Value:
        """Insert a node before `node`, and return its output."""
        ...

    def constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Add an initializer, and return its value."""
        ...

    def uses_contrib(self) -> None:
        """Declare that the graph has operators of ONNX Runtime's own domain."""
        ...
