"""A `torch.export` file as a module whose layers can be compressed.

What `ExportedProgram.module()` gives is a graph of `aten` calls over bare parameters: it runs, but has no `nn.Linear`
to point at. So each call of a linear, convolution or embedding whose weight is a parameter becomes a call of that
layer, under the layer's old name. The numbers do not change: the same operators run on the same tensors.
"""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TaskError

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

_KEY = "model.export"
_LAYER_KINDS = tuple(f"torch.nn.modules.{kind}." for kind in ("linear", "conv", "sparse"))
_HOW = "write it with torch.export.save(torch.export.export(model.eval(), ...), path)"


def load_export(path: Path) -> nn.Module:
    """The exported model, with `nn` layers.

    Raises `TaskError`: no such file, not an export, one that needs unpickling, train mode, a fixed batch.
    """
    import torch

    _check_archive(path)
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise TaskError(
            f"{_KEY}: {path.name} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())}; {_HOW}"
        ) from error
    _check_batch(program, path)
    graph_module = program.module(check_guards=False)
    graph = graph_module.graph
    _check_eval(graph, path)
    shared: dict[tuple[object, ...], str] = {}
    for node in list(graph.nodes):
        if node.op == "call_function":
            _as_layer(graph_module, node, shared)
    _plain_signature(graph)
    graph.eliminate_dead_code()
    model = torch.fx.GraphModule(
        graph_module, graph, class_name="Exported"
    )  # a fresh one: it can change its mode, the exported one cannot
    return model.eval()


def _check_archive(path: Path) -> None:
    """An export can carry pickles (sample inputs, odd tensors, objects); refuse any that hold more than tensors."""
    import torch

    if not path.is_file():
        raise TaskError(f"{_KEY}: there is no file {path}; a relative path starts at the task file's folder")
    if not zipfile.is_zipfile(path):
        raise TaskError(f"{_KEY}: {path.name} is not a torch.export file; {_HOW}")
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: name for name in archive.namelist()}
        if "archive_format" not in entries:
            what = "a pickled checkpoint (torch.save)" if "data.pkl" in entries else "another kind of archive"
            raise TaskError(f"{_KEY}: {path.name} is {what}, expected a torch.export file; {_HOW}")
        for entry, name in entries.items():
            if entry.startswith("data/aotinductor/"):
                raise TaskError(
                    f"{_KEY}: {path.name} holds compiled code (AOTInductor), which cannot be compressed; {_HOW}"
                )
            if entry.startswith("data/") and entry.endswith("_config.json"):
                payloads = json.loads(archive.read(name)).get("config", {})
                pickled = [key for key, payload in payloads.items() if payload.get("use_pickle")]
                if pickled:
                    raise TaskError(
                        f"{_KEY}: {path.name} holds {pickled[0]} as a pickle, and loading one can run code; "
                        f"export a model of plain tensors"
                    )
            if entry.startswith("data/") and entry.endswith(".pt"):
                try:
                    torch.load(BytesIO(archive.read(name)), weights_only=True)
                except Exception as error:
                    raise TaskError(
                        f"{_KEY}: {entry} in {path.name} is a pickle of more than tensors, and loading one can "
                        f"run code; {_HOW}"
                    ) from error


def _check_batch(program: torch.export.ExportedProgram, path: Path) -> None:
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if (
            node.op == "placeholder"
            and node.name in inputs
            and getattr(value, "shape", ())
            and isinstance(value.shape[0], int)
        ):
            raise TaskError(
                f"{_KEY}: {path.name} takes batches of exactly {value.shape[0]} (input {node.name}); "
                f"export it with dynamic_shapes={{{node.name!r}: {{0: torch.export.Dim.DYNAMIC}}}} and a batch "
                f"of 2 or more"
            )


def _check_eval(graph: fx.Graph, path: Path) -> None:
    for node in graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target)
        training = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}.get(name)
        if training is not None and len(node.args) > training and node.args[training] is True:
            raise TaskError(
                f"{_KEY}: {path.name} was exported in train mode ({name} is training); call model.eval() before "
                f"torch.export.export"
            )


def _as_layer(root: fx.GraphModule, node: fx.Node, shared: dict[tuple[object, ...], str]) -> None:
    """Replace one call by a module's call, if it is a layer: a known operator on a parameter named `….weight`."""
    operator = str(node.target).removeprefix("aten.").partition(".")[0]
    if operator not in ("linear", "conv1d", "conv2d", "embedding"):
        return
    arguments = _bound(node)
    weight = _parameter(root, arguments["weight"])
    bias = _parameter(root, arguments.get("bias"))
    if weight is None or (bias is None and arguments.get("bias") is not None):
        return
    (weight_name, weight_tensor), bias_tensor = weight, bias[1] if bias else None
    if not weight_name.endswith(".weight"):
        return
    layer = _layer(operator, weight_tensor, bias_tensor, arguments)
    key = (weight_name, id(bias_tensor), repr(layer))
    if key not in shared:
        shared[key] = _free_name(_module_of(node) or weight_name.removesuffix(".weight"), taken=set(shared.values()))
        _put(root, shared[key], layer)
    graph = node.graph
    inputs = arguments["indices" if operator == "embedding" else "input"]
    with graph.inserting_before(node):
        replacement = graph.call_module(shared[key], (inputs,))
    replacement.meta = dict(node.meta)
    node.replace_all_uses_with(replacement)
    graph.erase_node(node)


def _plain_signature(graph: fx.Graph) -> None:
    """Take and return values as they are, where inputs are flat and outputs are tensors in tuples, lists and dicts.

    The exported graph flattens and rebuilds both by pytree specs, which slow each call and cannot be copied. Only
    inputs that are nested, or outputs of a class of their own, need them.
    """
    import torch
    from torch.utils import _pytree as pytree

    info = graph._codegen.pytree_info if hasattr(graph._codegen, "pytree_info") else None
    if info is None or info.out_spec is None or len(info.orig_args) != info.in_spec.num_leaves:
        return
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    value = pytree.tree_unflatten(list(output.args[0]), info.out_spec)
    if not _is_plain(value):
        return
    output.args = (value,)
    graph.set_codegen(torch.fx.graph.CodeGen())


def _is_plain(value: object) -> bool:
    import torch

    if type(value) in (tuple, list):
        return all(_is_plain(item) for item in value)  # type: ignore[attr-defined]  # a tuple or a list
    if type(value) is dict:
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, (torch.fx.Node, int, float))


def _bound(node: fx.Node) -> dict[str, Any]:
    """The arguments of an aten call by name, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]  # an OpOverload: a call_function of an exported graph
    values = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    values |= {argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)}
    return values | dict(node.kwargs)


def _parameter(root: fx.GraphModule, node: object) -> tuple[str, nn.Parameter] | None:
    import torch

    if not isinstance(node, torch.fx.Node) or node.op != "get_attr":
        return None
    found: Any = root
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return (str(node.target), found) if isinstance(found, torch.nn.Parameter) else None


def _layer(operator: str, weight: nn.Parameter, bias: nn.Parameter | None, arguments: dict[str, Any]) -> nn.Module:
    """The `nn` layer of these arguments, holding these very parameters."""
    from torch import nn

    layer: nn.Module
    if operator == "linear":
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    elif operator == "embedding":
        padding = arguments.get("padding_idx", -1)
        layer = nn.Embedding(
            weight.shape[0], weight.shape[1], padding_idx=padding if padding >= 0 else None, device="meta"
        )
    else:
        convolution = nn.Conv1d if operator == "conv1d" else nn.Conv2d
        groups = arguments["groups"]
        layer = convolution(
            weight.shape[1] * groups,
            weight.shape[0],
            tuple(weight.shape[2:]),  # type: ignore[arg-type]  # one or two sizes, as the class wants
            stride=_spread(arguments["stride"], weight),
            padding=arguments["padding"]
            if isinstance(arguments["padding"], str)
            else _spread(arguments["padding"], weight),
            dilation=_spread(arguments["dilation"], weight),
            groups=groups,
            bias=bias is not None,
            device="meta",
        )
    layer.weight = weight
    if operator != "embedding":
        layer.bias = bias
    return layer


def _spread(value: Any, weight: nn.Parameter) -> Any:
    """aten takes one number for all axes (also as a list of one); `nn` wants one for each."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return tuple(values * (weight.dim() - 2)) if len(values) == 1 else tuple(values)


def _module_of(node: fx.Node) -> str | None:
    """The torch layer that made this call: where two share a weight, the weight's name tells only one of them.

    None for another module that uses the weight itself, as `nn.MultiheadAttention` does with its `out_proj`.
    """
    for name, kind in reversed(list(node.meta.get("nn_module_stack", {}).values())):
        kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
        return str(name) if name and kind.startswith(_LAYER_KINDS) else None
    return None


def _free_name(name: str, *, taken: set[str]) -> str:
    """The layer's old name, or (a weight used in two ways) the name with a number."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _put(root: fx.GraphModule, name: str, layer: nn.Module) -> None:
    """Put the layer where the bare parameters were; parents that had no tensors of their own are made."""
    try:
        old = root.get_submodule(name)
    except AttributeError:
        old = None
    for child_name, child in list(old.named_children()) if old is not None else []:
        layer.add_module(child_name, child)
    root.add_submodule(name, layer)
