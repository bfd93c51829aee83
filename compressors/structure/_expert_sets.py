"""Experts with a router as coupled sets.

The experts lie in one tensor along its first axis (Mixtral and others of transformers 5), or they are modules in a
list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy import Inputs, forward, masked_batch, module_at, preserved, real_rows, temporary_hooks
from ..values import StructuralName
from ._experts import _COUNTS, _TOP_K, alike, chooses_by_scores
from ._sets import Attribute, CoupledSet, Member
from ._trial import Trier


def find_expert_sets(model: nn.Module, inputs: Inputs) -> tuple[tuple[CoupledSet, ...], dict[str, str]]:
    """Find sets of the kind "experts" and return (sets, name -> reason why one is left alone).

    The floor of a set is the number of experts asked for a token. Each set is tried: its masked and its removed model
    must agree.
    """
    proposed, left = _packed(model)
    listed, why_not = _listed(model)
    left |= why_not
    found: list[CoupledSet] = []
    if not (proposed or listed):
        return (), left
    trier = Trier(model, inputs)
    for coupled in (*proposed, *listed):
        reason = trier.refuse([coupled])
        if reason is None:
            found.append(coupled)
        else:
            left[coupled.name] = reason
    return tuple(found), left


def _packed(model: nn.Module) -> tuple[list[CoupledSet], dict[str, str]]:
    found: list[CoupledSet] = []
    left: dict[str, str] = {}
    for fqn, module in model.named_modules():
        stacked = [value for value in module.parameters(recurse=False) if value.ndim == 3]
        n = stacked[0].shape[0] if stacked else 0
        if len(stacked) < 2 or n < 2 or any(value.shape[0] != n for value in stacked):
            continue
        home = fqn.rpartition(".")[0]
        name = str(StructuralName("experts", home or fqn))
        routers = [
            leaf
            for leaf, sibling in module_at(model, home).named_children()
            if sibling is not module and _chooses(sibling, n)
        ]
        if len(routers) != 1:
            left[name] = f"{len(routers)} modules beside {fqn} could be its router (a weight of {n} rows, and a top_k)"
            continue
        router = f"{home}.{routers[0]}" if home else routers[0]
        found.append(_set(model, name, n, home=home, holders=(router, fqn), router=router))
    return found, left


def _listed(model: nn.Module) -> tuple[list[CoupledSet], dict[str, str]]:
    found: list[CoupledSet] = []
    left: dict[str, str] = {}
    for home, module in model.named_modules():
        for leaf, experts in module.named_children():
            if not isinstance(experts, nn.ModuleList) or len(experts) < 2 or not alike(experts):
                continue
            n, prefix = len(experts), f"{home}." if home else ""
            siblings = [(name, child) for name, child in module.named_children() if child is not experts]
            routers = [name for name, child in siblings if chooses_by_scores(child, n) or _chooses(child, n)]
            if not routers:
                continue  # a list of blocks, most likely
            name = str(StructuralName("experts", home or leaf))
            top_k = max(_top_k(module), *(_top_k(module_at(model, prefix + router)) for router in routers))
            if len(routers) > 1:
                left[name] = f"{len(routers)} modules beside {prefix}{leaf} could be its router ({', '.join(routers)})"
            elif top_k == 0:
                left[name] = f"nothing says how many experts are asked for a token (none of {', '.join(_TOP_K)})"
            elif len({id(expert) for expert in experts}) < n:
                left[name] = "two of its experts are one module"
            else:
                router = prefix + routers[0]
                found.append(
                    _set(model, name, n, home=home, holders=(router,), router=router, listed=prefix + leaf, top_k=top_k)
                )
    return found, left


def routing_frequency(
    model: nn.Module, batches: Iterable[Inputs], sets: Sequence[CoupledSet], *, mask: str | None = None
) -> dict[str, Tensor]:
    """Name of a set of experts -> (n,) float64: share of all requests that goes to each expert.

    For a linear router, the experts of the highest scores count as requested.

    mask  name of the mask among the inputs (`anatomy.positions`): what it hides requests nothing
    """
    if not sets:
        return {}
    counts = {coupled.name: torch.zeros(coupled.n_units, dtype=torch.float64) for coupled in sets}

    def watch(coupled: CoupledSet) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(module, nn.Linear):
                output = output.topk(coupled.floor, dim=-1).indices
            for part in output if isinstance(output, tuple) else (output,):
                if isinstance(part, Tensor) and not part.is_floating_point():
                    counts[coupled.name] += torch.bincount(real_rows(part).flatten().cpu(), minlength=coupled.n_units)

        return hook

    with temporary_hooks() as hooks, preserved(model):
        hooks += [module_at(model, coupled.router).register_forward_hook(watch(coupled)) for coupled in sets]
        for inputs in batches:
            with masked_batch(model, inputs, mask):
                forward(model, inputs)
    return {name: count / count.sum().clamp(min=1.0) for name, count in counts.items()}


def _chooses(module: nn.Module, n: int) -> bool:
    weight = module._parameters.get("weight")
    return not isinstance(module, nn.Linear) and weight is not None and weight.shape[0] == n and _top_k(module) > 0


def _top_k(module: nn.Module) -> int:
    return next((int(getattr(module, name)) for name in _TOP_K if isinstance(getattr(module, name, None), int)), 0)


def _set(
    model: nn.Module, name: str, n: int, *, home: str, holders: Sequence[str], router: str, listed: str = "",
    top_k: int = 0,
) -> CoupledSet:  # fmt: skip
    """Set of one layer of experts.

    holders  fqns of the modules whose tensors lie expert by expert
    top_k    number of experts asked for a token, where the router does not store it
    """
    members = [
        Member(tensor=f"{fqn}.{leaf}" if fqn else leaf, axis=0)
        for fqn in holders
        for leaf, value in [*module_at(model, fqn)._parameters.items(), *module_at(model, fqn)._buffers.items()]
        if value is not None and value.ndim and value.shape[0] == n
    ]
    attributes = [
        Attribute(module=fqn, name=count, per_unit=1)
        for fqn in dict.fromkeys((home, *holders))
        for count in _COUNTS
        if getattr(module_at(model, fqn), count, None) == n
    ]
    return CoupledSet(
        name=name, kind="experts", n_units=n, members=tuple(members), attributes=tuple(attributes), router=router,
        listed=listed, floor=min(n, top_k or _top_k(module_at(model, router))),
    )  # fmt: skip
