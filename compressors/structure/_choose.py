"""Choice of the units to keep: alignment, floor, nested levels, one share for all or one threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, gcd

import torch
from torch import Tensor

from ...errors import SpecError
from ._sets import CoupledSet


def n_kept(coupled: CoupledSet, share: float, *, round_to: int = 1) -> int:
    """Units that a share keeps: the nearest number whose channels are a multiple of `round_to`, the alignment of the
    device's kernels.

    All units stay where not even one multiple fits. Raises `SpecError` for a share outside (0, 1], or one that would go
    below the set's floor.
    """
    _check_round(round_to)
    if not 0.0 < share <= 1.0:
        raise SpecError(f"the share of {coupled.name} that is kept must be in (0, 1], got {share!r}")
    n = coupled.n_units
    wanted = share * n
    if int(wanted + 0.5) < coupled.floor and share < 1.0:
        raise SpecError(
            f"keeping {share:g} of the {n} units of {coupled.name} leaves {int(wanted + 0.5)}; at least "
            f"{coupled.floor} must stay, so keep {ceil(100 * coupled.floor / n) / 100:g} or more"
        )
    step = _step(coupled, round_to)
    if n < step or share == 1.0:
        return n
    least = max(step, step * ceil(coupled.floor / step))
    return min(n, max(least, step * int(wanted / step + 0.5)))


def check_count(coupled: CoupledSet, count: int, *, round_to: int = 1) -> int:
    """Check a requested number of units.

    Raises `SpecError`, naming the nearest allowed numbers, if the set has fewer units or the floor or the alignment
    forbids it.
    """
    _check_round(round_to)
    if not coupled.floor <= count <= coupled.n_units:
        raise SpecError(f"{coupled.name} can keep {coupled.floor} to {coupled.n_units} units, got {count}")
    step = _step(coupled, round_to)
    if count % step and count != coupled.n_units:
        near = sorted({n for n in (count // step * step, (count // step + 1) * step) if 0 < n <= coupled.n_units})
        near = near or [coupled.n_units]
        raise SpecError(
            f"{count} units of {coupled.name} are {count * coupled.unit_width} channels, no multiple of {round_to}; "
            f"keep {' or '.join(map(str, near))}"
        )
    return count


def keep_best(coupled: CoupledSet, scores: Tensor, count: int) -> tuple[int, ...]:
    """Choose the `count` units of the highest score, ascending; of equal ones the first.

    A larger count keeps all units of a smaller one, so levels are nested. Raises `SpecError` for scores of another
    shape or that are not finite.
    """
    if tuple(scores.shape) != (coupled.n_units,) or not bool(torch.isfinite(scores).all()):
        raise SpecError(
            f"the scores of {coupled.name} must be {coupled.n_units} finite numbers, got shape {tuple(scores.shape)}"
        )
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    return coupled.check_kept(order[:count])


def keep_uniform(
    sets: Sequence[CoupledSet], scores: Mapping[str, Tensor], share: float, *, round_to: int = 1
) -> dict[str, tuple[int, ...]]:
    """Keep the same share of every set."""
    return {s.name: keep_best(s, scores[s.name], n_kept(s, share, round_to=round_to)) for s in sets}


def keep_above(
    sets: Sequence[CoupledSet], scores: Mapping[str, Tensor], share: float, *, round_to: int = 1, least: float = 0.1
) -> dict[str, tuple[int, ...]]:
    """Keep this share of all units together by one threshold, and at least `least` of each set.

    Scores are divided by their set's mean, as large layers would always win otherwise.
    """
    relative = {s.name: scores[s.name] / scores[s.name].abs().mean().clamp(min=1e-30) for s in sets}
    pooled = torch.cat([relative[s.name] for s in sets]).sort(descending=True).values
    threshold = pooled[min(len(pooled), max(1, round(share * len(pooled)))) - 1]
    kept = {}
    for coupled in sets:
        own = float((relative[coupled.name] >= threshold).double().mean())
        kept[coupled.name] = keep_best(
            coupled, scores[coupled.name],
            n_kept(coupled, max(own, least, coupled.floor / coupled.n_units), round_to=round_to),
        )  # fmt: skip
    return kept


def _step(coupled: CoupledSet, round_to: int) -> int:
    return round_to // gcd(round_to, coupled.unit_width)


def _check_round(round_to: int) -> None:
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise SpecError(f"round_to must be a whole number of channels, at least 1, got {round_to!r}")
