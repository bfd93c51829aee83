"""Trace of a prepared PyTorch model to a graph in which our layers' weights are still open.

The weight of a layer that we store in our own form is turned into an input of the graph before the optimizer runs:
what it cannot see it cannot fold, transpose or rename, and `_onnx_layers` then finds each weight by its fqn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ....compressors import Inputs
from ....compressors.values import is_inner
from .._base import ExportError
from .._lowering import Lowered
from .._program import export_program, first_line, output_names, quiet
from ._attention import round_scores
from ._operations import quantize_dequantize, translations
from ._pads import pad_after_quantizing

if TYPE_CHECKING:
    import onnx_ir as ir

_ASKS_FOR_MORE = ("attn_mask", "dropout_p", "is_causal", "enable_gqa")
"""Arguments of PyTorch's attention that its plain form lacks."""


def quantize_in_graph(x: Tensor, layer: Lowered) -> Tensor:
    """Fake quantizer of a layer's input, as `trace` expects it."""
    if layer.activation is None:
        return x
    scale, zero_point = layer.activation
    y: Tensor = quantize_dequantize(x, scale, zero_point, layer.of_product)
    return y


def quantize_guarded(x: Tensor, layer: Lowered) -> Tensor:
    """Fake quantizer like `quantize_in_graph`; where the weight stays in FP32, a clamp to the quantizer's range
    follows.

    It changes nothing, and it keeps ONNX Runtime's `WeightBiasQuantization` (seen in 1.31) from quantizing that weight
    too, by itself and per tensor, as it does to each FP32 Conv and Gemm between DequantizeLinear and QuantizeLinear.
    """
    if layer.activation is None:
        return x
    scale, zero_point = layer.activation
    y: Tensor = quantize_dequantize(x, scale, zero_point)  # an int8 first factor has no fast kernel there
    if layer.is_int8 or layer.of_product:
        return y
    return torch.clamp(y, min=-zero_point * scale, max=(255 - zero_point) * scale)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Exporter's translations of our operations, and of attention over three axes (it knows four only)."""
    import onnxscript
    from onnxscript.function_libs.torch_lib.ops.nn import aten_scaled_dot_product_attention as attention

    op: Any = onnxscript.opset18  # its stubs know tensors only, and this is written for the tracer

    def plain_attention(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> Any:
        """Attention without a mask, over any number of axes: one multiplication less than the exporter's own."""
        n, size = len(query.shape), query.shape[-1]
        scale = options.get("scale")
        given = [x for x in rest if x] + [options[name] for name in _ASKS_FOR_MORE if options.get(name)]
        if given or not isinstance(size, int):
            return attention(query, key, value, *rest, **options)
        step = op.Constant(value_float=size**-0.5 if scale is None else scale)
        turned = op.Transpose(key, perm=[*range(n - 2), n - 1, n - 2])
        return op.MatMul(op.Softmax(op.MatMul(op.Mul(query, step), turned), axis=-1), value)

    return {
        **translations(),
        torch.ops.aten.scaled_dot_product_attention.default: plain_attention,
    }


def trace(model: nn.Module, layers: Sequence[Lowered], example_inputs: Inputs) -> tuple[ir.Model, dict[str, ir.Value]]:
    """Optimized graph of a prepared model, and the open weights by their layers' fqns.

    A layer that influences no output is in no graph, and has no open weight.
    Raises `ExportError`, with PyTorch's own words, where the model cannot be traced or a layer is not in the graph.
    """
    program = export_program(model, example_inputs)
    round_scores(program, layers)
    with quiet():
        try:
            onnx_program = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                optimize=False,
                external_data=False,
                custom_translation_table=_translations(),
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(f"PyTorch could not write this model as ONNX: {_where(error, program)}") from error
        if onnx_program is None:
            raise ExportError("PyTorch could not write this model as ONNX: its exporter returned nothing")
        names = _names_of_weights(model)
        graph = onnx_program.model.graph
        _name_outputs(graph, output_names(program))
        open_weights = {
            layer.fqn: _open(graph, names, layer.fqn)
            for layer in layers
            if layer.is_structured and not _is_idle(program, names[layer.fqn])
        }
        onnx_program.optimize()
        if pad_after_quantizing(onnx_program.model.graph):
            onnx_program.optimize()
    return onnx_program.model, open_weights


def _name_outputs(graph: ir.Graph, names: Sequence[str] | None) -> None:
    """Give the outputs the names that they have in the model; a name that another value bears gets `_output`."""
    outputs = {id(value) for value in graph.outputs}
    values = [*graph.inputs, *graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    taken = {value.name for value in values if id(value) not in outputs}
    for value, name in zip(graph.outputs, names or (), strict=False):
        value.name = f"{name}_output" if name in taken else name


def _where(error: BaseException, program: torch.export.ExportedProgram) -> str:
    """Place of a failed export: the operation, the module that calls it, and the first cause; else what is known."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    found = next((match for each in chain if (match := re.search(r"translating node %(\w+)", str(each)))), None)
    if found is None:
        return first_line(chain[-1])
    node = _named(program, found[1]) or _named(program.run_decompositions(), found[1])  # the exporter decomposes too
    if node is None:
        return first_line(chain[-1])
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    fqn = stack[-1][0] if stack else ""
    return (
        f"{node.target} in {fqn or 'the forward of the model itself'} has no form there ({first_line(chain[-1])}); "
        "write that part of the model otherwise, or use the runtime 'torch', which needs no export"
    )


def _named(program: torch.export.ExportedProgram, name: str) -> torch.fx.Node | None:
    return next((node for node in program.graph.nodes if node.name == name), None)


def _names_of_weights(model: nn.Module) -> dict[str, list[str]]:
    """fqn -> possible names of its weight in the graph; a module reached by several names has several."""
    by_parameter: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_parameter.setdefault(id(parameter), []).append(name)
    return {
        name if is_inner(name) else name.removesuffix("weight").removesuffix("."): same
        for same in by_parameter.values()
        for name in same
    }


def _is_idle(program: torch.export.ExportedProgram, names: Sequence[str]) -> bool:
    """Tell whether no output of the program depends on the parameter with these names."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    named = program.graph_signature.inputs_to_parameters.items()
    mine = [placeholders[node] for node, name in named if name in names and node in placeholders]
    seen: set[torch.fx.Node] = set()
    while mine:
        node = mine.pop()
        if node.op == "output":
            return False
        if node not in seen:
            seen.add(node)
            mine += node.users
    return bool(seen)


def _open(graph: ir.Graph, names: dict[str, list[str]], fqn: str) -> ir.Value:
    for name in names[fqn]:
        if name in graph.initializers:
            value = graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
            return value
    raise ExportError(
        f"the weight of {fqn} is not in the exported graph (looked for {', '.join(names[fqn])}), so the layer cannot "
        "be stored as it was compressed; add it to [space] leave, or use the runtime 'torch'"
    )
