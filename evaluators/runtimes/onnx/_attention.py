"""Quantizers of attention's scores in a traced model; `_operations.py` writes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from ....compressors.anatomy import is_plain
from .._base import ExportError
from .._lowering import Lowered
from . import _operations as _onnx_operations  # noqa: F401  (registers the operations)


def round_scores(program: torch.export.ExportedProgram, layers: Sequence[Lowered]) -> None:
    """Put the scores' quantizers of these layers into a traced program, in place: inside of PyTorch's attention, or
    behind the softmax, of the module's own forward.

    Raises `ExportError` naming the layer where there is neither.
    """
    graph = program.graph_module.graph
    for inside in dict.fromkeys(layer.product_in for layer in layers if layer.product_in is not None):
        mine = [layer for layer in layers if layer.product_in == inside]
        values = next((layer for layer in mine if layer.scores is not None), None)
        own = [node for node in graph.nodes if node.op == "call_function" and _module_of(node) == inside]
        n_rounded = sum(_rounded(graph, node, values) for node in own)
        if values is not None and n_rounded != 1:
            raise ExportError(
                f"{values.fqn} is to have its attention's products in integers, in {inside or 'the model'}, where the "
                f"traced model has {n_rounded} softmaxes instead of one; give the layer activation_scope 'layer'"
            )
    program.graph_module.recompile()


def _rounded(graph: fx.Graph, node: fx.Node, values: Lowered | None) -> bool:
    """Tell whether this is a softmax, or an attention: its scores are then rounded, if there are `values`."""
    step, zero_point = (values.scores if values is not None else None) or (0.0, 0)
    if node.target == torch.ops.aten.scaled_dot_product_attention.default:
        if not is_plain(*node.args, **node.kwargs):  # type: ignore[arg-type]
            return False
        given = {**dict(zip(("query", "key", "value"), node.args, strict=False)), **node.kwargs}
        scale = given.get("scale")
        size = int(given["query"].meta["val"].shape[-1])  # type: ignore[union-attr]
        factors = (given["query"], given["key"], given["value"])
        node.target = torch.ops.paredown.attention.default
        node.args = (*factors, float(size**-0.5 if scale is None else scale), step, zero_point)  # type: ignore[arg-type]
        node.kwargs = {}
        return True
    if node.target not in (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default):
        return False
    if step:
        with graph.inserting_after(node):
            new = graph.call_function(torch.ops.paredown.quantize_dequantize.default, (node, step, zero_point))
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
    return True


def _module_of(node: fx.Node) -> str | None:
    """fqn of the module in whose own forward the operation is called."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else None
