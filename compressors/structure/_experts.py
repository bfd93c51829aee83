"""Experts of a mixture-of-experts layer: drop, merge, or ask fewer of them at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SpecError
from ..anatomy import Inputs, forward, masked_batch, module_at, preserved, real_rows, temporary_hooks
from ._removal import Removal
from ._trial import Trier

_TOP_K = ("top_k", "topk", "k", "num_experts_per_tok", "n_active")
_COUNTS = ("n_experts", "num_experts", "num_local_experts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """Layer of experts.

    fqn             the layer
    experts         fqn of its `ModuleList`
    router          fqn of the linear layer that chooses, with one output for each of the `n` experts
    top_k           number of experts asked for a token, kept in the layer's attribute `top_k_name`
    count_names     the layer's attributes that hold `n`
    router_tensors  "weight", and "bias" where the router has one
    """

    fqn: str
    experts: str
    router: str
    n: int
    top_k: int
    top_k_name: str
    count_names: tuple[str, ...] = ()
    router_tensors: tuple[str, ...] = ("weight",)

    def keep(self, kept: Sequence[int], *, top_k: int | None = None) -> Removal:
        """Drop the other experts, and ask `top_k` of the kept ones (default: as many as before).

        Raises `SpecError` for an unknown expert, or fewer experts than are asked at a time.
        """
        kept, asked = tuple(sorted(kept)), self.top_k if top_k is None else top_k
        if not kept or len(set(kept)) != len(kept) or not 0 <= kept[0] <= kept[-1] < self.n:
            raise SpecError(f"{self.fqn} has the experts 0..{self.n - 1}, each once; got {list(kept)}")
        if not 1 <= asked <= min(self.top_k, len(kept)):
            raise SpecError(
                f"{self.fqn} asks {asked} experts for each token; of {len(kept)} that are kept, 1 to "
                f"{min(self.top_k, len(kept))} can be asked (it was made for {self.top_k})"
            )
        settings = {} if asked == self.top_k else {self.fqn: {self.top_k_name: asked}}
        if len(kept) == self.n:
            return Removal(settings=settings)
        return Removal(
            tensors={f"{self.router}.{leaf}": {0: kept} for leaf in self.router_tensors},
            settings=settings, experts={self.experts: kept},
            routers={self.router: kept}, attributes={self.fqn: dict.fromkeys(self.count_names, len(kept))},
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertEvidence:
    """Statistics of a layer of experts.

    frequency   (n,): share of tokens that ask the expert
    similarity  (n, n): mean cosine of two experts' outputs on the same tokens
    """

    frequency: Tensor
    similarity: Tensor


def find_experts(model: nn.Module, inputs: Inputs) -> tuple[tuple[Experts, ...], dict[str, str]]:
    """Find layers of experts and return (layers, fqn -> reason why one is left alone).

    Such a layer holds a `ModuleList` of like experts, a linear layer with one output for each, and the number that are
    asked. Each is tried: its masked and its removed model must agree.
    """
    found, left = [], {}
    trier: Trier | None = None
    for fqn, module in model.named_modules():
        for leaf, experts in module.named_children():
            if not isinstance(experts, nn.ModuleList) or len(experts) < 2 or not alike(experts):
                continue
            n, prefix = len(experts), f"{fqn}." if fqn else ""
            routers = [name for name, child in module.named_children() if chooses_by_scores(child, n)]
            if len(routers) != 1:
                continue  # a list of blocks, most likely
            top = next((name for name in _TOP_K if isinstance(getattr(module, name, None), int)), None)
            if top is None:
                left[fqn] = f"it does not say how many experts are asked (none of {', '.join(_TOP_K)})"
                continue
            layer = Experts(
                fqn=fqn, experts=prefix + leaf, router=prefix + routers[0], n=n, top_k=int(getattr(module, top)),
                top_k_name=top, count_names=tuple(name for name in _COUNTS if getattr(module, name, None) == n),
                router_tensors=tuple(name for name, _ in getattr(module, routers[0]).named_parameters()),
            )  # fmt: skip
            trier = trier or Trier(model, inputs)
            reason = _tried(trier, layer)
            if reason is None:
                found.append(layer)
            else:
                left[fqn] = reason
    return tuple(found), left


def expert_evidence(model: nn.Module, inputs: Inputs, layer: Experts, *, mask: str | None = None) -> ExpertEvidence:
    """Collect evidence from the tokens that reach the layer on `inputs`.

    mask  name of the mask among the inputs (`anatomy.positions`): what it hides does not count
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        tokens, logits = real_rows(args[0]), real_rows(output)
        seen.append((tokens.reshape(-1, tokens.shape[-1]), logits.reshape(-1, layer.n)))

    with temporary_hooks() as hooks, preserved(model):
        hooks.append(module_at(model, layer.router).register_forward_hook(hook))
        with masked_batch(model, inputs, mask):
            forward(model, inputs)
        tokens, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        answers = torch.stack([expert(tokens).double().flatten(1) for expert in _experts(model, layer)])
    asked = functional.one_hot(logits.topk(layer.top_k, dim=-1).indices, layer.n).sum(dim=1)
    unit = functional.normalize(answers, dim=-1)
    similarity = torch.einsum("itd,jtd->ij", unit, unit) / len(tokens)
    return ExpertEvidence(frequency=asked.double().mean(dim=0), similarity=similarity)


def busiest(evidence: ExpertEvidence, count: int) -> tuple[int, ...]:
    """Choose the `count` experts that are asked most often."""
    order = torch.argsort(evidence.frequency, descending=True, stable=True).tolist()
    return tuple(sorted(order[:count]))


def merge_experts(model: nn.Module, layer: Experts, evidence: ExpertEvidence, count: int) -> nn.Module:
    """Copy the model with `count` distinct experts.

    Each other expert joins the most similar of the busiest: both become the mean of their weights by frequency, in one
    shared module (Li et al. 2024, MC-SMoE, without their permutation alignment). The router stays, so routing does not
    change. The weights are stored once.
    """
    if not 1 <= count <= layer.n:
        raise SpecError(f"{layer.fqn} has {layer.n} experts; 1 to {layer.n} can remain, got {count}")
    merged = copy.deepcopy(model)
    experts = _experts(merged, layer)
    heads = busiest(evidence, count)
    home = {i: i if i in heads else max(heads, key=lambda j: float(evidence.similarity[i, j])) for i in range(layer.n)}
    with torch.no_grad():
        for head in heads:
            members = [i for i in range(layer.n) if home[i] == head]
            share = evidence.frequency[members] + 1e-12
            states = [dict(experts[i].named_parameters()) for i in members]
            for name, parameter in experts[head].named_parameters():
                parts = [state[name].double() * float(w) for state, w in zip(states, share / share.sum(), strict=True)]
                parameter.copy_(torch.stack(parts).sum(dim=0).to(parameter.dtype))
    for i in range(layer.n):
        experts[i] = experts[home[i]]
    return merged


def _experts(model: nn.Module, layer: Experts) -> nn.ModuleList:
    experts = module_at(model, layer.experts)
    if not isinstance(experts, nn.ModuleList):
        raise SpecError(
            f"the experts {layer.experts!r} must be an nn.ModuleList of this model, got {type(experts).__name__}; find "
            "them in the model that is to be changed"
        )
    return experts


def _tried(trier: Trier, layer: Experts) -> str | None:
    kept = [i for i in range(layer.n) if i % 2 == 1 or i < layer.top_k - layer.n // 2]
    if len(kept) < layer.top_k:
        kept = list(range(layer.top_k))
    try:
        return trier.differ(layer.keep(kept))
    except Exception as error:  # a layer that cannot run with fewer may raise anything; the reason is reported
        return f"the model does not run without some of them: {type(error).__name__}: {error}"


def chooses_by_scores(module: nn.Module, n: int) -> bool:
    """Tell whether the module may be the router of n experts: a linear layer with one output for each."""
    return isinstance(module, nn.Linear) and module.out_features == n


def alike(experts: nn.ModuleList) -> bool:
    """Tell whether the modules have the same tensors, and at least one."""
    shapes = [{name: value.shape for name, value in expert.state_dict().items()} for expert in experts]
    return bool(shapes[0]) and all(shape == shapes[0] for shape in shapes)
