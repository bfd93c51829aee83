"""Weighted k-means in one dimension: the table of a palette.

What it does   Lloyd's iteration over sorted values: each entry becomes the weighted mean of the values nearest to it
Paper          Han et al. 2016, "Deep Compression", 3; weights by curvature: Choi et al. 2017, "Towards the Limit of
               Network Quantization"
We differ      one table for a layer and a scale for each output channel or group, which costs less than tables of their
               own; begins with equal shares of the cube root of the density, which is near the optimum (Panter and Dite
               1951); no random start
Cost           at most 30 passes over sums, one sort
Did not help   tables for each channel, left out: at 3 bits eight FP16 entries weigh 16 bytes, the codes of a row of 144
               weights 54
"""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 30
_BINS = 512


def kmeans(values: Tensor, weights: Tensor, n: int, *, start: Tensor | None = None, with_zero: bool = False) -> Tensor:
    """Table (n,) float32, sorted, of small weighted squared distance to `values` (m,). Deterministic.

    with_zero  one entry, the one nearest to it, is exactly zero
    """
    x, order = values.double().sort(stable=True)
    w = weights.double()[order]
    w = w if float(w.sum()) > 0.0 else torch.ones_like(w)
    none = torch.zeros(1, dtype=torch.float64)
    total = torch.cat([none, w.cumsum(dim=0)])
    moment = torch.cat([none, (w * x).cumsum(dim=0)])
    table = _spread(x, w, n) if start is None else start.double()
    for _ in range(_ITERATIONS):
        edges = torch.searchsorted(x, (table[1:] + table[:-1]) / 2)
        ends = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(x))])
        mass, sums = total[ends].diff(), moment[ends].diff()
        moved = torch.where(mass > 0, sums / mass.clamp(min=1e-300), table)
        if with_zero:
            moved[moved.abs().argmin()] = 0.0
        moved = moved.sort().values
        if torch.equal(moved, table):
            break
        table = moved
    if with_zero and start is not None:
        table[table.abs().argmin()] = 0.0
    return table.float()


def _spread(x: Tensor, w: Tensor, n: int) -> Tensor:
    """Initial entries at equal steps of the integral of the cube root of the weighted density."""
    low, high = float(x[0]), float(x[-1])
    if high <= low:
        return torch.full((n,), low, dtype=torch.float64)
    place = ((x - low) / (high - low) * _BINS).long().clamp_(max=_BINS - 1)
    density = torch.zeros(_BINS, dtype=torch.float64).scatter_add_(0, place, w)
    integral = density.pow(1.0 / 3.0).cumsum(dim=0)
    aims = (torch.arange(n, dtype=torch.float64) + 0.5) / n * integral[-1]
    at = torch.searchsorted(integral, aims).clamp_(max=_BINS - 1)
    return low + (at.double() + 0.5) / _BINS * (high - low)
