"""Allocations that need no search. A mixed point has to beat them, as it has to beat the uniform settings.

One threshold for all layers: the weights of the least magnitude in the whole space are dropped (Han et al. 2015;
"global magnitude"). One energy for all layers: each keeps the rank that holds the same share of its squared singular
values. The levels of the space are each layer's own shares, so the candidate with the nearest levels stands for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...compressors import LayerSpec
from ..values import Candidate, Group, SearchSpace, is_structural, without_structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ._ranks import Weights

_MOST = 8
"""Largest number of plans of one kind, because they are only baselines."""
_SEEN = 2**22
"""Largest number of weights for the threshold; of more, an even sample is taken."""


def weights_of(model: nn.Module) -> Weights:
    """fqn -> the weight of that layer, detached."""
    from ...compressors import weight_at

    return lambda fqn: weight_at(model, fqn).detach()


def plans(space: SearchSpace, weights: Weights, energies: Sequence[float] = ()) -> list[tuple[str, Candidate]]:
    """(label, candidate), each candidate once; the all-neutral one is left out.

    energies  values of `[space] rank_energy`
    """
    whole, space = space, without_structure(space)
    found: dict[Candidate, str] = {}
    for base in _bases(space, lambda spec: spec.sparsity > 0.0 and not spec.pattern and spec.rank >= 1.0, "sparsity"):
        levels_of = (spec for group in space.groups for spec in group.levels)
        shares = {spec.sparsity for spec in levels_of if spec.sparsity > 0.0 and _base(spec, "sparsity") == base}
        for share in sorted(shares)[:_MOST]:
            own = global_shares([weights(group.layers[0]) for group in space.groups], share)
            found.setdefault(_candidate(space, base, "sparsity", own), f"global s{100 * share:.4g}")
    for base in _bases(space, lambda spec: spec.rank < 1.0, "rank") if energies else ():
        for energy in energies[:_MOST]:
            own = [_energy_share(weights(group.layers[0]), base, energy) for group in space.groups]
            found.setdefault(_candidate(space, base, "rank", own), f"energy {100 * energy:g}")
    own_plans = [(label, candidate) for candidate, label in found.items() if not _is_neutral(space, candidate)]
    return [(label, _among_sets(whole, candidate)) for label, candidate in own_plans]


def _among_sets(space: SearchSpace, candidate: Candidate) -> Candidate:
    """The candidate of the layers, with whatever else the space may remove left whole, or at its dearest level."""
    levels = iter(candidate.levels)
    return Candidate(levels=tuple(0 if is_structural(group.name) else next(levels) for group in space.groups))


def _candidate(space: SearchSpace, base: LayerSpec, axis: str, own: Sequence[float]) -> Candidate:
    """Return the candidate whose groups have the levels of this treatment that are nearest to their own values."""
    levels = (_nearest(group, base, axis, wanted) for group, wanted in zip(space.groups, own, strict=True))
    return Candidate(levels=tuple(levels))


def global_shares(weights: Sequence[Tensor], share: float) -> list[float]:
    """Share of zeros in each weight, where this share of all weights, the least in magnitude, is dropped."""
    import torch

    total = sum(weight.numel() for weight in weights)
    stride = max(1, total // _SEEN)
    seen = torch.cat([weight.reshape(-1)[::stride].abs().float().cpu() for weight in weights])
    n = round(share * seen.numel())
    if n == 0:
        return [0.0] * len(weights)
    threshold = seen.kthvalue(n).values
    return [float((weight.abs().float().cpu() <= threshold).double().mean()) for weight in weights]


def _energy_share(weight: Tensor, base: LayerSpec, energy: float) -> float:
    from ...compressors.lowrank import energy_rank, full_rank, unfolded

    if weight.dim() < 2:
        return 1.0
    shape = tuple(weight.shape)
    matrix = unfolded(base.rank_form, weight.float().cpu().reshape(len(weight), -1), shape)
    return energy_rank(matrix, energy) / full_rank(base.rank_form, shape)


def _bases(space: SearchSpace, wanted: Callable[[LayerSpec], bool], axis: str) -> list[LayerSpec]:
    """Treatment at a fixed value of the axis that changes nothing else, by its first method; else the first one there.

    The list has one spec, or none if no level is wanted.
    """
    bases = dict.fromkeys(_base(spec, axis) for group in space.groups for spec in group.levels if wanted(spec))
    return sorted(bases, key=lambda spec: not spec.without(axis).is_neutral)[:1]


def _base(spec: LayerSpec, axis: str) -> LayerSpec:
    """The spec at a fixed value of the axis, its other fields as they are."""
    return (
        dataclasses.replace(spec, sparsity=0.5, pattern="")
        if axis == "sparsity"
        else dataclasses.replace(spec, rank=0.5)
    )


def _nearest(group: Group, base: LayerSpec, axis: str, wanted: float) -> int:
    """The level of this treatment whose value is nearest; without the axis its value is 0 zeros, or the whole rank."""
    usable = {
        index: getattr(spec, axis)
        for index, spec in enumerate(group.levels)
        if spec == base.without(axis) or (not spec.pattern and _base(spec, axis) == base)
    }
    return min(usable, key=lambda index: (abs(usable[index] - wanted), index), default=0)


def _is_neutral(space: SearchSpace, candidate: Candidate) -> bool:
    return all(g.levels[level].is_neutral for g, level in zip(space.groups, candidate.levels, strict=True))
