"""Coupled sets from torch-pruning's dependency graph (Fang et al. 2023, "DepGraph"); the only file that imports it.

The graph is built from autograd's. It assumes that an unknown operation keeps channels in their place. So its sets are
proposals: `find` tries each one before it is used.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import torch
from torch import nn

from ...errors import InputError, MissingExtra
from ..anatomy import Inputs, compared_tensors, forward
from ..values import StructuralName
from ._narrow_attention import can_narrow
from ._sets import CoupledSet, Member

_MAKERS = (nn.modules.conv._ConvNd, nn.Linear, nn.Embedding)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(slots=True)
class Proposals:
    """Proposed sets, and the layers whose channels give none: name -> reason."""

    sets: list[CoupledSet] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def propose(model: nn.Module, inputs: Inputs, opaque: Iterable[str] = ()) -> Proposals:
    """Propose one set for each family of channels that convolutions, linear layers and embeddings make.

    opaque  fqns of modules whose channels another finder knows better; what would touch them is left out silently
    Raises `MissingExtra` without torch-pruning, `InputError` where the model cannot be traced.
    """
    graph, clone = _graph(model, inputs)
    names = {id(module): fqn for fqn, module in clone.named_modules()}
    parameters = {id(parameter): name for name, parameter in clone.named_parameters()}
    order = {fqn: i for i, (fqn, module) in enumerate(clone.named_modules()) if isinstance(module, _MAKERS)}
    hidden = set(opaque)
    found = Proposals()
    seen: set[int] = set()
    for module in list(graph.module2node):
        fqn = names.get(id(module))
        if fqn is None or fqn in hidden or id(module) in seen or not isinstance(module, _MAKERS):
            continue
        pruner = graph.get_pruner_of_module(module)
        n = pruner.get_out_channels(module)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its guesses are tried afterwards, so its doubts need not be told
                group = graph.get_pruning_group(module, pruner.prune_out_channels, list(range(n)))
            items = [_Item.of(graph, item, names, parameters) for item in group]
        except Exception as error:  # third-party code on a graph that it may not understand: the reason is reported
            found.left[fqn] = f"torch-pruning cannot follow its channels: {type(error).__name__}: {error}"
            continue
        seen.update(id(item.module) for item in items if item.makes)
        if any(item.makes and item.fqn in hidden for item in items):
            continue
        fqn = min((item.fqn for item in items if item.makes and item.fqn in order), key=order.__getitem__, default=fqn)
        if any(item.is_output for item in items):
            found.left[fqn] = "its channels reach the model's output"
            continue
        made = _set(fqn, n, items, clone)
        if isinstance(made, str):
            found.left[fqn] = made
        else:
            found.sets.append(made)
    found.sets = sorted(_merged(found.sets, clone), key=lambda made: order.get(made.fqn, 0))
    return found


def _merged(sets: list[CoupledSet], model: nn.Module) -> list[CoupledSet]:
    """Merge sets that lie in the same way in one tensor (a head tied to the embedding)."""
    homes: dict[tuple[int, int, tuple[int, ...], int], int] = {}
    tensors = dict(model.named_parameters(remove_duplicate=False))
    merged: list[CoupledSet] = []
    for coupled in sets:
        keys = [(id(tensors[m.tensor]), m.axis, m.offsets, m.width) for m in coupled.members if m.tensor in tensors]
        home = next((homes[key] for key in keys if key in homes), None)
        if home is None or merged[home].n_units != coupled.n_units:
            home = len(merged)
            merged.append(coupled)
        else:
            first = merged[home]
            kind = "hidden" if "hidden" in (first.kind, coupled.kind) else first.kind
            merged[home] = dataclasses.replace(
                first, name=str(StructuralName(kind, first.fqn)), kind=kind, members=first.members + coupled.members,
                norms=first.norms + coupled.norms, attention=first.attention + coupled.attention,
            )  # fmt: skip
        homes |= dict.fromkeys(keys, home)
    return merged


def _graph(model: nn.Module, inputs: Inputs) -> tuple[Any, nn.Module]:
    try:
        import torch_pruning
    except ImportError as error:
        raise MissingExtra(
            "coupled channels are found by torch-pruning, which is not installed: pip install 'paredown[structure]'"
        ) from error
    clone = copy.deepcopy(model).eval().requires_grad_(True)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        warnings.simplefilter("ignore")
        try:
            graph = torch_pruning.DependencyGraph().build_dependency(
                clone, inputs, forward_fn=lambda m, x: list(compared_tensors(forward(m, x)).values()), verbose=False
            )
        except InputError:
            raise
        except Exception as error:  # third-party code: whatever it raises, the model cannot be traced by it
            raise InputError(
                f"torch-pruning cannot trace {type(model).__name__}: {type(error).__name__}: {error}"
            ) from error
    return graph, clone


@dataclass(frozen=True, slots=True)
class _Item:
    """One module of a group, and the correspondence of its channels to the root's."""

    fqn: str
    module: Any
    makes: bool
    is_output: bool
    positions: tuple[int, ...]
    roots: tuple[int | None, ...]
    axis: int | None = None

    @classmethod
    def of(cls, graph: Any, item: Any, names: dict[int, str], parameters: dict[int, str]) -> _Item:
        dep, positions = item
        module = dep.target.module
        makes = bool(graph.is_out_channel_pruning_fn(dep.handler))
        is_parameter = isinstance(module, nn.Parameter)
        return cls(
            fqn=(parameters if is_parameter else names).get(id(module), ""),
            module=module,
            makes=makes,
            is_output=type(module).__name__ == "_OutputOp",
            positions=tuple(positions),
            roots=tuple(item.root_idxs),
            axis=dep.target.pruning_dim if is_parameter else None,
        )


def _set(root: str, n: int, items: Sequence[_Item], model: nn.Module) -> CoupledSet | str:
    """Set of a group, or the reason why there is none."""
    folds = [_groups_of(item) for item in items]
    fold = lcm(*folds)
    if fold > 1 and n % fold:
        return f"its {n} channels do not divide into {fold} groups"
    n_units = n // fold
    if n_units < 2:
        return "it has one unit only"
    members: dict[tuple[str, int], Member] = {}
    attention: dict[str, None] = {}
    norms: dict[str, Member] = {}
    kinds: set[str] = set()
    for item in items:
        if item.fqn == "" and not isinstance(item.module, _MAKERS):
            continue  # an operation, no module
        pattern = _pattern(item, n, n_units, fold)
        if isinstance(pattern, str):
            return f"{item.fqn}: {pattern}"
        tensors = _tensors(item)
        if isinstance(tensors, str):
            return f"{item.fqn}: {tensors}"
        offsets, width = pattern
        for tensor, axis, grouped in tensors:
            if grouped > 1:  # the inner axis of a grouped convolution has the channels of one group
                size = n_units * width
                offsets = tuple(sorted({offset % size for offset in offsets}))
            if max(offsets) + n_units * width > _size(item.module, tensor.rpartition(".")[2], axis):
                return f"what torch-pruning takes for the same channels does not fit {item.fqn}"
            role = "keeps" if _keeps(item.module) else "makes" if item.makes else "reads"
            members[tensor, axis] = Member(tensor=tensor, axis=axis, offsets=offsets, width=width, role=role)
        if isinstance(item.module, _NORMS):
            channel_axis = 1 if isinstance(item.module, nn.GroupNorm) else -1
            norms[item.fqn] = Member(tensor=item.fqn, axis=channel_axis, offsets=offsets, width=width)
        if (home := _own_norm(item, model)) is not None:
            norms[home] = Member(tensor=home, axis=-1, offsets=offsets, width=width)
        if isinstance(item.module, nn.MultiheadAttention):
            attention[item.fqn] = None
        kinds.add(_kind(item))
    if not members:
        return "it has no tensor"
    kind = "hidden" if norms or "embedding" in kinds or "parameter" in kinds else "channels"
    if kind == "channels" and kinds <= {"linear", ""}:
        kind = "neurons"
    return CoupledSet(
        name=str(StructuralName(kind, root or "model")), kind=kind, n_units=n_units, members=tuple(members.values()),
        norms=tuple(norms.values()), attention=tuple(attention),
    )  # fmt: skip


def _own_norm(item: _Item, model: nn.Module) -> str | None:
    """fqn of a custom module that has a weight (and bias) for each channel and nothing else.

    It is most likely a root-mean-square norm. A module that only scales is masked as a norm too, without harm.
    """
    if not isinstance(item.module, nn.Parameter) or item.module.ndim != 1:
        return None
    home = item.fqn.rpartition(".")[0]
    module = model.get_submodule(home)
    alone = not list(module.children()) and all(p.shape == item.module.shape for p in module.parameters())
    return home if home and alone else None


def _size(module: Any, leaf: str, axis: int) -> int:
    if isinstance(module, nn.MultiheadAttention) and leaf in ("weight", "bias"):
        module = module.out_proj
    value = module if isinstance(module, nn.Parameter) else getattr(module, leaf)
    return int(value.shape[axis])


def _groups_of(item: _Item) -> int:
    """Number of groups of channels that must stay equal in size: one for each group of a grouped convolution or group
    norm.
    """
    module = item.module
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
        return 1 if _is_depthwise(module) else int(module.groups)
    if isinstance(module, nn.GroupNorm):
        return int(module.num_groups)
    return 1


def _is_depthwise(module: nn.modules.conv._ConvNd) -> bool:
    return module.groups == module.in_channels == module.out_channels


def _keeps(module: Any) -> bool:
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups > 1 and _is_depthwise(module)
    return isinstance(module, (nn.modules.batchnorm._NormBase, nn.PReLU, *_NORMS))


def _kind(item: _Item) -> str:
    if isinstance(item.module, nn.Linear):
        return "linear"
    if isinstance(item.module, nn.Embedding):
        return "embedding"
    if isinstance(item.module, nn.Parameter):
        return "parameter"
    return "convolution" if isinstance(item.module, nn.modules.conv._ConvNd) else ""


def _pattern(item: _Item, n: int, n_units: int, fold: int) -> tuple[tuple[int, ...], int] | str:
    """(offsets, width), such that unit u has channels `o + u * width ...` of the module; or the reason why there is
    none.

    Unit u of a folded set is the channels u, u + n_units, … of the root, one of each group.
    """
    places: dict[int, list[int]] = {}
    for position, root in zip(item.positions, item.roots, strict=True):
        if root is None:
            return "torch-pruning lost track of its channels"
        places.setdefault(root, []).append(position)
    if len(places) != n:
        return f"only {len(places)} of {n} channels reach it"
    offsets: list[int] = []
    width = 0
    for part in range(fold):
        rows = [sorted(places[part * n_units + unit]) for unit in range(n_units)]
        lengths = {len(row) for row in rows}
        if len(lengths) != 1:
            return "its channels follow no regular pattern"
        # runs of neighbours within the first unit's positions: each begins at an offset
        starts = [p for p in rows[0] if p - 1 not in rows[0]]
        this = len(rows[0]) // len(starts)
        if width not in (0, this):
            return "its channels follow no regular pattern"
        width = this
        for unit, row in enumerate(rows):
            expected = sorted(start + unit * width + k for start in starts for k in range(width))
            if row != expected:
                return "its channels follow no regular pattern"
        offsets.extend(starts)
    return tuple(sorted(offsets)), width


def _tensors(item: _Item) -> list[tuple[str, int, int]] | str:
    """(name, axis, groups of the inner axis or 1) of each tensor of the module that has the channels."""
    module, prefix = item.module, f"{item.fqn}." if item.fqn else ""
    if isinstance(module, nn.Parameter):
        axis = item.axis if item.axis is not None else module.ndim - 1
        return [(item.fqn, axis % module.ndim, 1)]
    bias = [(f"{prefix}bias", 0, 1)] if getattr(module, "bias", None) is not None else []
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1 and _is_depthwise(module):
            return [(f"{prefix}weight", 0, 1), *bias]
        if module.transposed and module.groups > 1:
            return "a transposed convolution in groups is left alone"
        if item.makes:
            return [(f"{prefix}weight", 1 if module.transposed else 0, 1), *bias]
        return [(f"{prefix}weight", 0 if module.transposed else 1, module.groups)]
    if isinstance(module, nn.Linear):
        return [(f"{prefix}weight", 0, 1), *bias] if item.makes else [(f"{prefix}weight", 1, 1)]
    if isinstance(module, nn.Embedding):
        return [(f"{prefix}weight", 1, 1)]
    if isinstance(module, (nn.modules.batchnorm._NormBase, *_NORMS)):
        names = ("weight", "bias", "running_mean", "running_var")
        if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) != 1:
            return "a layer norm over several axes is left alone"
        return [(prefix + name, 0, 1) for name in names if getattr(module, name, None) is not None]
    if isinstance(module, nn.PReLU):
        return [(f"{prefix}weight", 0, 1)] if module.num_parameters > 1 else []
    if isinstance(module, nn.LSTM) and not item.makes:
        ends = ("", "_reverse") if module.bidirectional else ("",)
        return [(f"{prefix}weight_ih_l0{end}", 1, 1) for end in ends]
    if isinstance(module, nn.MultiheadAttention):
        if (reason := can_narrow(module)) is not None:
            return reason
        bias = [(f"{prefix}out_proj.bias", 0, 1)] if module.out_proj.bias is not None else []
        return [(f"{prefix}in_proj_weight", 1, 1), (f"{prefix}out_proj.weight", 0, 1), *bias]
    return f"{type(module).__name__} is left alone"
